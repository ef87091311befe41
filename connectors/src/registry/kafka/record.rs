//! How a change lies in the topic: keys, values, and the head that ends every transaction.
//!
//! A value's key is `kind|key`, as [`EntryKey`] names them; so compaction keeps the last value of each. Contact data is
//! sealed as one text beside the entry, which is written without it; card numbers are keys, and readable. A head has a key
//! of its own ([`HEAD_KEY`]) and says what its transaction holds, so that a reader knows when it has everything.

use std::borrow::Cow;

use compact_str::{CompactString, format_compact};
use gatebell_engine::ids::Personal;
use gatebell_engine::registry::{Entry, EntryKey};
use gatebell_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::entry_json::{entry_of, value_of};
use crate::sealing::{ContactKey, SealingError};

/// The key of the record that ends a transaction. No kind is called so, and kinds are followed by a bar.
pub(super) const HEAD_KEY: &[u8] = b"head";

/// The header of a value, and what it says, when a command that changes one thing brought it. A header, since it is asked of
/// every record, and the value of few.
pub(super) const ORIGIN_HEADER: &str = "origin";
pub(super) const BY_SINGLE_COMMAND: &[u8] = b"single_command";

/// Why a record cannot be read or made. Quotes nothing of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// It is damaged, somebody else's, or of a newer gatebell.
    #[error("it is damaged or of a newer gatebell: its value is none of its kind")]
    Unreadable,
    /// Its contact data does not open.
    #[error("its contact data cannot be opened: {0}")]
    Sealed(SealingError),
    /// Its contact data cannot be sealed.
    #[error("its contact data cannot be sealed: {0}")]
    NotSealed(SealingError),
}

/// What a transaction wrote, at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    /// The version of its first value.
    pub(super) first: u64,
    /// The version of its last value; one less than `first` when it has none.
    pub(super) last: u64,
    /// Keys that have a value once it is applied.
    pub(super) keys: u64,
    /// Whether the city is a made-up one.
    pub(super) made_up: bool,
    /// Since when its values count, in the writer's words.
    pub(super) since: Timestamp,
    /// Since when the values before it count: these do not before them.
    pub(super) not_before: Timestamp,
    /// Drawn at random by the writer, who finds by it that a transaction was committed though the answer was lost.
    pub(super) written_as: CompactString,
}

/// A value of the registry with its circumstances.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Value {
    /// Its place among all changes, rising by one.
    pub(super) version: u64,
    /// Since when it counts, in the writer's words.
    pub(super) since: Timestamp,
    /// Who made the change.
    pub(super) who: String,
    /// What the key holds.
    pub(super) entry: Entry,
}

/// A value as it is written.
#[derive(Serialize, Deserialize)]
struct ValueJson<'a> {
    version: u64,
    since: Timestamp,
    #[serde(borrow)]
    who: Cow<'a, str>,
    #[serde(borrow)]
    entry: &'a RawValue,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    contact: Option<Cow<'a, str>>,
}

impl Head {
    pub(super) fn encode(&self) -> Result<Vec<u8>, RecordError> {
        serde_json::to_vec(self).map_err(|_| RecordError::Unreadable)
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let head: Self = serde_json::from_slice(payload).map_err(|_| RecordError::Unreadable)?;
        let is_sound = head.first >= 1 && head.last.checked_add(1).is_some_and(|next| next >= head.first);
        is_sound.then_some(head).ok_or(RecordError::Unreadable)
    }
}

/// The record's key, and the place that its contact data is sealed for.
pub(super) fn key_of(key: &EntryKey) -> CompactString {
    format_compact!("{}|{}", key.kind(), key.expose())
}

/// The kind that a record's key names.
pub(super) fn kind_of(key: &[u8]) -> Option<&str> {
    let bar = key.iter().position(|byte| *byte == b'|')?;
    std::str::from_utf8(key.get(..bar)?).ok()
}

impl Value {
    /// The record's value; its key is [`key_of`] the entry's.
    pub(super) fn encode(&self, key: &ContactKey) -> Result<Vec<u8>, RecordError> {
        let mut entry = self.entry.clone();
        let contact: Vec<Personal> = contact_data(&mut entry).into_iter().map(std::mem::take).collect();
        let contact =
            (!contact.is_empty()).then(|| sealed(&contact, key, &key_of(&entry.key()))).transpose()?;
        let entry = value_of(&entry).and_then(RawValue::from_string).map_err(|_| RecordError::Unreadable)?;
        let json = ValueJson {
            version: self.version,
            since: self.since,
            who: Cow::Borrowed(&self.who),
            entry: &entry,
            contact: contact.map(Cow::Owned),
        };
        serde_json::to_vec(&json).map_err(|_| RecordError::Unreadable)
    }

    /// The value in a record with `key`.
    pub(super) fn decode(key: &[u8], payload: &[u8], contact_key: &ContactKey) -> Result<Self, RecordError> {
        let json: ValueJson<'_> = serde_json::from_slice(payload).map_err(|_| RecordError::Unreadable)?;
        let kind = kind_of(key).ok_or(RecordError::Unreadable)?;
        let mut entry = entry_of(kind, json.entry.get()).ok_or(RecordError::Unreadable)?;
        let place = key_of(&entry.key());
        if place.as_bytes() != key {
            return Err(RecordError::Unreadable);
        }
        let fields = contact_data(&mut entry);
        match json.contact {
            Some(sealed) => {
                let opened = opened(&sealed, contact_key, &place)?;
                if opened.len() != fields.len() {
                    return Err(RecordError::Unreadable);
                }
                fields.into_iter().zip(opened).for_each(|(field, value)| *field = value);
            }
            None if fields.is_empty() => {}
            None => return Err(RecordError::Unreadable),
        }
        Ok(Self { version: json.version, since: json.since, who: json.who.into_owned(), entry })
    }
}

