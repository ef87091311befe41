//! An entry's value as JSON, without its kind: that is a column or a part of the key beside it.

use gatebell_engine::registry::Entry;
use serde::de::DeserializeOwned;

/// The value of `entry`.
pub(crate) fn value_of(entry: &Entry) -> serde_json::Result<String> {
    match entry {
        Entry::School(it) => serde_json::to_string(it),
        Entry::Reader(it) => serde_json::to_string(it),
        Entry::Pupil(it) => serde_json::to_string(it),
        Entry::Card(it) => serde_json::to_string(it),
        Entry::Guardian(it) => serde_json::to_string(it),
        Entry::Binding(it) => serde_json::to_string(it),
        Entry::Subscription(it) => serde_json::to_string(it),
        Entry::Order(it) => serde_json::to_string(it),
        Entry::Day(it) => serde_json::to_string(it),
        Entry::Protection(it) => serde_json::to_string(it),
    }
}

/// The entry of `kind` whose value is `json`; `None` when it is none. Why is not told, as it would quote the value.
pub(crate) fn entry_of(kind: &str, json: &str) -> Option<Entry> {
    fn parse<T: DeserializeOwned>(json: &str) -> Option<T> {
        serde_json::from_str(json).ok()
    }
    match kind {
        "school" => parse(json).map(Entry::School),
        "reader" => parse(json).map(Entry::Reader),
        "pupil" => parse(json).map(Entry::Pupil),
        "card" => parse(json).map(Entry::Card),
        "guardian" => parse(json).map(Entry::Guardian),
        "binding" => parse(json).map(Entry::Binding),
        "subscription" => parse(json).map(Entry::Subscription),
        "order" => parse(json).map(Entry::Order),
        "day" => parse(json).map(Entry::Day),
        "protection" => parse(json).map(Entry::Protection),
        _ => None,
    }
}
