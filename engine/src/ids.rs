//! Names of things: cards, pupils, guardians, orders, notices.
//!
//! Each is a type of its own, so that a guardian can never be passed where a pupil is meant. What identifies a person to
//! the outside (a card, a phone, a token) does not print itself: its `Debug` is masked.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Why a text is no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there, or more than 32 characters.
    #[error("must be 1 to 32 characters long")]
    Length,
    /// A character outside the allowed set.
    #[error("has a character that is not allowed")]
    Character,
}

/// Longest identifier and card number, in characters (the public format of taps and city files).
pub const ID_LEN_MAX: usize = 32;

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The form of every identifier: 1 to 32 of `[0-9A-Za-z._-]`.
pub(crate) fn check_identifier(text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > ID_LEN_MAX {
        return Err(IdError::Length);
    }
    if !text.bytes().all(is_identifier_byte) {
        return Err(IdError::Character);
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "CompactString", into = "CompactString")]
        pub struct $name(CompactString);

        impl $name {
            /// Checks the form: 1 to 32 of `[0-9A-Za-z._-]`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_identifier(text)?;
                Ok(Self(CompactString::new(text)))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<CompactString> for $name {
            type Error = IdError;

            fn try_from(text: CompactString) -> Result<Self, IdError> {
                check_identifier(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for CompactString {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

identifier!(
    /// A school's code.
    SchoolId
);
identifier!(
    /// A gate reader's code; case matters.
    ReaderId
);
identifier!(
    /// A pupil's code in the roster.
    PupilId
);
identifier!(
    /// A guardian's code.
    GuardianId
);
identifier!(
    /// An SMS order's code.
    OrderId
);
identifier!(
    /// The name of a lane: one SMS gateway account, or one free channel.
    LaneName
);

/// A card number in upper case, packed into 24 bytes (six bits a character), so that an index of a million cards stays
/// small and a look-up compares three words. Cards are compared without regard to case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardNumber([u32; 6]);

impl CardNumber {
    /// Packs `text`: 1 to 32 of `[0-9A-Za-z]`.
    pub fn new(text: &str) -> Result<Self, IdError> {
        Self::from_bytes(text.as_bytes())
    }

    /// Packs `bytes`: 1 to 32 of `[0-9A-Za-z]`.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        if bytes.is_empty() || bytes.len() > ID_LEN_MAX {
            return Err(IdError::Length);
        }
        let mut words = [0u32; 6];
        let mut has_other = false;
        let mut packed = |characters: &[u8]| {
            characters.iter().fold(0u32, |packed, byte| {
                let code = CARD_CODES[usize::from(*byte)];
                has_other |= code == 0;
                (packed << 6) | u32::from(code)
            })
        };
        // Five characters a word (30 bits) for the first thirty; the last two share the spare top bits of all six words.
        let (fives, rest) = bytes.as_chunks::<5>();
        for (word, five) in words.iter_mut().zip(fives) {
            *word = packed(five);
        }
        match words.get_mut(fives.len()) {
            Some(word) => *word = packed(rest),
            None => {
                let spare = packed(rest);
                for (position, word) in words.iter_mut().enumerate() {
                    *word |= ((spare >> (2 * position)) & 0b11) << 30;
                }
            }
        }
        if has_other { Err(IdError::Character) } else { Ok(Self(words)) }
    }

    fn character(code: u32) -> Option<char> {
        match u8::try_from(code).ok()? {
            code @ 1..=10 => Some(char::from(b'0' + code - 1)),
            code @ 11..=36 => Some(char::from(b'A' + code - 11)),
            _ => None,
        }
    }

    /// The number in upper case: for keys of the tap log and for the store, never for a log line.
    pub fn expose(&self) -> CompactString {
        let mut text = CompactString::with_capacity(ID_LEN_MAX);
        let mut spare = 0u32;
        for (position, word) in self.0.iter().enumerate() {
            spare |= (word >> 30) << (2 * position);
            for shift in [24, 18, 12, 6, 0] {
                text.extend(Self::character((word >> shift) & 0x3f));
            }
        }
        for shift in [6, 0] {
            text.extend(Self::character((spare >> shift) & 0x3f));
        }
        text
    }
}

/// The packed code of each byte, 1 to 36: "no character" is 0, so the length needs no room of its own. Bytes that a card
/// number cannot have are 0 too. A table, since it is asked for every byte of every tap.
static CARD_CODES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128u8 {
        table[byte as usize] = match byte {
            b'0'..=b'9' => byte - b'0' + 1,
            b'A'..=b'Z' => byte - b'A' + 11,
            b'a'..=b'z' => byte - b'a' + 11,
            _ => 0,
        };
        byte += 1;
    }
    table
};

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardNumber(masked)")
    }
}

