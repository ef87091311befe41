//! One table of the configuration file while it is being read.
//!
//! Owns the walk: each field is asked for once, by name, type and rule; what does not fit becomes a mistake and the
//! reading goes on, so that all of them are known in the end. Keys that nobody asked for are mistakes too
//! ([`Section::end`]). Which fields there are is the business of the files that ask.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, sounds_secret};

/// Longest value that a mistake repeats, in characters.
const FOUND_LEN_MAX: usize = 60;

/// A table of the file, and what was asked of it so far.
pub(crate) struct Section<'t, 'm> {
    /// Dotted, with a dot at the end; empty for the top.
    prefix: String,
    table: Option<&'t DeTable<'t>>,
    asked: BTreeSet<&'static str>,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'t, 'm> Section<'t, 'm> {
    /// The whole file.
    pub(crate) fn top(table: &'t DeTable<'t>, mistakes: &'m mut Vec<Mistake>) -> Self {
        Self { prefix: String::new(), table: Some(table), asked: BTreeSet::new(), mistakes }
    }

    /// The text under `key`, turned into a value by `parse`, which says what is allowed when it cannot. `None` when it is
    /// missing or was a mistake.
    pub(crate) fn text<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let parsed = value.get_ref().as_str().and_then(parse);
        if parsed.is_none() {
            self.wrong(key, value, allowed);
        }
        parsed
    }

    /// Says that `key` is wrong, at its value.
    pub(crate) fn wrong(&mut self, key: &str, value: &Spanned<DeValue<'_>>, allowed: &str) {
        let found =
            if sounds_secret(key) { "a value that is not shown".to_owned() } else { found(value.get_ref()) };
        self.mistakes.push(Mistake {
            field: format!("{}{key}", self.prefix),
            found: format!("found {found}"),
            allowed: allowed.to_owned(),
            span: value.span(),
        });
    }

    /// Ends the reading: keys that nobody asked for are mistakes.
    pub(crate) fn end(self) {
        let Some(table) = self.table else { return };
        for key in table.keys().filter(|key| !self.asked.contains(key.get_ref().as_ref())) {
            let known: Vec<&str> = self.asked.iter().copied().collect();
            self.mistakes.push(Mistake {
                field: format!("{}{}", self.prefix, key.get_ref()),
                found: "unknown key".to_owned(),
                allowed: known.join(", "),
                span: key.span(),
            });
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.insert(key);
        self.table?.get(key)
    }
}

/// The value as an operator wrote it, cut to a length that fits a line.
fn found(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    if text.chars().count() <= FOUND_LEN_MAX {
        return text;
    }
    text.chars().take(FOUND_LEN_MAX).chain(['…']).collect()
}
