//! Counts what the seeds reached, all together: a fault that never happened, or a branch of recovery that no run took, was
//! not tested.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::testing::fakes::{Arrival, Handover};

use crate::Played;
use crate::judge::by_notice;
use crate::world::{DayKind, SUBMIT_TIMEOUT, World};

/// Seeds that must reach everything there is.
pub const LONG_RUN_SEEDS: u64 = 1000;
/// Seeds that must reach all but what is rare.
const ORDINARY_RUN_SEEDS: u64 = 200;

/// What must be reached by an ordinary run, and with it by every longer one.
const ORDINARY: &[&str] = &[
    // Days.
    "days at midnight",
    "days declared off",
    "days of several processes",
    "day declared off",
    "clock set back",
    "clock set forward",
    "late uploads",
    "reports twice in the log",
    "reports uploaded again",
    "taps again to be sure",
    "registry changed: binding",
    "registry changed: card",
    "registry changed: day",
    "registry changed: guardian",
    "registry changed: order",
    "registry changed: protection",
    "registry changed: reader",
    "registry changed: subscription",
    // Processes and partitions.
    "asleep in mid-submit",
    "clean stops",
    "commits",
    "commits refused",
    "crashes",
    "cut off from a port",
    "naps",
    "partitions lost while in hand",
    "partitions revoked",
    "partitions that came back",
    "processes given up",
    "rebalances while lanes are full",
    "handed over with requests on the wire",
    // Ports.
    "ledger: away",
    "ledger: done, and answered a time-out",
    "ledger: refused",
    "ledger: torn in a charge",
    "ledger: torn in a claim",
    "ledger: torn in an advance",
    "ledger: torn in an append",
    "message ids: refused",
    "receipts: away",
    "receipts: refused",
    "receipts: done, and answered a time-out",
    "registry: away",
    "registry: refused",
    "rejected log: refused",
    "seats: away",
    "seats: refused",
    "seats: done, and answered a time-out",
    "tap log: away",
    "tap log: done, and answered a time-out",
    "tap log: refused",
    "lanes held for the assignment",
    "lanes held for the registry",
    "lanes held for the seat",
    "seats all taken",
    "seats that lapsed under a living process",
    // Gateways and receipts.
    "gateway answers for some of a batch",
    "gateway cannot be reached",
    "gateway has a passing trouble",
    "gateway refuses",
    "gateway takes its time",
    "gateway takes nothing",
    "gateway throttles",
    "gateway took it and answers rubbish",
    "gateway took it and hangs",
    "gateway took nothing and answers rubbish",
    "gateway took nothing and hangs",
    "receipts ahead of the answer",
    "receipts learnt by asking",
    "receipts parked until their message id is known",
    "receipts placed by their message id",
    "receipts sent twice",
    "receipts that came after everybody had given up",
    "receipts that contradict each other",
    "receipts that do not come by themselves",
    "receipts mismatched",
    "receipts parked",
    "receipts unmatched",
    "parked receipts given up or settled",
    // Recovery.
    "claims lost before their outcome",
    "claims for a next attempt",
    "claims found in doubt",
    "claims found to be one's own",
    "claims held for another notice",
    "claims taken over",
    "doubt ended by a receipt",
    "doubt until the deadline",
    "ledger entries loaded",
    "records folded",
    "records read again",
    "references recognised",
    // Ends.
    "accepted",
    "attempts after the first",
    "charged",
    "delivered",
    "ends overturned by proof",
    "expired",
    "failed",
    "failed: no receipt",
    "suppressed: no address",
    "suppressed: protected",
    "suppressed: sent elsewhere",
    "suppressed: unbound",
];

/// What is rare, and must be reached by a long run.
const RARE: &[&str] = &[
    "claims found submitted",
    "drained before handing over",
    "recovered from the midnight of a day before",
    "rejected log: away",
];

/// How often each thing was reached.
#[derive(Clone, Default, Debug)]
pub struct Coverage {
    reached: BTreeMap<Cow<'static, str>, u64>,
}

