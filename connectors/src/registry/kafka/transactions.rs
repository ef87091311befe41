//! The transactions of the topic, by their heads: since when their values count, and that none is missing.

use compact_str::CompactString;
use gatebell_engine::registry::CHANGE_LEAD;
use gatebell_engine::time::Timestamp;

use super::record::Head;

/// When a record was written, and by whose clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stamp {
    /// The broker's, when it took the record.
    Broker(Timestamp),
    /// The writer's, in the topic of a made-up city.
    Writer(Timestamp),
}

impl Stamp {
    /// The instant.
    pub(super) fn at(self) -> Timestamp {
        match self {
            Self::Broker(at) | Self::Writer(at) => at,
        }
    }

    /// Since when a value counts whose writer asked for `since`. What counts since ever does so wherever it lies; else it is
    /// for the broker to say, whose clock also says when taps were received. In a made-up city it is the writer's word.
    pub(super) fn counts_from(self, since: Timestamp) -> Timestamp {
        match self {
            _ if since == Timestamp::MIN => since,
            Self::Broker(at) => at.plus(CHANGE_LEAD),
            Self::Writer(_) => since,
        }
    }
}

/// A committed transaction, as its head tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Transaction {
    /// The versions of its values; `last` is one less than `first` when it has none.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Keys that have a value once it is applied.
    pub(super) keys: u64,
    pub(super) made_up: bool,
    /// Since when its values count.
    pub(super) counts_from: Timestamp,
    /// The writer's name for it.
    pub(super) written_as: CompactString,
    /// Where its head lies.
    pub(super) offset: u64,
}

impl Transaction {
    /// The transaction that `head`, at `offset`, ends.
    pub(super) fn new(head: Head, stamp: Stamp, offset: u64) -> Self {
        Self {
            first: head.first,
            last: head.last,
            keys: head.keys,
            made_up: head.made_up,
            counts_from: match stamp.counts_from(head.since) {
                Timestamp::MIN => Timestamp::MIN,
                counts_from => counts_from.max(head.not_before),
            },
            written_as: head.written_as,
            offset,
        }
    }
}

/// Transactions that follow each other without a gap.
#[derive(Clone, Default, Debug)]
pub(super) struct Transactions(Vec<Transaction>);

impl Transactions {
    /// Takes the next one; `Err` with the version that had to come first when there is a gap before it. Where the topic is
    /// read `from_its_beginning`, compaction may take heads away meanwhile, all of them old; then what came before the gap
    /// is forgotten instead.
    pub(super) fn push(&mut self, transaction: Transaction, from_its_beginning: bool) -> Result<(), u64> {
        let expected = self.0.last().map_or(transaction.first, |before| before.last + 1);
        if transaction.first > expected && from_its_beginning {
            self.0.clear();
        } else if transaction.first != expected {
            return Err(expected);
        }
        self.0.push(transaction);
        Ok(())
    }

    /// The oldest one whose head is still there.
    pub(super) fn first(&self) -> Option<&Transaction> {
        self.0.first()
    }

    /// Each of them, in order.
    pub(super) fn into_iter(self) -> impl Iterator<Item = Transaction> {
        self.0.into_iter()
    }

    /// The one that ends the topic, as far as it was read.
    pub(super) fn last(&self) -> Option<&Transaction> {
        self.0.last()
    }

    /// The one that holds `version`; `None` when its head was compacted away.
    pub(super) fn of(&self, version: u64) -> Option<&Transaction> {
        let position = self.0.partition_point(|transaction| transaction.last < version);
        self.0.get(position).filter(|transaction| transaction.first <= version)
    }

    /// The last one whose values are all at or below `version`.
    pub(super) fn last_up_to(&self, version: u64) -> Option<&Transaction> {
        let position = self.0.partition_point(|transaction| transaction.last <= version);
        self.0.get(position.checked_sub(1)?)
    }

    /// The one that its writer named `written_as`.
    pub(super) fn written_as(&self, written_as: &str) -> Option<&Transaction> {
        self.0.iter().rev().find(|transaction| transaction.written_as == written_as)
    }

    /// Since when the value of `version` counts, whose own record bears `stamp` and `since`. With its head compacted away it
    /// is older than any tap that may still be decided, and its own record is near enough.
    pub(super) fn counts_from(&self, version: u64, stamp: Stamp, since: Timestamp) -> Timestamp {
        self.of(version).map_or_else(|| stamp.counts_from(since), |transaction| transaction.counts_from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn head(first: u64, last: u64, since: Timestamp, not_before: Timestamp) -> Head {
        Head { first, last, keys: last, made_up: false, since, not_before, written_as: "w".into() }
    }

    #[test]
    fn a_change_counts_from_a_lead_after_its_head_and_never_before_the_one_before_it() {
        let (ever, said) = (Timestamp::MIN, at(77));
        for (stamp, since, not_before, counts_from) in [
            (Stamp::Broker(at(5_000)), said, ever, at(6_000)),
            (Stamp::Broker(at(5_000)), said, at(5_500), at(6_000)),
            (Stamp::Broker(at(5_000)), said, at(9_000), at(9_000)),
            (Stamp::Broker(at(5_000)), ever, at(9_000), ever),
            (Stamp::Writer(at(5_000)), said, ever, said),
            (Stamp::Writer(at(5_000)), said, at(80), at(80)),
            (Stamp::Writer(at(5_000)), ever, ever, ever),
        ] {
            let transaction = Transaction::new(head(1, 1, since, not_before), stamp, 1);
            assert_eq!(transaction.counts_from, counts_from, "{stamp:?} {since} {not_before}");
        }
    }

    #[test]
    fn a_value_is_dated_by_its_head_and_without_one_by_itself() {
        let mut transactions = Transactions::default();
        for (first, last, ms) in [(4, 6, 10_000), (7, 6, 11_000), (7, 7, 12_000)] {
            let transaction =
                Transaction::new(head(first, last, at(1), Timestamp::MIN), Stamp::Broker(at(ms)), last);
            transactions.push(transaction, false).unwrap();
        }
        let own = Stamp::Broker(at(3_000));
        for (version, counts_from) in [(3, 4_000), (4, 11_000), (6, 11_000), (7, 13_000), (8, 4_000)] {
            assert_eq!(transactions.counts_from(version, own, at(1)), at(counts_from), "{version}");
        }
        assert_eq!(transactions.last_up_to(5), None);
        assert_eq!(transactions.last_up_to(6).map(|it| it.counts_from), Some(at(12_000)));
        assert_eq!(transactions.last_up_to(9).map(|it| it.last), Some(7));
    }

    #[test]
    fn a_missing_transaction_is_noticed_by_the_next_one() {
        let mut transactions = Transactions::default();
        let transaction =
            |first, last| Transaction::new(head(first, last, at(1), at(1)), Stamp::Writer(at(1)), last);
        transactions.push(transaction(4, 6), false).unwrap();
        for (first, last, from_its_beginning) in [(8, 9, false), (6, 9, false), (6, 9, true)] {
            assert_eq!(transactions.push(transaction(first, last), from_its_beginning), Err(7));
        }
        transactions.push(transaction(7, 9), false).unwrap();
        transactions.push(transaction(12, 13), true).unwrap();
        assert_eq!(transactions.first(), transactions.of(12));
    }
}
