//! The ledger against the real store: its contract, races between processes, and answers that were lost.

use compact_str::{CompactString, format_compact};
use gatebell_engine::ledger_contract;

use super::super::fixture;
use super::*;

mod agreement;
mod billing;
mod indexes;
mod races;

/// A ledger of a log of its own, whose terms nobody else uses: the contract's tests all write the same term, and share
/// the keyspace.
struct ApartLedger {
    ledger: CqlLedger,
    suffix: String,
}

impl ApartLedger {
    async fn fresh() -> Box<Self> {
        Box::new(Self::of_process(&fixture::unique()).await)
    }

    /// The ledger of the log `suffix` as one more process sees it: with a session of its own.
    async fn of_process(suffix: &str) -> Self {
        let ledger = CqlLedger::new(fixture::session().await, suffix).await.expect("the ledger opens");
        Self { ledger, suffix: suffix.to_owned() }
    }

    /// The same log and terms, seen by `count` processes.
    async fn of_processes(count: usize) -> Vec<Self> {
        let suffix = fixture::unique();
        futures::future::join_all((0..count).map(|_| Self::of_process(&suffix))).await
    }

    fn apart(&self, term: &str) -> CompactString {
        format_compact!("{term}/{}", self.suffix)
    }

    fn claim_apart(&self, mut claim: Claim) -> Claim {
        claim.key.term = self.apart(&claim.key.term);
        claim
    }

    fn claim_back(mut claim: Claim) -> Claim {
        let (term, _) = claim.key.term.rsplit_once('/').expect("a term set apart");
        claim.key.term = CompactString::new(term);
        claim
    }

    fn back(verdict: ClaimVerdict) -> ClaimVerdict {
        match verdict {
            ClaimVerdict::Won => ClaimVerdict::Won,
            ClaimVerdict::Held(claim) => ClaimVerdict::Held(Box::new(Self::claim_back(*claim))),
        }
    }
}

#[async_trait]
impl Ledger for ApartLedger {
    async fn append(&self, entries: Vec<LedgerEntry>) -> Result<(), PortError> {
        self.ledger.append(entries).await
    }

    async fn claim(
        &self,
        expected: Option<ClaimStamp>,
        claim: Claim,
        entry: LedgerEntry,
    ) -> Result<ClaimVerdict, PortError> {
        self.ledger.claim(expected, self.claim_apart(claim), entry).await.map(Self::back)
    }

    async fn advance(
        &self,
        expected: ClaimStamp,
        claim: Claim,
        entries: Vec<LedgerEntry>,
    ) -> Result<ClaimVerdict, PortError> {
        self.ledger.advance(expected, self.claim_apart(claim), entries).await.map(Self::back)
    }

    async fn claim_of(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError> {
        let key = ClaimKey { term: self.apart(&key.term), ..key.clone() };
        Ok(self.ledger.claim_of(&key).await?.map(Self::claim_back))
    }

    async fn charge(&self, mut charge: Charge) -> Result<ChargeVerdict, PortError> {
        charge.term = self.apart(&charge.term);
        self.ledger.charge(charge).await
    }

    async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError> {
        self.ledger.load_from(partition, offset).await
    }

    async fn entries_of(
        &self,
        position: LogPosition,
        notice: NoticeId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        self.ledger.entries_of(position, notice).await
    }

    async fn awaiting_receipt(
        &self,
        partition: u32,
        lane: &LaneName,
        since: Day,
        after: Option<&LedgerEntry>,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        self.ledger.awaiting_receipt(partition, lane, since, after, limit).await
    }

    async fn ping(&self) -> Result<(), PortError> {
        self.ledger.ping().await
    }
}

ledger_contract!(contract, ApartLedger::fresh);
