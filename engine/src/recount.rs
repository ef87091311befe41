//! The recount: charges and counters derived again from the ledger's entries alone, and where the books
//! differ (B2).
//!
//! Owns the rule of what a charge is: an SMS of a passage, under an order, that has proof of delivery: a
//! `delivered` entry, or an `accepted` one (written only where the gateway gives no receipts). What arrived
//! after its bill was frozen has an `adjusted` entry instead of a `charged` one and counts for no counter.
//! Entries may be handed over a day at a time, so that a term's recount needs the memory of one day.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use compact_str::CompactString;

use crate::ids::{GuardianId, OrderId, PupilId};
use crate::invariants::predicates;
use crate::ledger::{Event, LedgerEntry};
use crate::notice::{Channel, NoticeKind};
use crate::ports::ledger::Counter;
use crate::time::Day;

/// What a charge is booked under: at most one a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChargeKey {
    /// The term's name.
    pub term: CompactString,
    /// About whom.
    pub pupil: PupilId,
    /// Who pays.
    pub guardian: GuardianId,
    /// Under which order.
    pub order: OrderId,
    /// The civil day.
    pub day: Day,
    /// Arrival or departure.
    pub kind: NoticeKind,
}

impl fmt::Display for ChargeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { term, pupil, guardian, order, day, kind } = self;
        write!(f, "term {term} order {order} pupil {pupil} guardian {guardian} {day} {kind}")
    }
}

/// A charge as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BookedCharge {
    /// Its key.
    pub key: ChargeKey,
    /// Whether it came after its bill was frozen, and so counts for no counter.
    pub adjusted: bool,
}

/// Something in the books that the ledger does not bear out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Difference {
    /// Delivery is proved, and nothing was booked.
    NotBooked(ChargeKey),
    /// Something was booked, and nothing proves delivery.
    NotProved(ChargeKey),
    /// Booked and proved, but the ledger has no `charged` or `adjusted` entry that says so.
    NotEntered(ChargeKey),
    /// Booked as a charge where the ledger says adjusted, or the other way round.
    WrongSide(ChargeKey),
    /// A counter is not the number of its charges.
    Counter {
        /// The counter's term.
        term: CompactString,
        /// About whom.
        pupil: PupilId,
        /// Who pays.
        guardian: GuardianId,
        /// Under which order.
        order: OrderId,
        /// What the counter says.
        stored: u64,
        /// What the ledger says.
        derived: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBooked(key) => write!(f, "{key}: delivery is proved but no charge is booked"),
            Self::NotProved(key) => write!(f, "{key}: a charge is booked but nothing proves delivery"),
            Self::NotEntered(key) => write!(f, "{key}: a charge is booked without its entry in the ledger"),
            Self::WrongSide(key) => {
                write!(f, "{key}: charged and adjusted are mixed up between books and ledger")
            }
            Self::Counter { term, pupil, guardian, order, stored, derived } => write!(
                f,
                "term {term} order {order} pupil {pupil} guardian {guardian}: the counter says {stored}, the ledger {derived}"
            ),
        }
    }
}

/// What the ledger says of one charge key.
#[derive(Default)]
struct Evidence {
    proved: bool,
    charged: bool,
    adjusted: bool,
}

impl Evidence {
    /// Whether it came after its bill was frozen, and so counts for no counter.
    fn only_adjusted(&self) -> bool {
        self.adjusted && !self.charged
    }
}

type CounterKey = (CompactString, PupilId, GuardianId, OrderId);

/// A recount under way.
#[derive(Default)]
pub struct Recount {
    delivered: BTreeMap<CounterKey, u64>,
    differences: Vec<Difference>,
}

impl Recount {
    /// A recount of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares entries with the charges booked. Both must be complete for the days they are of: all entries
    /// of a day (which belongs to `term`) and all its charges come in the same call. Entries that cost
    /// nothing may be left out.
    pub fn add(&mut self, term: &str, entries: &[LedgerEntry], booked: &[BookedCharge]) {
        let evidence = evidence(term, entries);
        let booked_keys: BTreeSet<&ChargeKey> = booked.iter().map(|charge| &charge.key).collect();
        for charge in booked {
            self.differences.extend(judge(charge, evidence.get(&charge.key)));
        }
        for (key, found) in evidence {
            if found.proved && !found.only_adjusted() {
                let ChargeKey { term, pupil, guardian, order, .. } = key.clone();
                *self.delivered.entry((term, pupil, guardian, order)).or_default() += 1;
            }
            if booked_keys.contains(&key) {
                continue;
            }
            self.differences.push(if found.proved {
                Difference::NotBooked(key)
            } else {
                Difference::NotProved(key)
            });
        }
    }

