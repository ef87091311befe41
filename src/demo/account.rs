//! The account of a morning: what was played, what the engine says, what the gateway simulator took and what the ledger
//! holds, each held against the others.
//!
//! The four come from different hands: the morning knows what it played without knowing the engine's rules, the simulator
//! keeps a log of its own, the ledger is read back from disk. Where they agree, nothing was lost, doubled or made up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use compact_str::CompactString;

use gatebell_engine::ids::NoticeId;
use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::notice::{Channel, Passage};
use gatebell_engine::recount::Difference;
use gatebell_engine::tap::{Outcome, RejectReason};
use gatebell_gateway_sim::{SimLog, TakenMessage};

use super::city::City;
use super::morning::Expected;
use super::page::{Check, Page, count};
use super::player::Played;

/// Everything that is held against everything else.
pub(crate) struct Account<'a> {
    pub(crate) city: &'a City,
    pub(crate) expected: &'a Expected,
    pub(crate) played: &'a Played,
    /// The engine's own counts.
    pub(crate) taps: &'a [(Outcome, u64)],
    /// The ledger, read back, in the order written.
    pub(crate) entries: &'a [LedgerEntry],
    /// The simulator's log.
    pub(crate) gateway: &'a SimLog,
    /// What the recount found.
    pub(crate) recount: &'a [Difference],
}

/// How one notice ended, by the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    channel: Channel,
    /// `None`: it has not ended.
    end: Option<Event>,
    reason: Option<CompactString>,
}

impl Ending {
    /// Whether the notice has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some()
    }
}

/// The end of each notice: the last one written, and delivered before all others (N1).
pub(crate) fn endings(entries: &[LedgerEntry]) -> BTreeMap<NoticeId, Ending> {
    let mut endings: BTreeMap<NoticeId, Ending> = BTreeMap::new();
    for entry in entries {
        let ending =
            endings.entry(entry.notice).or_insert(Ending { channel: entry.channel, end: None, reason: None });
        if entry.event.is_end() && ending.end != Some(Event::Delivered) {
            ending.end = Some(entry.event);
            ending.reason = entry.reason.clone();
        }
    }
    endings
}

