//! The ports: what the engine asks of the outside, as traits.
//!
//! A connector implements one of these and passes its contract tests (`testing::contract`). Each trait's doc comment
//! states the obligations of both sides. Nothing here names a vendor, a protocol or a storage engine.

pub mod channel;
pub mod clock;
pub mod ledger;
pub mod message_ids;
pub mod receipts;
pub mod registry_feed;
pub mod rejected;
pub mod seats;
pub mod tap_log;

/// Why a port could not do what was asked. The engine holds what it has, says so, and asks again; nothing is lost.
///
/// The message is for operators: it names the port and the cause, and holds no personal data and no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{port}: {cause}")]
pub struct PortError {
    /// Which port, such as `tap log` or `ledger`.
    pub port: &'static str,
    /// What went wrong, in lower case.
    pub cause: String,
}

impl PortError {
    /// An error of `port` with `cause`.
    pub fn new(port: &'static str, cause: impl std::fmt::Display) -> Self {
        Self { port, cause: cause.to_string() }
    }
}
