//! One hand at a time on the end of a notice.
//!
//! Receipts, a lane that gives an attempt in doubt up, and the poller that gives a receipt up can all want to end one
//! notice. Each looks first whether it has ended, and looks and writes under the notice's lock, so that a *failed* is never
//! written after a *delivered* (N1). A former owner that slept may still write what its gateway answered: between processes only
//! that look protects, and that the store keeps the first of two entries of one name.

use tokio::sync::{Mutex, MutexGuard};

use super::retrying;
use super::status::Status;
use crate::ids::NoticeId;
use crate::ledger::{Event, LedgerEntry};
use crate::ports::ledger::Ledger;

/// Locks that notices share by their ids; more of them than are settled at once.
const LOCKS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Settling {
    locks: Vec<Mutex<()>>,
}

impl Default for Settling {
    fn default() -> Self {
        Self { locks: (0..LOCKS).map(|_| Mutex::new(())).collect() }
    }
}

impl Settling {
    /// Waits until nobody else is settling `notice`. Held across reads and writes of the ledger, never two at once.
    pub(crate) async fn of(&self, notice: NoticeId) -> MutexGuard<'_, ()> {
        let place = usize::try_from(notice.as_u128() % LOCKS as u128).unwrap_or(0);
        self.locks[place].lock().await
    }
}

/// Whether the ledger says of the notice what `end`, which a lane has decided, does not overturn: that it has ended, or that the
/// gateway has taken it, so that its receipt says how it ends (an end that is written meanwhile would keep everybody from
/// asking for the receipt). Only proof of success overturns, and only what is none.
pub(crate) async fn is_overtaken(status: &Status, ledger: &dyn Ledger, end: &LedgerEntry) -> bool {
    let known = retrying(status, "ledger", || ledger.entries_of(end.position, end.notice)).await;
    status.watch().check_history(end.position, known.iter().map(|known| known.event));
    let overturns = |known: Event| end.event.is_success() && !known.is_success();
    known.iter().any(|known| known.event.settles() && !overturns(known.event))
}

/// Writes an end, unless it [is overtaken](is_overtaken). Only under the lock of the notice. Tries again until the ledger
/// answers.
pub(crate) async fn append_unless_overtaken(status: &Status, ledger: &dyn Ledger, end: LedgerEntry) {
    if is_overtaken(status, ledger, &end).await {
        return;
    }
    retrying(status, "ledger", || ledger.append(vec![end.clone()])).await;
    status.count_entries(&[end]);
}
