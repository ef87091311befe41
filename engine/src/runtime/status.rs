//! What the engine says of itself: readiness, counts, latencies.
//!
//! Written by the tasks of the runtime, read by `/readyz`, the metrics endpoint and the demo. Nothing here decides
//! anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::vitals::Vitals;
use crate::ids::LaneName;
use crate::invariants::Watch;
use crate::ledger::{Event, LedgerEntry};
use crate::notice::Channel;
use crate::tap::Outcome;

/// Longer latencies count as this one: an hour, after which no passage is told any more.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Something that keeps the engine from doing all of its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotReady {
    /// What is missing: a fixed word.
    pub what: &'static str,
    /// Why, for operators; no personal data.
    pub why: String,
}

/// What a lane is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum LaneState {
    /// Sends as work and limits allow.
    #[default]
    Sending,
    /// Waits: the gateway said it was too fast.
    Throttled,
    /// Waits: the gateway takes nothing or cannot be reached.
    Down {
        /// The gateway's code or a fixed word.
        reason: String,
    },
    /// Waits: the registry feed or the assignment is not confirmed.
    Holding,
}

impl LaneState {
    /// The word used as a label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Throttled => "throttled",
            Self::Down { .. } => "down",
            Self::Holding => "holding",
        }
    }

    const NAMES: [&'static str; 4] = ["sending", "throttled", "down", "holding"];
}

/// One lane's figures.
#[derive(Debug)]
pub(crate) struct LaneStatus {
    pub(crate) name: LaneName,
    pub(crate) channel: Channel,
    queued: AtomicUsize,
    in_flight: AtomicUsize,
    permits: AtomicU64,
    state: Mutex<LaneState>,
    queued_gauge: metrics::Gauge,
    in_flight_gauge: metrics::Gauge,
    permits_counter: metrics::Counter,
}

impl LaneStatus {
    fn new(name: LaneName, channel: Channel) -> Self {
        let lane = name.to_string();
        let status = Self {
            queued: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            permits: AtomicU64::new(0),
            state: Mutex::new(LaneState::Sending),
            queued_gauge: metrics::gauge!("gatebell_lane_queue_depth", "lane" => lane.clone()),
            in_flight_gauge: metrics::gauge!("gatebell_lane_in_flight", "lane" => lane.clone()),
            permits_counter: metrics::counter!("gatebell_lane_permits_total", "lane" => lane),
            name,
            channel,
        };
        status.show(&LaneState::Sending);
        status
    }

    /// Notices waiting, and messages on the wire.
    pub(crate) fn set_depth(&self, queued: usize, in_flight: usize) {
        self.queued.store(queued, Ordering::Relaxed);
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.queued_gauge.set(as_gauge(queued));
        self.in_flight_gauge.set(as_gauge(in_flight));
    }

    /// Permits taken from the limiter: what the gateway was sent.
    pub(crate) fn permits_taken(&self, permits: usize) {
        let permits = u64::try_from(permits).unwrap_or(u64::MAX);
        self.permits.fetch_add(permits, Ordering::Relaxed);
        self.permits_counter.increment(permits);
    }

    /// Sets the state; says so in the log when it changed.
    pub(crate) fn set_state(&self, state: LaneState) {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == state {
            return;
        }
        match &state {
            LaneState::Down { reason } => {
                tracing::error!(lane = %self.name, reason, "the gateway takes nothing; the lane waits and tries again");
            }
            LaneState::Holding => {
                tracing::info!(lane = %self.name, "the lane holds until its process is confirmed");
            }
            LaneState::Throttled => {
                tracing::info!(lane = %self.name, "the gateway says that the lane is too fast");
            }
            LaneState::Sending => tracing::info!(lane = %self.name, "the lane sends"),
        }
        self.show(&state);
        *current = state;
    }

    fn show(&self, state: &LaneState) {
        for name in LaneState::NAMES {
            metrics::gauge!("gatebell_lane_state", "lane" => self.name.to_string(), "state" => name)
                .set(f64::from(u8::from(name == state.name())));
        }
    }
}