impl Coverage {
    /// Adds what one day reached.
    pub fn add(&mut self, played: &Played) {
        let Played { world, outcome, counters, .. } = played;
        for (what, count) in world.journal.tally() {
            *self.reached.entry(what).or_default() += count;
        }
        for (status, count) in counters.by_label("gatebell_receipts_total", "status") {
            *self.reached.entry(format!("receipts {status}").into()).or_default() += count;
        }
        let group = world.tap_log.tally();
        self.count("days at midnight", usize::from(world.kind == DayKind::Midnight));
        self.count("days declared off", usize::from(world.kind == DayKind::DeclaredOff));
        self.count("days of several processes", usize::from(world.processes > 1));
        self.count("crashes", outcome.crashes as usize);
        self.count("clean stops", outcome.stops as usize);
        self.count("naps", usize::try_from(outcome.naps).unwrap_or(usize::MAX));
        self.count("cut off from a port", outcome.cut_offs as usize);
        self.count("partitions revoked", group.revoked);
        self.count("partitions that came back", group.came_back);
        self.count("processes given up", group.given_up);
        self.count("commits refused", group.commits_refused);
        self.count("commits", world.tap_log.commits().len());
        self.count_handovers(world);
        self.count_ends(world);
    }

    fn count(&mut self, what: &'static str, times: usize) {
        if times > 0 {
            *self.reached.entry(what.into()).or_default() += times as u64;
        }
    }

    fn count_ends(&mut self, world: &World) {
        let entries = world.ledger.entries();
        let event = |event: Event| entries.iter().filter(|entry| entry.event == event).count();
        let reason =
            |reason: &str| entries.iter().filter(|entry| entry.reason.as_deref() == Some(reason)).count();
        for (what, count) in [
            ("delivered", event(Event::Delivered)),
            ("accepted", event(Event::Accepted)),
            ("failed", event(Event::Failed)),
            ("expired", event(Event::Expired)),
            ("charged", event(Event::Charged)),
            ("attempts after the first", entries.iter().filter(|entry| entry.attempt > 1).count()),
            ("failed: no receipt", reason("no_receipt")),
            ("doubt until the deadline", reason("unknown")),
            ("suppressed: protected", reason("protected")),
            ("suppressed: unbound", reason("unbound")),
            ("suppressed: no address", reason("no_address")),
            ("suppressed: sent elsewhere", reason("sent_elsewhere")),
        ] {
            self.count(what, count);
        }
        let grouped = by_notice(&entries);
        let of_notices = |is: fn(&[&LedgerEntry]) -> bool| grouped.values().filter(|of| is(of)).count();
        let has = |of: &[&LedgerEntry], event: Event| of.iter().any(|entry| entry.event == event);
        let overturned = grouped
            .values()
            .filter(|of| has(of, Event::Delivered) && (has(of, Event::Failed) || has(of, Event::Expired)));
        self.count("ends overturned by proof", overturned.count());
        // Proof of a message whose submit nobody heard answered.
        let by_receipt = of_notices(|of| {
            of.iter().any(|entry| entry.event == Event::Delivered)
                && of.iter().all(|entry| !matches!(entry.event, Event::Submitted | Event::Accepted))
        });
        self.count("doubt ended by a receipt", by_receipt);
    }

    fn count_handovers(&mut self, world: &World) {
        let arrivals: Vec<Arrival> = world.sms.arrivals().into_iter().chain(world.app.arrivals()).collect();
        for handover in world.tap_log.handovers() {
            let on_the_wire: Vec<&Arrival> =
                arrivals.iter().filter(|arrival| was_on_the_wire(arrival, &handover)).collect();
            let Some(let_go_at) = handover.let_go_at.filter(|_| !on_the_wire.is_empty()) else { continue };
            let landed = |arrival: &&Arrival| arrival.over_at.is_some_and(|over_at| over_at <= let_go_at);
            let what = if on_the_wire.iter().all(landed) {
                "drained before handing over"
            } else {
                "handed over with requests on the wire"
            };
            self.count(what, 1);
        }
    }

    /// Adds what others reached.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.reached {
            *self.reached.entry(what.clone()).or_default() += count;
        }
    }

    /// What `seeds` seeds should have reached and did not: it was not tested.
    pub fn never_reached(&self, seeds: u64) -> Vec<&'static str> {
        let ordinary = if seeds >= ORDINARY_RUN_SEEDS { ORDINARY } else { &[] };
        let rare = if seeds >= LONG_RUN_SEEDS { RARE } else { &[] };
        ordinary.iter().chain(rare).copied().filter(|what| !self.reached.contains_key(*what)).collect()
    }
}

/// Whether a request of the process was unanswered when it was told to hand its partition over.
fn was_on_the_wire(arrival: &Arrival, handover: &Handover) -> bool {
    let waits_until: Duration = arrival.at + SUBMIT_TIMEOUT;
    Some(arrival.process) == handover.process
        && handover.partitions.contains(&arrival.message.position.partition)
        && arrival.at <= handover.told_at
        && arrival.over_at.unwrap_or(waits_until).min(waits_until) > handover.told_at
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reached.iter().try_for_each(|(what, count)| writeln!(f, "{what:>48}: {count}"))
    }
}
