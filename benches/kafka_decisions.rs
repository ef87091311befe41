//! Taps from Kafka to decisions, beside a bare loop that only counts the same topic, in one run.
//!
//! Needs the Kafka that `dev/services up` starts (`GATEBELL_TEST_KAFKA`, 127.0.0.1:19092 otherwise), and for the last figure
//! its store (`GATEBELL_TEST_CQL`). With a million taps or more on 12 partitions it measures, in turns: a
//! `BaseConsumer::poll` loop that counts, the tap log alone, and the tap log with the running engine, whose other ports are
//! in memory and whose term offers no channel. Then how soon a new owner decides the first tap after the 100 000 of today,
//! and what the app's notices cost with the ledger on the store, beside a bare writer of the same rows.
//!
//! Rates are from the first record to the last; CPU seconds are those of the whole process, the client's threads included,
//! over the same time. Broker and store share the machine, so figures are compared only within a run: no criterion.
//!
//! `cargo bench --bench kafka_decisions` (with `-- RECORDS TURNS` for other than a million records three times; with
//! `-- store TAPS` for the notices alone)

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use bare_store::LedgerRows;
use gatebell_connectors::kafka::{KafkaSettings, TracingContext};
use gatebell_connectors::store::cql::ledger::CqlLedger;
use gatebell_connectors::store::cql::schema::migrate;
use gatebell_connectors::store::cql::session::CqlSession;
use gatebell_connectors::store::cql::settings::CqlSettings;
use gatebell_connectors::tap_log::kafka::KafkaTapLog;
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::{LedgerEntry, OwnerToken};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile, Message, SubmitOutcome};
use gatebell_engine::ports::ledger::Ledger;
use gatebell_engine::ports::receipts::Receipt;
use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::ports::seats::OnlySeat;
use gatebell_engine::ports::tap_log::{TapLog, TapLogEvent};
use gatebell_engine::registry::RegistryChange;
use gatebell_engine::runtime::status::Status;
use gatebell_engine::runtime::{Engine, EngineError, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{FakeLedger, FakeReceiptLog, FakeRejectedLog};
use gatebell_engine::time::Timestamp;
use kafka_topic::{Dial, HalfDay, PUPILS, Topic, a_day, half_days};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod bare_store;
mod city;
mod kafka_topic;

const PARTITIONS: u32 = 12;
const RECORDS: usize = 1_000_000;
const TURNS: usize = 3;
/// Taps with notices: school days enough that what a start costs does not count.
const NOTICED_TAPS: usize = 1_000_000;
/// No step waits for longer.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a bench looks whether it is over: as rarely as the result allows, since looking costs CPU time too.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOK_FOR_SETTLED_EVERY: Duration = Duration::from_millis(50);
/// Kernel ticks of `/proc/self/stat`: 100 a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

fn main() -> anyhow::Result<()> {
    // Cargo itself adds `--bench`.
    let is_store_alone = env::args().any(|argument| argument == "store");
    let mut numbers = env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let records = numbers.next().unwrap_or(RECORDS);
    let turns = numbers.next().unwrap_or(TURNS).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if is_store_alone {
        return runtime.block_on(notify(records));
    }
    runtime.block_on(measure(records, turns))
}

async fn measure(records: usize, turns: usize) -> anyhow::Result<()> {
    let halves: Vec<HalfDay> = half_days().take(records.div_ceil(PUPILS)).collect();
    let topic = Topic::make(PARTITIONS).await?;
    let begun = Instant::now();
    let (taps, bytes) = topic.produce(&halves).await?;
    println!(
        "{taps} taps of {} bytes on {PARTITIONS} partitions, produced at {:.0}/s; load average {}",
        bytes / taps.max(1),
        taps as f64 / begun.elapsed().as_secs_f64(),
        load_average()?
    );
    let mut measured: [Vec<Figure>; 3] = Default::default();
    let registry = Registry::of(false);
    for turn in 0..turns {
        let (bare, own) = (topic.settings(&format!("bare-{turn}")), topic.settings(&format!("log-{turn}")));
        let bare = tokio::task::spawn_blocking(move || count_bare(&bare, taps)).await??;
        measured[0].push(bare.print("bare poll loop"));
        measured[1].push(count_log(&topic, own, taps).await?.print("tap log alone"));
        let own = topic.settings(&format!("engine-{turn}"));
        measured[2].push(decide(&topic, own, taps, &registry).await?.print("tap log and decisions"));
    }
    topic.delete().await?;
    println!("medians of {turns}; load average {}", load_average()?);
    let names = ["a bare poll loop that counts", "the tap log alone", "the tap log and the decisions"];
    let bare = median(&measured[0], Figure::a_second);
    for (name, figures) in names.iter().zip(&measured) {
        let rate = median(figures, Figure::a_second);
        let cpu = median(figures, Figure::cpu_s_a_million);
        println!("{name:<32} {rate:>9.0} taps/s   {:>5.2} of bare   {cpu:>5.2} CPU s a million", rate / bare);
    }
    for _ in 0..turns {
        let took = recover(&registry).await?;
        println!("recovery of {PUPILS} taps of today, from the assignment on: {:.2} s", took.as_secs_f64());
    }
    notify(NOTICED_TAPS).await
}

fn median(figures: &[Figure], of: impl Fn(&Figure) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn load_average() -> anyhow::Result<String> {
    let line = std::fs::read_to_string("/proc/loadavg")?;
    Ok(line.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// CPU time of all threads of this process, ended ones included.
fn cpu() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field may hold spaces; it ends with the last parenthesis. User and system time are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has another form")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    Ok(TICK * ticks.sum::<Result<u32, _>>()?)
}

/// When the first record came, and what the process had used by then.
struct Watch {
    began: Instant,
    cpu_before: Duration,
}

impl Watch {
    fn start() -> anyhow::Result<Self> {
        Ok(Self { began: Instant::now(), cpu_before: cpu()? })
    }

    fn stop(&self, taps: u64) -> anyhow::Result<Figure> {
        let took = self.began.elapsed();
        Ok(Figure { taps: taps as f64, took, cpu: cpu()?.saturating_sub(self.cpu_before) })
    }
}

struct Figure {
    taps: f64,
    took: Duration,
    cpu: Duration,
}

impl Figure {
    fn a_second(&self) -> f64 {
        self.taps / self.took.as_secs_f64()
    }

    fn cpu_s_a_million(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.taps / 1e6)
    }

    fn print(self, what: &str) -> Self {
        println!(
            "  {what:<36} {:>9.0} taps/s   {:>5.2} CPU s a million",
            self.a_second(),
            self.cpu_s_a_million()
        );
        self
    }
}

/// The whole city at once; in memory.
#[derive(Clone)]
struct Registry {
    changes: Arc<[RegistryChange]>,
}

impl Registry {
    /// Pupils and cards; with everybody's guardian and subscription to the app, if so wanted.
    fn of(with_app: bool) -> Self {
        let mut entries = city::place_entries(PUPILS);
        for number in 0..PUPILS {
            entries.extend([city::pupil(number), city::card(number)]);
            if with_app {
                entries.extend([city::guardian(number), city::binding(number), city::subscription(number)]);
            }
        }
        let change = |(version, entry)| RegistryChange { version, applied: Timestamp::MIN, entry };
        Self { changes: (1..).zip(entries).map(change).collect() }
    }
}

#[async_trait]
impl RegistryFeed for Registry {
    async fn read(&mut self, version: u64, _: Timestamp) -> Result<Vec<RegistryChange>, PortError> {
        let read = usize::try_from(version).unwrap_or(usize::MAX);
        Ok(self.changes.iter().skip(read).take(4_096).cloned().collect())
    }

    async fn report_applied(&mut self, _: u64) -> Result<(), PortError> {
        Ok(())
    }
}

fn count_bare(settings: &KafkaSettings, taps: u64) -> anyhow::Result<Figure> {
    let consumer: BaseConsumer<TracingContext> = settings.consumer()?.create_with_context(TracingContext)?;
    consumer.subscribe(&[&settings.taps_topic()])?;
    let deadline = Instant::now() + PATIENCE;
    let (mut watch, mut counted) = (None, 0);
    while counted < taps {
        match consumer.poll(PATIENCE) {
            Some(record) => {
                record?;
                if watch.is_none() {
                    watch = Some(Watch::start()?);
                }
                counted += 1;
            }
            None if Instant::now() > deadline => bail!("{counted} of {taps} taps came"),
            None => {}
        }
    }
    watch.context("there are taps")?.stop(taps)
}

async fn count_log(topic: &Topic, settings: KafkaSettings, taps: u64) -> anyhow::Result<Figure> {
    let mut log = topic.join(&settings, &Dial::at(Timestamp::MIN)).await?;
    let (mut watch, mut counted) = (None, 0);
    while counted < taps {
        match tokio::time::timeout(PATIENCE, log.next()).await?? {
            TapLogEvent::Assigned { partition, .. } => {
                log.rewind(partition, None).await?;
            }
            TapLogEvent::Batch { records, .. } => {
                if watch.is_none() {
                    watch = Some(Watch::start()?);
                }
                counted += records.len() as u64;
            }
            _ => {}
        }
    }
    watch.context("there are taps")?.stop(taps)
}

/// An engine at work.
struct Running {
    status: Arc<Status>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), EngineError>>,
}

impl Running {
    /// Between `log` and `ledger`, for a city of whose channels only those of `channels` are on offer; what it tells is of
    /// use all term.
    fn start(
        log: impl TapLog + 'static,
        ledger: Arc<dyn Ledger>,
        registry: &Registry,
        channels: Vec<Arc<dyn ChannelConnector>>,
        clock: Arc<Dial>,
    ) -> anyhow::Result<Self> {
        let offered = channels.iter().map(|connector| connector.profile().channel).collect();
        let useful_for = Duration::from_secs(365 * 24 * 3600);
        let settings = Settings {
            term: Arc::new(Term { channels: offered, useful_for, ..Term::clone(&city::term()) }),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(1),
            pupils_expected: PUPILS,
            stop_drain: Duration::from_secs(10),
        };
        let ports = Ports {
            tap_log: Box::new(log),
            ledger,
            receipts: Arc::new(FakeReceiptLog::default()),
            message_ids: BTreeMap::new(),
            rejected: Arc::new(FakeRejectedLog::default()),
            registry: Box::new(registry.clone()),
            seats: Arc::new(OnlySeat),
            channels,
            clock,
        };
        let engine = Engine::new(settings, ports)?;
        let (status, stop) = (engine.status(), CancellationToken::new());
        let ended = tokio::spawn(engine.run(stop.clone()));
        Ok(Self { status, stop, ended })
    }

    fn decided(&self) -> u64 {
        self.status.snapshot().records
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.ended.await??)
    }
}

