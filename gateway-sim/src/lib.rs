//! The gateway simulator: an SMS gateway that speaks Mitake's protocol, and a city app's push backend, in one HTTP server
//! with faults from a seed.
//!
//! A crate of its own, below neither engine nor connectors: it is written from the provider's document alone, so that a
//! connector that misreads the document is caught by it instead of agreeing with it; and connectors' tests, the demo and
//! the program's `gateway-sim` all run the same one.
//!
//! Follow a message: [`mitake`] reads the request and [`book`] decides (account, rate, dedup, points), as [`fate`] has
//! drawn for it; [`receipts`] calls back, late, repeated and out of order, until it is answered as the document says.
//! [`app`] checks the webhook's signatures. [`log`] is what a test compares the ledger with.
//!
//! Promises: every choice about a message depends on the seed, its `clientid` and how often it came, not on the order of
//! arrival, so that two runs can be compared. Its log holds phone numbers and texts: it is for made-up cities only.

mod app;
mod book;
mod config;
mod fate;
mod log;
mod mitake;
mod rate;
mod receipts;
mod server;
mod shape;
mod stamp;

pub use config::{
    Account, AppBackend, ConfigError, Faults, Limits, Mistake, Receipts, SIMULATOR_APP_KEY,
    SIMULATOR_PASSWORD, SIMULATOR_USERNAME, SimConfig, Spread,
};
pub use log::{Counts, SentReceipt, SimLog, TakenMessage, TakenPush};
pub use server::{GatewaySim, SimError};

/// Where Mitake's commands are: `{MITAKE_PATH}/SmSend` and so on. `/b2c/mtk` works as well.
pub const MITAKE_PATH: &str = "/api/mtk";
/// Where the app's webhook is.
pub const APP_PATH: &str = "/app/push";
