//! The truth about a record: serde_json, held to every sentence of the public format.
//!
//! A record is JSON in UTF-8, an object with the known fields each at most once. What unknown fields hold
//! (deep nesting, `1e400`, a lone surrogate) is checked to be JSON and otherwise left alone, and so are their
//! names. All keys and values are therefore taken raw: serde_json passes over raw values without recursion
//! and without reading numbers, so that neither the stack nor the range of a float decides about a tap.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Decoded, ReceivedField, TapView, fields, instant};
use crate::tap::Direction;
use crate::time::Timestamp;

/// Decodes `record`, which is not oversize and has no line end; `None` when it is malformed.
pub fn decode(record: &[u8], received: ReceivedField) -> Option<Decoded<'_>> {
    // serde_json passes over text that it ignores without looking at its encoding.
    let text = std::str::from_utf8(record).ok()?;
    let raw: RawTap<'_> = serde_json::from_str(text).ok()?;

    let card = fields::card(&raw.card.required()?.text()?)?;
    let reader = raw.reader.required()?.text()?;
    if !fields::is_reader(&reader) {
        return None;
    }
    let at = raw.at.required()?.instant()?;
    let direction = raw.dir.optional()?.map_or(Some(None), |value| value.direction().map(Some))?;
    let received = match received {
        ReceivedField::Known => {
            raw.received.optional()?.map_or(Some(None), |value| value.instant().map(Some))?
        }
        ReceivedField::Unknown => None,
    };
    Some(Decoded { tap: TapView { card, reader, at, direction }, received })
}

/// The fields that mean something, not yet read.
#[derive(Default)]
struct RawTap<'a> {
    card: RawField<'a>,
    reader: RawField<'a>,
    at: RawField<'a>,
    dir: RawField<'a>,
    received: RawField<'a>,
}

/// How often a field is there, and what it holds.
#[derive(Default, Clone, Copy)]
enum RawField<'a> {
    #[default]
    Missing,
    Once(Raw<'a>),
    Repeated,
}

/// The text of one JSON value, known to be well-formed.
#[derive(Clone, Copy)]
struct Raw<'a>(&'a str);

impl<'a> RawField<'a> {
    fn take(&mut self, raw: &'a RawValue) {
        *self = match self {
            Self::Missing => Self::Once(Raw(raw.get())),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    /// What it holds; `None` when it is malformed. A field that is `null` is missing.
    fn optional(self) -> Option<Option<Raw<'a>>> {
        match self {
            Self::Missing => Some(None),
            Self::Once(raw) if raw.0 == "null" => Some(None),
            Self::Once(raw) => Some(Some(raw)),
            Self::Repeated => None,
        }
    }

    /// What it holds; `None` when it is missing or malformed.
    fn required(self) -> Option<Raw<'a>> {
        self.optional().flatten()
    }
}

impl<'a> Raw<'a> {
    /// The text of a string; `None` for any other value, and for a string that no text can be (a lone
    /// surrogate).
    fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        serde_json::from_str(self.0).ok().map(Cow::Owned)
    }

    fn instant(self) -> Option<Timestamp> {
        if self.0.starts_with('"') {
            return instant::rfc3339(self.text()?.as_bytes());
        }
        instant::epoch_millis(self.0.as_bytes())
    }

    fn direction(self) -> Option<Direction> {
        fields::direction(&self.text()?)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawTap<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawTap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tap = RawTap::default();
                while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    // A name that is no text is none of those we know.
                    match Raw(name.get()).text().as_deref() {
                        Some("card") => tap.card.take(value),
                        Some("reader") => tap.reader.take(value),
                        Some("at") => tap.at.take(value),
                        Some("dir") => tap.dir.take(value),
                        Some("received") => tap.received.take(value),
                        _ => {}
                    }
                }
                Ok(tap)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
