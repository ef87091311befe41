//! One hand at a time on the end of a notice.
//!
//! Receipts, a lane that gives an attempt in doubt up, and the poller that gives a receipt up can all want to end one
//! notice. Each looks first whether it has ended, and looks and writes under the notice's lock, so that a *failed* is never
//! written after a *delivered* (N1). Only a partition's owner settles its notices, so a lock within the process serves.

use tokio::sync::{Mutex, MutexGuard};

use crate::ids::NoticeId;

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
