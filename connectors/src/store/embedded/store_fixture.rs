//! A store in a directory that lives as long as the test.

use std::ops::Deref;
use std::sync::Arc;

use compact_str::CompactString;
use gatebell_engine::ids::{OrderId, PupilId};
use gatebell_engine::testing::contract::ledger::{TERM, lane, sms_notice};
use tempfile::TempDir;

use super::books::EmbeddedBooks;
use super::ledger::EmbeddedLedger;
use super::message_ids::EmbeddedMessageIds;
use super::receipts::EmbeddedReceiptLog;
use super::store_db::EmbeddedStore;
use crate::data_dir::DataDir;
use crate::store::books_contract;

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

/// The ids of the contract's lane, of which none is known.
pub(super) async fn fresh_message_ids() -> InDirectory<EmbeddedMessageIds> {
    let directory = tempfile::tempdir().expect("a temporary directory is made");
    InDirectory { part: open(&directory).message_ids(&lane()), _directory: directory }
}

/// The stage of the books' contract in an empty store.
pub(super) async fn books_stage() -> books_contract::Stage {
    let directory = tempfile::tempdir().expect("a temporary directory is made");
    let ledger = open(&directory).ledger();
    let opened = DataDir::open(directory.path()).expect("a temporary directory can be used");
    books_contract::Stage {
        ledger,
        books: Arc::new(EmbeddedBooks::open(&opened).expect("the books open")),
        term: CompactString::new(TERM),
        pupil: PupilId::new("P1").expect("of the allowed form"),
        order: OrderId::new("O1").expect("of the allowed form"),
        first_day: sms_notice(0).day,
        _keep: Box::new(directory),
    }
}
