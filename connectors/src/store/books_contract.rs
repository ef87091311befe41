//! What every [`Books`] promises, as tests.
//!
//! Each takes a stage: a ledger to write with and the books of the same store. A stage's term, pupil, order and days are
//! its own, so that stages may share a store.

use std::any::Any;
use std::sync::Arc;

use compact_str::CompactString;
use futures::StreamExt;
use gatebell_engine::billing::BillLine;
use gatebell_engine::ids::{GuardianId, OrderId, PupilId, SchoolId};
use gatebell_engine::ledger::{Charge, Event, LedgerEntry};
use gatebell_engine::money::Dollars;
use gatebell_engine::notice::Passages;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::{ChargeVerdict, Ledger};
use gatebell_engine::recount::Difference;
use gatebell_engine::registry::OrderState;
use gatebell_engine::testing::contract::ledger::entry;
use gatebell_engine::time::{Day, Timestamp};
use tokio::sync::Notify;

use super::books::{Books, ClosedTerm, Closing, Signature, TermBooks};

/// Runs the books' contract: a module of tests, one an obligation, each on a stage of its own, which the async function
/// `$fresh` sets.
macro_rules! books_contract {
    ($module:ident, $fresh:path) => {
        crate::store::books_contract::books_contract!(@tests $module, $fresh,
            entries_of_days_come_each_notices_in_the_order_written
            a_pupil_is_looked_up_over_days
            counters_equal_the_recount_whatever_is_repeated
            a_delivery_that_was_not_booked_is_found
            what_is_delivered_after_a_line_is_frozen_is_adjusted_and_counted_nowhere
            a_frozen_line_is_never_written_again
            a_closed_term_adjusts_every_order_and_closing_again_changes_nothing
            closing_counts_what_was_delivered_before_and_keeps_earlier_lines
            another_term_is_not_touched
            a_charge_is_in_the_frozen_line_or_adjusted_and_never_both_or_neither
        );
    };
    (@tests $module:ident, $fresh:path, $($obligation:ident)+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $obligation() {
                    crate::store::books_contract::$obligation($fresh().await).await;
                }
            )+
        }
    };
}
pub(crate) use books_contract;

/// A ledger and the books of the same store, and what the stage alone uses in them.
pub(crate) struct Stage {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) books: Arc<dyn Books>,
    pub(crate) term: CompactString,
    pub(crate) pupil: PupilId,
    pub(crate) order: OrderId,
    pub(crate) first_day: Day,
    /// Whatever has to live as long.
    pub(crate) _keep: Box<dyn Any + Send>,
}

impl Stage {
    fn day(&self, number: i32) -> Day {
        Day::from_epoch_days(self.first_day.epoch_days() + number)
    }

    /// What happened to the notice of that number, `step_ms` after its tap, on day `day` of the stage.
    fn entry(&self, day: i32, number: u64, event: Event, step_ms: i64) -> LedgerEntry {
        let day = self.day(day);
        let at = Timestamp::from_millis(i64::from(day.epoch_days()) * 86_400_000);
        LedgerEntry {
            pupil: self.pupil.clone(),
            order: Some(self.order.clone()),
            day,
            at,
            time: Timestamp::from_millis(at.as_millis() + step_ms),
            ..entry(number, event, 0)
        }
    }

    /// The charge of a day's arrival.
    fn charge(&self, day: i32) -> Charge {
        let proof = self.entry(day, u64::try_from(day).expect("days count from 0"), Event::Delivered, 5_000);
        Charge {
            term: self.term.clone(),
            pupil: self.pupil.clone(),
            guardian: proof.guardian.clone(),
            order: self.order.clone(),
            day: proof.day,
            kind: proof.kind,
            proof,
        }
    }

    async fn append(&self, entries: Vec<LedgerEntry>) {
        self.ledger.append(entries).await.expect("entries are appended");
    }

    pub(crate) async fn deliver(&self, day: i32) -> ChargeVerdict {
        self.append(vec![self.charge(day).proof]).await;
        self.ledger.charge(self.charge(day)).await.expect("the charge is booked")
    }

    async fn last_event(&self, day: i32) -> Event {
        let proof = self.charge(day).proof;
        let entries = self.ledger.entries_of(proof.position, proof.notice).await.expect("entries are read");
        entries.last().expect("there are some").event
    }

