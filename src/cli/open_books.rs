//! Opens what the commands about money look into, beside a running `serve` or not.

use anyhow::Context as _;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::books::Books;
use gatebell_connectors::store::embedded::books::EmbeddedBooks;

use super::Globals;
use crate::statement::OrderBook;

/// The data directory, which must be there already: a new one would hold no bill.
pub(super) fn data_dir(globals: &Globals) -> anyhow::Result<DataDir> {
    Ok(DataDir::existing(&globals.data_dir()?)?)
}

/// The books in `directory`.
pub(super) fn books(directory: &DataDir) -> anyhow::Result<Box<dyn Books>> {
    Ok(Box::new(EmbeddedBooks::open(directory).context("cannot open the books")?))
}

/// The orders in `directory`, which must hold a city: without one there is nothing to bill, rather than a bill of nothing.
pub(super) fn orders(directory: &DataDir) -> anyhow::Result<OrderBook> {
    let orders = if directory.registry().exists() { Some(OrderBook::read(directory)?) } else { None };
    orders.filter(|orders| !orders.is_empty()).with_context(|| no_city(directory))
}

/// That there is no city in `directory`, and what to do.
pub(super) fn no_city(directory: &DataDir) -> String {
    format!("there is no city in {}: gatebell import DIR brings one", directory.path().display())
}
