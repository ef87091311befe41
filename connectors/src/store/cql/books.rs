//! The books on a shared store, for commands beside running engines.
//!
//! Owns what is read of a term. No read here is a snapshot of one instant: a charge that is booked meanwhile may be in
//! what is read later and not in what was read before. Where that would matter, for final lines, `books_freeze` decides
//! what counts; entries are read in `books_entries`, recounted in `books_recount`. A bill reads every counter and every
//! final line there is, one an order: some seconds for a city of many terms.

use std::ops::RangeInclusive;
use std::sync::Arc;

use compact_str::CompactString;
use gatebell_engine::billing::BillLine;
use gatebell_engine::ids::{OrderId, PupilId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::money::Dollars;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::Counter;
use gatebell_engine::recount::Difference;
use gatebell_engine::registry::OrderState;
use gatebell_engine::time::{Day, Timestamp};
use scylla::DeserializeRow;
use scylla::value::CqlTimestamp;

use super::books_entries::{DayPages, WrittenEntries};
use super::books_freeze::Lines;
use super::books_recount;
use super::commands::CqlCommands;
use super::ledger_rows::{unreadable, word};
use super::session::{CqlSession, Read};
use crate::store::books::{Books, ClosedTerm, Closing, Entries, PickLines, Signature, TermBooks};

/// The books of a keyspace.
#[derive(Debug)]
pub struct CqlBooks {
    pub(super) commands: Arc<CqlCommands>,
    pub(super) tables: Arc<Tables>,
    pub(super) lines: Arc<Lines>,
}

/// What is read of the books.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) session: Arc<CqlSession>,
    pub(super) entries: WrittenEntries,
    pub(super) recount: books_recount::Statements,
    select_counters: Read,
    select_lines: Read,
    select_closed: Read,
}

/// A final line as it is read.
#[derive(DeserializeRow)]
struct LineRow {
    term: String,
    order_code: String,
    school: String,
    pupil: String,
    guardian: String,
    plan: String,
    state: String,
    prepaid: i64,
    delivered: i64,
    fee: i64,
    waived: i64,
    refund: i64,
}

impl CqlBooks {
    /// The books in the keyspace of `commands`.
    pub fn open(commands: Arc<CqlCommands>) -> Result<Self, PortError> {
        let session = commands.session();
        let (tables, lines) = commands.wait(async move {
            futures::try_join!(Tables::new(Arc::clone(&session)), Lines::new(Arc::clone(&session)))
        })?;
        Ok(Self { commands, tables: Arc::new(tables), lines: Arc::new(lines) })
    }
}

impl Books for CqlBooks {
    fn term(&self, term: &str) -> Result<TermBooks, PortError> {
        let (tables, term) = (Arc::clone(&self.tables), term.to_owned());
        self.commands.wait(async move { tables.term(&term).await })
    }

    fn counters(&self) -> Result<Vec<Counter>, PortError> {
        let tables = Arc::clone(&self.tables);
        self.commands.wait(async move { tables.counters().await })
    }

    fn entries(&self, days: RangeInclusive<Day>) -> Result<Entries<'_>, PortError> {
        Ok(Box::new(DayPages::begin(self, days)?))
    }

    fn entries_of_pupil(
        &self,
        days: RangeInclusive<Day>,
        pupil: &PupilId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        let (tables, pupil) = (Arc::clone(&self.tables), pupil.clone());
        self.commands.wait(async move { tables.entries.of_pupil(days, &pupil).await })
    }

    fn recount(&self, term_otherwise: &str) -> Result<Vec<Difference>, PortError> {
        let (tables, term_otherwise) = (Arc::clone(&self.tables), CompactString::new(term_otherwise));
        self.commands.wait(async move { tables.recounted(term_otherwise).await })
    }

    fn freeze(&self, term: &str, signature: &Signature, due: PickLines<'_>) -> Result<usize, PortError> {
        self.freeze_lines(term, signature, due)
    }

    fn close(
        &self,
        term: &str,
        signature: &Signature,
        forced: bool,
        lines: PickLines<'_>,
    ) -> Result<Closing, PortError> {
        self.close_term(term, signature, forced, lines)
    }
}

