//! This process as a member of the consumer group: its client, and what librdkafka tells it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::PORT;
use super::statistics::report;
use crate::kafka::KafkaSettings;
use crate::kafka::log_lines;
use gatebell_engine::ports::PortError;

/// How often librdkafka counts what it does.
const STATISTICS_EVERY_MS: u32 = 5_000;
/// Heartbeats are how a member learns of a rebalance: the sooner, the shorter a handover.
const HEARTBEAT_MS: u32 = 500;
/// A member whose thread does not poll leaves the group so much later than a silent one is given up, and a rebalance waits
/// for one that is alive and does not come as long as that: the session time-out and this. The thread polls whatever happens around it: a seek and the end
/// of a commit keep it for some seconds at worst.
const STUCK_GRACE: Duration = Duration::from_secs(6);
/// A fetch that finds nothing is answered after so long. A partition that was taken over meanwhile waits for that, as does
/// whatever else the broker is asked on the same connection.
const FETCH_WAIT_MS: u32 = 100;
/// No request stays unanswered for longer.
const REQUEST_MAX_MS: u32 = 10_000;
/// Taps that librdkafka fetches ahead, by partition …
const FETCHED_AHEAD_TAPS_MIN: u32 = 50_000;
/// … and their bytes.
const FETCHED_AHEAD_KIB_MAX: u32 = 16_384;

/// The client.
pub(super) type Member = BaseConsumer<MemberContext>;

/// A change of the assignment, which librdkafka waits for us to make.
#[derive(Debug, Clone)]
pub(super) enum Rebalance {
    /// These are ours as well from now on.
    Assign(Vec<i32>),
    /// These go.
    Revoke {
        partitions: Vec<i32>,
        /// They may have another owner already.
        lost: bool,
    },
}

/// Notes rebalances down, for the thread that polls to act on once its poll has returned.
#[derive(Debug)]
pub(super) struct MemberContext {
    topic: String,
    rebalances: Mutex<VecDeque<Rebalance>>,
}

impl MemberContext {
    /// The oldest rebalance that was not acted on.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_lines::pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_lines::pass_on_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        report(&self.topic, &statistics);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, member: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = list.elements().iter().map(|element| element.partition()).collect();
        let rebalance = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(partitions),
            _ => Rebalance::Revoke { partitions, lost: member.assignment_lost() },
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }
}

/// A client that has not joined the group yet.
pub(super) fn client(settings: &KafkaSettings, topic: &str) -> Result<Member, PortError> {
    let mut config = settings.consumer().map_err(|cause| PortError::new(PORT, cause))?;
    config
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", settings.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", HEARTBEAT_MS.to_string())
        .set("max.poll.interval.ms", (settings.session_timeout + STUCK_GRACE).as_millis().to_string())
        .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
        .set("socket.timeout.ms", REQUEST_MAX_MS.to_string())
        .set("queued.min.messages", FETCHED_AHEAD_TAPS_MIN.to_string())
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KIB_MAX.to_string())
        .set("statistics.interval.ms", STATISTICS_EVERY_MS.to_string());
    let context = MemberContext { topic: topic.to_owned(), rebalances: Mutex::new(VecDeque::new()) };
    config.create_with_context(context).map_err(|cause| PortError::new(PORT, cause))
}

/// The topic's `partitions`, with no offsets.
pub(super) fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// Partitions as the engine counts them. Kafka's own numbers are never negative.
pub(super) fn numbers(partitions: &[i32]) -> Vec<u32> {
    partitions.iter().filter_map(|partition| u32::try_from(*partition).ok()).collect()
}

/// A partition as Kafka's protocol has it.
pub(super) fn in_protocol(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// The client, and the thread to be woken when there is something for it.
pub(super) fn woken_by(mut member: Member, waker: &Arc<super::waker::Waker>) -> Arc<Member> {
    let waker = Arc::clone(waker);
    member.set_nonempty_callback(move || waker.wake());
    Arc::new(member)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_member_can_be_made_with_every_session_time_out_that_may_be_configured() {
        for session_timeout_s in [6, 10, 59, 61, 300] {
            let session_timeout = Duration::from_secs(session_timeout_s);
            let settings = KafkaSettings { session_timeout, ..KafkaSettings::default() };
            client(&settings, "gate.taps").unwrap();
        }
    }
}
