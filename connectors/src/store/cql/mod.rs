//! The store on ScyllaDB, or anything that speaks its protocol: many processes on one keyspace.
//!
//! `session` owns the connection and the classes of request, `schema` the tables (`config/cql/`), `ledger` the port of that
//! name, `offsets` the copy of what the tap log has committed, `receipt_progress` how far receipts are settled, `message_ids`
//! what gateways call their messages, `seats` and `process_reports` which processes there are. For commands, `commands` owns a
//! session on a thread of its own, through which `books`, `terms` and `tokens` are asked.
//!
//! *What differs on ScyllaDB.* The tests run against Apache Cassandra 5; what follows is written to ScyllaDB's
//! documentation and **untested here**.
//! - The driver finds the shard-aware port by itself and sends each request to the core that owns its row.
//! - Compare-and-set does not work on tablets before 2025.4, so `migrate` creates the keyspace without them.
//! - The answer to a compare-and-set always has the old row there; only its first column is read here, and who holds a
//!   row is asked by a serial read.
//! - Write timestamps more than three days ahead are refused there: those chosen here are now or in the past.
//! - Its own errors (a partition's rate limit) count as overload: the request is tried again, shortly and boundedly.

pub mod books;
mod books_entries;
mod books_freeze;
mod books_recount;
pub mod commands;
mod error;
#[cfg(test)]
mod fixture;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod ledger;
mod ledger_awaiting;
mod ledger_charges;
mod ledger_claims;
mod ledger_entries;
mod ledger_freezes;
mod ledger_new_rows;
mod ledger_rows;
pub mod message_ids;
pub mod offsets;
pub mod process_reports;
pub mod receipt_progress;
pub mod schema;
pub mod seats;
pub mod session;
pub mod settings;
pub mod terms;
pub mod tokens;