    /// Compares the counters with what was added; every difference found, sorted.
    pub fn finish(self, counters: &[Counter]) -> Vec<Difference> {
        let mut delivered = self.delivered;
        let mut differences = self.differences;
        for counter in counters {
            let Counter { term, pupil, guardian, order, delivered: stored } = counter.clone();
            let key = (term, pupil, guardian, order);
            let derived = delivered.remove(&key).unwrap_or(0);
            if !predicates::counter_is_recount(stored, derived) {
                differences.push(counter_difference(key, stored, derived));
            }
        }
        differences.extend(delivered.into_iter().map(|(key, derived)| counter_difference(key, 0, derived)));
        differences.sort();
        differences
    }
}

/// The recount of a whole term at once.
pub fn recount(
    term: &str,
    entries: &[LedgerEntry],
    booked: &[BookedCharge],
    counters: &[Counter],
) -> Vec<Difference> {
    let mut recount = Recount::new();
    recount.add(term, entries, booked);
    recount.finish(counters)
}

/// Whether the entry proves that an SMS was delivered.
pub fn is_proof(entry: &LedgerEntry) -> bool {
    entry.channel == Channel::Sms && matches!(entry.event, Event::Delivered | Event::Accepted)
}

fn evidence(term: &str, entries: &[LedgerEntry]) -> BTreeMap<ChargeKey, Evidence> {
    let mut evidence: BTreeMap<ChargeKey, Evidence> = BTreeMap::new();
    for entry in entries {
        let Some(order) = entry.order.as_ref().filter(|_| entry.kind.is_charged()) else { continue };
        let proves = is_proof(entry);
        if !proves && !matches!(entry.event, Event::Charged | Event::Adjusted) {
            continue;
        }
        let key = ChargeKey {
            term: CompactString::new(term),
            pupil: entry.pupil.clone(),
            guardian: entry.guardian.clone(),
            order: order.clone(),
            day: entry.day,
            kind: entry.kind,
        };
        let found = evidence.entry(key).or_default();
        found.proved |= proves;
        found.charged |= entry.event == Event::Charged;
        found.adjusted |= entry.event == Event::Adjusted;
    }
    evidence
}

fn judge(charge: &BookedCharge, evidence: Option<&Evidence>) -> Option<Difference> {
    let key = charge.key.clone();
    let Some(found) = evidence.filter(|found| found.proved) else { return Some(Difference::NotProved(key)) };
    if !found.charged && !found.adjusted {
        return Some(Difference::NotEntered(key));
    }
    (charge.adjusted != found.only_adjusted()).then_some(Difference::WrongSide(key))
}