impl Account<'_> {
    fn outcome(&self, wanted: Outcome) -> u64 {
        self.taps.iter().find(|(outcome, _)| *outcome == wanted).map_or(0, |(_, count)| *count)
    }

    /// What became of the taps, and whether it is what was played.
    pub(crate) fn taps(&self, page: &mut Page) -> Vec<Check> {
        let Expected { malformed, clock_ahead, stale, unknown_card, no_school, duplicate, .. } =
            *self.expected;
        let at_the_gate: u64 = self.played.rejected.values().sum();
        let rows = [
            ("arrival", Outcome::Passage(Passage::Arrival), self.expected.arrivals, "told to the guardians"),
            (
                "departure",
                Outcome::Passage(Passage::Departure),
                self.expected.departures,
                "left early: told at once",
            ),
            (
                "duplicate",
                Outcome::Duplicate,
                duplicate,
                "tapped or read twice, or sent again by the network",
            ),
            ("unknown card", Outcome::UnknownCard, unknown_card, "visitors, and cards lost over the summer"),
            ("no school", Outcome::NoSchool, no_school, "one school opens later"),
            ("stale", Outcome::Stale, stale, "last Friday's, from a reader that was off"),
            (
                "clock ahead",
                Outcome::Rejected(RejectReason::ClockAhead),
                clock_ahead,
                "a reader dated tomorrow",
            ),
        ];
        let mut checks = Vec::new();
        let mut table = Vec::new();
        let mut together = at_the_gate;
        for (name, outcome, played, meaning) in rows {
            let found = self.outcome(outcome);
            together += found;
            table.push(vec![name.to_owned(), meaning.to_owned(), count(found)]);
            checks.push(Check::equal(format!("{name}: as played"), ("played", played), ("decided", found)));
        }
        table.push(vec![
            "malformed".to_owned(),
            "refused in the answer to the reader".to_owned(),
            count(at_the_gate),
        ]);
        checks.push(Check::equal("malformed: as played", ("played", malformed), ("refused", at_the_gate)));
        table.push(vec![
            "together".to_owned(),
            "as many as the readers reported".to_owned(),
            count(together),
        ]);
        page.table(2, table);
        let decided: u64 = self.taps.iter().map(|(_, count)| count).sum();
        vec![
            Check::equal(
                format!("every report was answered: {}", count(self.expected.sent)),
                ("reported", self.expected.sent),
                ("answered", self.played.accepted + at_the_gate),
            ),
            Check::equal(
                format!("every tap taken has one outcome: {}", count(decided)),
                ("taken", self.played.accepted),
                ("decided", decided),
            ),
            merged("every outcome is the one that was played", checks),
        ]
    }

    /// What became of the notices.
    pub(crate) fn notices(&self, page: &mut Page) -> Vec<Check> {
        let endings = endings(self.entries);
        let mut totals: BTreeMap<(Option<Event>, Option<CompactString>), BTreeMap<Channel, u64>> =
            BTreeMap::new();
        let mut owed: BTreeMap<Channel, u64> = BTreeMap::new();
        for ending in endings.values() {
            // Only of these is the reason a story of its own.
            let reason = ending.reason.clone().filter(|_| ending.end == Some(Event::Suppressed));
            *totals.entry((ending.end, reason)).or_default().entry(ending.channel).or_default() += 1;
            *owed.entry(ending.channel).or_default() += 1;
        }
        let mut table = vec![["", "", "app", "SMS"].map(str::to_owned).to_vec()];
        let mut row = |name: String, meaning: &str, by_channel: &BTreeMap<Channel, u64>| {
            let of = |channel| count(by_channel.get(&channel).copied().unwrap_or(0));
            table.push(vec![name, meaning.to_owned(), of(Channel::App), of(Channel::Sms)]);
        };
        for ((end, reason), by_channel) in &totals {
            let name = match (end, reason) {
                (None, _) => "no end".to_owned(),
                (Some(end), Some(reason)) => format!("{end}: {reason}"),
                (Some(end), None) => end.to_string(),
            };
            row(name, meaning(*end, reason.as_deref()), by_channel);
        }
        row("together".to_owned(), "as many as the families were owed", &owed);
        page.table(2, table);
        let open =
            endings.iter().filter(|(_, ending)| ending.end.is_none()).map(|(notice, _)| notice.to_string());
        let mut checks = vec![Check::none(
            format!("every notice has one end: {}", count(endings.len() as u64)),
            open.map(|notice| format!("no end: {notice}")),
        )];
        for (channel, name) in [(Channel::App, "app"), (Channel::Sms, "SMS")] {
            let expected = self.expected.notices.get(&channel).copied().unwrap_or(0);
            let made = owed.get(&channel).copied().unwrap_or(0);
            checks.push(Check::equal(
                format!("{name} notices are those that the families were owed: {}", count(made)),
                ("owed", expected),
                ("made", made),
            ));
        }
        checks
    }

    /// The simulator's log against the ledger, and the charges against both.
    pub(crate) fn books(&self) -> Vec<Check> {
        let owed = self.owed();
        let phones = self.phones();
        let taken = &self.gateway.messages;
        let in_log: BTreeSet<(String, String)> =
            taken.iter().map(|it| (notice_of(it).to_owned(), it.msgid.clone())).collect();
        // Of an attempt that was in doubt only the receipt may tell the gateway's id.
        let in_ledger: BTreeSet<(String, String)> = self
            .sms()
            .filter_map(|it| {
                Some((it.notice.to_string(), it.gateway_id.as_ref()?.trim_start_matches('#').to_owned()))
            })
            .collect();
        let notices = |event| self.of(event).map(|it| it.notice.to_string()).collect::<BTreeSet<_>>();
        let (proved, charged) = (notices(Event::Delivered), notices(Event::Charged));
        let delivered: BTreeSet<String> =
            taken.iter().filter(|it| it.is_delivered()).map(|it| notice_of(it).to_owned()).collect();
        let mut told = BTreeSet::new();
        let twice = taken
            .iter()
            .filter(|it| !told.insert(owed.get(notice_of(it)).map(|it| (&it.pupil, &it.guardian, it.kind))));
        let strange = taken.iter().filter(|it| {
            let guardian = owed.get(notice_of(it)).map(|entry| entry.guardian.as_str());
            guardian.and_then(|guardian| phones.get(guardian)) != Some(&it.dstaddr.as_str())
        });
        vec![
            Check::none(
                format!("the gateway's own log of {} messages is the ledger's", count(taken.len() as u64)),
                differing(&in_log, &in_ledger, ("only in the gateway's log", "only in the ledger")),
            ),
            Check::none(
                "each went to the phone of the guardian it was owed to",
                strange.map(|it| format!("another phone: message {}", it.msgid)),
            ),
            Check::none(
                "nobody was told the same twice by SMS",
                twice.map(|it| format!("a second one: message {}", it.msgid)),
            ),
            Check::none(
                format!(
                    "{} were delivered, and the ledger has proof of just these",
                    count(delivered.len() as u64)
                ),
                differing(&delivered, &proved, ("delivered without proof", "proof without delivery")),
            ),
            Check::none(
                format!("charged are just these: {} × NT$0.75", count(charged.len() as u64)),
                differing(&delivered, &charged, ("delivered, not charged", "charged, not delivered")),
            ),
            Check::none("the recount of the ledger finds no difference from the counters", self.recount),
        ]
    }

    fn of(&self, event: Event) -> impl Iterator<Item = &LedgerEntry> {
        self.sms().filter(move |entry| entry.event == event)
    }

    fn sms(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.entries.iter().filter(|entry| entry.channel == Channel::Sms)
    }

    /// What each SMS notice is about, by its id.
    fn owed(&self) -> BTreeMap<String, &LedgerEntry> {
        self.sms().map(|entry| (entry.notice.to_string(), entry)).collect()
    }

    /// Phones by guardian, from the city's lists.
    fn phones(&self) -> BTreeMap<&str, &str> {
        self.city.families.guardians.iter().map(|it| (it.code.as_str(), it.phone.as_str())).collect()
    }
}

