//! The forms of a tap's single fields, as the public format has them. A file of taps in CSV is read by these
//! alone: its cells hold the same texts, and an empty cell is a missing field.

use super::instant;
use crate::ids::{CardNumber, ID_LEN_MAX};
use crate::tap::Direction;
use crate::time::Timestamp;

/// `card`: 1 to 32 of `[0-9A-Za-z]`, compared without regard to case.
#[inline]
pub fn card(text: &str) -> Option<CardNumber> {
    CardNumber::new(text).ok()
}

/// Whether `text` has the form of `reader`: 1 to 32 of `[0-9A-Za-z._-]`.
#[inline]
pub fn is_reader(text: &str) -> bool {
    (1..=ID_LEN_MAX).contains(&text.len()) && are_reader_bytes(text.as_bytes())
}

/// `at` and `received` where everything is text: RFC 3339, or an integer of epoch milliseconds.
pub fn instant(text: &str) -> Option<Timestamp> {
    instant::rfc3339(text.as_bytes()).or_else(|| instant::epoch_millis(text.as_bytes()))
}

/// `dir`: `in` or `out`.
#[inline]
pub fn direction(text: &str) -> Option<Direction> {
    match text {
        "in" => Some(Direction::In),
        "out" => Some(Direction::Out),
        _ => None,
    }
}

/// Whether every byte of `text` may stand in a reader's code; nothing is said of its length.
#[inline]
pub(super) fn are_reader_bytes(text: &[u8]) -> bool {
    text.iter().all(|byte| READER_BYTES[usize::from(*byte)])
}

/// Which bytes may stand in a reader's code: a table, since it is asked for every byte of every tap.
static READER_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_1_to_32_letters_and_digits_in_any_case() {
        let longest = "Z".repeat(32);
        for good in ["0", "a", "0417391826541234", &longest] {
            assert!(card(good).is_some(), "{good}");
        }
        let too_long = "Z".repeat(33);
        for bad in ["", " ", "04-17", "04.1", "卡", " 0417", &too_long] {
            assert!(card(bad).is_none(), "{bad}");
        }
        assert_eq!(card("aBc"), card("AbC"));
    }

    #[test]
    fn a_reader_is_an_identifier() {
        let longest = "r".repeat(32);
        for good in ["0", "353604-G1-2", "a.b_c-d", &longest] {
            assert!(is_reader(good), "{good}");
        }
        let too_long = "r".repeat(33);
        for bad in ["", "a b", "a/b", "門", &too_long] {
            assert!(!is_reader(bad), "{bad}");
        }
    }

    #[test]
    fn a_direction_is_in_or_out_in_lower_case() {
        assert_eq!(direction("in"), Some(Direction::In));
        assert_eq!(direction("out"), Some(Direction::Out));
        for bad in ["", "IN", "both", " in", "in "] {
            assert_eq!(direction(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_instant_in_a_cell_is_rfc_3339_or_an_integer() {
        assert_eq!(instant("1970-01-01T00:00:01Z"), instant("1000"));
        assert!(instant("1000").is_some());
        for bad in ["", "1e3", "1.5", "2025-09-08", "2025-09-08 07:31:00+08:00"] {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }
}
