//! Whether records lie in the partition of their key.
//!
//! Two partitions that both hold taps of one card are two owners of one pupil's day. A producer that places keys its own
//! way is a mistake that nobody notices until notices go missing, so it is counted and said.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use gatebell_engine::ports::tap_log::partition_of_key;

/// It is said at most so often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Counts the misplaced records of one partition.
pub(super) struct Placement {
    partition: u32,
    partitions: u32,
    misplaced: metrics::Counter,
    said_at: Option<Instant>,
}

impl Placement {
    /// Of `partition` among `partitions`.
    pub(super) fn new(partition: u32, partitions: u32) -> Self {
        let misplaced =
            metrics::counter!("gatebell_misplaced_records_total", "partition" => partition.to_string());
        Self { partition, partitions, misplaced, said_at: None }
    }

    /// Whether a record with `key` belongs elsewhere. One without a key may lie anywhere, so it is as bad.
    pub(super) fn is_elsewhere(&self, key: Option<&[u8]>) -> bool {
        let Some(key) = key else { return true };
        partition_of_key(&upper_cased(key), self.partitions) != self.partition
    }

    /// Counts `records` that belong elsewhere.
    pub(super) fn count(&mut self, records: u64) {
        if records == 0 {
            return;
        }
        self.misplaced.increment(records);
        if self.said_at.is_none_or(|said_at| said_at.elapsed() >= SAY_EVERY) {
            self.said_at = Some(Instant::now());
            tracing::warn!(
                partition = self.partition,
                records,
                "taps lie in another partition than their card's: producers must use the upper-cased card as the key \
                 and place it by murmur2, as Kafka's Java clients do"
            );
        }
    }
}

fn upper_cased(key: &[u8]) -> Cow<'_, [u8]> {
    if key.iter().any(u8::is_ascii_lowercase) {
        Cow::Owned(key.to_ascii_uppercase())
    } else {
        Cow::Borrowed(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_upper_cased_and_none_is_elsewhere() {
        let home = partition_of_key(b"04A224B1C23F80", 12);
        let placement = Placement::new(home, 12);
        assert!(!placement.is_elsewhere(Some(b"04A224B1C23F80")));
        assert!(!placement.is_elsewhere(Some(b"04a224b1c23f80")));
        assert!(placement.is_elsewhere(None));
        assert!(Placement::new((home + 1) % 12, 12).is_elsewhere(Some(b"04A224B1C23F80")));
    }
}
