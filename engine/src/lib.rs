//! Gatebell's engine: the rules of the school gate as plain synchronous code, the ports to the outside as traits, and the
//! runtime that drives the one between the others.
//!
//! Follow a tap: [`decode`] reads it, [`day`] tells a passage from a duplicate, [`index`] knows what is owed to whom,
//! [`shard`] puts these together for one partition, [`lane`] orders what is to be sent, [`ledger`] and [`billing`] say
//! what became of it and what it costs. Only [`runtime`] knows tokio's tasks; only [`ports`] know that there is an outside.

pub mod billing;
pub mod calendar;
pub mod day;
pub mod decode;
pub mod ids;
pub mod index;
pub mod invariants;
pub mod lane;
pub mod ledger;
pub mod money;
pub mod notice;
pub mod ports;
pub mod recount;
pub mod registry;
pub mod runtime;
pub mod shard;
pub mod tap;
pub mod template;
pub mod term;
pub mod time;
pub mod toml_document;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
