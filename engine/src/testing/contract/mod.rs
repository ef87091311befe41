//! Contract tests: what every implementation of a port promises, run by each of them.

pub mod ledger;
pub mod message_ids;
pub mod receipts;
pub mod registry_feed;
pub mod rejected;
pub mod tap_log;
