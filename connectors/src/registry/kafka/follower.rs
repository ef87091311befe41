//! Follows the topic, blocking: what the feed does on a thread that may wait.
//!
//! Each stretch between the last end and the new one is read twice. The first pass takes the heads alone, and so knows that
//! every transaction is whole, and since when it counts, before the second hands out a single value; nothing has to be
//! kept in memory meanwhile, however large an import is. From the topic's beginning on, values may be missing that a later one of
//! the same key replaced, and the number of keys tells whether any other is; while following, versions rise by one.

use std::collections::HashSet;

use gatebell_engine::ports::PortError;
use gatebell_engine::registry::{CHANGE_LEAD, RegistryChange};
use gatebell_engine::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::record::Value;
use super::topic::TopicReader;
use super::transactions::Transactions;
use crate::sealing::ContactKey;

/// Changes in one answer.
const PAGE_CHANGES_MAX: usize = 8_192;

/// When a question was asked, by the clock whose instants the engine compares changes with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) now: Timestamp,
    /// How many times faster than real time that clock runs.
    pub(super) speed: f64,
}

/// Where the reading of the topic stands.
pub(super) struct Follower {
    reader: TopicReader,
    contact_key: ContactKey,
    /// The version of the last change handed out.
    version: u64,
    /// The last version of the last stretch that was read whole: the next transaction begins after it. Above `version` where
    /// the values in between were forgotten.
    chained: u64,
    /// The offset after the last record that needs no second look.
    position: u64,
    /// Whether everything from the topic's beginning to some end was handed out, so that nothing may be missing from now on.
    is_following: bool,
    stretch: Option<Stretch>,
    /// When the last question was asked that was answered with nothing new.
    confirmed: Option<Timestamp>,
}

/// A stretch that is being read the second time.
struct Stretch {
    end: u64,
    transactions: Transactions,
}

impl Follower {
    pub(super) fn new(reader: TopicReader, contact_key: ContactKey) -> Self {
        Self {
            reader,
            contact_key,
            version: 0,
            chained: 0,
            position: 0,
            is_following: false,
            stretch: None,
            confirmed: None,
        }
    }

    /// The next changes after `version`; empty when everything that was committed before the call was handed out.
    pub(super) fn read(&mut self, version: u64, asked: Asked) -> Result<Vec<RegistryChange>, PortError> {
        if version != self.version {
            self.start_over(version);
        }
        let answer = self.read_on();
        match &answer {
            Ok(changes) if changes.is_empty() => self.confirmed = Some(asked.now),
            Ok(changes) => self.watch_for_late_ones(changes, asked),
            // The next call begins again: at the last page, or, when not all was read yet, at the beginning.
            Err(_) if self.is_following => self.stretch = None,
            Err(_) => self.start_over(version),
        }
        answer
    }

    fn start_over(&mut self, version: u64) {
        self.version = version;
        self.chained = 0;
        self.position = 0;
        self.is_following = false;
        self.stretch = None;
        // What is read again is no news.
        self.confirmed = None;
    }

    fn read_on(&mut self) -> Result<Vec<RegistryChange>, PortError> {
        loop {
            let stretch = match self.stretch.take() {
                Some(stretch) => stretch,
                None => match self.next_stretch()? {
                    Some(stretch) => stretch,
                    None => return Ok(Vec::new()),
                },
            };
            let page = self.page(&stretch)?;
            if page.is_whole {
                self.reader.rest();
                self.chained = stretch.transactions.last().map_or(self.chained, |last| last.last);
                self.position = stretch.end;
                self.is_following = true;
            } else {
                self.position = page.position;
                self.stretch = Some(stretch);
            }
            if let Some(last) = page.changes.last() {
                self.version = last.version;
                return Ok(page.changes);
            }
        }
    }

    /// What was committed since; `None` when nothing was.
    fn next_stretch(&mut self) -> Result<Option<Stretch>, PortError> {
        let bounds = self.reader.bounds()?;
        if bounds.end < self.position {
            return Err(self.reader.unfit(
                "it is shorter than what was read of it, so that it was made anew or has lost its end: restart this process \
                 once it is right again",
            ));
        }
        if self.is_following && bounds.end == self.position {
            return Ok(None);
        }
        let from = if self.is_following { self.position } else { bounds.low };
        let mut keys = HashSet::new();
        let following = self.is_following;
        let transactions = self.reader.survey(from, bounds.end, !following, |record| {
            let key = xxh3_64(record.key());
            match record.payload() {
                _ if following => {}
                Some(_) => drop(keys.insert(key)),
                None => drop(keys.remove(&key)),
            }
        })?;
        self.check(&transactions, keys.len(), from)?;
        self.reader.seek(from)?;
        self.position = from;
        Ok(Some(Stretch { end: bounds.end, transactions }))
    }

