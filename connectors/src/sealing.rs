//! Seals contact data at rest: names, phones and addresses of guardians and names of pupils, in topics and in the store.
//!
//! AES-256-GCM-SIV (RFC 8452) under one key of the city, which lies in a file of its own. A sealed value is a text that
//! says which key it was sealed with, so that a wrong key is told as such. It is bound to its *place* (the kind and key of
//! its entry): moved to another guardian's row it does not open. What it gives away is its length. Where the key file is,
//! and who calls for it, is left to the configuration. Card numbers are keys of the registry and stay readable.

use std::fmt;

use aes_gcm_siv::aead::{Aead, Payload};
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatebell_engine::ids::Personal;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Length of a key, in bytes; its file holds it in hexadecimal.
pub const KEY_LEN_BYTES: usize = 32;
/// How a sealed value begins; another form would begin otherwise.
const FORM: &str = "s1";
/// Length of a nonce, in bytes. It is drawn at random: a repeated one would only show that two values are the same.
const NONCE_LEN_BYTES: usize = 12;
/// Length of a key's id, in bytes.
const KEY_ID_LEN_BYTES: usize = 4;
/// Set before a key where its id is derived, so that the id says nothing about the key's other uses.
const KEY_ID_DOMAIN: &[u8] = b"gatebell contact key id\0";

/// A text that is no key.
#[derive(Debug, thiserror::Error)]
#[error("the contact key is not {} hexadecimal digits", 2 * KEY_LEN_BYTES)]
pub struct NotAKey;

/// Why a value could not be sealed or opened. Holds nothing of the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// It was never sealed, or by a newer gatebell.
    #[error("the value is not sealed in a form that this gatebell knows")]
    UnknownForm,
    /// It needs another key.
    #[error(
        "the value was sealed with the contact key {sealed_with}, and the configured one is {ours}: \
         configure the key file that was used when it was written"
    )]
    OtherKey {
        /// The id of the key it was sealed with.
        sealed_with: String,
        /// The id of ours.
        ours: String,
    },
    /// It was altered, cut short, or moved from another entry.
    #[error("the sealed value is damaged, or belongs to another entry")]
    Damaged,
}

/// The key that contact data is sealed with.
#[derive(Clone)]
pub struct ContactKey {
    cipher: Aes256GcmSiv,
    id: String,
}

impl ContactKey {
    /// The key whose hexadecimal digits are `text`, white space around them aside.
    pub fn parse(text: &SecretString) -> Result<Self, NotAKey> {
        let mut key = [0; KEY_LEN_BYTES];
        hex::decode_to_slice(text.expose_secret().trim(), &mut key).map_err(|_| NotAKey)?;
        let digest = Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(key).finalize();
        let id = hex::encode(&digest[..KEY_ID_LEN_BYTES]);
        Ok(Self { cipher: Aes256GcmSiv::new(&key.into()), id })
    }

    /// Tells this key from others; nothing can be learnt from it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals `value` for `place`, such as `guardian|G1|phone`: only who names the same place can open it.
    pub fn seal(&self, value: &Personal, place: &str) -> Result<String, SealingError> {
        self.seal_bytes(value.expose().as_bytes(), place)
    }

    /// Opens what was sealed for `place`.
    pub fn open(&self, sealed: &str, place: &str) -> Result<Personal, SealingError> {
        let bytes = self.open_bytes(sealed, place)?;
        String::from_utf8(bytes).map(|text| Personal::new(&text)).map_err(|_| SealingError::Damaged)
    }

