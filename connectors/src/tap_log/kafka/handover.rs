//! What passes from the thread that polls Kafka to the engine.
//!
//! Events come before batches; of batches each partition has its own bounded queue, and partitions take turns, so that one
//! whose shard is full holds up no other. Neither side waits for the other: the thread does not read a partition whose
//! queue is full, and the engine is woken when there is something.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::tap_log::TapRecord;
use tokio::sync::Notify;

use super::waker::Waker;

/// Batches of one partition that wait for the engine.
const READY_BATCHES_MAX: usize = 3;

/// What the engine is told, as far as the thread knows it.
#[derive(Debug)]
pub(super) enum Handed {
    /// The partitions are ours; what was committed is still to be asked. The number tells this assignment from others.
    Assigned { partitions: Vec<u32>, assignment: u64 },
    /// The partitions go once the engine comes back.
    Revoked(Vec<u32>),
    /// The partitions are gone.
    Lost(Vec<u32>),
    /// The broker has confirmed the membership, asked at this monotonic time.
    Confirmed(Duration),
    /// Something does not work at the moment.
    Trouble(PortError),
    /// Records of one partition.
    Batch { partition: u32, records: Vec<TapRecord>, end: u64 },
}

#[derive(Debug, Default)]
struct Ready {
    batches: VecDeque<(Vec<TapRecord>, u64)>,
    paused: bool,
}

/// How far a revocation has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Revocation {
    #[default]
    None,
    /// The engine was told, and is at it.
    Told,
    /// The engine has come back.
    Done,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Handed>,
    confirmed: Option<Duration>,
    trouble: Option<PortError>,
    partitions: BTreeMap<u32, Ready>,
    /// The partition whose turn it was last.
    turn: u32,
    revocation: Revocation,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Handover {
    state: Mutex<State>,
    changed: Notify,
    waker: Arc<Waker>,
}

impl Handover {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self { state: Mutex::new(State::default()), changed: Notify::new(), waker }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The thread's side.

    pub(super) fn assigned(&self, partitions: Vec<u32>, assignment: u64) {
        let mut state = self.state();
        for partition in &partitions {
            state.partitions.insert(*partition, Ready::default());
        }
        state.events.push_back(Handed::Assigned { partitions, assignment });
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn revoked(&self, partitions: Vec<u32>) {
        let mut state = self.state();
        for partition in &partitions {
            state.partitions.remove(partition);
        }
        state.revocation = Revocation::None;
        state.events.push_back(Handed::Revoked(partitions));
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn lost(&self, partitions: Vec<u32>) {
        let mut state = self.state();
        for partition in &partitions {
            state.partitions.remove(partition);
        }
        state.events.push_back(Handed::Lost(partitions));
        drop(state);
        self.changed.notify_one();
    }

    /// Whether the engine has come back from the last revocation.
    pub(super) fn revocation_is_done(&self) -> bool {
        self.state().revocation == Revocation::Done
    }

    /// Later confirmations replace earlier ones.
    pub(super) fn confirmed(&self, asked_at: Duration) {
        self.state().confirmed = Some(asked_at);
        self.changed.notify_one();
    }

    /// Later trouble replaces earlier.
    pub(super) fn trouble(&self, trouble: PortError) {
        self.state().trouble = Some(trouble);
        self.changed.notify_one();
    }

    /// Whether another batch of the partition may be read.
    pub(super) fn has_room(&self, partition: u32) -> bool {
        self.state().partitions.get(&partition).is_some_and(|ready| ready.batches.len() < READY_BATCHES_MAX)
    }

    pub(super) fn batch(&self, partition: u32, records: Vec<TapRecord>, end: u64) {
        if let Some(ready) = self.state().partitions.get_mut(&partition) {
            ready.batches.push_back((records, end));
        }
        self.changed.notify_one();
    }

    /// Forgets what was read of the partition: it is read from somewhere else.
    pub(super) fn clear(&self, partition: u32) {
        if let Some(ready) = self.state().partitions.get_mut(&partition) {
            ready.batches.clear();
        }
    }

    /// Forgets everything: this process is no member any more.
    pub(super) fn clear_all(&self) {
        *self.state() = State::default();
    }

    // The engine's side.

    pub(super) fn pause(&self, partition: u32, paused: bool) {
        if let Some(ready) = self.state().partitions.get_mut(&partition) {
            ready.paused = paused;
        }
        self.changed.notify_one();
    }

    /// What comes next, if there is something.
    pub(super) fn take(&self) -> Option<Handed> {
        let mut state = self.state();
        if state.revocation == Revocation::Told {
            state.revocation = Revocation::Done;
            self.waker.wake();
        }
        if let Some(event) = state.events.pop_front() {
            if matches!(event, Handed::Revoked(_)) {
                state.revocation = Revocation::Told;
            }
            return Some(event);
        }
        if let Some(trouble) = state.trouble.take() {
            return Some(Handed::Trouble(trouble));
        }
        if let Some(asked_at) = state.confirmed.take() {
            return Some(Handed::Confirmed(asked_at));
        }
        let turn = state.turn;
        let is_due = |ready: &Ready| !ready.paused && !ready.batches.is_empty();
        let after = state.partitions.range(turn.saturating_add(1)..).find(|(_, ready)| is_due(ready));
        let due = after.or_else(|| state.partitions.iter().find(|(_, ready)| is_due(ready)));
        let partition = *due?.0;
        state.turn = partition;
        let ready = state.partitions.get_mut(&partition)?;
        let was_full = ready.batches.len() >= READY_BATCHES_MAX;
        let (records, end) = ready.batches.pop_front()?;
        drop(state);
        if was_full {
            self.waker.wake();
        }
        Some(Handed::Batch { partition, records, end })
    }

    /// Waits until there may be something.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
