//! The ledger on a shared store: the port, made of entries, claims, charges and the index of what awaits a receipt.
//!
//! No change spans rows, so the order of writes carries the promises: what finds an entry is written before it
//! (`ledger_entries`), a claim's row before its entry (`ledger_claims`), a charge's row before its entry and its counter
//! (`ledger_charges`), an awaited receipt before its submission (`ledger_awaiting`). Whatever a crash leaves half done is
//! completed by doing it again, which the engine does with all that it has not seen settled.

use std::slice;
use std::sync::Arc;

use async_trait::async_trait;
use gatebell_engine::ids::{LaneName, LogPosition, NoticeId};
use gatebell_engine::ledger::{Charge, Claim, ClaimKey, ClaimStamp, Event, LedgerEntry};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::{ChargeVerdict, ClaimVerdict, Ledger};
use gatebell_engine::recount::is_proof;
use gatebell_engine::time::Day;

use super::ledger_awaiting::Awaiting;
use super::ledger_charges::Charges;
use super::ledger_claims::Claims;
use super::ledger_entries::Entries;
use super::ledger_rows::NewlyWritten;
use super::session::{CqlSession, Read};

/// The ledger of one log. Shared by all tasks of one process; other processes have theirs on the same keyspace.
#[derive(Debug)]
pub struct CqlLedger {
    session: Arc<CqlSession>,
    entries: Entries,
    awaiting: Awaiting,
    claims: Claims,
    charges: Charges,
    select_anything: Read,
}

impl CqlLedger {
    /// The ledger of the notices that come from `log`, named with its cluster.
    pub async fn new(session: Arc<CqlSession>, log: &str) -> Result<Self, PortError> {
        let (entries, awaiting, claims, charges, select_anything) = futures::try_join!(
            Entries::new(Arc::clone(&session), log),
            Awaiting::new(Arc::clone(&session), log),
            Claims::new(Arc::clone(&session)),
            Charges::new(Arc::clone(&session)),
            session.prepare_read("SELECT version FROM keyspace.schema_versions WHERE part = 'store' LIMIT 1"),
        )?;
        Ok(Self { session, entries, awaiting, claims, charges, select_anything })
    }

    /// What must be there before `entries` are.
    async fn announce(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        futures::try_join!(self.entries.write_places(entries), self.awaiting.expect(entries))?;
        Ok(())
    }

    /// Writes `entries`, which are announced, and what follows from them.
    async fn record(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        self.entries.write(entries).await?;
        self.awaiting.settle(&self.entries, entries).await
    }
}

#[async_trait]
impl Ledger for CqlLedger {
    async fn append(&self, entries: Vec<LedgerEntry>) -> Result<(), PortError> {
        let entries = self.entries.stamp(&entries);
        self.announce(&entries).await?;
        self.record(&entries).await
    }

    async fn claim(
        &self,
        expected: Option<ClaimStamp>,
        claim: Claim,
        entry: LedgerEntry,
    ) -> Result<ClaimVerdict, PortError> {
        let entries = self.entries.stamp(slice::from_ref(&entry));
        // The places of an entry that a loser then does not write point at nothing.
        let swap = self.claims.swap(expected.as_ref(), &claim);
        let (verdict, ()) = futures::try_join!(swap, self.announce(&entries))?;
        if verdict == ClaimVerdict::Won {
            self.record(&entries).await?;
        }
        Ok(verdict)
    }

    async fn advance(
        &self,
        expected: ClaimStamp,
        claim: Claim,
        entries: Vec<LedgerEntry>,
    ) -> Result<ClaimVerdict, PortError> {
        // Entries first: the row says that nothing more is owed, and must not say so alone.
        self.append(entries).await?;
        self.claims.swap(Some(&expected), &claim).await
    }

    async fn claim_of(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError> {
        self.claims.read(key).await
    }

    async fn charge(&self, charge: Charge) -> Result<ChargeVerdict, PortError> {
        if !charge.kind.is_charged() || !is_proof(&charge.proof) {
            return Err(PortError::new(
                "ledger",
                format_args!(
                    "notice {} cannot be charged: {} by {} with {} as its proof",
                    charge.proof.notice, charge.kind, charge.proof.channel, charge.proof.event
                ),
            ));
        }
        let booked = self.charges.book(&charge).await?;
        if booked.is_of_this_notice {
            let event = match booked.verdict {
                ChargeVerdict::Charged => Event::Charged,
                ChargeVerdict::Adjusted => Event::Adjusted,
            };
            self.append(vec![charge.proof.followed_by(event, charge.proof.time)]).await?;
        }
        Ok(booked.verdict)
    }

    async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError> {
        self.entries.load_from(partition, offset).await
    }

    async fn entries_of(
        &self,
        position: LogPosition,
        notice: NoticeId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        let entries = self.entries.of_notice(position, notice).await?;
        Ok(entries.into_iter().map(|read| read.entry).collect())
    }

    async fn awaiting_receipt(
        &self,
        partition: u32,
        lane: &LaneName,
        since: Day,
        after: Option<&LedgerEntry>,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        self.awaiting.read(&self.entries, partition, lane, since, after, limit).await
    }

    async fn ping(&self) -> Result<(), PortError> {
        self.session.row::<(i32,)>(&self.select_anything, ()).await.map(drop)
    }
}

#[cfg(test)]
#[path = "ledger_tests/mod.rs"]
mod tests;