    /// Seals several values as one, as the caller encodes them.
    pub(crate) fn seal_bytes(&self, value: &[u8], place: &str) -> Result<String, SealingError> {
        let mut nonce = [0; NONCE_LEN_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| SealingError::NoRandomness)?;
        let payload = Payload { msg: value, aad: place.as_bytes() };
        // Fails only for values of many gigabytes.
        let encrypted =
            self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| SealingError::Damaged)?;
        let mut text = format!("{FORM}.{}.", self.id);
        URL_SAFE_NO_PAD.encode_string([&nonce[..], &encrypted[..]].concat(), &mut text);
        Ok(text)
    }

    /// Opens what [`seal_bytes`](Self::seal_bytes) gave.
    pub(crate) fn open_bytes(&self, sealed: &str, place: &str) -> Result<Vec<u8>, SealingError> {
        let (id, text) = sealed
            .strip_prefix(FORM)
            .and_then(|rest| rest.strip_prefix('.')?.split_once('.'))
            .filter(|(id, _)| is_key_id(id))
            .ok_or(SealingError::UnknownForm)?;
        if id != self.id {
            return Err(SealingError::OtherKey { sealed_with: id.to_owned(), ours: self.id.clone() });
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealingError::Damaged)?;
        let (nonce, encrypted) = bytes.split_first_chunk::<NONCE_LEN_BYTES>().ok_or(SealingError::Damaged)?;
        let payload = Payload { msg: encrypted, aad: place.as_bytes() };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| SealingError::Damaged)
    }
}

/// A text that claims to be a key's id goes into an error, so it may be nothing but one.
fn is_key_id(text: &str) -> bool {
    text.len() == 2 * KEY_ID_LEN_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Debug for ContactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContactKey({})", self.id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of 32 times `byte`.
    pub(crate) fn key(byte: u8) -> ContactKey {
        ContactKey::parse(&SecretString::from(hex::encode([byte; KEY_LEN_BYTES]))).unwrap()
    }

    proptest! {
        #[test]
        fn a_sealed_value_opens_at_its_place_with_its_key_and_nowhere_else(
            value in ".{0,80}",
            place in "[a-z]{1,8}\\|[0-9A-Z]{1,12}",
            other_place in "[a-z]{1,8}\\|[0-9A-Z]{1,12}",
            damage in any::<prop::sample::Index>(),
        ) {
            let personal = Personal::new(&value);
            let sealed = key(1).seal(&personal, &place).unwrap();
            prop_assert_eq!(key(1).open(&sealed, &place).unwrap(), personal);
            prop_assert!(value.len() < 4 || !sealed.contains(&value));

            let with_other_key = key(2).open(&sealed, &place).unwrap_err();
            let told = SealingError::OtherKey { sealed_with: key(1).id().into(), ours: key(2).id().into() };
            prop_assert_eq!(with_other_key, told);
            if other_place != place {
                prop_assert_eq!(key(1).open(&sealed, &other_place), Err(SealingError::Damaged));
            }

            let mut damaged = sealed.into_bytes();
            let position = damage.index(damaged.len());
            damaged[position] = if damaged[position] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            let error = key(1).open(&damaged, &place).unwrap_err().to_string();
            prop_assert!(value.len() < 4 || !error.contains(&value));
        }

        #[test]
        fn whatever_is_not_sealed_is_refused_and_not_quoted(text in "(s1\\.)?[0-9a-zA-Z.]{8,40}") {
            let error = key(1).open(&text, "guardian|G1").unwrap_err();
            let quoted = error.to_string().contains(&text);
            prop_assert!(!quoted, "{}", error);
        }
    }

    #[test]
    fn the_same_value_sealed_twice_looks_different() {
        let phone = Personal::new("0912345678");
        assert_ne!(key(1).seal(&phone, "guardian|G1").unwrap(), key(1).seal(&phone, "guardian|G1").unwrap());
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_quoted() {
        for text in ["", "secret", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            let error = ContactKey::parse(&SecretString::from(text)).unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_key_prints_its_id_only() {
        let printed = format!("{:?}", key(1));
        assert_eq!(printed, format!("ContactKey({})", key(1).id()));
        assert!(!printed.contains(&hex::encode([1; 4])), "{printed}");
    }
}