    /// Asks the books, as commands do: on a thread that may block.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Books) -> Result<T, PortError> + Send + 'static,
    ) -> T {
        let books = Arc::clone(&self.books);
        let asking = tokio::task::spawn_blocking(move || question(&*books));
        asking.await.expect("the question is asked").expect("the books answer")
    }

    pub(crate) async fn term(&self) -> TermBooks {
        let term = self.term.clone();
        self.ask(move |books| books.term(&term)).await
    }

    async fn freeze(&self, fee: i64) -> usize {
        let (term, order, pupil) = (self.term.clone(), self.order.clone(), self.pupil.clone());
        self.ask(move |books| {
            books.freeze(&term, &signature(), &|term| vec![line_of(term, &order, &pupil, fee)])
        })
        .await
    }

    /// The differences about the stage's pupil.
    async fn recount(&self) -> Vec<Difference> {
        let term = self.term.clone();
        let mut differences = self.ask(move |books| books.recount(&term)).await;
        differences.retain(|difference| match difference {
            Difference::NotBooked(key)
            | Difference::NotProved(key)
            | Difference::NotEntered(key)
            | Difference::WrongSide(key) => key.pupil == self.pupil,
            Difference::Counter { pupil, .. } => *pupil == self.pupil,
        });
        differences
    }

    async fn entries(&self, first: i32, last: i32) -> Vec<LedgerEntry> {
        let days = self.day(first)..=self.day(last);
        let mut entries: Vec<LedgerEntry> = self.ask(move |books| books.entries(days)?.collect()).await;
        entries.retain(|entry| entry.pupil == self.pupil);
        // Stable: each notice's stay in their order.
        entries.sort_by_key(|entry| entry.position);
        entries
    }
}

pub(crate) fn signature() -> Signature {
    Signature { by: CompactString::new("cashier"), at: Timestamp::from_millis(7) }
}

/// A line of `order` with as many messages as the books have.
pub(crate) fn line_of(books: &TermBooks, order: &OrderId, pupil: &PupilId, fee: i64) -> BillLine {
    BillLine {
        order: order.clone(),
        school: SchoolId::new("353604").expect("of the allowed form"),
        pupil: pupil.clone(),
        guardian: GuardianId::new("G1").expect("of the allowed form"),
        plan: Passages::Both,
        state: OrderState::Cancelled,
        prepaid: Dollars(136),
        delivered: books.delivered.get(order).copied().unwrap_or(0),
        fee: Dollars(fee),
        waived: Dollars(0),
        refund: Dollars(-135),
    }
}

/// All of them, over more than a page, and those of no other day.
pub(crate) async fn entries_of_days_come_each_notices_in_the_order_written(stage: Stage) {
    const NOTICES_A_DAY: u64 = 1_500;
    let day = |number: u64| i32::try_from(number / NOTICES_A_DAY).expect("a few days");
    let mut all = Vec::new();
    for (event, step_ms) in [(Event::Submitted, 10), (Event::Delivered, 20)] {
        let happened: Vec<_> =
            (0..3 * NOTICES_A_DAY).map(|number| stage.entry(day(number), number, event, step_ms)).collect();
        stage.append(happened.clone()).await;
        all.extend(happened);
    }
    all.sort_by_key(|entry| entry.position);
    assert!(stage.entries(0, 2).await == all, "9000 entries come back as they were written");
    all.retain(|entry| entry.day == stage.day(1));
    assert!(stage.entries(1, 1).await == all, "3000 entries come back as they were written");
    assert_eq!(stage.entries(3, 400).await, []);
}

/// Over days, and nobody else.
pub(crate) async fn a_pupil_is_looked_up_over_days(stage: Stage) {
    let mut sibling = stage.entry(1, 1, Event::Accepted, 0);
    sibling.pupil = PupilId::new("P2").expect("of the allowed form");
    let outside = [stage.entry(0, 0, Event::Submitted, 0), stage.entry(60, 60, Event::Submitted, 0)];
    let inside = [
        stage.entry(1, 2, Event::Submitted, 0),
        stage.entry(1, 2, Event::Delivered, 900_000_000),
        stage.entry(59, 3, Event::Submitted, 0),
    ];
    let [early, late] = outside;
    let [submitted, delivered, next] = inside.clone();
    stage.append(vec![early, submitted, sibling, next, late]).await;
    stage.append(vec![delivered]).await;
    let (days, pupil) = (stage.day(1)..=stage.day(59), stage.pupil.clone());
    let mut found = stage.ask(move |books| books.entries_of_pupil(days, &pupil)).await;
    found.sort_by_key(|entry| entry.position);
    assert_eq!(found, inside);
}

