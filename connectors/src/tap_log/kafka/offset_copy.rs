//! The copy of the committed offsets in the store.

use async_trait::async_trait;
use gatebell_engine::ports::PortError;

/// Keeps a copy of what is committed: a consumer group whose members have all been away for a week loses its offsets, and
/// without a copy the city's taps of weeks would be read again.
#[async_trait]
pub trait OffsetCopy: Send + Sync {
    /// Everything of `partition` below the offset is settled; `None`: there is no copy.
    async fn committed(&self, partition: u32) -> Result<Option<u64>, PortError>;

    /// Copies that everything of `partition` below `offset` is settled. An earlier offset never replaces a later one.
    async fn commit(&self, partition: u32, offset: u64) -> Result<(), PortError>;
}