    fn check(&self, transactions: &Transactions, keys: usize, from: u64) -> Result<(), PortError> {
        if self.is_following {
            return match transactions.first() {
                Some(first) if first.first != self.chained + 1 => {
                    Err(self.reader.gap(self.chained + 1, from))
                }
                _ => Ok(()),
            };
        }
        let (version, promised) = transactions.last().map_or((0, 0), |last| (last.last, last.keys));
        if version < self.version {
            return Err(self.reader.unfit(&format!(
                "it ends at change {version}, and this process has read change {} already: it was made anew; restart this process",
                self.version
            )));
        }
        if usize::try_from(promised).ok() != Some(keys) {
            return Err(self.reader.unfit(&format!(
                "it has values of {keys} keys, and its last transaction says {promised}: records were lost, or another program \
                 wrote to it; import the city again"
            )));
        }
        Ok(())
    }

    fn page(&self, stretch: &Stretch) -> Result<Page, PortError> {
        let mut page = Page { changes: Vec::new(), position: self.position, is_whole: false };
        let mut version = if self.is_following { self.version.max(self.chained) } else { self.version };
        while page.changes.len() < PAGE_CHANGES_MAX {
            let Some(record) = self.reader.next(stretch.end)? else {
                page.is_whole = true;
                break;
            };
            page.position = record.offset + 1;
            let Some(payload) = record.payload().filter(|_| !record.is_head()) else {
                continue;
            };
            let value = Value::decode(record.key(), payload, &self.contact_key)
                .map_err(|error| self.reader.unreadable(record.offset, &error))?;
            if self.is_following && value.version != version + 1 {
                return Err(self.reader.gap(version + 1, record.offset));
            }
            // Known already, or out of order, which a transaction's writer never is.
            if value.version <= version {
                continue;
            }
            version = value.version;
            let applied = stretch.transactions.counts_from(version, record.stamp, value.since);
            page.changes.push(RegistryChange { version, applied, entry: value.entry });
        }
        let promised = stretch.transactions.last().map_or(version, |last| last.last);
        if page.is_whole && self.is_following && promised != version {
            return Err(self.reader.gap(version + 1, page.position));
        }
        Ok(page)
    }

    fn watch_for_late_ones(&self, changes: &[RegistryChange], asked: Asked) {
        let count = self.confirmed.map_or(0, |confirmed| late_ones(changes, confirmed, asked));
        if count > 0 {
            metrics::counter!("gatebell_registry_late_changes_total").increment(count as u64);
            tracing::warn!(
                count,
                "changes of the registry became visible after they began to count: taps of that moment were decided without \
                 them; do the clocks of this machine and of the brokers agree?"
            );
        }
    }
}

/// How many of `changes`, read when this was `asked`, count for taps that may have been decided without them: those received
/// up to a lead after the last question that was answered with nothing new, and before now. This takes a commit that hung
/// for [`CHANGE_LEAD`], or clocks that differ by as much. What was decided stands.
fn late_ones(changes: &[RegistryChange], confirmed: Timestamp, asked: Asked) -> usize {
    let decided_until = confirmed.plus(CHANGE_LEAD.mul_f64(asked.speed)).min(asked.now);
    let is_late =
        |change: &&RegistryChange| change.applied > Timestamp::MIN && change.applied < decided_until;
    changes.iter().filter(is_late).count()
}

/// Part of a stretch.
struct Page {
    changes: Vec<RegistryChange>,
    /// The offset after its last record.
    position: u64,
    /// Whether it ends the stretch.
    is_whole: bool,
}

#[cfg(test)]
mod tests {
    use gatebell_engine::testing::contract::registry_feed::card;

    use super::*;

    #[test]
    fn a_change_is_late_when_taps_that_it_counts_for_may_have_been_decided() {
        let at = Timestamp::from_millis;
        let confirmed = at(10_000);
        for (counts_from, now, is_late) in [
            (at(11_000), at(10_200), false),
            // Seen late, and no tap was decided meanwhile: the shards waited.
            (at(11_000), at(14_000), false),
            (at(10_900), at(10_800), false),
            (at(10_900), at(10_950), true),
            (at(9_000), at(10_200), true),
            (Timestamp::MIN, at(10_200), false),
        ] {
            let change = RegistryChange { version: 1, applied: counts_from, entry: card(1, 1) };
            let late = late_ones(&[change], confirmed, Asked { now, speed: 1.0 });
            assert_eq!(late == 1, is_late, "counts from {counts_from}, read at {now}");
        }
    }
}
