//! The bill as it stands: the registry's orders, the store's counters and the lines that are already final,
//! put together.
//!
//! Owns which orders belong to a term, which lines are drafts, and when a line becomes final. The arithmetic
//! is the engine's (`billing`), what is stored the books'. An order does not name its term: it belongs to
//! every term in which it has charges or a frozen line; one that has none anywhere belongs to the term asked
//! for, unless it was approved only after that term's last day. One that was not approved yet when a term was
//! closed may still be meant for the next.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use compact_str::CompactString;
use gatebell_connectors::store::books::{Books, ClosedTerm, Closing, Signature, TermBooks};
use gatebell_engine::billing::{BillLine, OrderAccount, Tariff, bill, settles_at};
use gatebell_engine::ids::{OrderId, PupilId, SchoolId};
use gatebell_engine::registry::{Entry, Order};
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;

use crate::home::Home;

/// The orders on record, and the schools of their pupils.
#[derive(Debug, Default)]
pub(crate) struct OrderBook {
    orders: Vec<Order>,
    schools: BTreeMap<PupilId, SchoolId>,
}

/// One line of the bill, and whether it may still change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StatementLine {
    /// The line.
    pub(crate) line: BillLine,
    /// Whether it may still change.
    pub(crate) is_draft: bool,
}

/// The bill of a term as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Statement {
    /// One line an order, sorted by order.
    pub(crate) lines: Vec<StatementLine>,
    /// Orders that have charges but are not on record: nobody can be billed for them.
    pub(crate) orders_not_on_record: BTreeSet<OrderId>,
}

impl OrderBook {
    /// Reads orders and pupils at `home`, where there must be a city: without one there is nothing to bill, rather than a bill
    /// of nothing. Names and addresses of guardians are none of its business.
    pub(crate) fn of(home: &Home) -> anyhow::Result<Self> {
        let orders = Self::read(home)?;
        ensure!(!orders.is_empty(), "{}", home.no_city());
        Ok(orders)
    }

    /// As [`OrderBook::of`], but there may be none yet.
    pub(crate) fn read(home: &Home) -> anyhow::Result<Self> {
        let mut orders = Self::default();
        if !home.has_city()? {
            return Ok(orders);
        }
        let registry = home.registry()?;
        for kind in ["pupil", "order"] {
            registry.for_each(kind, &mut |entry| orders.take(entry)).context("cannot read the registry")?;
        }
        Ok(orders)
    }

    /// Takes note of an entry of the registry; of other kinds nothing.
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Order(order) => self.orders.push(order),
            Entry::Pupil(pupil) => {
                self.schools.insert(pupil.pupil, pupil.school);
            }
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.schools.is_empty()
    }

    /// Whether any school on record is `school`.
    pub(crate) fn has_school(&self, school: &SchoolId) -> bool {
        self.schools.values().any(|known| known == school)
    }

    /// Whether the pupil is on record.
    pub(crate) fn has_pupil(&self, pupil: &PupilId) -> bool {
        self.schools.contains_key(pupil)
    }

    fn account(&self, order: &Order, books: &TermBooks) -> Option<OrderAccount> {
        // An import refuses an order about nobody, and pupils are never deleted: without a school there is no
        // order.
        let school = self.schools.get(&order.pupil)?.clone();
        let delivered = books.delivered.get(&order.order).copied().unwrap_or(0);
        Some(OrderAccount { order: order.clone(), school, delivered })
    }
}

/// The bill of `term`, computed from the orders on record and the books.
pub(crate) fn statement(term: &Term, orders: &OrderBook, books: &TermBooks) -> Statement {
    let accounts: Vec<OrderAccount> = orders
        .orders
        .iter()
        .filter(|order| belongs_to(term, order, books))
        .filter_map(|order| orders.account(order, books))
        .collect();
    let billed: BTreeSet<&OrderId> = accounts.iter().map(|account| &account.order.order).collect();
    let orders_not_on_record =
        books.delivered.keys().filter(|order| !billed.contains(order)).cloned().collect();
    let is_closed = books.closed.is_some();
    let mut lines: BTreeMap<OrderId, StatementLine> = bill(&accounts, Tariff::of(term, is_closed))
        .into_iter()
        .map(|line| (line.order.clone(), StatementLine { line, is_draft: !is_closed }))
        .collect();
    for (order, line) in &books.frozen {
        lines.insert(order.clone(), StatementLine { line: line.clone(), is_draft: false });
    }
    Statement { lines: lines.into_values().collect(), orders_not_on_record }
}

/// The bill of `term` at `now`. Lines whose time has come are made final first, so that what is shown as
/// final stays.
pub(crate) fn current_statement(
    term: &Term,
    orders: &OrderBook,
    books: &dyn Books,
    now: Timestamp,
    who: &str,
) -> anyhow::Result<Statement> {
    freeze_settled(term, orders, books, now, who)?;
    Ok(statement(term, orders, &books.term(&term.name)?))
}

/// Freezes the lines of orders that were cancelled long enough ago; gives how many.
pub(crate) fn freeze_settled(
    term: &Term,
    orders: &OrderBook,
    books: &dyn Books,
    now: Timestamp,
    who: &str,
) -> anyhow::Result<usize> {
    let settled: BTreeSet<&OrderId> = orders
        .orders
        .iter()
        .filter(|order| settles_at(order).is_some_and(|at| at <= now))
        .map(|order| &order.order)
        .collect();
    let due = |term_books: &TermBooks| -> Vec<BillLine> {
        statement(term, orders, term_books)
            .lines
            .into_iter()
            .filter(|line| line.is_draft && settled.contains(&line.line.order))
            .map(|line| line.line)
            .collect()
    };
    // Mostly nothing is due, and looking needs no turn as a writer.
    if due(&books.term(&term.name)?).is_empty() {
        return Ok(0);
    }
    books
        .freeze(&term.name, &signature(who, now), &due)
        .context("cannot freeze the lines of cancelled orders")
}