// A gauge is a float; depths are far below where that loses a unit.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn as_gauge(number: usize) -> f64 {
    number as f64
}

/// A lane's figures at one moment.
#[derive(Clone, Debug)]
pub struct LaneSnapshot {
    /// The lane.
    pub name: LaneName,
    /// Its channel.
    pub channel: Channel,
    /// Notices waiting in memory.
    pub queued: usize,
    /// Messages on the wire.
    pub in_flight: usize,
    /// Messages that the limiter let through since the start.
    pub permits: u64,
    /// What it is doing.
    pub state: LaneState,
}

/// The engine's figures at one moment, since its start.
#[derive(Clone, Debug)]
pub struct StatusSnapshot {
    /// Taps by outcome, in the order of [`Outcome::ALL`].
    pub taps: Vec<(Outcome, u64)>,
    /// Records read, whatever became of them.
    pub records: u64,
    /// Ledger entries by channel and event.
    pub entries: BTreeMap<(Channel, Event), u64>,
    /// Lanes.
    pub lanes: Vec<LaneSnapshot>,
    /// Records written to the log and not yet decided.
    pub lag: u64,
    /// From a tap's receipt by the log, whoever decided it, to the gateway's answer, in microseconds of real time and no
    /// finer than the milliseconds of the receipt.
    pub tap_to_answer_us: BTreeMap<Channel, Histogram<u64>>,
}

#[derive(Debug)]
struct TapCounters {
    counts: [AtomicU64; Outcome::ALL.len()],
    metrics: Vec<metrics::Counter>,
}

/// See the module.
#[derive(Debug)]
pub struct Status {
    vitals: Arc<Vitals>,
    watch: Arc<Watch>,
    live: AtomicBool,
    stopping: AtomicBool,
    taps: TapCounters,
    lanes: Vec<Arc<LaneStatus>>,
    troubles: Mutex<BTreeMap<&'static str, String>>,
    lags: Mutex<BTreeMap<u32, u64>>,
    entries: Mutex<BTreeMap<(Channel, Event), EntryCounter>>,
    latencies: Mutex<BTreeMap<Channel, Latency>>,
}

/// Entries of one channel and event.
#[derive(Debug)]
struct EntryCounter {
    count: u64,
    metric: metrics::Counter,
}

impl EntryCounter {
    fn new(channel: Channel, event: Event) -> Self {
        let metric =
            metrics::counter!("gatebell_notices_total", "channel" => channel.name(), "event" => event.name());
        Self { count: 0, metric }
    }
}

/// How long taps of one channel took to the gateway's answer.
#[derive(Debug)]
struct Latency {
    histogram_us: Histogram<u64>,
    metric: metrics::Histogram,
}

