//! Which charges a frozen bill line counts: decided once, by compare-and-set, whoever is first.
//!
//! Owns `charge_freezes` and reads `closed_terms`. An order goes from nothing to *freezing* to *frozen* and never back;
//! `ledger_charges` says why there are two steps. What the line says of money is not kept here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use gatebell_engine::ids::{GuardianId, OrderId, PupilId};
use gatebell_engine::ledger::Charge;
use gatebell_engine::notice::NoticeKind;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Day;
use scylla::value::CqlDate;

use super::error::store_error;
use super::ledger_rows::{day, unreadable, word};
use super::session::{CqlSession, Read, Swap, pause_after};

/// Rounds of compare-and-set and serial read before nothing is known.
const ROUNDS_MAX: u32 = 4;

/// The marks of frozen orders.
#[derive(Debug)]
pub(super) struct Freezes {
    session: Arc<CqlSession>,
    insert: Swap,
    settle: Swap,
    select: Read,
    select_serial: Read,
    select_term: Read,
}

/// One order of one term.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrderKey<'charge> {
    pub(super) term: &'charge str,
    pub(super) pupil: &'charge PupilId,
    pub(super) guardian: &'charge GuardianId,
    pub(super) order: &'charge OrderId,
}

impl<'charge> OrderKey<'charge> {
    /// The order that `charge` is put on.
    pub(super) fn of(charge: &'charge Charge) -> Self {
        Self {
            term: charge.term.as_str(),
            pupil: &charge.pupil,
            guardian: &charge.guardian,
            order: &charge.order,
        }
    }

    pub(super) fn columns(self) -> (&'charge str, &'charge str, &'charge str, &'charge str) {
        (self.term, self.pupil.as_str(), self.guardian.as_str(), self.order.as_str())
    }
}

/// A charge within its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ChargeName {
    pub(super) day: Day,
    pub(super) kind: NoticeKind,
}

impl ChargeName {
    pub(super) fn from_columns(date: CqlDate, kind: &str) -> Result<Self, PortError> {
        Ok(Self { day: day(date)?, kind: word(kind, "kind")? })
    }

    fn from_word(text: &str) -> Result<Self, PortError> {
        let (day, kind) = text.split_once('/').ok_or_else(|| unreadable("counted"))?;
        Ok(Self { day: word(day, "counted")?, kind: word(kind, "counted")? })
    }
}

impl fmt::Display for ChargeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.day, self.kind)
    }
}

/// How far an order's freeze has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// The charges that its line counts, once that is decided.
    pub(super) counted: Option<BTreeSet<ChargeName>>,
}

/// Whether a term is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TermState {
    /// It is not.
    Open,
    /// Its orders are being frozen one by one.
    Closing,
    /// All that it has lines for are frozen.
    Closed,
}

const FREEZING: &str = "freezing";
const FROZEN: &str = "frozen";

impl Freezes {
    pub(super) async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let select = "SELECT state, counted FROM keyspace.charge_freezes
                      WHERE term = ? AND pupil = ? AND guardian = ? AND order_code = ?";
        let insert = session.prepare_swap(
            "INSERT INTO keyspace.charge_freezes (term, pupil, guardian, order_code, state) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
        );
        let settle = session.prepare_swap(
            "UPDATE keyspace.charge_freezes SET state = ?, counted = ?
             WHERE term = ? AND pupil = ? AND guardian = ? AND order_code = ? IF state = ?",
        );
        let select_term = session.prepare_read("SELECT state FROM keyspace.closed_terms WHERE term = ?");
        Ok(Self {
            insert: insert.await?,
            settle: settle.await?,
            select: session.prepare_read(select).await?,
            select_serial: session.prepare_serial_read(select).await?,
            select_term: select_term.await?,
            session,
        })
    }

    /// Whether `term` is closed. A majority read: sees every closing that its closer knows to be written.
    pub(super) async fn term(&self, term: &str) -> Result<TermState, PortError> {
        let row: Option<(String,)> = self.session.row(&self.select_term, (term,)).await?;
        match row.as_ref().map(|(state,)| state.as_str()) {
            None => Ok(TermState::Open),
            Some("closing") => Ok(TermState::Closing),
            Some("closed") => Ok(TermState::Closed),
            Some(_) => Err(unreadable("state")),
        }
    }

    /// The mark of an order. A majority read: sees every mark that its writer knows to be written.
    pub(super) async fn read(&self, key: OrderKey<'_>) -> Result<Option<Mark>, PortError> {
        self.read_by(&self.select, key).await
    }

    async fn read_by(&self, select: &Read, key: OrderKey<'_>) -> Result<Option<Mark>, PortError> {
        let row: Option<(String, Option<BTreeSet<String>>)> = self.session.row(select, key.columns()).await?;
        match row {
            None => Ok(None),
            Some((state, _)) if state == FREEZING => Ok(Some(Mark { counted: None })),
            // A set without elements reads as none.
            Some((state, counted)) if state == FROZEN => {
                let words = counted.unwrap_or_default();
                let counted =
                    words.iter().map(|text| ChargeName::from_word(text)).collect::<Result<_, _>>()?;
                Ok(Some(Mark { counted: Some(counted) }))
            }
            Some(_) => Err(unreadable("state")),
        }
    }

    /// The first step: the order is freezing, or further.
    pub(super) async fn mark(&self, key: OrderKey<'_>) -> Result<(), PortError> {
        let (term, pupil, guardian, order) = key.columns();
        for round in 1..=ROUNDS_MAX {
            let answer = self.session.swap(&self.insert, (term, pupil, guardian, order, FREEZING)).await;
            // Applied, or there was one: either way it is there. Without an answer the row tells.
            if answer.is_ok() || self.read_by(&self.select_serial, key).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(store_error("the mark of a frozen order cannot be written"))
    }

    /// The second step: the line of a marked order counts `proposed`, or what somebody else has proposed before.
    pub(super) async fn settle(
        &self,
        key: OrderKey<'_>,
        proposed: BTreeSet<ChargeName>,
    ) -> Result<BTreeSet<ChargeName>, PortError> {
        let (term, pupil, guardian, order) = key.columns();
        let words: BTreeSet<String> = proposed.iter().map(ChargeName::to_string).collect();
        for round in 1..=ROUNDS_MAX {
            let values = (FROZEN, &words, term, pupil, guardian, order, FREEZING);
            if let Ok(true) = self.session.swap(&self.settle, values).await {
                return Ok(proposed);
            }
            let held = self.read_by(&self.select_serial, key).await?;
            if let Some(counted) = held.and_then(|mark| mark.counted) {
                return Ok(counted);
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(store_error("what a frozen order counts cannot be written"))
    }
}
