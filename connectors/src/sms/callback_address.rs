//! Signed callback addresses: one a message, or one an account.
//!
//! A gateway reports what became of a message to the address that the message itself carried. That address names lane,
//! tap and notice, and is signed over these *and* the phone number the message went to: so a receipt finds its notice
//! without a table, a forged or altered one is refused, and so is one that speaks of another phone, all without the
//! number being stored anywhere. Owns: form and signature of the address. Leaves to others: what a gateway's report
//! says (its own module), and the HTTP surface.
//!
//! `{public base}/v1/callbacks/{protocol}/{lane}/{partition}.{offset}.{notice}.{signature}`; the signature is the first
//! 128 bits of an HMAC-SHA-256, in hexadecimal. The path is a secret of gateway and engine: never logged (P1).
//!
//! Where a provider has one address on record for the whole account, it is `{public base}/v1/callbacks/{protocol}/{lane}/
//! {signature}`, signed over lane and protocol. It tells a genuine caller from a stranger and no more: the notice is found by
//! the gateway's message id, and no phone is compared.

use gatebell_engine::ids::{LaneName, LogPosition, NoticeId};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use url::Url;

use super::phone::MobileNumber;

/// Shortest signing key, in bytes: what the signature itself is worth.
pub const KEY_LEN_MIN: usize = 32;
/// Bytes of the signature that the address carries.
const SIGNATURE_LEN: usize = 16;
/// Longest address that gateways take, in characters (Mitake's `response` field; the shortest limit known).
pub const ADDRESS_LEN_MAX: usize = 256;
/// The longest signed segment: partition (10 digits), offset (20), notice (32), signature (32) and three dots.
const SEGMENT_LEN_MAX: usize = 10 + 20 + 32 + 2 * SIGNATURE_LEN + 3;

/// Why keys cannot sign callback addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackKeyError {
    /// No key at all.
    #[error("no callback key: put one line of at least {KEY_LEN_MIN} random characters into the key file")]
    Missing,
    /// A key that could be guessed.
    #[error("callback key {0} is shorter than {KEY_LEN_MIN} characters: use at least that many random ones")]
    Short(usize),
    /// More keys than a change of keys needs.
    #[error("{0} callback keys: at most two, the one that signs and the one before it")]
    TooMany(usize),
}

/// The key that signs, and the one before it: addresses signed with the old one are good until their receipts are in.
#[derive(Clone)]
pub struct CallbackKeys {
    current: SecretString,
    previous: Option<SecretString>,
}

impl CallbackKeys {
    /// From the text of a key file or environment variable: one key a line, the signing one first, an older one below
    /// it while keys are being changed. Blank lines are ignored.
    pub fn parse(text: &SecretString) -> Result<Self, CallbackKeyError> {
        let lines: Vec<&str> =
            text.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if let Some(position) = lines.iter().position(|line| line.len() < KEY_LEN_MIN) {
            return Err(CallbackKeyError::Short(position + 1));
        }
        match lines.as_slice() {
            [] => Err(CallbackKeyError::Missing),
            [current] => Ok(Self { current: SecretString::from(*current), previous: None }),
            [current, previous] => Ok(Self {
                current: SecretString::from(*current),
                previous: Some(SecretString::from(*previous)),
            }),
            more => Err(CallbackKeyError::TooMany(more.len())),
        }
    }

    fn sign(&self, target: &CallbackTarget<'_>) -> [u8; SIGNATURE_LEN] {
        let full = target.mac(&self.current).finalize().into_bytes();
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(&full[..SIGNATURE_LEN]);
        signature
    }

    /// Compares in constant time.
    fn verify(&self, target: &CallbackTarget<'_>, signature: &[u8; SIGNATURE_LEN]) -> bool {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .any(|key| target.mac(key).verify_truncated_left(signature).is_ok())
    }

    /// Whether `segment` is the last part of the address of the account of `lane`.
    pub fn are_of_account(&self, protocol: &str, lane: &LaneName, segment: &str) -> bool {
        let mut signature = [0; SIGNATURE_LEN];
        if hex::decode_to_slice(segment, &mut signature).is_err() {
            return false;
        }
        std::iter::once(&self.current)
            .chain(&self.previous)
            .any(|key| account_mac(key, protocol, lane).verify_truncated_left(&signature).is_ok())
    }
}