fn counter_difference(key: CounterKey, stored: u64, derived: u64) -> Difference {
    let (term, pupil, guardian, order) = key;
    Difference::Counter { term, pupil, guardian, order, stored, derived }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ids::{LogPosition, NoticeId};
    use crate::time::Timestamp;

    const TERM: &str = "114-1";

    fn entry(number: u64, event: Event) -> LedgerEntry {
        LedgerEntry {
            notice: NoticeId::from_u128(number.into()),
            position: LogPosition { partition: 0, offset: number },
            pupil: PupilId::new("P1").unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            channel: Channel::Sms,
            kind: NoticeKind::Arrival,
            day: Day::from_epoch_days(20_000 + i32::try_from(number).unwrap()),
            at: Timestamp::from_millis(0),
            event,
            time: Timestamp::from_millis(0),
            attempt: 1,
            order: Some(OrderId::new("O1").unwrap()),
            gateway: None,
            gateway_id: None,
            reason: None,
        }
    }

    fn booked(number: u64, adjusted: bool) -> BookedCharge {
        let LedgerEntry { pupil, guardian, order, day, kind, .. } = entry(number, Event::Charged);
        let key =
            ChargeKey { term: CompactString::new(TERM), pupil, guardian, order: order.unwrap(), day, kind };
        BookedCharge { key, adjusted }
    }

    fn counter(delivered: u64) -> Counter {
        let ChargeKey { term, pupil, guardian, order, .. } = booked(0, false).key;
        Counter { term, pupil, guardian, order, delivered }
    }

    #[test]
    fn proved_and_booked_messages_make_no_difference() {
        use Event::{Accepted, Adjusted, Charged, Claimed, Delivered, Expired, Failed, Submitted};
        let cases: [(&str, &[Event], bool, u64); 5] = [
            ("by receipt", &[Claimed, Submitted, Delivered, Charged], false, 1),
            ("where no receipts come", &[Claimed, Accepted, Charged], false, 1),
            ("a late receipt overturns failed", &[Claimed, Failed, Delivered, Charged], false, 1),
            ("and expired", &[Expired, Delivered, Charged], false, 1),
            ("after the bill was frozen", &[Claimed, Submitted, Delivered, Adjusted], true, 0),
        ];
        for (case, events, adjusted, delivered) in cases {
            let entries: Vec<_> = events.iter().map(|event| entry(0, *event)).collect();
            let counters = if delivered == 0 { vec![] } else { vec![counter(delivered)] };
            assert_eq!(recount(TERM, &entries, &[booked(0, adjusted)], &counters), [], "{case}");
        }
    }

    #[test]
    fn what_costs_nothing_is_not_counted() {
        let mut free = entry(0, Event::Delivered);
        free.channel = Channel::App;
        let mut absence = entry(1, Event::Delivered);
        absence.kind = NoticeKind::Absence;
        let mut emergency = entry(2, Event::Delivered);
        (emergency.kind, emergency.order) = (NoticeKind::Emergency, None);
        let unproved = entry(3, Event::Submitted);
        assert_eq!(recount(TERM, &[free, absence, emergency, unproved], &[], &[]), []);
    }

    #[test]
    fn two_messages_under_one_key_are_one_charge() {
        let mut twin = entry(0, Event::Delivered);
        twin.notice = NoticeId::from_u128(99);
        let entries = [entry(0, Event::Delivered), entry(0, Event::Charged), twin];
        assert_eq!(recount(TERM, &entries, &[booked(0, false)], &[counter(1)]), []);
    }

    #[test]
    fn each_way_to_differ_is_told() {
        let key = booked(0, false).key;
        let counted = |stored, derived| {
            counter_difference(
                (key.term.clone(), key.pupil.clone(), key.guardian.clone(), key.order.clone()),
                stored,
                derived,
            )
        };
        let proved = [entry(0, Event::Delivered), entry(0, Event::Charged)];
        let cases = [
            (
                "proof only",
                vec![entry(0, Event::Delivered)],
                vec![],
                vec![counter(1)],
                vec![Difference::NotBooked(key.clone())],
            ),
            ("books only", vec![], vec![booked(0, false)], vec![], vec![Difference::NotProved(key.clone())]),
            (
                "a charged entry only",
                vec![entry(0, Event::Charged)],
                vec![],
                vec![],
                vec![Difference::NotProved(key.clone())],
            ),
            (
                "no entry",
                vec![entry(0, Event::Delivered)],
                vec![booked(0, false)],
                vec![counter(1)],
                vec![Difference::NotEntered(key.clone())],
            ),
            (
                "mixed up",
                proved.to_vec(),
                vec![booked(0, true)],
                vec![counter(1)],
                vec![Difference::WrongSide(key.clone())],
            ),
            (
                "a counter too high",
                proved.to_vec(),
                vec![booked(0, false)],
                vec![counter(2)],
                vec![counted(2, 1)],
            ),
            ("no counter", proved.to_vec(), vec![booked(0, false)], vec![], vec![counted(0, 1)]),
            ("a counter of nothing", vec![], vec![], vec![counter(3)], vec![counted(3, 0)]),
        ];
        for (case, entries, charges, counters, expected) in cases {
            assert_eq!(recount(TERM, &entries, &charges, &counters), expected, "{case}");
        }
    }

    #[test]
    fn a_term_handed_over_day_by_day_counts_as_at_once() {
        let mut by_day = Recount::new();
        for number in 0..5 {
            by_day.add(
                TERM,
                &[entry(number, Event::Delivered), entry(number, Event::Charged)],
                &[booked(number, false)],
            );
        }
        assert_eq!(by_day.finish(&[counter(5)]), []);
    }
}
