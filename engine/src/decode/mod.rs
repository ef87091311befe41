//! Decoding: from the bytes that a reader sent to a tap.
//!
//! There are two ways with equal results. [`json`] is the truth: serde_json, and every sentence of the public
//! format. [`scan`] reads the layout that readers usually write, several times faster and without allocating;
//! whatever is unusual (or wrong) it leaves to the truth. The forms of the single fields are in [`fields`],
//! instants in [`instant`].
//!
//! Nothing here looks at a clock or a registry: a tap from the future or with an unknown card decodes well.

pub mod fields;
pub mod instant;
pub mod json;
pub mod scan;

use std::borrow::Cow;

use compact_str::CompactString;

use crate::ids::CardNumber;
use crate::tap::{Direction, RejectReason, TAP_LEN_MAX, Tap};
use crate::time::Timestamp;

/// A [`Tap`] that borrows its reader's code from the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapView<'a> {
    /// The card.
    pub card: CardNumber,
    /// The reader's code, of the form of an identifier. Owned only when the record spells it with escapes.
    pub reader: Cow<'a, str>,
    /// When the card was read, by the reader's clock.
    pub at: Timestamp,
    /// The direction that the tap itself names; overrides the reader's.
    pub direction: Option<Direction>,
}

impl TapView<'_> {
    /// The tap, independent of the record.
    pub fn to_tap(&self) -> Tap {
        Tap {
            card: self.card,
            reader: CompactString::new(&self.reader),
            at: self.at,
            direction: self.direction,
        }
    }
}

/// What a record holds: the tap, and what it says of the time of receipt, where that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded<'a> {
    /// The tap.
    pub tap: TapView<'a>,
    /// The field `received`; always `None` where that field is unknown.
    pub received: Option<Timestamp>,
}

/// Whether the field `received` means something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceivedField {
    /// In files for `replay`: the time of receipt, in the forms of `at`.
    Known,
    /// Anywhere else: an unknown field, ignored whatever it holds.
    Unknown,
}

/// Decodes one record of a tap log or of the HTTP interface. A line end behind it is no part of it.
///
/// # Errors
/// [`RejectReason::Oversize`] beyond [`TAP_LEN_MAX`] bytes, else [`RejectReason::Malformed`].
#[inline]
pub fn decode(record: &[u8]) -> Result<TapView<'_>, RejectReason> {
    Ok(decode_either_way(record, ReceivedField::Unknown)?.tap)
}

/// Decodes one line of a file for `replay`: the tap, and its time of receipt, which is `at` unless the line
/// says so.
///
/// # Errors
/// As [`decode`]; and [`RejectReason::Malformed`] when `received` has not the form of `at`.
pub fn decode_replayed(line: &[u8]) -> Result<(TapView<'_>, Timestamp), RejectReason> {
    let Decoded { tap, received } = decode_either_way(line, ReceivedField::Known)?;
    let received = received.unwrap_or(tap.at);
    Ok((tap, received))
}

/// `text` without the byte order mark that a file may begin with.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// Whether `line` is no record: nothing but white space.
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[inline]
fn decode_either_way(record: &[u8], received: ReceivedField) -> Result<Decoded<'_>, RejectReason> {
    let record = without_line_end(record);
    if record.len() > TAP_LEN_MAX {
        return Err(RejectReason::Oversize);
    }
    match scan::scan(record, received) {
        Some(decoded) => Ok(decoded),
        None => json::decode(record, received).ok_or(RejectReason::Malformed),
    }
}

#[inline]
fn without_line_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

#[cfg(test)]
mod tests;