/// What the address of an account is signed over. Begins unlike that of a message.
fn account_mac(key: &SecretString, protocol: &str, lane: &LaneName) -> Hmac<Sha256> {
    let mut mac = keyed(key);
    for part in ["gatebell-callback-account-1", protocol, lane.as_str()] {
        mac.update(part.as_bytes());
        mac.update(&[0]);
    }
    mac
}

fn keyed(key: &SecretString) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).expect("an HMAC takes a key of any length")
}

impl std::fmt::Debug for CallbackKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.previous.is_some() { "CallbackKeys(two)" } else { "CallbackKeys(one)" })
    }
}

/// What an address is signed over.
struct CallbackTarget<'a> {
    protocol: &'a str,
    lane: &'a LaneName,
    position: LogPosition,
    notice: NoticeId,
    phone: &'a MobileNumber,
}

impl CallbackTarget<'_> {
    fn mac(&self, key: &SecretString) -> Hmac<Sha256> {
        let mut mac = keyed(key);
        // Every part is free of the zero byte or of fixed length, so no two targets have the same bytes.
        for part in ["gatebell-callback-1", self.protocol, self.lane.as_str(), self.phone.expose()] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(&self.position.partition.to_be_bytes());
        mac.update(&self.position.offset.to_be_bytes());
        mac.update(&self.notice.as_u128().to_be_bytes());
        mac
    }
}

/// Why an address that gateways should call cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackBaseError {
    /// Not an address that a gateway could call.
    #[error(
        "the public address of callbacks must be http(s)://host[:port][/path], without query or fragment"
    )]
    Form,
    /// The whole address would not fit into the gateway's field.
    #[error(
        "the public address of callbacks is {0} characters too long: with lane and signature it must stay within \
         {ADDRESS_LEN_MAX}"
    )]
    TooLong(usize),
}

/// Makes the addresses of one lane.
#[derive(Clone, Debug)]
pub struct CallbackAddresses {
    prefix: String,
    protocol: &'static str,
    lane: LaneName,
    keys: CallbackKeys,
}

impl CallbackAddresses {
    /// For messages of `lane`, whose gateway speaks `protocol` and reaches us at `public_base` (such as
    /// `https://gatebell.example.gov.tw`).
    pub fn new(
        public_base: &str,
        protocol: &'static str,
        lane: &LaneName,
        keys: CallbackKeys,
    ) -> Result<Self, CallbackBaseError> {
        let base = Url::parse(public_base).map_err(|_| CallbackBaseError::Form)?;
        let is_plain = matches!(base.scheme(), "http" | "https")
            && base.has_host()
            && base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none()
            && !base.as_str().contains("$$");
        if !is_plain {
            return Err(CallbackBaseError::Form);
        }
        let prefix = format!("{}/v1/callbacks/{protocol}/{lane}/", base.as_str().trim_end_matches('/'));
        let longest = prefix.len() + SEGMENT_LEN_MAX;
        if longest > ADDRESS_LEN_MAX {
            return Err(CallbackBaseError::TooLong(longest - ADDRESS_LEN_MAX));
        }
        Ok(Self { prefix, protocol, lane: lane.clone(), keys })
    }

    /// The address for the message about `notice` of the tap at `position` to `phone`.
    pub fn address(&self, position: LogPosition, notice: NoticeId, phone: &MobileNumber) -> String {
        let target = CallbackTarget { protocol: self.protocol, lane: &self.lane, position, notice, phone };
        let signature = hex::encode(self.keys.sign(&target));
        format!("{}{}.{}.{notice}.{signature}", self.prefix, position.partition, position.offset)
    }

    /// The address to be put on record with the provider, for all messages of the account.
    pub fn of_account(&self) -> SecretString {
        let full = account_mac(&self.keys.current, self.protocol, &self.lane).finalize().into_bytes();
        SecretString::from(format!("{}{}", self.prefix, hex::encode(&full[..SIGNATURE_LEN])))
    }
}

