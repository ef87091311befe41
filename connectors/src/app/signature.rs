//! The signature of a webhook request.
//!
//! Owns: how time and body are signed, so that the backend can tell our requests from anybody's, and an old one from a
//! new one. Leaves to others: the exchange. The receiving side is in the wire format of the parent module.

use gatebell_engine::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// Shortest key, in bytes: what the signature itself is worth.
pub const KEY_LEN_MIN: usize = 32;
/// The header that carries the time of signing, in seconds since 1970.
pub const TIME_HEADER: &str = "Gatebell-Time";
/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "Gatebell-Signature";

/// The values of both headers for `body`, signed at `now`.
pub(super) fn sign(key: &SecretString, now: Timestamp, body: &[u8]) -> (String, String) {
    let time_s = now.as_millis().div_euclid(1000).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes())
        .expect("an HMAC takes a key of any length");
    mac.update(time_s.as_bytes());
    mac.update(b".");
    mac.update(body);
    let signature = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
    (time_s, signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '1757287867.{}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`
    #[test]
    fn the_signature_is_an_hmac_over_seconds_a_dot_and_the_body() {
        let key = SecretString::from("0123456789abcdef0123456789abcdef");
        let (time_s, signature) = sign(&key, Timestamp::from_millis(1_757_287_867_999), b"{}");
        assert_eq!(time_s, "1757287867");
        assert_eq!(signature, "v1=11ae765cccd3282d747b5d79a263e9d82e63a3bc8006c3b934111f827498d845");
    }
}