impl FromStr for CardNumber {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl Serialize for CardNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.expose())
    }
}

impl<'de> Deserialize<'de> for CardNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Something personal (a phone number, a push token, a name): printed only where it is asked for by name.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Personal(CompactString);

impl Personal {
    /// Wraps `text`.
    pub fn new(text: &str) -> Self {
        Self(CompactString::new(text))
    }

    /// The text itself: for a message, a request to a gateway or the store; never for a log line, a label or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<CompactString> for Personal {
    fn from(text: CompactString) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Personal(empty)" } else { "Personal(masked)" })
    }
}

/// A record's place in the tap log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    /// The partition, which is also the shard.
    pub partition: u32,
    /// The record's offset in the partition.
    pub offset: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// A notice's name: a hash of (log, partition, offset, guardian, channel), so that reading a record again names the same
/// notice. Printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(u128);

impl NoticeId {
    /// The id of the notice that the record at `position` of `log` makes for `guardian` through `channel`.
    pub fn derive(
        log: &str,
        position: LogPosition,
        guardian: &GuardianId,
        channel: crate::notice::Channel,
    ) -> Self {
        // In one piece: a hasher that is fed piece by piece costs more than the hash.
        let mut named = SmallVec::<[u8; 192]>::new();
        named.extend_from_slice(log.as_bytes());
        named.push(0);
        named.extend_from_slice(&position.partition.to_be_bytes());
        named.extend_from_slice(&position.offset.to_be_bytes());
        named.extend_from_slice(guardian.as_str().as_bytes());
        named.push(0);
        named.extend_from_slice(channel.name().as_bytes());
        Self(xxhash_rust::xxh3::xxh3_128(&named))
    }

    /// From its number, as a store keeps it.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// As a number, for a store.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// As it is printed.
    pub(crate) fn digits(self) -> [u8; 32] {
        hexadecimal(self.0)
    }
}

/// The last `DIGITS` digits of `number`. By hand: this is done for every message, and the way through the formatter's options
/// costs five times as much.
pub(crate) fn hexadecimal<const DIGITS: usize>(number: u128) -> [u8; DIGITS] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (4 * (DIGITS - 1 - place))) as usize & 0xf])
}

impl fmt::Display for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NoticeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 32 {
            return Err(IdError::Length);
        }
        // `from_str_radix` would also take a plus sign.
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(IdError::Character);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| IdError::Character)
    }
}

impl Serialize for NoticeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NoticeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_card_number_unpacks_to_its_upper_case(text in "[0-9A-Za-z]{1,32}") {
            let card = CardNumber::new(&text).expect("of the allowed form");
            let unpacked = card.expose();
            prop_assert_eq!(unpacked.as_str(), text.to_ascii_uppercase());
        }

        #[test]
        fn different_card_numbers_never_share_a_packing(a in "[0-9A-Z]{1,32}", b in "[0-9A-Z]{1,32}") {
            prop_assert_eq!(a == b, CardNumber::new(&a) == CardNumber::new(&b));
        }
    }

    /// It would be a second name of the same notice.
    #[test]
    fn a_notice_id_has_no_sign() {
        let id = "0000000000000000000000000feedbee";
        assert_eq!(id.parse().map(NoticeId::as_u128), Ok(0x0fee_dbee));
        for text in [format!("+{}", &id[1..]), format!("-{}", &id[1..]), id[1..].to_owned()] {
            assert!(text.parse::<NoticeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn personal_values_do_not_print_themselves() {
        let phone = Personal::new("0912345678");
        let card = CardNumber::new("0417391826541234").expect("of the allowed form");
        let printed = format!("{phone:?} {card:?}");
        assert!(!printed.contains("0912") && !printed.contains("0417"), "{printed}");
    }
}