impl Tables {
    async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let select_counters = session
            .prepare_read("SELECT term, pupil, guardian, order_code, delivered FROM keyspace.counters");
        let select_lines = session.prepare_read(
            "SELECT term, order_code, school, pupil, guardian, plan, state, prepaid, delivered, fee, waived, refund
             FROM keyspace.frozen_lines",
        );
        let select_closed = session.prepare_read(
            "SELECT state, closed_at, closed_by, forced FROM keyspace.closed_terms WHERE term = ?",
        );
        Ok(Self {
            select_counters: select_counters.await?,
            select_lines: select_lines.await?,
            select_closed: select_closed.await?,
            entries: WrittenEntries::new(Arc::clone(&session)).await?,
            recount: books_recount::Statements::new(&session).await?,
            session,
        })
    }

    /// What the books say of `term`.
    pub(super) async fn term(&self, term: &str) -> Result<TermBooks, PortError> {
        let (counters, lines, closed) = futures::try_join!(self.counters(), self.lines(), self.closed(term))?;
        let mut books = TermBooks {
            delivered: Default::default(),
            frozen: Default::default(),
            closed,
            of_other_terms: Default::default(),
        };
        for counter in counters {
            if counter.term == term {
                *books.delivered.entry(counter.order).or_default() += counter.delivered;
            } else {
                books.of_other_terms.insert(counter.order);
            }
        }
        for (of_term, line) in lines {
            if of_term == term {
                books.frozen.insert(line.order.clone(), line);
            } else if matches!(line.state, OrderState::Approved | OrderState::Cancelled) {
                books.of_other_terms.insert(line.order);
            }
        }
        Ok(books)
    }

    /// Every counter of every term.
    pub(super) async fn counters(&self) -> Result<Vec<Counter>, PortError> {
        let rows: Vec<(String, String, String, String, i64)> =
            self.session.rows(&self.select_counters, ()).await?;
        rows.into_iter()
            .map(|(term, pupil, guardian, order, delivered)| {
                Ok(Counter {
                    term: CompactString::from(term),
                    pupil: word(&pupil, "pupil")?,
                    guardian: word(&guardian, "guardian")?,
                    order: word(&order, "order_code")?,
                    delivered: u64::try_from(delivered).map_err(|_| unreadable("delivered"))?,
                })
            })
            .collect()
    }

    /// Every final line, with its term.
    async fn lines(&self) -> Result<Vec<(String, BillLine)>, PortError> {
        let rows: Vec<LineRow> = self.session.rows(&self.select_lines, ()).await?;
        rows.into_iter().map(line).collect()
    }

    /// The closing of `term`; `None` also while it is being closed.
    pub(super) async fn closed(&self, term: &str) -> Result<Option<ClosedTerm>, PortError> {
        type ClosedRow = (String, CqlTimestamp, String, bool);
        let row: Option<ClosedRow> = self.session.row(&self.select_closed, (term,)).await?;
        Ok(row.filter(|(state, ..)| state == "closed").map(|(_, at, by, forced)| ClosedTerm {
            at: Timestamp::from_millis(at.0),
            by: CompactString::from(by),
            forced,
        }))
    }
}

fn line(row: LineRow) -> Result<(String, BillLine), PortError> {
    let line = BillLine {
        order: word::<OrderId>(&row.order_code, "order_code")?,
        school: word(&row.school, "school")?,
        pupil: word(&row.pupil, "pupil")?,
        guardian: word(&row.guardian, "guardian")?,
        plan: word(&row.plan, "plan")?,
        state: word(&row.state, "state")?,
        prepaid: Dollars(row.prepaid),
        delivered: u64::try_from(row.delivered).map_err(|_| unreadable("delivered"))?,
        fee: Dollars(row.fee),
        waived: Dollars(row.waived),
        refund: Dollars(row.refund),
    };
    Ok((row.term, line))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use gatebell_engine::ids::GuardianId;

    use super::super::fixture;
    use super::super::ledger::CqlLedger;
    use super::super::ledger_rows::date;
    use super::*;
    use crate::store::books_contract::{Stage, books_contract};

    books_contract!(contract, super::stage);

    /// Far from the days of other tests, and from those of other stages.
    fn first_day() -> Day {
        let chance = getrandom::u32().unwrap() % 2_000_000;
        Day::from_epoch_days(100_000 + i32::try_from(chance).unwrap())
    }

    async fn stage() -> Stage {
        stage_of().await.0
    }

    /// A stage, and its books as what they are.
    pub(in crate::store::cql) async fn stage_of() -> (Stage, Arc<CqlBooks>) {
        let name = fixture::unique();
        let ledger = CqlLedger::new(fixture::session().await, &name).await.unwrap();
        let books = Arc::new(CqlBooks::open(fixture::commands()).unwrap());
        let of_stage: Arc<dyn Books> = Arc::<CqlBooks>::clone(&books);
        let stage = Stage {
            ledger: Arc::new(ledger),
            books: of_stage,
            term: CompactString::new(&name),
            pupil: PupilId::new(&format!("P{name}")).unwrap(),
            order: OrderId::new(&format!("O{name}")).unwrap(),
            first_day: first_day(),
            _keep: Box::new(()),
        };
        (stage, books)
    }

    #[tokio::test]
    async fn a_charge_of_which_the_ledger_knows_nothing_is_found() {
        let session = fixture::session().await;
        let (term, pupil, day) = (fixture::unique(), format!("P{}", fixture::unique()), first_day());
        let insert = session
            .prepare_write(
                "INSERT INTO keyspace.charges (term, pupil, guardian, order_code, day, kind) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .await
            .unwrap();
        session.write(&insert, (&term, &pupil, "G1", "O1", date(day), "arrival")).await.unwrap();
        let found = tokio::task::spawn_blocking(move || {
            let books = CqlBooks::open(fixture::commands()).unwrap();
            books.recount("no-such-term").unwrap()
        })
        .await
        .unwrap();
        let found: Vec<_> = found
            .iter()
            .filter_map(|difference| match difference {
                Difference::NotProved(key) if key.pupil.as_str() == pupil => Some(key),
                _ => None,
            })
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].day, found[0].term.as_str()), (day, term.as_str()));
        assert_eq!(found[0].guardian, GuardianId::new("G1").unwrap());
    }
}
