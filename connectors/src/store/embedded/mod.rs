//! The embedded store: SQLite files in the data directory, no server. Each part owns its tables and brings its own
//! schema; parts in the same file are told apart by the names of their schemas.

pub mod books;
mod books_entries;
mod books_freeze;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod ledger;
mod ledger_charges;
pub mod ledger_check;
mod ledger_claims;
mod ledger_entries;
mod ledger_rows;
mod ledger_schema;
pub mod message_ids;
pub mod receipts;
pub mod registry;
pub mod registry_feed;
mod registry_progress;
mod registry_rows;
#[cfg(test)]
mod registry_tests;
pub mod store_db;
#[cfg(test)]
mod store_fixture;
pub mod terms;
pub mod tokens;
