//! What the rows of a city directory must not say of each other: overlapping stretches of one card or one binding, more
//! than two guardians of a pupil at once, two SMS orders that pay for the same message. And what is only worth a warning.

use std::collections::HashMap;

use gatebell_engine::ids::GuardianId;
use gatebell_engine::notice::{Channel, Passage};
use gatebell_engine::registry::{Guardian, Order};
use gatebell_engine::time::{Stretch, Timestamp};
use jiff::tz::TimeZone;

use super::findings::{Findings, quoted};
use super::rows::{BindingRow, CityRows, Line};
use super::table::{BINDINGS, CARDS, ORDERS, SUBSCRIPTIONS};

/// Guardians that a pupil may have at once (the binding guide for teachers).
const GUARDIANS_AT_ONCE_MAX: usize = 2;

/// Checks `rows` against each other.
pub(super) fn check(rows: &CityRows, zone: &TimeZone, now: Timestamp, findings: &mut Findings) {
    check_cards(rows, zone, findings);
    check_bindings(rows, zone, findings);
    check_guardians_at_once(rows, zone, findings);
    check_orders(rows, zone, findings);
    warn_of_missing_addresses(rows, now, findings);
}

/// The latest end seen so far among stretches that come in the order of their beginnings.
#[derive(Default)]
struct Reach {
    furthest: Option<(Timestamp, u64)>,
}

impl Reach {
    /// Takes the next stretch; the line of an earlier one that it overlaps, if any.
    fn take(&mut self, stretch: Stretch, line: u64) -> Option<u64> {
        let overlapped = self.furthest.filter(|(until, _)| stretch.from < *until).map(|(_, line)| line);
        if self.furthest.is_none_or(|(until, _)| until < stretch.until) {
            self.furthest = Some((stretch.until, line));
        }
        overlapped
    }
}

fn check_cards(rows: &CityRows, zone: &TimeZone, findings: &mut Findings) {
    let mut cards: Vec<&Line<_>> = rows.cards.iter().collect();
    cards.sort_unstable_by_key(|row| (row.it.card, row.it.holder.stretch.from, row.line));
    for same_card in cards.chunk_by(|a, b| a.it.card == b.it.card) {
        let mut reach = Reach::default();
        for row in same_card {
            let stretch = row.it.holder.stretch;
            if let Some(other) = reach.take(stretch, row.line) {
                let place = (CARDS.name, Some(row.line), Some("from"));
                let allowed = format!("stretches of one card that do not overlap (see line {other})");
                findings.mistake(place, shown(stretch, zone), allowed);
            }
        }
    }
}

fn check_bindings(rows: &CityRows, zone: &TimeZone, findings: &mut Findings) {
    let mut bindings: Vec<&Line<BindingRow>> = rows.bindings.iter().collect();
    bindings
        .sort_unstable_by_key(|row| (&row.it.guardian, &row.it.pupil, row.it.bond.stretch.from, row.line));
    for same_pair in bindings.chunk_by(|a, b| (&a.it.guardian, &a.it.pupil) == (&b.it.guardian, &b.it.pupil))
    {
        let mut reach = Reach::default();
        for row in same_pair {
            let stretch = row.it.bond.stretch;
            if let Some(other) = reach.take(stretch, row.line) {
                let place = (BINDINGS.name, Some(row.line), Some("from"));
                let allowed = format!("stretches of one binding that do not overlap (see line {other})");
                findings.mistake(place, shown(stretch, zone), allowed);
            }
        }
    }
}

fn check_guardians_at_once(rows: &CityRows, zone: &TimeZone, findings: &mut Findings) {
    let mut bindings: Vec<&Line<BindingRow>> = rows.bindings.iter().collect();
    bindings.sort_unstable_by_key(|row| (&row.it.pupil, row.it.bond.stretch.from, row.line));
    let mut bound: Vec<(&GuardianId, Timestamp)> = Vec::new();
    for same_pupil in bindings.chunk_by(|a, b| a.it.pupil == b.it.pupil) {
        bound.clear();
        for row in same_pupil {
            let stretch = row.it.bond.stretch;
            bound.retain(|(_, until)| stretch.from < *until);
            // An overlap of one binding is a mistake of its own; here it is one guardian.
            let known = bound.iter().position(|(guardian, _)| *guardian == &row.it.guardian);
            if let Some((_, until)) = known.and_then(|known| bound.get_mut(known)) {
                *until = stretch.until.max(*until);
            } else if bound.len() < GUARDIANS_AT_ONCE_MAX {
                bound.push((&row.it.guardian, stretch.until));
            } else {
                let found = format!(
                    "{} as one more guardian of {} {}",
                    quoted(row.it.guardian.as_str()),
                    quoted(row.it.pupil.as_str()),
                    shown(stretch, zone)
                );
                let allowed = format!("at most {GUARDIANS_AT_ONCE_MAX} guardians of a pupil at once");
                findings.mistake((BINDINGS.name, Some(row.line), Some("guardian")), found, allowed);
            }
        }
    }
}

