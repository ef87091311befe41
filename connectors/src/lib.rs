//! Gatebell's connectors: everything that touches the outside, one folder a port.
//!
//! The embedded tap log and store keep everything in one [`data_dir`], in SQLite files that an operator can open by
//! hand. Dependencies point to the engine, whose ports these implement; no connector knows another.

pub mod app;
pub mod damage;
pub mod data_dir;
pub mod kafka;
pub mod key_file;
pub mod outbound;
pub mod receipts;
pub mod registry;
pub mod sealing;
pub mod sms;
mod sqlite;
pub mod store;
pub mod tap_log;