/// The last part of an address, taken apart but not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallbackSegment {
    position: LogPosition,
    notice: NoticeId,
    signature: [u8; SIGNATURE_LEN],
}

impl CallbackSegment {
    /// Takes apart `{partition}.{offset}.{notice}.{signature}`; `None` when it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > SEGMENT_LEN_MAX {
            return None;
        }
        let mut parts = text.split('.');
        let position = LogPosition { partition: number(parts.next()?)?, offset: number(parts.next()?)? };
        let notice = parts.next()?.parse().ok()?;
        let mut signature = [0; SIGNATURE_LEN];
        hex::decode_to_slice(parts.next()?, &mut signature).ok()?;
        parts.next().is_none().then_some(Self { position, notice, signature })
    }

    /// What the address names, if it was signed by `keys` for `lane` and a message to `phone`.
    pub fn verify(
        &self,
        keys: &CallbackKeys,
        protocol: &str,
        lane: &LaneName,
        phone: &MobileNumber,
    ) -> Option<(LogPosition, NoticeId)> {
        let target = CallbackTarget { protocol, lane, position: self.position, notice: self.notice, phone };
        keys.verify(&target, &self.signature).then_some((self.position, self.notice))
    }
}

/// Digits only: `u64::from_str` would also take a plus sign.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const POSITION: LogPosition = LogPosition { partition: 3, offset: 41 };
    const NOTICE: NoticeId = NoticeId::from_u128(0xfeed_beef);
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const OLDER: &str = "fedcba9876543210fedcba9876543210";

    fn keys(lines: &str) -> CallbackKeys {
        CallbackKeys::parse(&SecretString::from(lines)).unwrap()
    }

    fn lane() -> LaneName {
        LaneName::new("mitake-1").unwrap()
    }

    fn phone(text: &str) -> MobileNumber {
        MobileNumber::parse(text).unwrap()
    }

    fn segment(signed_with: &str) -> String {
        let addresses =
            CallbackAddresses::new("https://gate.example/", "mitake", &lane(), keys(signed_with)).unwrap();
        let address = addresses.address(POSITION, NOTICE, &phone("0912345678"));
        address.strip_prefix("https://gate.example/v1/callbacks/mitake/mitake-1/").unwrap().to_owned()
    }

    fn verify(
        segment: &str,
        keys: &CallbackKeys,
        lane: &LaneName,
        number: &str,
    ) -> Option<(LogPosition, NoticeId)> {
        CallbackSegment::parse(segment)?.verify(keys, "mitake", lane, &phone(number))
    }

    #[test]
    fn an_address_names_its_notice_to_whoever_has_the_key() {
        let named = verify(&segment(KEY), &keys(KEY), &lane(), "+886 912 345 678");
        assert_eq!(named, Some((POSITION, NOTICE)));
    }

    #[test]
    fn another_phone_lane_protocol_key_or_any_changed_character_is_refused() {
        let good = segment(KEY);
        assert_eq!(verify(&good, &keys(KEY), &lane(), "0912345679"), None, "phone");
        assert_eq!(
            verify(&good, &keys(KEY), &LaneName::new("mitake-2").unwrap(), "0912345678"),
            None,
            "lane"
        );
        assert_eq!(verify(&good, &keys(OLDER), &lane(), "0912345678"), None, "key");
        let parsed = CallbackSegment::parse(&good).unwrap();
        assert_eq!(parsed.verify(&keys(KEY), "every8d", &lane(), &phone("0912345678")), None, "protocol");
        for (index, original) in good.char_indices() {
            let other = if original == '7' { '8' } else { '7' };
            let changed: String =
                good.chars().enumerate().map(|(i, c)| if i == index { other } else { c }).collect();
            assert_eq!(verify(&changed, &keys(KEY), &lane(), "0912345678"), None, "character {index}");
        }
    }

    #[test]
    fn addresses_signed_with_the_older_key_stay_good_while_keys_are_changed() {
        let both = keys(&format!("{KEY}\n{OLDER}\n"));
        assert!(verify(&segment(OLDER), &both, &lane(), "0912345678").is_some());
        assert_eq!(segment(&format!("{KEY}\n{OLDER}")), segment(KEY), "the first key signs");
    }

    #[test]
    fn the_address_of_an_account_is_good_for_its_lane_and_protocol_alone() {
        let of_key = |lines: &str| {
            let addresses = CallbackAddresses::new("https://gate.example", "mitake", &lane(), keys(lines));
            let address = addresses.unwrap().of_account().expose_secret().to_owned();
            address.strip_prefix("https://gate.example/v1/callbacks/mitake/mitake-1/").unwrap().to_owned()
        };
        let good = of_key(KEY);
        let is_good = |lines: &str, protocol: &str, lane: &str, segment: &str| {
            keys(lines).are_of_account(protocol, &LaneName::new(lane).unwrap(), segment)
        };
        assert!(is_good(KEY, "mitake", "mitake-1", &good));
        assert!(is_good(&format!("{OLDER}\n{KEY}"), "mitake", "mitake-1", &good), "while keys are changed");
        assert!(!is_good(OLDER, "mitake", "mitake-1", &good));
        assert!(!is_good(KEY, "every8d", "mitake-1", &good));
        assert!(!is_good(KEY, "mitake", "mitake-2", &good));
        for other in [String::new(), good[..30].to_owned(), format!("{good}00"), good.replace('0', "1") + "x"]
        {
            assert!(!is_good(KEY, "mitake", "mitake-1", &other), "{other}");
        }
        assert!(!is_good(KEY, "mitake", "mitake-1", segment(KEY).rsplit('.').next().unwrap()));
        assert_eq!(CallbackSegment::parse(&good), None, "it is none of a message");
    }

    #[test]
    fn segments_of_another_form_are_refused() {
        let signature = "00112233445566778899aabbccddeeff";
        let notice = NOTICE.to_string();
        for text in [
            String::new(),
            "....".to_owned(),
            format!("+3.41.{notice}.{signature}"),
            format!("3.41.{notice}"),
            format!("3.41.{notice}.{signature}.1"),
            format!("3.41.{notice}.{signature}00"),
            format!("3.99999999999999999999.{notice}.{signature}"),
            format!("4294967296.41.{notice}.{signature}"),
            "9".repeat(1000),
        ] {
            assert_eq!(CallbackSegment::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn keys_that_could_be_guessed_are_refused_without_being_shown() {
        let parse = |text: &str| CallbackKeys::parse(&SecretString::from(text)).map(|_| ()).unwrap_err();
        assert_eq!(parse("\n \n"), CallbackKeyError::Missing);
        assert_eq!(parse(&format!("{KEY}\nhunter2")), CallbackKeyError::Short(2));
        assert_eq!(parse(&format!("{KEY}\n{KEY}\n{KEY}")), CallbackKeyError::TooMany(3));
        assert!(!parse("hunter2").to_string().contains("hunter2"));
    }

    #[test]
    fn the_longest_address_fits_into_the_gateways_field() {
        let lane = LaneName::new(&"l".repeat(32)).unwrap();
        let room = ADDRESS_LEN_MAX - SEGMENT_LEN_MAX - "/v1/callbacks/mitake//".len() - 32;
        let base = |len: usize| format!("https://{}", "h".repeat(len - "https://".len()));
        let addresses = CallbackAddresses::new(&base(room), "mitake", &lane, keys(KEY)).unwrap();
        let farthest = LogPosition { partition: u32::MAX, offset: u64::MAX };
        assert_eq!(addresses.address(farthest, NOTICE, &phone("0912345678")).len(), ADDRESS_LEN_MAX);
        let too_long = CallbackAddresses::new(&base(room + 2), "mitake", &lane, keys(KEY)).unwrap_err();
        assert_eq!(too_long, CallbackBaseError::TooLong(2));
        for base in
            ["gate.example", "ftp://gate.example", "https://u:p@gate.example", "https://gate.example/?a=b"]
        {
            let error = CallbackAddresses::new(base, "mitake", &lane, keys(KEY)).unwrap_err();
            assert_eq!(error, CallbackBaseError::Form, "{base}");
        }
    }
}