/// Repeated proofs and charges count once.
pub(crate) async fn counters_equal_the_recount_whatever_is_repeated(stage: Stage) {
    for day in [1, 2, 3, 2, 1, 40] {
        assert_eq!(stage.deliver(day).await, ChargeVerdict::Charged);
    }
    assert_eq!(stage.recount().await, []);
    assert_eq!(stage.term().await.delivered[&stage.order], 4);
    let order = stage.order.clone();
    let counters = stage.ask(|books| books.counters()).await;
    let counters: Vec<_> = counters.iter().filter(|counter| counter.order == order).collect();
    assert_eq!(counters.len(), 1);
    assert_eq!((counters[0].delivered, &counters[0].term), (4, &stage.term));
}

/// A proof in the ledger with no charge beside it.
pub(crate) async fn a_delivery_that_was_not_booked_is_found(stage: Stage) {
    stage.deliver(1).await;
    stage.append(vec![stage.charge(2).proof]).await;
    let differences = stage.recount().await;
    assert!(
        matches!(
            &differences[..],
            [Difference::NotBooked(key), Difference::Counter { stored: 1, derived: 2, .. }]
                if key.day == stage.day(2) && key.term == stage.term
        ),
        "{differences:?}"
    );
}

/// And the first verdict stays.
pub(crate) async fn what_is_delivered_after_a_line_is_frozen_is_adjusted_and_counted_nowhere(stage: Stage) {
    assert_eq!(stage.deliver(1).await, ChargeVerdict::Charged);
    assert_eq!(stage.freeze(1).await, 1);
    assert_eq!(stage.deliver(2).await, ChargeVerdict::Adjusted);
    assert_eq!(stage.last_event(2).await, Event::Adjusted);
    assert_eq!(stage.deliver(1).await, ChargeVerdict::Charged, "the first verdict again");
    assert_eq!(stage.deliver(2).await, ChargeVerdict::Adjusted, "the first verdict again");

    let term = stage.term().await;
    assert_eq!(term.delivered[&stage.order], 1);
    let expected = line_of(&term, &stage.order, &stage.pupil, 1);
    assert_eq!(term.frozen.into_values().collect::<Vec<_>>(), [expected]);
    assert_eq!(stage.recount().await, []);
}

/// Not with other numbers either.
pub(crate) async fn a_frozen_line_is_never_written_again(stage: Stage) {
    assert_eq!(stage.freeze(1).await, 1);
    assert_eq!(stage.freeze(99).await, 0);
    assert_eq!(stage.term().await.frozen[&stage.order].fee, Dollars(1));
}

/// Orders without a line as well.
pub(crate) async fn a_closed_term_adjusts_every_order_and_closing_again_changes_nothing(stage: Stage) {
    assert_eq!(stage.deliver(1).await, ChargeVerdict::Charged);
    let term = stage.term.clone();
    let closing = stage.ask(move |books| books.close(&term, &signature(), true, &|_| vec![])).await;
    assert_eq!(closing, Closing::Closed { lines: 0 });
    assert_eq!(stage.deliver(2).await, ChargeVerdict::Adjusted);
    assert_eq!(stage.deliver(1).await, ChargeVerdict::Charged, "the first verdict again");

    let closed = ClosedTerm { at: signature().at, by: signature().by, forced: true };
    let (term, order, pupil) = (stage.term.clone(), stage.order.clone(), stage.pupil.clone());
    let again = stage
        .ask(move |books| {
            let later = Signature { by: CompactString::new("somebody"), at: Timestamp::from_millis(8) };
            books.close(&term, &later, false, &|term| vec![line_of(term, &order, &pupil, 1)])
        })
        .await;
    assert_eq!(again, Closing::ClosedBefore(closed.clone()));
    let term = stage.term().await;
    assert_eq!((term.closed, term.frozen.len()), (Some(closed), 0));
    assert_eq!(stage.recount().await, []);
}

