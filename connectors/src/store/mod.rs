//! Stores: where the registry, the ledger and the receipts are kept.

pub mod cql;
pub mod embedded;
