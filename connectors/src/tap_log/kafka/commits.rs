//! The thread that commits, and so proves that the group still knows this process.
//!
//! The broker takes a commit only from a member of the group's present generation. So the last settled offsets are committed
//! again and again, and each success is a confirmation as of the moment before it was asked for. Where nothing is settled
//! yet, offset 0 is committed with [`NOTHING_SETTLED`] beside it, which reads as no commit at all.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::PORT;
use super::handover::Handover;
use super::member::{Member, in_protocol};
use super::settled::{Settled, Snapshot};

/// Marks an offset that stands for none.
pub(super) const NOTHING_SETTLED: &str = "gatebell: nothing settled yet";
/// The port's contract asks for a confirmation every second; a second of it is left to a busy broker.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);
/// The group is being rebalanced, and takes commits again in a moment.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What the thread is asked.
pub(super) enum Request {
    /// Commit now, and say when it is done.
    Commit(oneshot::Sender<Result<(), PortError>>),
    /// End.
    Stop,
}

/// See the module.
pub(super) struct Commits {
    pub(super) member: Arc<Member>,
    pub(super) topic: String,
    pub(super) settled: Arc<Settled>,
    pub(super) handover: Arc<Handover>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) requests: mpsc::Receiver<Request>,
}

impl Commits {
    /// Runs until it is told to stop, or nobody is left to tell it.
    pub(super) fn run(self) {
        let mut wait = CONFIRM_EVERY;
        loop {
            let mut waiting = Vec::new();
            let first = match self.requests.recv_timeout(wait) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for request in first.into_iter().chain(self.requests.try_iter()) {
                match request {
                    Request::Commit(answer) => waiting.push(answer),
                    Request::Stop => return,
                }
            }
            let asked_at = self.clock.monotonic();
            let outcome = self.commit();
            wait = CONFIRM_EVERY;
            match &outcome {
                Ok(true) => self.handover.confirmed(asked_at),
                Ok(false) => wait = ASK_AGAIN,
                Err(cause) if is_of_a_rebalance(cause) => wait = ASK_AGAIN,
                Err(cause) => self.handover.trouble(no_commit(cause)),
            }
            for answer in waiting {
                // Whoever asked may have given up.
                let _ = answer.send(outcome.as_ref().map(|_| ()).map_err(no_commit));
            }
        }
    }

    /// Commits what is settled. Whether that proves the membership, which owning nothing needs no proof of.
    fn commit(&self) -> KafkaResult<bool> {
        match self.settled.begin_commit() {
            Snapshot::NothingOwned => Ok(true),
            Snapshot::NothingKnown => Ok(false),
            Snapshot::Known(offsets) => {
                let committed =
                    self.list(&offsets).and_then(|list| self.member.commit(&list, CommitMode::Sync));
                self.settled.end_commit();
                committed.map(|()| true)
            }
        }
    }

    fn list(&self, offsets: &[(u32, Option<u64>)]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, settled) in offsets {
            let offset = i64::try_from(settled.unwrap_or(0)).unwrap_or(i64::MAX);
            let mut element = list.add_partition(&self.topic, in_protocol(*partition));
            element.set_offset(Offset::Offset(offset))?;
            if settled.is_none() {
                element.set_metadata(NOTHING_SETTLED);
            }
        }
        Ok(list)
    }
}

fn no_commit(cause: &KafkaError) -> PortError {
    PortError::new(PORT, format_args!("the broker took no commit: {cause}"))
}

/// Whether a commit failed only because the group is changing.
fn is_of_a_rebalance(cause: &KafkaError) -> bool {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress, UnknownMemberId, WaitingForCoordinator};
    matches!(
        cause.rdkafka_error_code(),
        Some(RebalanceInProgress | IllegalGeneration | UnknownMemberId | WaitingForCoordinator)
    )
}
