//! The registry as a compacted topic of one partition, `PREFIX.registry`.
//!
//! A change of the registry is one transaction: its values in order, each with a version that is one more than the one
//! before, then a head that says which versions these are, how many keys have a value by then, and since when they count.
//! There is one writer at a time, and readers see a transaction whole or not at all. Compaction leaves the last value of
//! each key, and everything of the last two days, so that today and yesterday can be decided as they were.
//!
//! **Since when a change counts** is said by the broker's clock, which also says when taps are received:
//! [`CHANGE_LEAD`](gatebell_engine::registry::CHANGE_LEAD) after it took the transaction's head. A first import counts since
//! ever. A value whose head is compacted away is two days old, and is dated by its own record. In a made-up city, whose
//! topics carry made-up times, the writer's word counts.
//!
//! **Removals** are values, with the instant of removal: taps read before it may still be uploaded. A tombstone says that a
//! key is to be forgotten altogether, which is safe only for what ended before any tap that may still come, and for what no
//! bill needs. Gatebell writes none; readers know them, and the head after one counts a key less.
//!
//! **Contact data** is sealed in each value ([`sealing`](crate::sealing)). Card numbers are keys, and readable, as are the
//! relations between guardians and pupils by their codes: whoever may read the topic must be trusted with those.

mod feed;
mod follower;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod topic;
mod transactions;
mod writer;

pub use feed::KafkaRegistryFeed;
pub use store::{KafkaRegistry, Processes};
