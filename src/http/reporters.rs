//! Who reports taps: tokens out of the store, readers out of the index.

use std::sync::Arc;

use async_trait::async_trait;
use gatebell_connectors::store::tokens::{TokenScope, Tokens};
use gatebell_engine::ids::SchoolId;
use gatebell_engine::index::RegistryIndex;
use gatebell_engine::runtime::status::Status;

use super::taps::{LookUpFailed, Reporters};

/// The store's tokens and the engine's index.
pub(crate) struct StoredReporters {
    tokens: Arc<dyn Tokens>,
    index: Arc<RegistryIndex>,
    engine: Arc<Status>,
}

impl StoredReporters {
    /// Asks `tokens` at every request, so that a revoked token is refused from the next one on; and `index`
    /// for readers, once `engine` has read the registry into it.
    pub(crate) fn new(tokens: Arc<dyn Tokens>, index: Arc<RegistryIndex>, engine: Arc<Status>) -> Self {
        Self { tokens, index, engine }
    }
}

#[async_trait]
impl Reporters for StoredReporters {
    async fn scope_of(&self, token: &str) -> Result<Option<TokenScope>, LookUpFailed> {
        self.tokens.verify(token).await.map_err(|error| {
            tracing::warn!(%error, "a token cannot be verified; the reader is told to come back");
            LookUpFailed
        })
    }

    fn school_of(&self, reader: &str) -> Result<Option<SchoolId>, LookUpFailed> {
        if !self.engine.is_live() {
            return Err(LookUpFailed);
        }
        Ok(self.index.school_of_reader(reader))
    }
}
