//! `store.db` as a running engine opens it: one writer thread for ledger, receipts and message ids together, so that what
//! they write at the same time is one commit.

use std::sync::Arc;

use gatebell_engine::ids::LaneName;
use gatebell_engine::ports::PortError;

use super::ledger::EmbeddedLedger;
use super::ledger_schema::LEDGER;
use super::message_ids::{EmbeddedMessageIds, MESSAGE_IDS};
use super::receipts::{EmbeddedReceiptLog, RECEIPTS};
use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers, Writer};

/// Commands that may wait for the writer; whoever comes later waits for room.
const QUEUE_COMMANDS_MAX: usize = 4096;
/// Reads at once.
const READERS_MAX: usize = 4;
/// Pages of the file in the writer's memory. The indexes of a day are written all over: a city's morning
/// fits.
const WRITER_CACHE_KIB: i64 = 64 * 1024;

/// The store of a running engine.
#[derive(Debug)]
pub struct EmbeddedStore {
    ledger: Arc<EmbeddedLedger>,
    receipts: Arc<EmbeddedReceiptLog>,
    writer: Arc<Writer>,
    readers: Readers,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, creating what is missing.
    pub fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.store(), "store", &LEDGER)?;
        DatabaseFile::open(&directory.store(), "store", &RECEIPTS)?;
        DatabaseFile::open(&directory.store(), "store", &MESSAGE_IDS)?;
        let writer = Arc::new(Writer::start(&file, QUEUE_COMMANDS_MAX)?);
        // The first command in the queue, so the first to run; only speed depends on it.
        drop(writer.try_write(|connection| connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)));
        let readers = Readers::new(file, READERS_MAX);
        Ok(Self {
            ledger: Arc::new(EmbeddedLedger::new(Arc::clone(&writer), readers.clone())),
            receipts: Arc::new(EmbeddedReceiptLog::new(Arc::clone(&writer), readers.clone())),
            writer,
            readers,
        })
    }

    /// The ledger.
    pub fn ledger(&self) -> Arc<EmbeddedLedger> {
        Arc::clone(&self.ledger)
    }

    /// The receipt log.
    pub fn receipts(&self) -> Arc<EmbeddedReceiptLog> {
        Arc::clone(&self.receipts)
    }

    /// What the message ids of the gateway of `lane` stand for.
    pub fn message_ids(&self, lane: &LaneName) -> Arc<EmbeddedMessageIds> {
        let (writer, readers) = (Arc::clone(&self.writer), self.readers.clone());
        Arc::new(EmbeddedMessageIds::new(writer, readers, lane.clone()))
    }
}
