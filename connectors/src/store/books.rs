//! The books, as commands read them beside running engines: counters, entries, final lines, closed terms.
//!
//! Owns what is asked of a store for the bill and the export, and nothing of how it is kept. What an order is, the
//! registry knows; what a line costs, the engine's `billing`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use compact_str::CompactString;
use gatebell_engine::billing::BillLine;
use gatebell_engine::ids::{OrderId, PupilId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::Counter;
use gatebell_engine::recount::Difference;
use gatebell_engine::time::{Day, Timestamp};

/// What the books say of one term, at one instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TermBooks {
    /// The number of charges of each order.
    pub delivered: BTreeMap<OrderId, u64>,
    /// The lines that are final.
    pub frozen: BTreeMap<OrderId, BillLine>,
    /// Since when the term is closed, if it is.
    pub closed: Option<ClosedTerm>,
    /// Orders that have charges, or a frozen line of an order that had been approved or cancelled, in other
    /// terms.
    pub of_other_terms: BTreeSet<OrderId>,
}

/// The closing of a term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClosedTerm {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: CompactString,
    /// Whether it was closed before its time.
    pub forced: bool,
}

/// Who freezes, when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// Who.
    pub by: CompactString,
    /// When.
    pub at: Timestamp,
}

/// What came of closing a term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closing {
    /// It is closed now.
    Closed {
        /// All its lines, those that were final before included.
        lines: usize,
    },
    /// It had been closed before; nothing was changed.
    ClosedBefore(ClosedTerm),
}

/// Entries read page by page: an export of a whole term needs the memory of a page. Ends after an error.
pub type Entries<'books> = Box<dyn Iterator<Item = Result<LedgerEntry, PortError>> + 'books>;

/// Picks lines from the books as they stand. May be asked more than once, when the books changed meanwhile.
pub type PickLines<'a> = &'a dyn Fn(&TermBooks) -> Vec<BillLine>;

/// A command's way to the store. Every call blocks, and must not be made on a thread that runs async tasks.
///
/// *Promises:* a charge that was booked before its line was frozen counts in that line; one that was booked after is
/// `adjusted`; none is both or neither, however many engines run. A frozen line is never written again.
pub trait Books: Send + Sync {
    /// What the books say of `term`.
    fn term(&self, term: &str) -> Result<TermBooks, PortError>;

    /// Every counter of every term.
    fn counters(&self) -> Result<Vec<Counter>, PortError>;

    /// Every entry about notices of `days`: in the order written, or, where many write at once, by place in the tap log and
    /// each notice's in the order written.
    fn entries(&self, days: RangeInclusive<Day>) -> Result<Entries<'_>, PortError>;

    /// Every entry about notices of `days` and one pupil, ordered as [`entries`](Self::entries).
    fn entries_of_pupil(
        &self,
        days: RangeInclusive<Day>,
        pupil: &PupilId,
    ) -> Result<Vec<LedgerEntry>, PortError>;

    /// Derives charges and counters from the ledger and gives every difference from what is stored. Days on
    /// which nothing tells the term are taken for days of `term_otherwise`. What an engine is writing meanwhile may show as
    /// a difference; it is gone when looked at again.
    fn recount(&self, term_otherwise: &str) -> Result<Vec<Difference>, PortError>;

    /// Freezes the lines of `term` that `due` picks. Those already frozen stay as they are. Gives the number frozen just
    /// now.
    fn freeze(&self, term: &str, signature: &Signature, due: PickLines<'_>) -> Result<usize, PortError>;

    /// Closes `term`: freezes all of its `lines`, and from now on whatever is delivered is `adjusted`. One that broke off
    /// is closed by calling again.
    fn close(
        &self,
        term: &str,
        signature: &Signature,
        forced: bool,
        lines: PickLines<'_>,
    ) -> Result<Closing, PortError>;
}
