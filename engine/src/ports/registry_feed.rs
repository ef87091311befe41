//! The registry feed: a snapshot, then changes in order.

use async_trait::async_trait;

use super::PortError;
use crate::registry::RegistryChange;
use crate::time::Timestamp;

/// Reads the registry's changes. One task owns it.
///
/// *The feed promises:* changes come in the order of their versions; [`read`](Self::read) has everything that was
/// written before the call began; of what was applied before `horizon` only the last value of a key need still be there.
/// *The engine promises:* it reports what it has applied, so that whoever made a change can wait for it.
#[async_trait]
pub trait RegistryFeed: Send {
    /// The next changes after `version` (0 for all there is), in order, at most some thousands; empty when there is
    /// nothing new. Returns at once: an empty answer confirms that the engine is up to date.
    async fn read(&mut self, version: u64, horizon: Timestamp) -> Result<Vec<RegistryChange>, PortError>;

    /// This process has applied everything up to `version`, and is alive.
    async fn report_applied(&mut self, version: u64) -> Result<(), PortError>;
}
