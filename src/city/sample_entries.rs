//! Entries for tests, with codes and no more than the test says.

#![allow(clippy::unwrap_used)]

use gatebell_engine::ids::{CardNumber, Personal};
use gatebell_engine::notice::Passages;
use gatebell_engine::registry::{Card, CardHolder, DayKind, DayRule, Entry, Order, OrderState, Pupil};
use gatebell_engine::time::{Stretch, Timestamp};

pub(super) fn pupil(id: &str, name: &str) -> Entry {
    Entry::Pupil(Pupil {
        pupil: id.parse().unwrap(),
        school: "S1".parse().unwrap(),
        class: "".into(),
        seat: "".into(),
        name: Personal::new(name),
        removed: None,
    })
}

/// A card with who held it from when until when, in milliseconds.
pub(super) fn card(number: &str, holders: &[(&str, i64, i64)]) -> Entry {
    let holders = holders
        .iter()
        .map(|(pupil, from, until)| CardHolder {
            pupil: pupil.parse().unwrap(),
            stretch: Stretch { from: Timestamp::from_millis(*from), until: Timestamp::from_millis(*until) },
        })
        .collect();
    Entry::Card(Card { card: CardNumber::new(number).unwrap(), holders })
}

/// An order that was approved, if it was, at 5 ms.
pub(super) fn order(state: OrderState) -> Entry {
    let approved_ms = (state == OrderState::Approved).then_some(5);
    Entry::Order(stamped_order(state, approved_ms, None))
}

pub(super) fn stamped_order(state: OrderState, approved_ms: Option<i64>, cancelled_ms: Option<i64>) -> Order {
    Order {
        order: "O1".parse().unwrap(),
        guardian: "G1".parse().unwrap(),
        pupil: "P1".parse().unwrap(),
        plan: Passages::Both,
        state,
        prepaid_dollars: 136,
        approved_at: approved_ms.map(Timestamp::from_millis),
        cancelled_at: cancelled_ms.map(Timestamp::from_millis),
    }
}

pub(super) fn day(rule: DayKind) -> Entry {
    let date = "2025-09-29".parse().unwrap();
    Entry::Day(DayRule { date, school: None, rule: Some(rule), name: "颱風停課".into() })
}
