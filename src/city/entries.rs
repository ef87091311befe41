//! Rows without mistakes as registry entries: the rows of one key become one entry.
//!
//! The stretches within an entry are sorted, so that the same rows in another order make the same entry.

use gatebell_engine::registry::{Binding, Card, Entry, Subscription};

use super::rows::{CityRows, Line};

/// One entry a key, in the order in which they refer to each other.
pub(super) fn of(rows: CityRows) -> Vec<Entry> {
    let mut entries = Vec::new();
    entries.extend(rows.schools.into_iter().map(|row| Entry::School(row.it)));
    entries.extend(rows.readers.into_iter().map(|row| Entry::Reader(row.it)));
    entries.extend(rows.pupils.into_iter().map(|row| Entry::Pupil(row.it)));

    let mut cards = without_lines(rows.cards);
    cards.sort_unstable_by(|a, b| (a.card, &a.holder).cmp(&(b.card, &b.holder)));
    entries.extend(cards.chunk_by(|a, b| a.card == b.card).filter_map(|rows| {
        let card = rows.first()?.card;
        Some(Entry::Card(Card { card, holders: rows.iter().map(|row| row.holder.clone()).collect() }))
    }));

    entries.extend(rows.guardians.into_iter().map(|row| Entry::Guardian(row.it)));

    let mut bindings = without_lines(rows.bindings);
    bindings.sort_unstable_by(|a, b| (&a.guardian, &a.pupil, &a.bond).cmp(&(&b.guardian, &b.pupil, &b.bond)));
    entries.extend(bindings.chunk_by(|a, b| (&a.guardian, &a.pupil) == (&b.guardian, &b.pupil)).filter_map(
        |rows| {
            let first = rows.first()?;
            let bonds = rows.iter().map(|row| row.bond.clone()).collect();
            Some(Entry::Binding(Binding {
                guardian: first.guardian.clone(),
                pupil: first.pupil.clone(),
                bonds,
            }))
        },
    ));

    let mut subscriptions = without_lines(rows.subscriptions);
    let key = |row: &super::rows::SubscriptionRow| (row.guardian.clone(), row.pupil.clone(), row.channel);
    subscriptions.sort_unstable_by(|a, b| {
        (&a.guardian, &a.pupil, a.channel, &a.includes).cmp(&(&b.guardian, &b.pupil, b.channel, &b.includes))
    });
    entries.extend(subscriptions.chunk_by(|a, b| key(a) == key(b)).filter_map(|rows| {
        let (guardian, pupil, channel) = key(rows.first()?);
        let mut lines: Vec<_> = rows.iter().map(|row| row.includes.clone()).collect();
        lines.dedup();
        Some(Entry::Subscription(Subscription { guardian, pupil, channel, lines }))
    }));

    entries.extend(rows.orders.into_iter().map(|row| Entry::Order(row.it)));
    entries.extend(rows.days.into_iter().map(|row| Entry::Day(row.it)));
    entries
}

fn without_lines<T>(rows: Vec<Line<T>>) -> Vec<T> {
    rows.into_iter().map(|row| row.it).collect()
}