/// What of an entry may lie nowhere in the clear, always in the same order.
fn contact_data(entry: &mut Entry) -> Vec<&mut Personal> {
    match entry {
        Entry::Pupil(pupil) => vec![&mut pupil.name],
        Entry::Guardian(guardian) => vec![
            &mut guardian.name,
            &mut guardian.phone,
            &mut guardian.email,
            &mut guardian.app_token,
            &mut guardian.line_user,
        ],
        Entry::School(_)
        | Entry::Reader(_)
        | Entry::Card(_)
        | Entry::Binding(_)
        | Entry::Subscription(_)
        | Entry::Order(_)
        | Entry::Day(_)
        | Entry::Protection(_) => Vec::new(),
    }
}

fn sealed(values: &[Personal], key: &ContactKey, place: &str) -> Result<String, RecordError> {
    let values: Vec<&str> = values.iter().map(Personal::expose).collect();
    let json = serde_json::to_vec(&values).map_err(|_| RecordError::Unreadable)?;
    key.seal_bytes(&json, place).map_err(RecordError::NotSealed)
}

fn opened(sealed: &str, key: &ContactKey, place: &str) -> Result<Vec<Personal>, RecordError> {
    let json = key.open_bytes(sealed, place).map_err(RecordError::Sealed)?;
    serde_json::from_slice(&json).map_err(|_| RecordError::Unreadable)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::testing::contract::registry_feed::one_of_each;

    use super::*;
    use crate::sealing::tests::key;

    fn value(entry: Entry) -> Value {
        Value { version: 7, since: Timestamp::MIN, who: "import by \"chen\"".to_owned(), entry }
    }

    #[test]
    fn every_kind_comes_back_as_it_was_written() {
        for entry in one_of_each() {
            let written = value(entry);
            let name = key_of(&written.entry.key());
            let payload = written.encode(&key(1)).unwrap();
            assert_eq!(kind_of(name.as_bytes()), Some(written.entry.kind()));
            assert_eq!(Value::decode(name.as_bytes(), &payload, &key(1)).unwrap(), written);
        }
    }

    #[test]
    fn contact_data_lies_in_no_record_in_the_clear() {
        for entry in one_of_each() {
            let payload = value(entry).encode(&key(1)).unwrap();
            let text = String::from_utf8(payload).unwrap();
            for personal in ["王小明", "王大明", "0912345678", "a@example.org", "token-1", "U1"] {
                assert!(!text.contains(&format!("\"{personal}\"")), "{personal} in {text}");
            }
        }
    }

    #[test]
    fn another_key_is_told_as_such_and_damage_as_damage() {
        let pupil = one_of_each().into_iter().find(|entry| entry.kind() == "pupil").unwrap();
        let name = key_of(&pupil.key());
        let payload = value(pupil).encode(&key(1)).unwrap();
        let other = Value::decode(name.as_bytes(), &payload, &key(2)).unwrap_err().to_string();
        assert!(other.contains(key(1).id()) && other.contains(key(2).id()), "{other}");

        let text = String::from_utf8(payload).unwrap();
        let moved = text.replace("P000123", "P000124");
        let elsewhere = Value::decode(b"pupil|P000124", moved.as_bytes(), &key(1));
        assert!(matches!(elsewhere, Err(RecordError::Sealed(SealingError::Damaged))), "{elsewhere:?}");
        for (key_text, payload) in
            [("pupil|P000124", text.as_str()), ("pupils|P000123", &text), ("pupil|P000123", "{}"), ("", "")]
        {
            let refused = Value::decode(key_text.as_bytes(), payload.as_bytes(), &key(1));
            assert!(matches!(refused, Err(RecordError::Unreadable)), "{key_text} {refused:?}");
        }
    }

    #[test]
    fn a_value_whose_contact_data_was_cut_out_is_refused() {
        let pupil = one_of_each().into_iter().find(|entry| entry.kind() == "pupil").unwrap();
        let name = key_of(&pupil.key());
        let payload = value(pupil).encode(&key(1)).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        json.as_object_mut().unwrap().remove("contact").unwrap();
        let refused = Value::decode(name.as_bytes(), &serde_json::to_vec(&json).unwrap(), &key(1));
        assert!(matches!(refused, Err(RecordError::Unreadable)), "{refused:?}");
    }

    #[test]
    fn a_head_that_contradicts_itself_is_refused() {
        let head = Head {
            first: 3,
            last: 2,
            keys: 2,
            made_up: true,
            since: Timestamp::MIN,
            not_before: Timestamp::MIN,
            written_as: "w".into(),
        };
        assert_eq!(Head::decode(&head.encode().unwrap()).unwrap(), head);
        for (first, last) in [(0, 0), (4, 2), (1, u64::MAX)] {
            let refused = Head { first, last, ..head.clone() }.encode().unwrap();
            assert!(Head::decode(&refused).is_err(), "{first} {last}");
        }
    }
}
