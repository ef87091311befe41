//! Freezing on a shared store: lines of the bill become final while engines go on charging.
//!
//! Which charges a line counts is decided order by order, before the line is written (`ledger_charges` says how, and what
//! a charge reads): first the order is marked, then its charges are written down, then its counter is brought up to their
//! number, and only then the line is computed and written, by compare-and-set, once.
//!
//! *Closing a term* marks the term first, which every charge reads, then freezes every order that has a charge or a line,
//! then writes the lines, then says that the term is closed. A charge that comes in between freezes its own order, so it
//! waits for nobody, and the line counts it or the charge is adjusted. What broke off is gone through again by the next
//! call: nothing that was decided is decided anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use gatebell_engine::billing::BillLine;
use gatebell_engine::ids::{GuardianId, OrderId, PupilId};
use gatebell_engine::ports::PortError;
use scylla::SerializeRow;
use scylla::response::PagingState;
use scylla::value::CqlTimestamp;

use super::books::CqlBooks;
use super::error::store_error;
use super::ledger_charges::Charges;
use super::ledger_freezes::OrderKey;
use super::ledger_rows::{instant, word};
use super::session::{CqlSession, Read, Swap, pause_after};
use crate::store::books::{Closing, PickLines, Signature, TermBooks};

/// Orders that are frozen, and lines that are written, at once: each is a row of its own.
const ORDERS_AT_ONCE: usize = 32;
/// Times that lines are picked until all that are picked are of frozen orders. More would be a registry that is imported
/// all the time.
const PICKS_MAX: usize = 6;
/// Rounds of compare-and-set and serial read before nothing is known.
const ROUNDS_MAX: u32 = 4;

const CLOSING: &str = "closing";
const CLOSED: &str = "closed";

/// Final lines and closed terms, and the marks behind them.
#[derive(Debug)]
pub(super) struct Lines {
    session: Arc<CqlSession>,
    charges: Charges,
    insert_line: Swap,
    select_line: Read,
    insert_closing: Swap,
    update_closed: Swap,
    select_closing: Read,
    select_charged_orders: Read,
}

/// An order of the term at hand.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct TermOrder {
    pupil: PupilId,
    guardian: GuardianId,
    order: OrderId,
}

impl TermOrder {
    fn of(line: &BillLine) -> Self {
        Self { pupil: line.pupil.clone(), guardian: line.guardian.clone(), order: line.order.clone() }
    }
}

/// A line as it is written.
#[derive(SerializeRow)]
struct NewLine<'line> {
    term: &'line str,
    order_code: &'line str,
    school: &'line str,
    pupil: &'line str,
    guardian: &'line str,
    plan: &'line str,
    state: &'line str,
    prepaid: i64,
    delivered: i64,
    fee: i64,
    waived: i64,
    refund: i64,
    frozen_at: CqlTimestamp,
    frozen_by: &'line str,
}

impl CqlBooks {
    /// Freezes the lines of `term` that `due` picks.
    pub(super) fn freeze_lines(
        &self,
        term: &str,
        signature: &Signature,
        due: PickLines<'_>,
    ) -> Result<usize, PortError> {
        let (_, lines) = self.pick_of_frozen_orders(term, due, BTreeSet::new())?;
        self.write_lines(term, signature, lines)
    }

    /// Closes `term`, freezing its `lines`.
    pub(super) fn close_term(
        &self,
        term: &str,
        signature: &Signature,
        forced: bool,
        lines: PickLines<'_>,
    ) -> Result<Closing, PortError> {
        let tables = Arc::clone(&self.tables);
        let (of_term, writing) = (term.to_owned(), Arc::clone(&self.lines));
        let (by, closed_at) = (signature.by.clone(), instant(signature.at));
        let closed_before = self.commands.wait(async move {
            if let Some(closed) = tables.closed(&of_term).await? {
                return Ok(Some(closed));
            }
            writing.begin_closing(&of_term, closed_at, &by, forced).await?;
            // From here on every charge finds the mark, or was there before it and is found now.
            Ok(None)
        })?;
        if let Some(closed) = closed_before {
            return Ok(Closing::ClosedBefore(closed));
        }
        let (of_term, writing) = (term.to_owned(), Arc::clone(&self.lines));
        let charged = self.commands.wait(async move { writing.freeze_charged_orders(&of_term).await })?;
        let (books, picked) = self.pick_of_frozen_orders(term, lines, charged)?;
        let written = self.write_lines(term, signature, picked)?;
        let (of_term, writing) = (term.to_owned(), Arc::clone(&self.lines));
        let by = signature.by.clone();
        self.commands.wait(async move { writing.end_closing(&of_term, closed_at, &by, forced).await })?;
        Ok(Closing::Closed { lines: books.frozen.len() + written })
    }