impl Latency {
    fn new(channel: Channel) -> Self {
        Self {
            histogram_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
                .expect("an hour in microseconds with three digits is within what the histogram allows"),
            metric: metrics::histogram!("gatebell_tap_to_answer_seconds", "channel" => channel.name()),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    pub(crate) fn new(vitals: Arc<Vitals>, lanes: impl IntoIterator<Item = (LaneName, Channel)>) -> Self {
        let counter = |outcome: &Outcome| {
            let reason = match outcome {
                Outcome::Rejected(reason) => reason.name(),
                Outcome::Passage(passage) => passage.name(),
                _ => "",
            };
            metrics::counter!("gatebell_taps_total", "outcome" => outcome.name(), "detail" => reason)
        };
        Self {
            vitals,
            watch: Arc::new(Watch::new()),
            live: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            taps: TapCounters {
                counts: std::array::from_fn(|_| AtomicU64::new(0)),
                metrics: Outcome::ALL.iter().map(counter).collect(),
            },
            lanes: lanes
                .into_iter()
                .map(|(name, channel)| Arc::new(LaneStatus::new(name, channel)))
                .collect(),
            troubles: Mutex::default(),
            lags: Mutex::default(),
            entries: Mutex::default(),
            latencies: Mutex::default(),
        }
    }

    /// What must hold, and whether it did.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Whether the registry and today's taps have been read.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    /// What is missing; empty when the engine is ready.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let mut missing = Vec::new();
        if !self.live.load(Ordering::SeqCst) {
            missing.push(NotReady {
                what: "engine",
                why: "starting: reading the registry and today's taps".into(),
            });
        }
        if self.stopping.load(Ordering::SeqCst) {
            missing.push(NotReady { what: "engine", why: "stopping".into() });
        }
        if self.live.load(Ordering::SeqCst) {
            if !self.vitals.registry_is_fresh() {
                missing.push(NotReady {
                    what: "registry",
                    why: "the registry feed is not confirmed; lanes hold".into(),
                });
            }
            if !self.vitals.assignment_is_fresh() {
                missing.push(NotReady {
                    what: "assignment",
                    why: "the tap log is not confirmed; lanes hold".into(),
                });
            }
            if !self.vitals.seat_is_fresh() {
                missing.push(NotReady { what: "seat", why: "no seat is confirmed; lanes hold".into() });
            }
        }
        for lane in &self.lanes {
            if let LaneState::Down { reason } = &*locked(&lane.state) {
                let why = format!("lane {} waits: the gateway takes nothing ({reason})", lane.name);
                missing.push(NotReady { what: "lane", why });
            }
        }
        missing.extend(locked(&self.troubles).iter().map(|(what, why)| NotReady { what, why: why.clone() }));
        missing
    }

    /// The figures now.
    pub fn snapshot(&self) -> StatusSnapshot {
        let taps: Vec<(Outcome, u64)> = Outcome::ALL
            .into_iter()
            .zip(self.taps.counts.iter().map(|count| count.load(Ordering::Relaxed)))
            .collect();
        StatusSnapshot {
            records: taps.iter().map(|(_, count)| count).sum(),
            taps,
            entries: locked(&self.entries).iter().map(|(named, counter)| (*named, counter.count)).collect(),
            lanes: self
                .lanes
                .iter()
                .map(|lane| LaneSnapshot {
                    name: lane.name.clone(),
                    channel: lane.channel,
                    queued: lane.queued.load(Ordering::Relaxed),
                    in_flight: lane.in_flight.load(Ordering::Relaxed),
                    permits: lane.permits.load(Ordering::Relaxed),
                    state: locked(&lane.state).clone(),
                })
                .collect(),
            lag: locked(&self.lags).values().sum(),
            tap_to_answer_us: locked(&self.latencies)
                .iter()
                .map(|(channel, latency)| (*channel, latency.histogram_us.clone()))
                .collect(),
        }
    }

    pub(crate) fn lane(&self, name: &LaneName) -> Option<Arc<LaneStatus>> {
        self.lanes.iter().find(|lane| lane.name == *name).cloned()
    }

    pub(crate) fn set_live(&self) {
        if !self.live.swap(true, Ordering::SeqCst) {
            tracing::info!("the engine is live");
        }
    }

    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Adds one batch's outcomes, counted in the order of [`Outcome::ALL`].
    pub(crate) fn count_taps(&self, counts: &[u64; Outcome::ALL.len()]) {
        for ((total, metric), count) in self.taps.counts.iter().zip(&self.taps.metrics).zip(counts) {
            if *count > 0 {
                total.fetch_add(*count, Ordering::Relaxed);
                metric.increment(*count);
            }
        }
    }

    /// Counts taps of readers that nobody registered; they are taken like any other.
    pub(crate) fn count_unregistered_readers(&self, taps: u64) {
        if taps > 0 {
            metrics::counter!("gatebell_unregistered_reader_taps_total").increment(taps);
        }
    }

    /// Counts entries that are now durable.
    pub(crate) fn count_entries(&self, entries: &[LedgerEntry]) {
        self.count_events(entries.iter().map(|entry| (entry.channel, entry.event)));
    }

    /// Counts what happened to notices and is now durable.
    pub(crate) fn count_events(&self, events: impl Iterator<Item = (Channel, Event)>) {
        let mut counters = locked(&self.entries);
        let mut events = events.peekable();
        while let Some((channel, event)) = events.next() {
            let mut count = 1;
            while events.next_if_eq(&(channel, event)).is_some() {
                count += 1;
            }
            let counter =
                counters.entry((channel, event)).or_insert_with(|| EntryCounter::new(channel, event));
            counter.count += count;
            counter.metric.increment(count);
        }
    }

    /// From the receipt of some taps to the gateway's answers it took so long.
    pub(crate) fn answered(&self, channel: Channel, took: impl Iterator<Item = Duration>) {
        let mut took = took.peekable();
        if took.peek().is_none() {
            return;
        }
        let mut latencies = locked(&self.latencies);
        let latency = latencies.entry(channel).or_insert_with(|| Latency::new(channel));
        for took in took {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            latency.histogram_us.saturating_record(micros);
            latency.metric.record(took.as_secs_f64());
        }
    }

    /// How far a partition is behind its log.
    pub(crate) fn set_lag(&self, partition: u32, lag: u64) {
        metrics::gauge!("gatebell_tap_lag", "partition" => partition.to_string())
            .set(as_gauge(usize::try_from(lag).unwrap_or(usize::MAX)));
        locked(&self.lags).insert(partition, lag);
    }

    /// How many records of a partition, of those it is known to have, its next owner would decide again.
    pub(crate) fn set_unsettled(&self, partition: u32, records: u64) {
        metrics::gauge!("gatebell_unsettled_taps", "partition" => partition.to_string())
            .set(as_gauge(usize::try_from(records).unwrap_or(usize::MAX)));
    }

    /// For how long a partition's first record waits that its full shard has no room for.
    pub(crate) fn set_held(&self, partition: u32, held: Duration) {
        metrics::gauge!("gatebell_held_seconds", "partition" => partition.to_string())
            .set(held.as_secs_f64());
    }

    /// A partition is no longer ours.
    pub(crate) fn forget_partition(&self, partition: u32) {
        // What its next owner has to catch up with is not ours to show.
        self.set_lag(partition, 0);
        self.set_held(partition, Duration::ZERO);
        self.set_unsettled(partition, 0);
        locked(&self.lags).remove(&partition);
    }

    /// This process owns so many partitions.
    pub(crate) fn set_partitions_owned(&self, partitions: usize) {
        metrics::gauge!("gatebell_partitions_owned").set(as_gauge(partitions));
    }

    /// Something of `what` does not work; said in the log when it is news.
    pub(crate) fn trouble(&self, what: &'static str, why: &dyn std::fmt::Display) {
        let why = why.to_string();
        metrics::counter!("gatebell_port_errors_total", "port" => what).increment(1);
        let mut troubles = locked(&self.troubles);
        if troubles.get(what) != Some(&why) {
            tracing::error!(what, why, "something is missing; the engine holds what it has and looks again");
            troubles.insert(what, why);
        }
    }

    /// `what` works again.
    pub(crate) fn recovered(&self, what: &'static str) {
        if locked(&self.troubles).remove(what).is_some() {
            tracing::info!(what, "works again");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ports::clock::SystemClock;

    #[test]
    fn a_latency_is_kept_as_long_as_it_was() {
        let status = Status::new(Arc::new(Vitals::new(Arc::new(SystemClock::new()))), []);
        status.answered(Channel::App, std::iter::once(Duration::from_millis(250)));
        let latencies = status.snapshot().tap_to_answer_us;
        let kept_us = latencies.get(&Channel::App).unwrap().max();
        assert!((250_000..250_300).contains(&kept_us), "{kept_us}");
    }
}
