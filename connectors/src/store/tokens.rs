//! Tokens of readers' vendors: who may report taps, for the city or for one school.
//!
//! A token is 256 random bits, shown once when it is made; a store keeps its SHA-256, which is enough for a value that
//! nobody can guess (the public format asks for just that). It is looked up at every request, so that a token made or
//! revoked by another process counts from the next one on. Revoked ones stay on record.

use async_trait::async_trait;
use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

/// The port, as errors name it.
pub(super) const PORT: &str = "token store";
/// Randomness of a token.
const TOKEN_LEN_BYTES: usize = 32;

/// For whom a token speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenScope {
    /// Every reader of the city.
    City,
    /// The readers of one school.
    School(SchoolId),
}

/// A token as the store knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// Its number, for revoking it.
    pub id: u64,
    /// For whom it speaks.
    pub scope: TokenScope,
    /// What it is for, in its maker's words.
    pub label: String,
    /// Who made it.
    pub made_by: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Since when it is no longer valid; `None`: it is.
    pub revoked: Option<Timestamp>,
}

/// The tokens of a store. Making, listing and revoking block, for commands, and must not be called on a thread that runs
/// async tasks; looking one up does not.
///
/// *Promises:* what returned counts from the next look-up on, in every process. No token is kept, only its hash.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Makes a token. It is returned here and never again.
    fn add(
        &self,
        scope: &TokenScope,
        label: &str,
        made_by: &str,
        made_at: Timestamp,
    ) -> Result<(TokenRecord, SecretString), PortError>;

    /// Every token ever made, the oldest first.
    fn list(&self) -> Result<Vec<TokenRecord>, PortError>;

    /// Makes token `id` invalid from the next request on. Whether there was a valid one of that number.
    fn revoke(&self, id: u64, at: Timestamp) -> Result<bool, PortError>;

    /// For whom `token` speaks; `None`: it is not valid.
    async fn verify(&self, token: &str) -> Result<Option<TokenScope>, PortError>;
}

/// A token that nobody can guess, in hexadecimal.
pub(super) fn new_token() -> Result<String, PortError> {
    let mut bytes = [0; TOKEN_LEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| PortError::new(PORT, format_args!("the system gives no random bytes: {error}")))?;
    Ok(hex::encode(bytes))
}

/// What a store keeps of a token.
pub(super) fn hash_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