/// What an end means, for somebody who reads it for the first time.
fn meaning(end: Option<Event>, reason: Option<&str>) -> &'static str {
    match (end, reason) {
        (Some(Event::Accepted), _) => "the app's push backend has it",
        (Some(Event::Delivered), _) => "a receipt proves that the phone has it",
        (Some(Event::Failed), _) => "refused, or not delivered: not charged",
        (Some(Event::Expired), _) => "too late to be of use: not sent, not charged",
        (Some(Event::Suppressed), Some("no_address")) => "no phone, no app on record",
        (Some(Event::Suppressed), _) => "may not be sent",
        _ => "",
    }
}

/// Many checks of one kind as one, with what differs.
fn merged(what: &str, checks: Vec<Check>) -> Check {
    let differing = checks.into_iter().filter(|check| !check.holds);
    Check::none(what, differing.map(|check| format!("{}: {}", check.what, check.found.join(", "))))
}

fn differing<'a, T: Ord + Debug>(
    these: &'a BTreeSet<T>,
    those: &'a BTreeSet<T>,
    (only_these, only_those): (&'a str, &'a str),
) -> impl Iterator<Item = String> + 'a {
    let first = these.difference(those).map(move |it| format!("{only_these}: {it:?}"));
    first.chain(those.difference(these).map(move |it| format!("{only_those}: {it:?}")))
}

/// The notice that a message is about, from our own reference: its first 32 characters.
fn notice_of(message: &TakenMessage) -> &str {
    message.clientid.get(..32).unwrap_or(&message.clientid)
}
