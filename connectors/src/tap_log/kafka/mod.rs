//! The tap log on Kafka: a topic that any number of processes share.
//!
//! [`KafkaTapIntake`] produces, [`KafkaRejectedLog`] keeps what is no tap, [`KafkaTapLog`] is a member of the consumer group. The taps' topic and its partitions must
//! be there and fit ([`crate::kafka::prepare_topics`]). Three threads stand behind a reader: librdkafka's own, one that
//! polls and never waits, and one that commits. What the engine asks beyond that is asked by a client of its own.

mod commits;
mod handover;
mod intake;
mod member;
mod offset_copy;
mod partition_queue;
mod placement;
mod polling;
mod questions;
mod reader;
mod rejected;
mod settled;
mod statistics;
#[cfg(test)]
mod tests;
mod waker;

pub use intake::{IntakeLimits, KafkaTapIntake};
pub use offset_copy::OffsetCopy;
pub use reader::KafkaTapLog;
pub use rejected::KafkaRejectedLog;

/// The port, as errors name it.
const PORT: &str = "tap log";
