//! A store in a directory that lives as long as the test.

use std::ops::Deref;
use std::sync::Arc;

use tempfile::TempDir;

use super::ledger::EmbeddedLedger;
use super::receipts::EmbeddedReceiptLog;
use super::store_db::EmbeddedStore;
use crate::data_dir::DataDir;

/// One part of the store, and the directory that it is in.
pub(super) struct InDirectory<T> {
    part: Arc<T>,
    _directory: TempDir,
}

impl<T> Deref for InDirectory<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

/// Opens the store in `directory`, as a start after a stop does.
pub(super) fn open(directory: &TempDir) -> EmbeddedStore {
    let directory = DataDir::open(directory.path()).expect("a temporary directory can be used");
    EmbeddedStore::open(&directory).expect("the store opens")
}

/// An empty ledger.
pub(super) async fn fresh_ledger() -> InDirectory<EmbeddedLedger> {
    let directory = tempfile::tempdir().expect("a temporary directory is made");
    InDirectory { part: open(&directory).ledger(), _directory: directory }
}

/// An empty receipt log.
pub(super) async fn fresh_receipts() -> InDirectory<EmbeddedReceiptLog> {
    let directory = tempfile::tempdir().expect("a temporary directory is made");
    InDirectory { part: open(&directory).receipts(), _directory: directory }
}
