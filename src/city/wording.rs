//! How an entry of the registry, and what happens to it, is told to people: by codes, with nothing personal (P1).

use gatebell_engine::registry::{DayKind, Entry};

/// `entry` by its codes; a card, which identifies a child to whoever finds it, by its last holder.
pub(super) fn named(entry: &Entry) -> String {
    match entry {
        Entry::Card(it) => match it.holders.iter().max_by_key(|holder| holder.stretch.from) {
            Some(holder) => format!("a card of {}", holder.pupil),
            None => "a card of nobody".to_owned(),
        },
        Entry::Binding(it) => format!("{} to {}", it.guardian, it.pupil),
        Entry::Subscription(it) => format!("{} for {} by {}", it.guardian, it.pupil, it.channel),
        Entry::Order(it) => format!("{} ({})", it.order, state_word(entry).unwrap_or_default()),
        Entry::Day(it) => {
            let schools = it.school.as_ref().map_or("all schools", |school| school.as_str());
            format!("{} of {schools} ({})", it.date, state_word(entry).unwrap_or_default())
        }
        _ => entry.key().expose().into(),
    }
}

/// What differs, by the names of the fields; of orders and days also how.
pub(super) fn what_changes(before: &Entry, after: &Entry) -> String {
    if let (Some(word_before), Some(word_after)) = (state_word(before), state_word(after))
        && word_before != word_after
    {
        return format!("{word_before} before");
    }
    let fields_of = |entry: &Entry| match serde_json::to_value(entry) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields_of(before), fields_of(after));
    let mut names: Vec<&str> = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, _)| name.as_str())
        .collect();
    names.extend(before.keys().filter(|name| !after.contains_key(*name)).map(String::as_str));
    names.join(", ")
}

/// How far an order has come, or what is made of a day.
pub(super) fn state_word(entry: &Entry) -> Option<&'static str> {
    match entry {
        Entry::Order(it) => Some(it.state.name()),
        Entry::Day(it) => Some(match it.rule {
            Some(DayKind::Off) => "off",
            Some(DayKind::School) => "school",
            None => "as the term says",
        }),
        _ => None,
    }
}