async fn until(what: &str, look_every: Duration, reached: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        if Instant::now() > deadline {
            bail!("{what}: not within {PATIENCE:?}");
        }
        tokio::time::sleep(look_every).await;
    }
    Ok(())
}

async fn decide(
    topic: &Topic,
    settings: KafkaSettings,
    taps: u64,
    registry: &Registry,
) -> anyhow::Result<Figure> {
    let clock = Dial::at(city::morning(city::term().last_day, 0));
    let log = topic.join(&settings, &clock).await?;
    let engine = Running::start(log, Arc::new(FakeLedger::default()), registry, Vec::new(), clock)?;
    until("the first decision", LOOK_EVERY, || engine.decided() > 0).await?;
    let watch = Watch::start()?;
    until("all decisions", LOOK_EVERY, || engine.decided() >= taps).await?;
    let figure = watch.stop(taps)?;
    engine.stop().await?;
    Ok(figure)
}

/// What the engine was told by its log, and told it.
#[derive(Default)]
struct Seen {
    assigned_at: OnceLock<Instant>,
    committed: Mutex<BTreeMap<u32, u64>>,
}

impl Seen {
    /// Taps that are settled, durably.
    fn committed(&self) -> u64 {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// A tap log that is looked at.
struct Watched {
    log: KafkaTapLog,
    seen: Arc<Seen>,
}

#[async_trait]
impl TapLog for Watched {
    fn name(&self) -> &str {
        self.log.name()
    }

    async fn next(&mut self) -> Result<TapLogEvent, PortError> {
        let event = self.log.next().await?;
        if matches!(event, TapLogEvent::Assigned { .. }) {
            self.seen.assigned_at.get_or_init(Instant::now);
        }
        Ok(event)
    }

    async fn received_at(&mut self, partition: u32, offset: u64) -> Result<Option<Timestamp>, PortError> {
        self.log.received_at(partition, offset).await
    }

    async fn rewind(&mut self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError> {
        self.log.rewind(partition, from).await
    }

    fn pause(&mut self, partition: u32) {
        self.log.pause(partition);
    }

    fn resume(&mut self, partition: u32) {
        self.log.resume(partition);
    }

    async fn commit(&mut self, settled: &[(u32, u64)]) -> Result<(), PortError> {
        self.log.commit(settled).await?;
        self.seen.committed.lock().unwrap_or_else(PoisonError::into_inner).extend(settled.iter().copied());
        Ok(())
    }

    async fn leave(&mut self) {
        self.log.leave().await;
    }
}

/// From a partition's assignment, with all of today's morning settled, to its first live decision.
async fn recover(registry: &Registry) -> anyhow::Result<Duration> {
    let topic = Topic::make(1).await?;
    let [morning, afternoon] = a_day();
    let (settled, _) = topic.produce(&[morning]).await?;
    let clock = Dial::at(morning.over());
    let mut former = topic.join(&topic.settings, &clock).await?;
    while !matches!(tokio::time::timeout(PATIENCE, former.next()).await??, TapLogEvent::Assigned { .. }) {}
    former.commit(&[(0, settled)]).await?;
    drop(former);

    topic.produce_one(afternoon).await?;
    clock.set(afternoon.over());

    let seen = Arc::new(Seen::default());
    let log = Watched { log: topic.join(&topic.settings, &clock).await?, seen: Arc::clone(&seen) };
    let engine = Running::start(log, Arc::new(FakeLedger::default()), registry, Vec::new(), clock)?;
    until("the first live decision", LOOK_EVERY, || engine.decided() > 0).await?;
    let took = seen.assigned_at.get().context("it was assigned")?.elapsed();
    engine.stop().await?;
    topic.delete().await?;
    Ok(took)
}

/// Takes everything at once.
struct Willing {
    profile: LaneProfile,
}

#[async_trait]
impl ChannelConnector for Willing {
    fn profile(&self) -> &LaneProfile {
        &self.profile
    }

    async fn submit(&self, messages: &[Message]) -> Vec<SubmitOutcome> {
        let accepted = SubmitOutcome::Accepted { gateway_id: "M".into(), duplicate: false };
        vec![accepted; messages.len()]
    }

    async fn query(&self, _: &[LedgerEntry]) -> Result<Vec<Receipt>, PortError> {
        Ok(Vec::new())
    }
}

/// School days of a city in which everybody has the app, until all of it is settled and committed: with a ledger in memory,
/// then with one on the store, then a bare writer of the rows that the store has by then.
async fn notify(taps: usize) -> anyhow::Result<()> {
    let halves: Vec<HalfDay> = half_days().take(taps.div_ceil(PUPILS)).collect();
    let cql = CqlSettings {
        contact_points: vec![env::var("GATEBELL_TEST_CQL").unwrap_or_else(|_| "127.0.0.1:19042".to_owned())],
        keyspace: "gatebell_bench_notices".to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication: BTreeMap::from([("datacenter1".to_owned(), 1)]),
        credentials: None,
        timeouts: Default::default(),
    };
    bare_store::drop_keyspace(&cql).await?;
    migrate(&cql).await?;
    let topic = Topic::make(PARTITIONS).await?;
    let (taps, _) = topic.produce(&halves).await?;
    let over = halves.last().context("there are taps")?.over();
    let registry = Registry::of(true);
    settle(&topic, "memory", taps, over, Arc::new(FakeLedger::default()), &registry)
        .await?
        .print("with the app's notices in memory");

    let session = CqlSession::open(&cql).await?;
    let log_name = topic.cluster.log_name(&topic.settings.taps_topic());
    let ledger = Arc::new(CqlLedger::new(Arc::clone(&session), &log_name).await?);
    let requests_before = session.requests();
    let stored = settle(&topic, "store", taps, over, ledger, &registry).await?;
    let stored = stored.print("with the app's notices on the store");
    let requests = session.requests() - requests_before;
    topic.delete().await?;

    let rows = LedgerRows::read(&cql, &log_name, PARTITIONS).await?;
    let bare = rows.write(&format!("{log_name}/bare")).await?.print("a bare writer of the same rows");
    println!(
        "the engine reaches {:.2} of the bare writer, with {:.1} requests to the store a thousand taps; load average {}",
        stored.a_second() / bare.a_second(),
        requests as f64 * 1_000.0 / taps as f64,
        load_average()?
    );
    bare_store::drop_keyspace(&cql).await
}

/// Decides, notifies and settles all of `topic`.
async fn settle(
    topic: &Topic,
    group: &str,
    taps: u64,
    over: Timestamp,
    ledger: Arc<dyn Ledger>,
    registry: &Registry,
) -> anyhow::Result<Figure> {
    let profile = LaneProfile {
        // Nothing of the lane's own limits what is measured.
        burst: 100_000,
        window: 64,
        ..gatebell_connectors::app::profile(LaneName::new("app")?, 1_000_000)
    };
    let clock = Dial::at(over);
    let seen = Arc::new(Seen::default());
    let log = topic.join(&topic.settings(group), &clock).await?;
    let log = Watched { log, seen: Arc::clone(&seen) };
    let engine = Running::start(log, ledger, registry, vec![Arc::new(Willing { profile })], clock)?;
    until("the first decision", LOOK_EVERY, || engine.decided() > 0).await?;
    let watch = Watch::start()?;
    until("everything settled", LOOK_FOR_SETTLED_EVERY, || seen.committed() >= taps).await?;
    let figure = watch.stop(taps)?;
    println!("{taps} taps with notices: {:?}", engine.status.snapshot().entries);
    engine.stop().await?;
    Ok(figure)
}