    /// The lines that `pick` picks and that are not final yet, all of frozen orders and computed after these were frozen;
    /// with the books that they were picked from.
    fn pick_of_frozen_orders(
        &self,
        term: &str,
        pick: PickLines<'_>,
        mut frozen: BTreeSet<TermOrder>,
    ) -> Result<(TermBooks, Vec<BillLine>), PortError> {
        for _ in 0..PICKS_MAX {
            let (tables, of_term) = (Arc::clone(&self.tables), term.to_owned());
            let books = self.commands.wait(async move { tables.term(&of_term).await })?;
            let mut lines = pick(&books);
            lines.retain(|line| !books.frozen.contains_key(&line.order));
            let missing: BTreeSet<TermOrder> =
                lines.iter().map(TermOrder::of).filter(|order| !frozen.contains(order)).collect();
            if missing.is_empty() {
                return Ok((books, lines));
            }
            let (writing, of_term, orders) = (Arc::clone(&self.lines), term.to_owned(), missing.clone());
            self.commands.wait(async move { writing.freeze_orders(&of_term, orders).await })?;
            frozen.extend(missing);
        }
        Err(store_error("orders come and go while their lines are frozen: try again when no import runs"))
    }

    /// Writes `lines`, unless others were written before; gives the number written.
    fn write_lines(
        &self,
        term: &str,
        signature: &Signature,
        lines: Vec<BillLine>,
    ) -> Result<usize, PortError> {
        let (writing, term, signature) = (Arc::clone(&self.lines), term.to_owned(), signature.clone());
        self.commands.wait(async move {
            stream::iter(lines)
                .map(|line| writing.write(&term, &signature, line))
                .buffer_unordered(ORDERS_AT_ONCE)
                .try_fold(0, async |written, is_new| Ok(written + usize::from(is_new)))
                .await
        })
    }
}

