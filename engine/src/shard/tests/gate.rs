//! A gate to try rules at: taps as one line of text each, decisions too.

use std::sync::Arc;

use bytes::Bytes;

use crate::index::RegistryIndex;
use crate::ports::tap_log::TapRecord;
use crate::registry::Entry;
use crate::shard::{Decision, Decisions, NamingRoom, NoticeStart, Shard};
use crate::tap::Outcome;
use crate::term::Term;
use crate::testing::registry::changes;
use crate::time::{Day, Stretch, Timestamp};

/// The built-in term, which offers app and SMS, and has its first school day on 2025-09-08.
pub(super) fn term() -> Term {
    Term::parse(Term::built_in("114-1").unwrap()).unwrap()
}

/// `07:31`, `07:31:04.250` (of 2025-09-08) or `2025-09-09T07:31`, in Taipei.
pub(super) fn instant(text: &str) -> Timestamp {
    let (date, time) = text.split_once('T').unwrap_or(("2025-09-08", text));
    let seconds = if time.len() == 5 { ":00" } else { "" };
    let instant: jiff::Timestamp = format!("{date}T{time}{seconds}+08:00").parse().unwrap();
    Timestamp::from_millis(instant.as_millisecond())
}

pub(super) fn date(text: &str) -> Day {
    text.parse().unwrap()
}

pub(super) const ALWAYS: &[Stretch] = &[Stretch::ALWAYS];

/// From the one instant until the other.
pub(super) fn between(from: &str, until: &str) -> Stretch {
    Stretch { from: instant(from), until: instant(until) }
}

/// From the instant on.
pub(super) fn since(from: &str) -> Stretch {
    Stretch { from: instant(from), until: Timestamp::MAX }
}

/// Until before the instant.
pub(super) fn until(until: &str) -> Stretch {
    Stretch { from: Timestamp::MIN, until: instant(until) }
}

/// A shard with its registry.
pub(super) struct Gate {
    pub(super) index: Arc<RegistryIndex>,
    pub(super) shard: Shard,
    next_offset: u64,
}

impl Gate {
    /// Of the built-in term.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self::in_term(term(), entries)
    }

    /// Of `term`; `entries` have been there since ever.
    pub(super) fn in_term(term: Term, entries: Vec<Entry>) -> Self {
        let term = Arc::new(term);
        let index = Arc::new(RegistryIndex::new(Arc::clone(&term), 16));
        let gate = Self::over(term, index);
        gate.apply(Timestamp::MIN, entries);
        gate
    }

    /// A new shard of `term` over a registry that exists.
    pub(super) fn over(term: Arc<Term>, index: Arc<RegistryIndex>) -> Self {
        let shard = Shard::new("test", 0, term, Arc::clone(&index));
        Self { index, shard, next_offset: 0 }
    }

    /// Changes the registry at `applied`.
    pub(super) fn apply(&self, applied: Timestamp, entries: Vec<Entry>) {
        for change in changes(self.index.version() + 1, applied, entries) {
            self.index.apply(&change);
        }
    }

    /// Decides one tap, written as its time and then card (`C…`), reader (anything else), direction
    /// (`in`, `out`) and time of receipt (`received=07:35`, else the tap's own) as needed.
    pub(super) fn tap(&mut self, line: &str) -> String {
        self.value_at(&json_of(line), received_of(line))
    }

    /// Decides a record that holds `value`.
    pub(super) fn value_at(&mut self, value: &str, received: Timestamp) -> String {
        let offset = self.next_offset;
        self.next_offset += 1;
        let record = TapRecord { offset, received, value: Bytes::copy_from_slice(value.as_bytes()) };
        let mut decisions = Decisions::default();
        self.shard.decide(&[record], &mut decisions);
        assert_eq!(decisions.taps.len(), 1, "one decision a record");
        self.told(&decisions.taps[0], &decisions)
    }

    /// `decision` in words: the outcome, then each notice as `guardian/channel[/order][/expired]`.
    pub(super) fn told(&self, decision: &Decision, decisions: &Decisions) -> String {
        self.names_alike_alone_and_together(decisions);
        let mut told = match decision.outcome {
            Outcome::Rejected(reason) => reason.name().to_owned(),
            Outcome::Passage(passage) => passage.name().to_owned(),
            outcome => outcome.name().to_owned(),
        };
        for routed in decisions.notices_of(decision) {
            let notice = self.shard.notice(decision, routed);
            told.push_str(&format!(" {}/{}", notice.guardian, notice.channel));
            if let Some(order) = &notice.order {
                told.push_str(&format!("/{order}"));
            }
            if routed.start == NoticeStart::Expired {
                told.push_str("/expired");
            }
        }
        told
    }

    /// The notices of a batch are named all at once; so they must be called as each alone.
    fn names_alike_alone_and_together(&self, decisions: &Decisions) {
        let mut room = NamingRoom::default();
        let together = self.shard.notices(decisions, &mut room).map(|(notice, _)| notice);
        let alone = decisions.taps.iter().flat_map(|decision| {
            decisions.notices_of(decision).iter().map(|routed| self.shard.notice(decision, routed))
        });
        assert!(together.eq(alone));
    }

    /// Decides each line on the left and compares with what is on its right.
    #[track_caller]
    pub(super) fn decides(&mut self, rows: &[(&str, &str)]) {
        for (tap, expected) in rows {
            assert_eq!(self.tap(tap), *expected, "{tap}");
        }
    }
}

fn received_of(line: &str) -> Timestamp {
    let own = line.split_whitespace().next().unwrap();
    let received = line.split_whitespace().find_map(|word| word.strip_prefix("received="));
    instant(received.unwrap_or(own))
}

fn json_of(line: &str) -> String {
    let mut words = line.split_whitespace();
    let at = instant(words.next().unwrap()).as_millis();
    let (mut card, mut reader, mut dir) = ("C1", "R-both", String::new());
    for word in words {
        match word {
            "in" | "out" => dir = format!(r#","dir":"{word}""#),
            _ if word.starts_with("received=") => {}
            _ if word.starts_with('C') => card = word,
            _ => reader = word,
        }
    }
    format!(r#"{{"card":"{card}","reader":"{reader}","at":{at}{dir}}}"#)
}
