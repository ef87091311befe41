//! The ledger's store: entries, claims, charges.

use async_trait::async_trait;
use compact_str::CompactString;

use super::PortError;
use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, OrderId, PupilId};
use crate::ledger::{Charge, Claim, ClaimKey, ClaimStamp, LedgerEntry};
use crate::time::Day;

/// What came of an attempt to claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClaimVerdict {
    /// The row is ours as asked; its entry is durable. The request may leave.
    Won,
    /// The row holds something else than was expected; here it is.
    Held(Box<Claim>),
}

/// What came of a charge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChargeVerdict {
    /// It counts, now or since an earlier call.
    Charged,
    /// The bill was frozen before: kept as an `adjusted` entry.
    Adjusted,
}

/// A counter: how many charges an order has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counter {
    /// The term's name.
    pub term: CompactString,
    /// About whom.
    pub pupil: PupilId,
    /// Who pays.
    pub guardian: GuardianId,
    /// Which order.
    pub order: OrderId,
    /// How many delivered messages.
    pub delivered: u64,
}

/// Where the ledger is kept. Shared by all tasks.
///
/// *The store promises:* what returned `Ok` is durable; entries named alike (notice, event, attempt) are kept once, the
/// first one as it was; a claim is only ever changed by compare-and-set; a charge is inserted at most once under its key
/// (term, pupil, guardian, order, day, kind), and the counter of its order then shows the number of its charges. After an
/// error nothing is known: the caller repeats the call, which is harmless, or reads.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Appends entries; all or (after an error) any part of them.
    async fn append(&self, entries: Vec<LedgerEntry>) -> Result<(), PortError>;

    /// Claims `claim.key`, writing `entry` (a `claimed` one) durably with it.
    ///
    /// `expected` is `None` where no row may exist yet, or the stamp of the row that this one replaces (a next attempt, a
    /// take-over). A row that already equals `claim` counts as won: the caller's own earlier call had been applied.
    async fn claim(
        &self,
        expected: Option<ClaimStamp>,
        claim: Claim,
        entry: LedgerEntry,
    ) -> Result<ClaimVerdict, PortError>;

    /// Moves an existing claim on by compare-and-set (submitted, refused, ended), appending `entries` before it, whatever the
    /// row holds: an outcome is a fact, also when somebody else has taken the claim over meanwhile.
    async fn advance(
        &self,
        expected: ClaimStamp,
        claim: Claim,
        entries: Vec<LedgerEntry>,
    ) -> Result<ClaimVerdict, PortError>;

    /// The claim under `key`, if any.
    async fn claim_of(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError>;

    /// Charges one delivered SMS and appends its `charged` entry, or, when the order's bill line is frozen, an `adjusted`
    /// entry. Repeating it changes nothing and gives the first verdict again.
    async fn charge(&self, charge: Charge) -> Result<ChargeVerdict, PortError>;

    /// Every entry of the partition whose record is at or above `offset`, in any order.
    async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError>;

    /// Every entry of one notice, in the order written.
    async fn entries_of(
        &self,
        position: LogPosition,
        notice: NoticeId,
    ) -> Result<Vec<LedgerEntry>, PortError>;

    /// Notices of `partition` and `lane` from day `since` on that are submitted and have no end yet: their last `submitted`
    /// entry, oldest first, at most `limit`, only those after `after` in that order: the last entry of the page before,
    /// which may have met its end meanwhile.
    async fn awaiting_receipt(
        &self,
        partition: u32,
        lane: &LaneName,
        since: Day,
        after: Option<&LedgerEntry>,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, PortError>;

    /// Whether the store answers at all: for readiness.
    async fn ping(&self) -> Result<(), PortError>;
}