impl Lines {
    pub(super) async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let insert_line = session.prepare_swap(
            "INSERT INTO keyspace.frozen_lines (term, order_code, school, pupil, guardian, plan, state, prepaid, delivered, fee,
                                       waived, refund, frozen_at, frozen_by)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
        );
        let select_line = session.prepare_serial_read(
            "SELECT frozen_at, frozen_by FROM keyspace.frozen_lines WHERE term = ? AND order_code = ?",
        );
        let insert_closing = session.prepare_swap(
            "INSERT INTO keyspace.closed_terms (term, state, closed_at, closed_by, forced) VALUES (?, ?, ?, ?, ?)
             IF NOT EXISTS",
        );
        let update_closed = session.prepare_swap(
            "UPDATE keyspace.closed_terms SET state = ?, closed_at = ?, closed_by = ?, forced = ? WHERE term = ?
             IF state = ?",
        );
        let select_closing =
            session.prepare_serial_read("SELECT state FROM keyspace.closed_terms WHERE term = ?");
        let select_charged_orders =
            session.prepare_read("SELECT term, pupil, guardian, order_code FROM keyspace.charges");
        Ok(Self {
            insert_line: insert_line.await?,
            select_line: select_line.await?,
            insert_closing: insert_closing.await?,
            update_closed: update_closed.await?,
            select_closing: select_closing.await?,
            select_charged_orders: select_charged_orders.await?,
            charges: Charges::new(Arc::clone(&session)).await?,
            session,
        })
    }

    async fn freeze_orders(&self, term: &str, orders: BTreeSet<TermOrder>) -> Result<(), PortError> {
        stream::iter(orders)
            .map(|order| self.freeze_order(term, order))
            .buffer_unordered(ORDERS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Decides which charges the line of `order` counts, and brings its counter up to their number: whoever booked the
    /// last of them may not have come to it.
    async fn freeze_order(&self, term: &str, order: TermOrder) -> Result<(), PortError> {
        let TermOrder { pupil, guardian, order } = &order;
        let key = OrderKey { term, pupil, guardian, order };
        let counted = self.charges.freeze(key).await?;
        self.charges.count(key, counted.len()).await
    }

    /// Freezes every order of `term` that has a charge, on record or not; goes through the charges of all terms once.
    async fn freeze_charged_orders(&self, term: &str) -> Result<BTreeSet<TermOrder>, PortError> {
        let mut orders: BTreeSet<TermOrder> = BTreeSet::new();
        let mut next = Some(PagingState::start());
        while let Some(page) = next {
            let rows: Vec<(String, String, String, String)>;
            (rows, next) = self.session.page(&self.select_charged_orders, (), page).await?;
            for (of_term, pupil, guardian, order) in rows {
                if of_term == term {
                    orders.insert(TermOrder {
                        pupil: word(&pupil, "pupil")?,
                        guardian: word(&guardian, "guardian")?,
                        order: word(&order, "order_code")?,
                    });
                }
            }
        }
        self.freeze_orders(term, orders.clone()).await?;
        Ok(orders)
    }

    /// Writes `line` unless its order has one; whether it was this call that did.
    async fn write(&self, term: &str, signature: &Signature, line: BillLine) -> Result<bool, PortError> {
        let order = line.order.as_str();
        let mut last_error = None;
        for round in 1..=ROUNDS_MAX {
            match self.session.swap(&self.insert_line, NewLine::of(term, signature, &line)?).await {
                Ok(applied) => return Ok(applied),
                Err(error) => last_error = Some(error),
            }
            // The row tells whether it was applied.
            let row: Option<(CqlTimestamp, String)> =
                self.session.row(&self.select_line, (term, order)).await?;
            if let Some((at, by)) = row {
                return Ok(at == instant(signature.at) && by == signature.by.as_str());
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("a line cannot be written")))
    }

    /// Says that `term` is being closed. Returns when every later read by a majority sees it.
    async fn begin_closing(
        &self,
        term: &str,
        at: CqlTimestamp,
        by: &str,
        forced: bool,
    ) -> Result<(), PortError> {
        let mut last_error = None;
        for round in 1..=ROUNDS_MAX {
            let answer = self.session.swap(&self.insert_closing, (term, CLOSING, at, by, forced)).await;
            // Applied, or it was there: either way it is written.
            match answer {
                Ok(_) => return Ok(()),
                Err(error) => last_error = Some(error),
            }
            if self.closing_state(term).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("the closing of a term cannot be written")))
    }

    /// Says that `term` is closed: all that it has charges or lines for is frozen.
    async fn end_closing(
        &self,
        term: &str,
        at: CqlTimestamp,
        by: &str,
        forced: bool,
    ) -> Result<(), PortError> {
        let mut last_error = None;
        for round in 1..=ROUNDS_MAX {
            let values = (CLOSED, at, by, forced, term, CLOSING);
            if let Err(error) = self.session.swap(&self.update_closed, values).await {
                last_error = Some(error);
            }
            // By this call or by another one that closed it at the same time.
            if self.closing_state(term).await?.as_deref() == Some(CLOSED) {
                return Ok(());
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("the closing of a term cannot be written")))
    }

    async fn closing_state(&self, term: &str) -> Result<Option<String>, PortError> {
        let row: Option<(String,)> = self.session.row(&self.select_closing, (term,)).await?;
        Ok(row.map(|(state,)| state))
    }
}