/// Closes `term`, making its lines final.
pub(crate) fn close(
    term: &Term,
    orders: &OrderBook,
    books: &dyn Books,
    now: Timestamp,
    who: &str,
    forced: bool,
) -> anyhow::Result<Closing> {
    let lines = |term_books: &TermBooks| -> Vec<BillLine> {
        let mut as_closed = term_books.clone();
        let Signature { by, at } = signature(who, now);
        as_closed.closed = Some(ClosedTerm { at, by, forced });
        statement(term, orders, &as_closed).lines.into_iter().map(|line| line.line).collect()
    };
    books.close(&term.name, &signature(who, now), forced, &lines).context("cannot close the term")
}

fn signature(who: &str, now: Timestamp) -> Signature {
    Signature { by: CompactString::new(who), at: now }
}

fn belongs_to(term: &Term, order: &Order, books: &TermBooks) -> bool {
    if books.delivered.contains_key(&order.order) || books.frozen.contains_key(&order.order) {
        return true;
    }
    if books.of_other_terms.contains(&order.order) {
        return false;
    }
    let after_the_term = term.midnight(term.last_day.next());
    order.approved_at.is_none_or(|approved_at| approved_at < after_the_term)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::ids::{GuardianId, Personal};
    use gatebell_engine::money::Dollars;
    use gatebell_engine::notice::Passages;
    use gatebell_engine::registry::{OrderState, Pupil};

    use super::*;

    fn term() -> Term {
        Term::parse(Term::built_in("114-1").unwrap()).unwrap()
    }

    fn order(order: &str, approved_at: Option<Timestamp>) -> Order {
        Order {
            order: OrderId::new(order).unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            pupil: PupilId::new("P1").unwrap(),
            plan: Passages::Arrival,
            state: if approved_at.is_some() { OrderState::Approved } else { OrderState::Paid },
            prepaid_dollars: 68,
            approved_at,
            cancelled_at: None,
        }
    }

    fn order_book(orders: &[Order]) -> OrderBook {
        let mut book = OrderBook::default();
        book.take(Entry::Pupil(Pupil {
            pupil: PupilId::new("P1").unwrap(),
            school: SchoolId::new("S1").unwrap(),
            class: CompactString::default(),
            seat: CompactString::default(),
            name: Personal::default(),
            removed: None,
        }));
        for order in orders {
            book.take(Entry::Order(order.clone()));
        }
        book
    }

    fn books() -> TermBooks {
        TermBooks {
            delivered: BTreeMap::new(),
            frozen: BTreeMap::new(),
            closed: None,
            of_other_terms: BTreeSet::new(),
        }
    }

    fn codes(statement: &Statement) -> Vec<&str> {
        statement.lines.iter().map(|line| line.line.order.as_str()).collect()
    }

    #[test]
    fn an_order_belongs_to_the_terms_in_which_it_has_charges_else_to_the_one_it_was_in_time_for() {
        let term = term();
        let first_day = term.midnight(term.first_day);
        let after = term.midnight(term.last_day.next());
        let orders = [
            order("in-time", Some(first_day)),
            order("next-term", Some(after)),
            order("next-term-but-charged", Some(after)),
            order("never-approved", None),
            order("of-another-term", Some(first_day)),
            order("of-both-terms", Some(first_day)),
        ];
        let mut books = books();
        books.delivered.insert(orders[2].order.clone(), 3);
        books.delivered.insert(orders[5].order.clone(), 1);
        books.of_other_terms.extend([orders[4].order.clone(), orders[5].order.clone()]);
        assert_eq!(
            codes(&statement(&term, &order_book(&orders), &books)),
            ["in-time", "never-approved", "next-term-but-charged", "of-both-terms"]
        );
    }

    #[test]
    fn a_frozen_line_stands_and_still_moves_the_rounding_of_later_orders() {
        let term = term();
        let first = order("O1", Some(Timestamp::from_millis(1)));
        let second = order("O2", Some(Timestamp::from_millis(2)));
        let orders = order_book(&[first.clone(), second.clone()]);
        let mut books = books();
        books.delivered = BTreeMap::from([(first.order.clone(), 1), (second.order, 1)]);
        let mut frozen = statement(&term, &orders, &books).lines[0].line.clone();
        frozen.refund = Dollars(67);
        books.frozen.insert(first.order, frozen.clone());

        let lines = statement(&term, &orders, &books).lines;
        assert_eq!(lines[0], StatementLine { line: frozen, is_draft: false });
        assert!(lines[1].is_draft);
        // Two messages are NT$1.50, so NT$2 together: the first rounding took one of them.
        assert_eq!(lines[1].line.fee, Dollars(1));
    }

    #[test]
    fn charges_of_an_order_that_is_not_on_record_are_told() {
        let mut books = books();
        let lost = OrderId::new("O9").unwrap();
        books.delivered.insert(lost.clone(), 2);
        let statement = statement(&term(), &order_book(&[]), &books);
        assert_eq!(statement.orders_not_on_record, BTreeSet::from([lost]));
    }

    #[test]
    fn a_closed_term_has_no_drafts_and_gives_back_what_was_never_approved() {
        let mut books = books();
        books.closed =
            Some(ClosedTerm { at: Timestamp::from_millis(0), by: CompactString::new("x"), forced: false });
        let lines = statement(&term(), &order_book(&[order("O1", None)]), &books).lines;
        assert_eq!((lines[0].is_draft, lines[0].line.refund), (false, Dollars(68)));
    }
}
