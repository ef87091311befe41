//! The fast way: one pass over the layout that readers usually write, without allocating.
//!
//! That layout is an object of known fields in any order, each at most once, strings without escapes, no
//! white space but single spaces after colons and commas. [`scan`] either finds a good tap or knows nothing:
//! it never rejects, so whatever it does not expect costs a second look by [`json`](super::json), never a
//! wrong answer.

use std::borrow::Cow;

use super::{Decoded, ReceivedField, TapView, fields, instant};
use crate::ids::{CardNumber, ID_LEN_MAX};
use crate::tap::Direction;
use crate::time::Timestamp;

/// Decodes `record` if it is written in the usual layout; `None` says nothing about it.
#[inline]
pub fn scan(record: &[u8], received_field: ReceivedField) -> Option<Decoded<'_>> {
    let mut card = None;
    let mut reader = None;
    let mut at = None;
    let mut direction = None;
    let mut received = None;

    let mut rest = record.strip_prefix(b"{")?;
    loop {
        if let Some(value) = rest.strip_prefix(b"\"card\":") {
            rest = once(&mut card, scan_card(value)?)?;
        } else if let Some(value) = rest.strip_prefix(b"\"reader\":") {
            rest = once(&mut reader, scan_reader(value)?)?;
        } else if let Some(value) = rest.strip_prefix(b"\"at\":") {
            rest = once(&mut at, scan_instant(value)?)?;
        } else if let Some(value) = rest.strip_prefix(b"\"dir\":") {
            rest = once(&mut direction, scan_direction(value)?)?;
        } else if received_field == ReceivedField::Known {
            rest = once(&mut received, scan_instant(rest.strip_prefix(b"\"received\":")?)?)?;
        } else {
            return None;
        }
        match rest {
            [b',', next @ ..] => rest = next.strip_prefix(b" ").unwrap_or(next),
            [b'}'] => break,
            _ => return None,
        }
    }
    let reader = Cow::Borrowed(std::str::from_utf8(reader?).ok()?);
    Some(Decoded { tap: TapView { card: card?, reader, at: at?, direction }, received })
}

/// Puts a value found into its field and goes on behind it; `None` when the field was there before.
#[inline]
fn once<'a, T>(field: &mut Option<T>, (found, rest): (T, &'a [u8])) -> Option<&'a [u8]> {
    field.replace(found).is_none().then_some(rest)
}

#[inline]
fn scan_card(value: &[u8]) -> Option<(CardNumber, &[u8])> {
    let (text, rest) = split_string(value)?;
    Some((CardNumber::from_bytes(text).ok()?, rest))
}

#[inline]
fn scan_reader(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = split_string(value)?;
    let is_reader = (1..=ID_LEN_MAX).contains(&text.len()) && fields::are_reader_bytes(text);
    is_reader.then_some((text, rest))
}

#[inline]
fn scan_direction(value: &[u8]) -> Option<(Direction, &[u8])> {
    let value = after_space(value);
    if let Some(rest) = value.strip_prefix(b"\"in\"") {
        return Some((Direction::In, rest));
    }
    Some((Direction::Out, value.strip_prefix(b"\"out\"")?))
}

#[inline]
fn scan_instant(value: &[u8]) -> Option<(Timestamp, &[u8])> {
    let value = after_space(value);
    if let Some(text) = value.strip_prefix(b"\"") {
        let (at, rest) = instant::split_rfc3339(text)?;
        return Some((at, rest.strip_prefix(b"\"")?));
    }
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = value.split_at_checked(digits)?;
    Some((instant::epoch_millis(number)?, rest))
}

#[inline]
fn after_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// Splits a string of at most [`ID_LEN_MAX`] bytes off `value`, up to the first quote. Its bytes are not
/// looked at: whoever takes them must refuse a backslash, and does, since no known field has the form of one.
#[inline]
fn split_string(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let value = after_space(value).strip_prefix(b"\"")?;
    let len = first_quote(value)?;
    let (text, rest) = value.split_at_checked(len)?;
    Some((text, rest.get(1..)?))
}

/// Where the first quote is, if it is among the first bytes that an identifier and its quote can take. Eight
/// bytes at a time: of a word, the lowest zero byte of `word ^ quotes` is found by the borrow that it causes.
#[inline]
fn first_quote(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH_BITS: u64 = ONES << 7;
    const QUOTES: u64 = ONES * b'"' as u64;

    let mut passed = 0;
    let mut rest = text;
    while let Some((chunk, next)) = rest.split_first_chunk::<8>() {
        let differences = u64::from_le_bytes(*chunk) ^ QUOTES;
        let zeros = differences.wrapping_sub(ONES) & !differences & HIGH_BITS;
        if zeros != 0 {
            // 0 to 7: fits any integer.
            return Some(passed + (zeros.trailing_zeros() / 8) as usize);
        }
        passed += chunk.len();
        if passed > ID_LEN_MAX {
            return None;
        }
        rest = next;
    }
    rest.iter().position(|byte| *byte == b'"').map(|position| passed + position)
}
