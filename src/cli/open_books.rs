//! Opens what the commands about money look into: the books and the orders on record, beside a running `serve` or not.

use anyhow::Context as _;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::books::Books;
use gatebell_connectors::store::embedded::registry::EmbeddedRegistry;

use super::Globals;
use crate::statement::OrderBook;

/// The data directory, which must be there already: a new one would hold no bill.
pub(super) fn data_dir(globals: &Globals) -> anyhow::Result<DataDir> {
    Ok(DataDir::existing(&globals.data_dir()?)?)
}

/// The books in `directory`.
pub(super) fn books(directory: &DataDir) -> anyhow::Result<Books> {
    Books::open(directory).context("cannot open the books")
}

/// The orders on record in `directory`.
pub(super) fn orders(directory: &DataDir) -> anyhow::Result<OrderBook> {
    let registry = EmbeddedRegistry::open(directory).context("cannot open the registry")?;
    let mut orders = OrderBook::default();
    for kind in OrderBook::KINDS {
        registry.for_each(kind, |entry| orders.take(entry)).context("cannot read the registry")?;
    }
    Ok(orders)
}
