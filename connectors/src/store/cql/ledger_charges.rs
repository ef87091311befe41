//! Charges and counters: a charge is a row, a counter the number of an order's rows.
//!
//! *A charge* is inserted under its key and read back: whose notice the row names is the one that gets the entry, and the
//! first to insert is kept (its write timestamp falls as time goes by). Nothing is compared, nothing is deleted.
//!
//! *A counter* is written as the whole total with the total as its write timestamp: the larger wins, so a writer that read
//! fewer rows, late or not, changes nothing.
//!
//! *A frozen bill line* must say the number of its charges once and for all, though the rows it counts and the row that
//! says so are written apart. So a freeze has two steps, both by compare-and-set: the order is marked *freezing*; then the
//! charges that the line counts are written down, and it is *frozen*. A charge writes its row, then reads the rows, then
//! looks for the mark. No mark: whoever marks the order later reads the charges after that, and so sees every row that was
//! read here; all of them count, now and in the line. A mark: what was written down decides, and where nothing is yet,
//! this one takes the second step itself (reading the rows again), so nobody waits for a freeze that broke off. The
//! closing of a term marks all its orders.

use std::collections::BTreeSet;
use std::sync::Arc;

use gatebell_engine::ledger::Charge;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::ChargeVerdict;
use scylla::value::CqlDate;

use super::ledger_freezes::{ChargeName, Freezes, Mark, OrderKey, TermState};
use super::ledger_rows::{Stamps, date, notice_blob};
use super::session::{CqlSession, Read, Write};

/// The charges of all terms.
#[derive(Debug)]
pub(super) struct Charges {
    session: Arc<CqlSession>,
    stamps: Stamps,
    insert: Write,
    insert_adjusted: Write,
    insert_counter: Write,
    select: Read,
    freezes: Freezes,
}

/// What came of a charge, and whether its notice is the one that was charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Booked {
    pub(super) verdict: ChargeVerdict,
    /// Not so where another notice had been charged for the same delivery before: the entry is that one's.
    pub(super) is_of_this_notice: bool,
}

/// A charge of an order, as it is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ChargeRow {
    pub(super) name: ChargeName,
    notice: Vec<u8>,
}

impl Charges {
    pub(super) async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let insert = session.prepare_write(
            "INSERT INTO keyspace.charges (term, pupil, guardian, order_code, day, kind, notice) VALUES (?, ?, ?, ?, ?, ?, ?)
             USING TIMESTAMP ?",
        );
        let insert_adjusted = session.prepare_write(
            "INSERT INTO keyspace.charges (term, pupil, guardian, order_code, day, kind, adjusted)
             VALUES (?, ?, ?, ?, ?, ?, true)",
        );
        let insert_counter = session.prepare_write(
            "INSERT INTO keyspace.counters (term, pupil, guardian, order_code, delivered) VALUES (?, ?, ?, ?, ?)
             USING TIMESTAMP ?",
        );
        let select = session.prepare_read(
            "SELECT day, kind, notice FROM keyspace.charges WHERE term = ? AND pupil = ? AND guardian = ? AND order_code = ?",
        );
        Ok(Self {
            insert: insert.await?,
            insert_adjusted: insert_adjusted.await?,
            insert_counter: insert_counter.await?,
            select: select.await?,
            freezes: Freezes::new(Arc::clone(&session)).await?,
            stamps: Stamps::default(),
            session,
        })
    }

    /// Books `charge`: its row and its order's counter.
    pub(super) async fn book(&self, charge: &Charge) -> Result<Booked, PortError> {
        let key = OrderKey::of(charge);
        let this = ChargeName { day: charge.day, kind: charge.kind };
        let notice = notice_blob(charge.proof.notice);
        self.insert(key, this, notice).await?;
        // In this order: rows, then marks.
        let rows = self.rows_of(key).await?;
        let counted = self.counted_if_frozen(key).await?;
        let is_counted = counted.as_ref().is_none_or(|counted| counted.contains(&this));
        let total = counted.map_or(rows.len(), |counted| counted.len());
        self.count(key, total).await?;
        if !is_counted {
            self.mark_adjusted(key, this).await?;
        }
        Ok(Booked {
            verdict: if is_counted { ChargeVerdict::Charged } else { ChargeVerdict::Adjusted },
            is_of_this_notice: rows.iter().any(|row| row.name == this && row.notice == notice),
        })
    }

    /// The charges that the bill line of `key` counts from now on, whatever is delivered later: the second step of a
    /// freeze, after which the line may be written. Closing a term freezes every order that has a line or a counter.
    pub(super) async fn freeze(&self, key: OrderKey<'_>) -> Result<BTreeSet<ChargeName>, PortError> {
        self.freezes.mark(key).await?;
        let rows = self.rows_of(key).await?;
        self.freezes.settle(key, rows.into_iter().map(|row| row.name).collect()).await
    }

    /// The marks of frozen orders.
    #[cfg(test)]
    pub(super) fn freezes(&self) -> &Freezes {
        &self.freezes
    }

    /// The charges of an order.
    pub(super) async fn rows_of(&self, key: OrderKey<'_>) -> Result<Vec<ChargeRow>, PortError> {
        let rows: Vec<(CqlDate, String, Vec<u8>)> = self.session.rows(&self.select, key.columns()).await?;
        rows.into_iter()
            .map(|(day, kind, notice)| Ok(ChargeRow { name: ChargeName::from_columns(day, &kind)?, notice }))
            .collect()
    }

    /// The charges that count for an order that is frozen, or about to be; `None` while it is not.
    async fn counted_if_frozen(&self, key: OrderKey<'_>) -> Result<Option<BTreeSet<ChargeName>>, PortError> {
        let (term, mark) = futures::try_join!(self.freezes.term(key.term), self.freezes.read(key))?;
        match (mark, term) {
            (Some(Mark { counted: Some(counted) }), _) => Ok(Some(counted)),
            (None, TermState::Open) => Ok(None),
            // Whoever closed the term has frozen every order that had a charge.
            (None, TermState::Closed) => {
                self.freezes.mark(key).await?;
                self.freezes.settle(key, BTreeSet::new()).await.map(Some)
            }
            // Rows may have come between our reading of them and the mark, and count.
            (Some(Mark { counted: None }), _) | (None, TermState::Closing) => {
                self.freeze(key).await.map(Some)
            }
        }
    }

    async fn insert(&self, key: OrderKey<'_>, name: ChargeName, notice: [u8; 16]) -> Result<(), PortError> {
        let (term, pupil, guardian, order) = key.columns();
        let first_wins = self.stamps.next().first_wins();
        let row = (term, pupil, guardian, order, date(name.day), name.kind.name(), notice, first_wins);
        self.session.write(&self.insert, row).await
    }

    async fn mark_adjusted(&self, key: OrderKey<'_>, name: ChargeName) -> Result<(), PortError> {
        let (term, pupil, guardian, order) = key.columns();
        let row = (term, pupil, guardian, order, date(name.day), name.kind.name());
        self.session.write(&self.insert_adjusted, row).await
    }

    /// Writes that an order has `total` charges, unless it is known to have more.
    pub(super) async fn count(&self, key: OrderKey<'_>, total: usize) -> Result<(), PortError> {
        if total == 0 {
            return Ok(());
        }
        let total = i64::try_from(total).expect("the charges of one order fit");
        let (term, pupil, guardian, order) = key.columns();
        self.session.write(&self.insert_counter, (term, pupil, guardian, order, total, total)).await
    }
}
