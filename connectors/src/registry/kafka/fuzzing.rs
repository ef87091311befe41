//! The entrances for fuzzing: what production reads and writes the records of the registry's topic with.

use gatebell_engine::ids::Personal;
use gatebell_engine::registry::Entry;

use super::record::{Head, RecordError, Value, key_of};
use crate::sealing::ContactKey;

/// A head, opaque.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadHead(Head);

/// A value, opaque but for its entry.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadValue(Value);

impl ReadHead {
    /// Reads a head's payload.
    pub fn decode(payload: &[u8]) -> Result<Self, String> {
        Head::decode(payload).map(Self).map_err(told)
    }

    /// Its payload.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        self.0.encode().map_err(told)
    }
}

impl ReadValue {
    /// Reads the payload of the record with `key`.
    pub fn decode(key: &[u8], payload: &[u8], contact_key: &ContactKey) -> Result<Self, String> {
        Value::decode(key, payload, contact_key).map(Self).map_err(told)
    }

    /// Its payload.
    pub fn encode(&self, contact_key: &ContactKey) -> Result<Vec<u8>, String> {
        self.0.encode(contact_key).map_err(told)
    }

    /// Its record's key.
    pub fn key(&self) -> String {
        key_of(&self.0.entry.key()).into()
    }

    /// What the key holds.
    pub fn entry(&self) -> &Entry {
        &self.0.entry
    }
}

/// `text`, sealed for the record with `key` as a writer seals contact data.
pub fn seal(text: &str, key: &str, contact_key: &ContactKey) -> String {
    // Fails only where the system gives no random bytes.
    contact_key.seal(&Personal::new(text), key).unwrap_or_default()
}

fn told(error: RecordError) -> String {
    error.to_string()
}
