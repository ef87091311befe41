//! Opens what the commands about money look into, beside a running `serve` or not.

use anyhow::Context as _;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::books::Books;

use super::Globals;

/// The data directory, which must be there already: a new one would hold no bill.
pub(super) fn data_dir(globals: &Globals) -> anyhow::Result<DataDir> {
    Ok(DataDir::existing(&globals.data_dir()?)?)
}

/// The books in `directory`.
pub(super) fn books(directory: &DataDir) -> anyhow::Result<Books> {
    Books::open(directory).context("cannot open the books")
}
