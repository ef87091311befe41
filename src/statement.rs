//! The bill as it stands: the registry's orders, the store's counters and the lines that are already final, put together.
//!
//! Owns which orders belong to a term, which lines are drafts, and when a line becomes final. The arithmetic is the
//! engine's (`billing`), what is stored the books'. An order does not name its term: it belongs to every term in which it
//! has charges or a frozen line; one that has none anywhere belongs to the term asked for, unless it was approved only
//! after that term's last day.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use compact_str::CompactString;
use gatebell_connectors::store::embedded::books::{Books, ClosedTerm, TermBooks};
use gatebell_connectors::store::embedded::books_freeze::{Closing, Signature};
use gatebell_engine::billing::{BillLine, OrderAccount, Tariff, bill, settles_at};
use gatebell_engine::ids::{OrderId, PupilId, SchoolId};
use gatebell_engine::registry::{Entry, Order, OrderState};
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;

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
    /// The registry's kinds of entries that it needs; names and addresses of guardians are none of its business.
    pub(crate) const KINDS: [&str; 2] = ["pupil", "order"];

    /// Takes note of an entry of the registry; of other kinds nothing.
    pub(crate) fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Order(order) => self.orders.push(order),
            Entry::Pupil(pupil) => {
                self.schools.insert(pupil.pupil, pupil.school);
            }
            _ => {}
        }
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
        // An import refuses an order about nobody, and pupils are never deleted: without a school there is no order.
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

/// The bill of `term` at `now`. Lines whose time has come are made final first, so that what is shown as final stays.
pub(crate) fn current_statement(
    term: &Term,
    orders: &OrderBook,
    books: &Books,
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
    books: &Books,
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
    books.freeze(&term.name, &signature(who, now), due).context("cannot freeze the lines of cancelled orders")
}

/// Closes `term`, making its lines final.
pub(crate) fn close(
    term: &Term,
    orders: &OrderBook,
    books: &Books,
    now: Timestamp,
    who: &str,
    forced: bool,
) -> anyhow::Result<Closing> {
    // Orders that were never approved cost nothing and cannot: frozen here, one placed early for the next term would be
    // lost to it. The closed term's bill shows their refund all the same.
    let may_cost: BTreeSet<&OrderId> = orders
        .orders
        .iter()
        .filter(|order| order.approved_at.is_some() || order.state == OrderState::Cancelled)
        .map(|order| &order.order)
        .collect();
    let lines = |term_books: &TermBooks| -> Vec<BillLine> {
        let mut as_closed = term_books.clone();
        let Signature { by, at } = signature(who, now);
        as_closed.closed = Some(ClosedTerm { at, by, forced });
        statement(term, orders, &as_closed)
            .lines
            .into_iter()
            .map(|line| line.line)
            .filter(|line| may_cost.contains(&line.order))
            .collect()
    };
    books.close(&term.name, &signature(who, now), forced, lines).context("cannot close the term")
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
