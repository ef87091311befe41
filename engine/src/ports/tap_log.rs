//! The tap log: durable taps, partitioned by card, with one owner a partition.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::PortError;
use crate::ids::CardNumber;
use crate::time::Timestamp;

/// One record of the log: a tap as it was reported, untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRecord {
    /// Its offset in the partition.
    pub offset: u64,
    /// When the log took it.
    pub received: Timestamp,
    /// The report, as bytes (JSON in the public format, or whatever somebody sent).
    pub value: Bytes,
}

/// What the log tells its reader.
#[derive(Debug)]
pub enum TapLogEvent {
    /// This process now owns the partition. Records come only after [`TapLog::rewind`] has said from where.
    Assigned {
        /// The partition.
        partition: u32,
        /// The committed offset: everything below it is settled. `None`: nothing was ever committed; read from the
        /// earliest record.
        committed: Option<u64>,
    },
    /// Records of one partition, in the order of their offsets, none left out.
    Batch {
        /// The partition.
        partition: u32,
        /// At least one record.
        records: Vec<TapRecord>,
        /// The offset that the next record written would get, as known when the batch was read: what is still to come
        /// is the lag.
        end: u64,
    },
    /// These partitions are about to go to other owners. What is settled may still be committed; the log hands them over
    /// when [`TapLog::next`] is called again.
    Revoked {
        /// The partitions.
        partitions: Vec<u32>,
    },
    /// These partitions may have other owners already: commit nothing.
    Lost {
        /// The partitions.
        partitions: Vec<u32>,
    },
    /// What lies next in this partition is not what was written there, or is gone. Nothing after it is handed out before an
    /// operator has acted; the other partitions go on. Comes again as long as it is so.
    Damaged {
        /// The partition.
        partition: u32,
        /// Which record, and what to do.
        cause: PortError,
    },
    /// The assignment was confirmed. Comes at least every second while all is well, so that a process that was asleep can
    /// tell that it no longer knows what it owns.
    Confirmed {
        /// When the question was asked, on the process's monotonic clock: an answer that lay in a queue while the process
        /// was asleep must not pass for news.
        asked_at: Duration,
    },
}

/// The reading side of the log. One task owns it.
///
/// *The log promises:* batches of an owned partition are contiguous from where [`rewind`](Self::rewind) put it; a commit
/// that returned is found by the next owner; `next` is cancel-safe; who has not called `next` yet owns nothing. *The engine
/// promises:* it commits only the contiguous prefix of settled records, of partitions that it has not been told are gone and
/// has not [left](Self::leave), and keeps calling `next` unless it wants the log to wait (backpressure).
#[async_trait]
pub trait TapLog: Send {
    /// The log's name, part of every notice id: two logs never share one.
    fn name(&self) -> &str;

    /// Waits for the next event.
    async fn next(&mut self) -> Result<TapLogEvent, PortError>;

    /// The time of receipt of the record at `offset`, or of the first one after it; `None` when there is none yet.
    async fn received_at(&mut self, partition: u32, offset: u64) -> Result<Option<Timestamp>, PortError>;

    /// Continues reading the partition at the first record received at or after `from`, or at the earliest record.
    /// Returns the offset of the record that will come first.
    async fn rewind(&mut self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError>;

    /// Hands out no more batches of the partition until [`resume`](Self::resume): its shard is full. Returns at once;
    /// what was handed out before stays handed out.
    fn pause(&mut self, partition: u32);

    /// Goes on with a paused partition, where it stopped.
    fn resume(&mut self, partition: u32);

    /// Makes each offset the committed one of its partition: everything below it is settled. Durable on return.
    async fn commit(&mut self, settled: &[(u32, u64)]) -> Result<(), PortError>;

    /// Gives every partition up, without an event, so that others may have them at once; where the others cannot be told,
    /// they find out by themselves. The next call of [`next`](Self::next) comes back, and is assigned partitions anew.
    async fn leave(&mut self);
}

/// A tap on its way into the log.
#[derive(Clone, Debug)]
pub struct IncomingTap {
    /// The key that places it.
    pub card: CardNumber,
    /// The report, as bytes.
    pub value: Bytes,
}

/// Why the log did not take taps. None of the batch was acknowledged; the reader sends it again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IntakeError {
    /// Too much is waiting to be written.
    #[error("the tap log's queue is full")]
    Full,
    /// The log cannot write (a full disk, a lost broker).
    #[error(transparent)]
    Unavailable(#[from] PortError),
}

/// The writing side of the log, shared by all HTTP requests.
///
/// *Promises:* on `Ok` every tap is durable (synced to disk, or acknowledged by all replicas) and will be read once it is
/// in the log's order; on `Err` some may still have been written, and the caller reports none. A call that would have to
/// queue beyond the log's limit fails with [`IntakeError::Full`] at once instead of waiting.
#[async_trait]
pub trait TapIntake: Send + Sync {
    /// Appends `taps`, stamping each with the log's own time of receipt.
    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError>;

    /// Taps that wait to be durable just now, for metrics.
    fn waiting_taps(&self) -> usize;
}

/// The partition of `card` among `partitions`: murmur2 of its upper-cased text, as Kafka's Java clients place keys, so
/// that a city can move from the embedded log to Kafka without two owners for one card.
pub fn partition_of(card: &CardNumber, partitions: u32) -> u32 {
    partition_of_key(card.expose().as_bytes(), partitions)
}

/// The partition of a record's key among `partitions`, as Kafka's Java clients place it.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    positive % partitions.max(1)
}

/// The 32-bit MurmurHash2 with the seed that Kafka's Java clients use.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("chunks_exact(4) gives four bytes"));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = chunks.remainder();
    if !tail.is_empty() {
        for (position, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_placed_as_kafkas_java_clients_place_them() {
        // Values of org.apache.kafka.common.utils.Utils.murmur2, from its own unit test.
        for (key, hash) in
            [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
        {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
    }
}
