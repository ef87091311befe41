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

/// Longest spelling of an instant: `2025-09-08T07:31:04.123456789+08:00`.
const INSTANT_LEN_MAX: usize = 35;

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
    let (text, rest) = split_string(value, ID_LEN_MAX)?;
    Some((CardNumber::from_bytes(text).ok()?, rest))
}

#[inline]
fn scan_reader(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = split_string(value, ID_LEN_MAX)?;
    let is_reader = !text.is_empty() && text.iter().all(|byte| fields::is_reader_byte(*byte));
    is_reader.then_some((text, rest))
}

#[inline]
fn scan_direction(value: &[u8]) -> Option<(Direction, &[u8])> {
    let (text, rest) = split_string(value, "out".len())?;
    match text {
        b"in" => Some((Direction::In, rest)),
        b"out" => Some((Direction::Out, rest)),
        _ => None,
    }
}

#[inline]
fn scan_instant(value: &[u8]) -> Option<(Timestamp, &[u8])> {
    if let Some((text, rest)) = split_string(value, INSTANT_LEN_MAX) {
        return Some((instant::rfc3339(text)?, rest));
    }
    let value = value.strip_prefix(b" ").unwrap_or(value);
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = value.split_at_checked(digits)?;
    Some((instant::epoch_millis(number)?, rest))
}

/// Splits a string of at most `len_max` bytes off `value`, up to the first quote. Its bytes are not looked
/// at: whoever takes them must refuse a backslash, and does, since no known field has the form of one.
#[inline]
fn split_string(value: &[u8], len_max: usize) -> Option<(&[u8], &[u8])> {
    let value = value.strip_prefix(b" ").unwrap_or(value).strip_prefix(b"\"")?;
    let len = value.iter().take(len_max + 1).position(|byte| *byte == b'"')?;
    let (text, rest) = value.split_at_checked(len)?;
    Some((text, rest.get(1..)?))
}
