//! Topics of taps for the benches: the made-up city's half-days, on the Kafka of `dev/services`, under a prefix of their own.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use gatebell_connectors::kafka::{Cluster, KafkaSettings, TracingContext, prepare_topics};
use gatebell_connectors::tap_log::kafka::{IntakeLimits, KafkaTapIntake, KafkaTapLog};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::{IncomingTap, TapIntake, TapRecord};
use gatebell_engine::time::{Day, Timestamp};
use rdkafka::admin::{AdminClient, AdminOptions};

use crate::city;

/// One tap each a half-day.
pub(crate) const PUPILS: usize = 100_000;
/// Taps of one append, and appends at once.
const APPEND_TAPS: usize = 4_000;
const APPENDS_AT_ONCE: usize = 8;
/// Half an hour, over which the taps of half a school day are spread.
const SPREAD_MS: usize = 1_800_000;
/// By when the last of them has come in.
const OVER_AFTER_MS: i64 = 1_860_000;
/// 16:00, in milliseconds after 07:00.
const AFTERNOON_MS: i64 = 9 * 3_600_000;

/// A wall clock that is set by hand.
#[derive(Debug)]
pub(crate) struct Dial {
    now_ms: AtomicI64,
    origin: Instant,
}

impl Dial {
    pub(crate) fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { now_ms: AtomicI64::new(now.as_millis()), origin: Instant::now() })
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.now_ms.store(now.as_millis(), Ordering::Relaxed);
    }
}

impl Clock for Dial {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// When everybody comes, or goes.
#[derive(Clone, Copy)]
pub(crate) struct HalfDay {
    day: Day,
    /// After 07:00, in milliseconds.
    from_ms: i64,
}

impl HalfDay {
    fn both(day: Day) -> [Self; 2] {
        [Self { day, from_ms: 0 }, Self { day, from_ms: AFTERNOON_MS }]
    }

    /// A time at which every tap of it has come in.
    pub(crate) fn over(self) -> Timestamp {
        city::morning(self.day, self.from_ms + OVER_AFTER_MS)
    }

    /// The taps of the append that begins with the `first`, and when they are received.
    fn incoming(self, first: usize) -> (Timestamp, Vec<IncomingTap>) {
        let positions = first..PUPILS.min(first + APPEND_TAPS);
        let numbers: Vec<usize> = positions.map(|position| city::shuffled(position, PUPILS)).collect();
        let spread_ms = |taps: usize| i64::try_from(taps * SPREAD_MS / PUPILS).expect("at most half an hour");
        let from_ms = self.from_ms + spread_ms(first);
        let records = city::taps(0, self.day, from_ms, numbers.iter().copied(), spread_ms(numbers.len()));
        let received = records.last().map_or(Timestamp::MIN, |last| last.received);
        let tap = |(number, record): (usize, TapRecord)| IncomingTap {
            card: city::card_number(number),
            value: record.value,
        };
        (received, numbers.into_iter().zip(records).map(tap).collect())
    }
}

/// Mornings and afternoons of the term's school days, but its first, on which a school is closed.
pub(crate) fn half_days() -> impl Iterator<Item = HalfDay> {
    let term = city::term();
    let days = std::iter::successors(Some(term.first_day.next()), |day| Some(day.next()));
    let last_day = term.last_day;
    days.take_while(move |day| *day <= last_day)
        .filter(move |day| term.days.is_school_day(*day) && day.to_string() != city::TYPHOON)
        .flat_map(HalfDay::both)
}

/// Morning and afternoon of one school day.
pub(crate) fn a_day() -> [HalfDay; 2] {
    HalfDay::both(city::term().first_day.next())
}

/// Topics of this run's own, of a made-up city: the taps' days are last term's.
pub(crate) struct Topic {
    pub(crate) settings: KafkaSettings,
    pub(crate) cluster: Cluster,
}

impl Topic {
    pub(crate) async fn make(partitions: u32) -> anyhow::Result<Self> {
        let mut random = [0; 6];
        getrandom::fill(&mut random)?;
        let prefix = format!("bench-{}", hex::encode(random));
        let settings = KafkaSettings {
            bootstrap: env::var("GATEBELL_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned()),
            group: prefix.clone(),
            topic_prefix: prefix,
            partitions: partitions.try_into()?,
            made_up_city: true,
            ..KafkaSettings::default()
        };
        let cluster = prepare_topics(&settings).await.context("was dev/services up run?")?;
        Ok(Self { settings, cluster })
    }

    /// To be read by a group of its own.
    pub(crate) fn settings(&self, group: &str) -> KafkaSettings {
        let group = format!("{}-{group}", self.settings.topic_prefix);
        KafkaSettings { group, ..self.settings.clone() }
    }

    pub(crate) async fn join(
        &self,
        settings: &KafkaSettings,
        clock: &Arc<Dial>,
    ) -> Result<KafkaTapLog, PortError> {
        KafkaTapLog::open(settings, &self.cluster, Arc::clone(clock) as Arc<dyn Clock>, None).await
    }

    /// One tap of every pupil a half-day; taps and bytes.
    pub(crate) async fn produce(&self, halves: &[HalfDay]) -> anyhow::Result<(u64, u64)> {
        let dial = Dial::at(Timestamp::MIN);
        let clock = Arc::clone(&dial) as Arc<dyn Clock>;
        let intake = KafkaTapIntake::new(&self.settings, IntakeLimits::default(), clock)?;
        let (mut taps, mut bytes) = (0, 0);
        for half in halves {
            let batches = (0..PUPILS).step_by(APPEND_TAPS).map(|first| half.incoming(first));
            let appends = stream::iter(batches).map(|(received, batch)| {
                taps += batch.len() as u64;
                bytes += batch.iter().map(|tap| tap.value.len() as u64).sum::<u64>();
                let (dial, intake) = (&dial, &intake);
                async move {
                    dial.set(received);
                    intake.append(batch).await
                }
            });
            // The next half-day's taps come after all of these.
            appends.buffered(APPENDS_AT_ONCE).try_collect::<()>().await?;
        }
        Ok((taps, bytes))
    }

    /// The first tap of the half-day alone.
    pub(crate) async fn produce_one(&self, half: HalfDay) -> anyhow::Result<()> {
        let (received, mut taps) = half.incoming(0);
        taps.truncate(1);
        let intake = KafkaTapIntake::new(&self.settings, IntakeLimits::default(), Dial::at(received))?;
        Ok(intake.append(taps).await?)
    }

    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        let admin: AdminClient<TracingContext> =
            self.settings.client()?.create_with_context(TracingContext)?;
        let settings = &self.settings;
        let topics = [
            settings.taps_topic(),
            settings.rejected_topic(),
            settings.registry_topic(),
            settings.receipts_topic(),
        ];
        admin.delete_topics(&topics.each_ref().map(String::as_str), &AdminOptions::new()).await?;
        Ok(())
    }
}