fn check_orders(rows: &CityRows, zone: &TimeZone, findings: &mut Findings) {
    let mut orders: Vec<(&Line<Order>, Stretch)> = rows
        .orders
        .iter()
        .filter_map(|row| row.it.in_force().map(|stretch| (row, stretch)))
        .filter(|(_, stretch)| stretch.from < stretch.until)
        .collect();
    let pair = |row: &Line<Order>| (row.it.guardian.clone(), row.it.pupil.clone());
    orders.sort_unstable_by(|(a, in_force_a), (b, in_force_b)| {
        let order = (&a.it.guardian, &a.it.pupil).cmp(&(&b.it.guardian, &b.it.pupil));
        order.then((in_force_a.from, a.line).cmp(&(in_force_b.from, b.line)))
    });
    for same_pair in orders.chunk_by(|(a, _), (b, _)| pair(a) == pair(b)) {
        let mut arrivals = Reach::default();
        let mut departures = Reach::default();
        for (row, in_force) in same_pair {
            let mut overlapped = None;
            for (passage, reach) in [(Passage::Arrival, &mut arrivals), (Passage::Departure, &mut departures)]
            {
                if row.it.plan.include(passage) {
                    overlapped = overlapped.or(reach.take(*in_force, row.line));
                }
            }
            if let Some(other) = overlapped {
                let place = (ORDERS.name, Some(row.line), Some("approved_at"));
                let allowed = format!("one order in force at once for a kind of passage (see line {other})");
                findings.mistake(place, format!("an order in force {}", shown(*in_force, zone)), allowed);
            }
        }
    }
}

fn warn_of_missing_addresses(rows: &CityRows, now: Timestamp, findings: &mut Findings) {
    let guardians: HashMap<&GuardianId, &Guardian> =
        rows.guardians.iter().map(|row| (&row.it.guardian, &row.it)).collect();
    for row in &rows.subscriptions {
        let is_unreachable =
            guardians.get(&row.it.guardian).is_some_and(|guardian| guardian.app_token.is_empty());
        if row.it.channel == Channel::App && is_unreachable {
            let found =
                format!("an app subscription of {} without a token", quoted(row.it.guardian.as_str()));
            findings.warning(
                (SUBSCRIPTIONS.name, row.line, "channel"),
                found,
                "an app_token in guardians.csv",
            );
        }
    }
    for row in &rows.orders {
        let is_in_force =
            row.it.in_force().is_some_and(|stretch| stretch.from < stretch.until && now < stretch.until);
        let is_unreachable =
            guardians.get(&row.it.guardian).is_some_and(|guardian| guardian.phone.is_empty());
        if is_in_force && is_unreachable {
            let found = format!("an order in force of {} without a phone", quoted(row.it.guardian.as_str()));
            findings.warning((ORDERS.name, row.line, "guardian"), found, "a phone in guardians.csv");
        }
    }
}

/// A stretch in the city's time.
fn shown(stretch: Stretch, zone: &TimeZone) -> String {
    let local = |at: Timestamp| match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(instant) => instant.to_zoned(zone.clone()).datetime().to_string(),
        Err(_) => "the end of time".to_owned(),
    };
    match (stretch.from == Timestamp::MIN, stretch.until == Timestamp::MAX) {
        (true, true) => "since ever and for ever".to_owned(),
        (true, false) => format!("until {}", local(stretch.until)),
        (false, true) => format!("from {} on", local(stretch.from)),
        (false, false) => format!("from {} until {}", local(stretch.from), local(stretch.until)),
    }
}
