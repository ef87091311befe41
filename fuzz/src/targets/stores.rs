//! What is read back from stores and topics: entries of the ledger, receipts, changes of the registry.

use gatebell_connectors::registry::kafka::fuzzing::{ReadHead, ReadValue, seal};
use gatebell_connectors::store::cql::fuzzing::{self as cql, Columns};
use gatebell_connectors::store::embedded::fuzzing as embedded;
use gatebell_engine::index::RegistryIndex;
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::receipts::Receipt;
use gatebell_engine::ports::tap_log::TapRecord;
use gatebell_engine::registry::{Entry, RegistryChange};
use gatebell_engine::shard::{Decisions, Shard};
use gatebell_engine::time::{Day, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fixture;
use super::input::{columns, first_line};

/// Stands in a payload for its sealed contact data.
const SEALED: &str = "%SEALED%";

/// A JSON entry of the ledger. Whatever can be read as one comes back the same from the embedded store, from the CQL store
/// and from an export, and can be shown.
pub fn ledger_entries(bytes: &[u8]) {
    let Ok(entry) = serde_json::from_slice::<LedgerEntry>(bytes) else { return };
    comes_back(&entry);
    can_be_shown(&entry);
    // Offsets beyond what SQLite and CQL count to are refused by both.
    match cql::written(&entry) {
        Some((columns, line)) => {
            assert_eq!(cql::ledger_entry(columns, &line).as_ref(), Ok(&entry));
            let read = embedded::ledger_round_trip(&entry).expect("what the one store holds, the other does");
            assert_eq!(read, [entry], "written twice is there once");
        }
        None => assert!(embedded::ledger_round_trip(&entry).is_err()),
    }
}

/// The columns of a row of the embedded store. A row that is none of its table is an error without its values; any other
/// can be shown, written and read again.
pub fn ledger_rows(bytes: &[u8]) {
    let columns = columns(bytes);
    if let Ok(entry) = embedded::ledger_entry(&columns) {
        is_exported(&entry);
        can_be_shown(&entry);
        assert_eq!(embedded::ledger_round_trip(&entry).ok(), Some(vec![entry]));
    }
}

/// The first line has the columns partition, offset, notice (hexadecimal), event and attempt; the rest is the line of an
/// entry as it comes from the CQL store.
pub fn ledger_lines(bytes: &[u8]) {
    let (head, line) = first_line(bytes);
    let head = String::from_utf8_lossy(head);
    let mut words = head.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let columns = Columns {
        partition: word().parse().unwrap_or_default(),
        offset: word().parse().unwrap_or_default(),
        notice: hex::decode(word()).unwrap_or_default(),
        event: word().to_owned(),
        attempt: word().parse().unwrap_or_default(),
    };
    if let Ok(entry) = cql::ledger_entry(columns, line) {
        can_be_shown(&entry);
        is_exported(&entry);
        let (columns, line) = cql::written(&entry).expect("what was read can be written");
        assert_eq!(cql::ledger_entry(columns, &line), Ok(entry));
    }
}

/// A receipt as a record of its topic.
pub fn receipt_records(bytes: &[u8]) {
    if let Ok(receipt) = serde_json::from_slice::<Receipt>(bytes) {
        comes_back(&receipt);
        can_be_shown(&receipt);
    }
}

/// The columns of a receipt's row of the embedded store.
pub fn receipt_rows(bytes: &[u8]) {
    if let Ok(logged) = embedded::receipt(&columns(bytes)) {
        comes_back(&logged.receipt);
        can_be_shown(&logged.receipt);
    }
}

/// A record of the registry's topic: its key, a line with the contact data that is to be sealed for it, and its payload,
/// in which `%SEALED%` stands for that. Whatever can be read comes back the same, and the index and a shard bear it; what
/// cannot be read is not quoted.
pub fn registry_records(bytes: &[u8]) {
    let (key, rest) = first_line(bytes);
    let (contact, payload) = first_line(rest);
    let (name, contact) = (String::from_utf8_lossy(key), String::from_utf8_lossy(contact));
    let payload = String::from_utf8_lossy(payload);
    if let Ok(head) = ReadHead::decode(payload.as_bytes()) {
        let again = head.encode().expect("what was read can be written");
        assert_eq!(ReadHead::decode(&again), Ok(head));
    }
    let read_with = |contact: &str| {
        let sealed = seal(contact, &name, fixture::contact_key());
        let payload = payload.replacen(SEALED, &sealed, 1);
        ReadValue::decode(name.as_bytes(), payload.as_bytes(), fixture::contact_key())
    };
    let value = match read_with(&contact) {
        Ok(value) => value,
        Err(refusal) => {
            let quotes_it = |refusal: &String| contact.len() >= 8 && refusal.contains(&*contact);
            // Words that stand there whatever the contact data is are no quotation.
            let is_quoted = quotes_it(&refusal) && !read_with("{}").is_err_and(|other| quotes_it(&other));
            assert!(!is_quoted, "{refusal}");
            return;
        }
    };
    assert_eq!(value.key(), name);
    let again = value.encode(fixture::contact_key()).expect("what was read can be written");
    assert_eq!(ReadValue::decode(name.as_bytes(), &again, fixture::contact_key()).as_ref(), Ok(&value));
    is_borne_by_a_shard(value.entry());
}

/// The columns of a change's row of the embedded registry.
pub fn registry_rows(bytes: &[u8]) {
    let Ok(entry) = embedded::registry_entry(&columns(bytes)) else { return };
    let value = embedded::registry_value(&entry).expect("an entry can be written");
    assert_eq!(embedded::registry_entry_of(entry.kind(), &value).as_ref(), Some(&entry));
    comes_back(&entry);
    is_borne_by_a_shard(&entry);
}

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(written: &T) {
    let json = serde_json::to_vec(written).expect("it can be written");
    let read: T = serde_json::from_slice(&json).expect("what was written can be read");
    assert_eq!(&read, written);
}

/// A day beyond the calendar, in a damaged row, is exported as the nearest.
fn is_exported(entry: &LedgerEntry) {
    let nearest = Day::from_date(entry.day.date());
    comes_back(&LedgerEntry { day: nearest, ..entry.clone() });
}

fn can_be_shown<T: std::fmt::Debug>(read: &T) {
    assert!(!format!("{read:?}").is_empty());
}

/// Applies `entry` to the index of a small city, and decides taps of its cards with it.
fn is_borne_by_a_shard(entry: &Entry) {
    can_be_shown(entry);
    let term = std::sync::Arc::new(fixture::term().clone());
    let index = std::sync::Arc::new(RegistryIndex::new(std::sync::Arc::clone(&term), 8));
    for (version, entry) in (1..).zip(fixture::entries().iter().chain([entry])) {
        index.apply(&RegistryChange { version, applied: Timestamp::MIN, entry: entry.clone() });
    }
    let mut shard = Shard::new("fuzz", 0, term, index);
    let received = Timestamp::from_millis(1_757_287_870_000);
    let record = |(offset, card): (u64, &str)| {
        let tap = format!("{{\"card\":\"{card}\",\"reader\":\"R-in\",\"at\":1757287864250}}");
        TapRecord { offset, received, value: tap.into() }
    };
    let records: Vec<TapRecord> = (0..).zip(["04AA", "04BB", "04CC"]).map(record).collect();
    let mut decisions = Decisions::default();
    shard.decide(&records, &mut decisions);
    assert_eq!(decisions.taps.len(), records.len(), "one outcome a record");
}
