//! Counts what the seeds reached, all together: a fault that never happened, or a branch of recovery that no run took, was
//! not tested.

use std::collections::BTreeMap;
use std::fmt;

use gatebell_engine::ledger::Event;

use crate::Played;
use crate::judge::by_notice;

/// How often each thing was reached.
#[derive(Default)]
pub struct Coverage {
    reached: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Adds what one morning reached.
    pub fn add(&mut self, played: &Played) {
        let Played { world, outcome } = played;
        let entries = world.ledger.entries();
        let reason =
            |reason: &str| entries.iter().filter(|entry| entry.reason.as_deref() == Some(reason)).count();
        let event = |event: Event| entries.iter().filter(|entry| entry.event == event).count();
        let grouped = by_notice(&entries);
        let overturned = grouped
            .values()
            .filter(|entries| {
                entries.iter().any(|entry| matches!(entry.event, Event::Failed | Event::Expired))
                    && entries.iter().any(|entry| entry.event == Event::Delivered)
            })
            .count();
        let resent = world.sms.arrivals().len().saturating_sub(world.sms.taken().len());
        let group = world.tap_log.tally();
        let reached = [
            ("crashes", outcome.crashes as usize),
            ("clean stops", outcome.stops as usize),
            ("naps", usize::try_from(outcome.naps).unwrap_or(usize::MAX)),
            ("naps in mid-submit", outcome.naps_in_mid_submit as usize),
            ("cut off from the tap log", outcome.cut_offs as usize),
            ("mornings of several processes", usize::from(world.processes > 1)),
            ("partitions revoked", group.revoked),
            ("partitions that came back", group.came_back),
            ("processes given up", group.given_up),
            ("commits refused", group.commits_refused),
            ("commits", world.tap_log.commits().len()),
            ("SMS sent again or refused", resent),
            ("attempts after the first", entries.iter().filter(|entry| entry.attempt > 1).count()),
            ("delivered", event(Event::Delivered)),
            ("accepted", event(Event::Accepted)),
            ("failed", event(Event::Failed)),
            ("expired", event(Event::Expired)),
            ("charged", event(Event::Charged)),
            ("suppressed: protected", reason("protected")),
            ("suppressed: no address", reason("no_address")),
            ("suppressed: sent elsewhere", reason("sent_elsewhere")),
            ("in doubt until the end", reason("unknown")),
            ("ends overturned by proof", overturned),
        ];
        for (what, count) in reached {
            *self.reached.entry(what).or_default() += count as u64;
        }
    }

    /// What no seed reached: it was not tested.
    pub fn never_reached(&self) -> Vec<&'static str> {
        self.reached.iter().filter(|(_, count)| **count == 0).map(|(what, _)| *what).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reached.iter().try_for_each(|(what, count)| writeln!(f, "{what:>28}: {count}"))
    }
}
