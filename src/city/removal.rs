//! What a removal makes of an entry: nothing is deleted, as taps from before it may still be uploaded; what was in force
//! ends.

use gatebell_engine::registry::{Bond, CardHolder, Entry, Order, OrderState, SubscriptionLine};
use gatebell_engine::time::{Stretch, Timestamp};

/// `entry` once it is removed at `now`; `None` when nothing of it is left to remove. A protection is never removed by what
/// a city directory holds.
pub(crate) fn removed(entry: &Entry, now: Timestamp) -> Option<Entry> {
    let mut after = entry.clone();
    match &mut after {
        Entry::School(it) => mark(&mut it.removed, now)?,
        Entry::Reader(it) => mark(&mut it.removed, now)?,
        Entry::Pupil(it) => mark(&mut it.removed, now)?,
        Entry::Guardian(it) => mark(&mut it.removed, now)?,
        Entry::Card(it) => end_all(&mut it.holders, now)?,
        Entry::Binding(it) => end_all(&mut it.bonds, now)?,
        Entry::Subscription(it) => end_all(&mut it.lines, now)?,
        Entry::Order(it) => *it = cancelled(it, now)?,
        Entry::Day(it) => {
            it.rule.take()?;
        }
        Entry::Protection(_) => return None,
    }
    Some(after)
}

/// `order` once it is cancelled at `now`; `None` when it was over already. An approval that was still to come never was.
pub(crate) fn cancelled(order: &Order, now: Timestamp) -> Option<Order> {
    if order.state == OrderState::Cancelled
        && order.cancelled_at.is_some_and(|cancelled_at| cancelled_at <= now)
    {
        return None;
    }
    let approved_at = order.approved_at.filter(|approved_at| *approved_at <= now);
    Some(Order { state: OrderState::Cancelled, approved_at, cancelled_at: Some(now), ..order.clone() })
}

/// Whether `after` takes away what `before` still gives, by leaving rows out rather than by giving them an end.
pub(super) fn is_withdrawn(before: &Entry, after: &Entry, now: Timestamp) -> bool {
    let (Some(before), Some(after)) = (stretches(before), stretches(after)) else {
        return false;
    };
    let is_running = |stretch: &&Stretch| now < stretch.until;
    let mut running_before = before.iter().filter(is_running).peekable();
    running_before.peek().is_some()
        && !after.iter().any(|stretch| is_running(&stretch))
        && running_before.all(|stretch| !after.iter().any(|later| later.from == stretch.from))
}

fn stretches(entry: &Entry) -> Option<Vec<Stretch>> {
    match entry {
        Entry::Card(it) => Some(it.holders.iter().map(|holder| holder.stretch).collect()),
        Entry::Binding(it) => Some(it.bonds.iter().map(|bond| bond.stretch).collect()),
        Entry::Subscription(it) => Some(it.lines.iter().map(|line| line.stretch).collect()),
        _ => None,
    }
}

fn mark(removed: &mut Option<Timestamp>, now: Timestamp) -> Option<()> {
    if removed.is_some() {
        return None;
    }
    *removed = Some(now);
    Some(())
}

/// Something that holds for a stretch of time.
trait Lasting {
    fn stretch(&mut self) -> &mut Stretch;
}

impl Lasting for CardHolder {
    fn stretch(&mut self) -> &mut Stretch {
        &mut self.stretch
    }
}

impl Lasting for Bond {
    fn stretch(&mut self) -> &mut Stretch {
        &mut self.stretch
    }
}

impl Lasting for SubscriptionLine {
    fn stretch(&mut self) -> &mut Stretch {
        &mut self.stretch
    }
}

/// Ends what lasts beyond `now` and drops what would begin later; `None` when there is neither.
fn end_all<T: Lasting>(rows: &mut Vec<T>, now: Timestamp) -> Option<()> {
    if !rows.iter_mut().any(|row| now < row.stretch().until) {
        return None;
    }
    rows.retain_mut(|row| row.stretch().from < now);
    for row in rows {
        let stretch = row.stretch();
        stretch.until = stretch.until.min(now);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::sample_entries::{card, stamped_order};
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn held(stretches: &[(i64, i64)]) -> Entry {
        let holders: Vec<_> = stretches.iter().map(|(from, until)| ("P1", *from, *until)).collect();
        card("04AA", &holders)
    }

    #[test]
    fn a_removed_card_keeps_what_was_and_loses_what_is_to_come() {
        let after = removed(&held(&[(0, 500), (500, i64::MAX), (i64::MAX - 1, i64::MAX)]), NOW);
        assert_eq!(after, Some(held(&[(0, 500), (500, 1_000)])));
        assert_eq!(removed(&held(&[(0, 500), (500, 1_000)]), NOW), None);
    }

    #[test]
    fn a_removed_order_is_cancelled_now() {
        use OrderState::{Approved, Cancelled, Ordered};
        for (before, after) in [
            (stamped_order(Ordered, None, None), Some(stamped_order(Cancelled, None, Some(1_000)))),
            (stamped_order(Approved, Some(10), None), Some(stamped_order(Cancelled, Some(10), Some(1_000)))),
            (stamped_order(Approved, Some(2_000), None), Some(stamped_order(Cancelled, None, Some(1_000)))),
            (stamped_order(Cancelled, Some(10), Some(900)), None),
            (
                stamped_order(Cancelled, Some(10), Some(3_000)),
                Some(stamped_order(Cancelled, Some(10), Some(1_000))),
            ),
        ] {
            assert_eq!(cancelled(&before, NOW), after, "{before:?}");
        }
    }

    #[test]
    fn rows_that_are_left_out_are_withdrawn_and_rows_that_end_are_not() {
        let before = held(&[(0, 500), (500, i64::MAX)]);
        for (after, expected) in [
            (held(&[(0, 500)]), true),
            (held(&[(0, 500), (500, 900)]), false),
            (held(&[(0, 500), (500, i64::MAX)]), false),
            (held(&[(700, i64::MAX)]), false),
        ] {
            assert_eq!(is_withdrawn(&before, &after, NOW), expected, "{after:?}");
        }
        assert!(!is_withdrawn(&held(&[(0, 500)]), &held(&[]), NOW));
    }
}