/// A line that was final before stays as it was.
pub(crate) async fn closing_counts_what_was_delivered_before_and_keeps_earlier_lines(stage: Stage) {
    stage.deliver(1).await;
    stage.freeze(1).await;
    assert_eq!(stage.deliver(2).await, ChargeVerdict::Adjusted);
    let other = OrderId::new(&format!("{}-b", stage.order)).expect("of the allowed form");
    let mut charge = stage.charge(3);
    charge.order = other.clone();
    charge.proof.order = Some(other.clone());
    stage.append(vec![charge.proof.clone()]).await;
    assert_eq!(stage.ledger.charge(charge).await.expect("it is booked"), ChargeVerdict::Charged);

    let (term, order, pupil) = (stage.term.clone(), stage.order.clone(), stage.pupil.clone());
    let second = other.clone();
    let closing = stage
        .ask(move |books| {
            books.close(&term, &signature(), false, &|term| {
                vec![line_of(term, &order, &pupil, 50), line_of(term, &second, &pupil, 60)]
            })
        })
        .await;
    assert_eq!(closing, Closing::Closed { lines: 2 });
    let frozen = stage.term().await.frozen;
    assert_eq!((frozen[&stage.order].delivered, frozen[&stage.order].fee), (1, Dollars(1)));
    assert_eq!((frozen[&other].delivered, frozen[&other].fee), (1, Dollars(60)));
    assert_eq!(stage.recount().await, []);
}

/// Though its orders are told as being of another one.
pub(crate) async fn another_term_is_not_touched(stage: Stage) {
    let other = CompactString::new(format!("{}-b", stage.term));
    let (order, pupil) = (stage.order.clone(), stage.pupil.clone());
    stage
        .ask(move |books| {
            books.close(&other, &signature(), false, &|term| vec![line_of(term, &order, &pupil, 1)])
        })
        .await;
    assert_eq!(stage.deliver(1).await, ChargeVerdict::Charged);
    let term = stage.term().await;
    assert_eq!((term.closed, term.frozen.len()), (None, 0));
    assert!(term.of_other_terms.contains(&stage.order));
}

/// Many charges at once, and a freeze in their middle.
pub(crate) async fn a_charge_is_in_the_frozen_line_or_adjusted_and_never_both_or_neither(stage: Stage) {
    const CHARGES: i32 = 48;
    const BEFORE_THE_FREEZE: usize = 12;
    const AT_ONCE: usize = 8;
    stage.append((0..CHARGES).map(|day| stage.charge(day).proof).collect()).await;
    let in_the_middle = Notify::new();
    let charging = async {
        let mut verdicts = Vec::new();
        let mut booking = futures::stream::iter(0..CHARGES)
            .map(|day| stage.ledger.charge(stage.charge(day)))
            .buffer_unordered(AT_ONCE);
        while let Some(verdict) = booking.next().await {
            verdicts.push(verdict.expect("the charge is booked"));
            if verdicts.len() == BEFORE_THE_FREEZE {
                in_the_middle.notify_one();
            }
        }
        verdicts
    };
    let freezing = async {
        in_the_middle.notified().await;
        stage.freeze(1).await
    };
    let (verdicts, frozen) = futures::join!(charging, freezing);
    assert_eq!(frozen, 1);
    let charged = verdicts.iter().filter(|verdict| **verdict == ChargeVerdict::Charged).count();
    assert!(charged >= BEFORE_THE_FREEZE, "{charged} were charged");

    let books = stage.term().await;
    let charged = u64::try_from(charged).expect("a few");
    assert_eq!(books.frozen[&stage.order].delivered, charged, "the line counts what was told to be charged");
    assert_eq!(books.delivered[&stage.order], charged, "and so does the counter");
    let mut adjusted = 0;
    for day in 0..CHARGES {
        let proof = stage.charge(day).proof;
        let entries = stage.ledger.entries_of(proof.position, proof.notice).await.expect("entries are read");
        let has = |event| entries.iter().any(|entry| entry.event == event);
        assert_ne!(has(Event::Charged), has(Event::Adjusted), "day {day}: {entries:?}");
        adjusted += u64::from(has(Event::Adjusted));
    }
    assert_eq!(charged + adjusted, u64::try_from(CHARGES).expect("a few"));
    assert_eq!(stage.deliver(CHARGES).await, ChargeVerdict::Adjusted);
    assert_eq!(stage.recount().await, []);
}