impl<'line> NewLine<'line> {
    fn of(term: &'line str, signature: &'line Signature, line: &'line BillLine) -> Result<Self, PortError> {
        Ok(Self {
            term,
            order_code: line.order.as_str(),
            school: line.school.as_str(),
            pupil: line.pupil.as_str(),
            guardian: line.guardian.as_str(),
            plan: line.plan.name(),
            state: line.state.name(),
            prepaid: line.prepaid.0,
            delivered: i64::try_from(line.delivered)
                .map_err(|_| store_error("a line counts more messages than there can be"))?,
            fee: line.fee.0,
            waived: line.waived.0,
            refund: line.refund.0,
            frozen_at: instant(signature.at),
            frozen_by: signature.by.as_str(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::ports::ledger::ChargeVerdict;

    use super::super::books::tests::stage_of;
    use super::*;
    use crate::store::books::Books;
    use crate::store::books_contract::{line_of, signature};

    #[tokio::test]
    async fn a_closing_that_broke_off_is_gone_through_again_and_decides_nothing_anew() {
        let (stage, books) = stage_of().await;
        assert_eq!(stage.deliver(1).await, ChargeVerdict::Charged);
        let (lines, term) = (Arc::clone(&books.lines), stage.term.clone());
        let at = instant(signature().at);
        let begun = async move { lines.begin_closing(&term, at, "somebody", false).await };
        books.commands.done(begun).await.unwrap();

        assert_eq!(stage.deliver(2).await, ChargeVerdict::Charged, "it freezes its order, and is in time");
        assert_eq!(stage.deliver(3).await, ChargeVerdict::Adjusted);
        assert_eq!(stage.term().await.closed, None, "it is not closed yet");

        let (term, order, pupil) = (stage.term.clone(), stage.order.clone(), stage.pupil.clone());
        let closing = stage
            .ask(move |books| {
                books.close(&term, &signature(), true, &|term| vec![line_of(term, &order, &pupil, 2)])
            })
            .await;
        assert_eq!(closing, Closing::Closed { lines: 1 });
        let term = stage.term().await;
        assert_eq!(term.closed.unwrap().by, signature().by);
        assert_eq!(term.frozen[&stage.order].delivered, 2);
        assert_eq!(stage.deliver(4).await, ChargeVerdict::Adjusted);
    }

    #[tokio::test]
    async fn of_two_who_close_a_term_at_once_each_finds_the_same_lines() {
        let (stage, books) = stage_of().await;
        stage.deliver(1).await;
        let close = |fee: i64| {
            let (books, term) = (Arc::clone(&books), stage.term.clone());
            let (order, pupil) = (stage.order.clone(), stage.pupil.clone());
            tokio::task::spawn_blocking(move || {
                books.close(&term, &signature(), true, &|term| vec![line_of(term, &order, &pupil, fee)])
            })
        };
        let (one, other) = futures::join!(close(1), close(2));
        let closings = [one.unwrap().unwrap(), other.unwrap().unwrap()];
        assert!(closings.iter().any(|closing| matches!(closing, Closing::Closed { .. })), "{closings:?}");
        let term = stage.term().await;
        assert_eq!(term.frozen[&stage.order].delivered, 1);
        assert_eq!(term.frozen.len(), 1);
        assert!(term.closed.is_some());
    }

    #[tokio::test]
    async fn an_answer_that_was_lost_freezes_a_line_all_the_same() {
        use std::sync::atomic::Ordering::SeqCst;
        let (stage, books) = stage_of().await;
        stage.deliver(1).await;
        let session = CqlSession::open(&super::super::fixture::shared_settings()).await.unwrap();
        let lines = Lines::new(Arc::clone(&session)).await.unwrap();
        let line = line_of(&stage.term().await, &stage.order, &stage.pupil, 1);
        session.swap_answers_lost.store(1, SeqCst);
        assert!(lines.write(&stage.term, &signature(), line.clone()).await.unwrap(), "it was applied");
        assert!(!lines.write(&stage.term, &signature(), line.clone()).await.unwrap(), "there is one");
        assert_eq!(stage.term().await.frozen[&stage.order], line);
        session.swap_answers_lost.store(2, SeqCst);
        lines.begin_closing(&stage.term, instant(signature().at), "cashier", false).await.unwrap();
        lines.end_closing(&stage.term, instant(signature().at), "cashier", false).await.unwrap();
        let tables = Arc::clone(&books.tables);
        let term = stage.term.clone();
        let closed = books.commands.done(async move { tables.closed(&term).await }).await.unwrap();
        assert_eq!(closed.unwrap().by, signature().by);
    }
}
