//! One table of the configuration file while it is being read.
//!
//! Owns the walk: each field is asked for once, by name, type and rule; what does not fit becomes a mistake
//! and the reading goes on, so that all of them are known in the end. Keys that nobody asked for are mistakes
//! too ([`Section::end`]). Which fields there are is the business of the files that ask.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::mistakes::{MISSING, Mistake, NOT_SHOWN, is_variable, may_be_a_path, sounds_secret};
use super::secret::SecretSource;

/// Longest value that a mistake repeats, in characters.
const FOUND_LEN_MAX: usize = 60;

const URL_ALLOWED: &str = "an http or https URL without user, password, query and fragment";

/// A table of the file, and what was asked of it so far.
pub(crate) struct Section<'t, 'm> {
    /// Dotted, with a dot at the end; empty for the top.
    prefix: String,
    table: Option<&'t DeTable<'t>>,
    /// Where to point when something is missing.
    span: Range<usize>,
    asked: BTreeSet<String>,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'t, 'm> Section<'t, 'm> {
    /// The whole file.
    pub(crate) fn top(table: &'t DeTable<'t>, mistakes: &'m mut Vec<Mistake>) -> Self {
        Self { prefix: String::new(), table: Some(table), span: 0..0, asked: BTreeSet::new(), mistakes }
    }

    /// Whether the file has the table at all.
    pub(crate) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Whether anything stands under `key`.
    pub(crate) fn has(&mut self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The table under `key`; where there is none, one in which everything is missing.
    pub(crate) fn table(&mut self, key: &str) -> Section<'t, '_> {
        let value = self.value(key);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            self.wrong(key, value, "a table");
        }
        let span = value.map_or(self.span.clone(), Spanned::span);
        Section {
            prefix: format!("{}{key}.", self.prefix),
            table,
            span,
            asked: BTreeSet::new(),
            mistakes: self.mistakes,
        }
    }

    /// Every table of the array under `key` (`[[key]]`), read one after the other.
    pub(crate) fn tables<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(Section<'t, '_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(elements) = value.get_ref().as_array() else {
            self.wrong(key, value, "an array of tables");
            return Vec::new();
        };
        let mut all = Vec::new();
        for (position, element) in elements.iter().enumerate() {
            let Some(table) = element.get_ref().as_table() else {
                self.wrong(key, element, "a table");
                continue;
            };
            let section = Section {
                prefix: format!("{}{key}[{position}].", self.prefix),
                table: Some(table),
                span: element.span(),
                asked: BTreeSet::new(),
                mistakes: self.mistakes,
            };
            all.extend(read(section));
        }
        all
    }

    /// The text under `key`, turned into a value by `parse`, which gives nothing for what is not `allowed`.
    /// `None` when it is missing or was a mistake.
    pub(crate) fn text<T>(
        &mut self,
        key: &str,
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

    /// The text under `key`; missing is a mistake.
    pub(crate) fn required<T>(
        &mut self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            self.missing(key, allowed);
            return None;
        }
        self.text(key, allowed, parse)
    }

    /// A file or directory.
    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key, "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
    }

    /// An address to listen on.
    pub(crate) fn address(&mut self, key: &str, otherwise: SocketAddr) -> SocketAddr {
        self.text(
            key,
            "an address and a port, such as \"127.0.0.1:8080\"; port 0 lets the system choose",
            |text| text.parse().ok(),
        )
        .unwrap_or(otherwise)
    }

    /// An `http` or `https` URL with a host and without user, query or fragment; missing is a mistake.
    pub(crate) fn url(&mut self, key: &str) -> Option<Url> {
        self.required(key, URL_ALLOWED, plain_url)
    }

    /// As [`Section::url`], but it may be missing.
    pub(crate) fn optional_url(&mut self, key: &str) -> Option<Url> {
        self.text(key, URL_ALLOWED, plain_url)
    }

    /// A whole number within `range`.
    pub(crate) fn number<N>(&mut self, key: &str, range: RangeInclusive<N>, otherwise: N) -> N
    where
        N: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.value(key) else { return otherwise };
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
            .and_then(|integer| N::try_from(integer).ok())
            .filter(|number| range.contains(number));
        number.unwrap_or_else(|| {
            self.wrong(key, value, &format!("a whole number from {} to {}", range.start(), range.end()));
            otherwise
        })
    }

    /// Whole seconds within `range`; the key says so by its `_s`.
    pub(crate) fn seconds(&mut self, key: &str, range: RangeInclusive<u64>, otherwise: Duration) -> Duration {
        Duration::from_secs(self.number(key, range, otherwise.as_secs()))
    }

    /// `true` or `false`.
    pub(crate) fn truth(&mut self, key: &str, otherwise: bool) -> bool {
        let Some(value) = self.value(key) else { return otherwise };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong(key, value, "true or false");
            otherwise
        })
    }

    /// An array of texts, each turned into a value by `parse`.
    pub(crate) fn texts<T>(
        &mut self,
        key: &str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(elements) = value.get_ref().as_array() else {
            self.wrong(key, value, &format!("an array; each of it {allowed}"));
            return None;
        };
        let mut all = Vec::new();
        for element in elements {
            match element.get_ref().as_str().and_then(&parse) {
                Some(parsed) => all.push(parsed),
                None => self.wrong(key, element, allowed),
            }
        }
        Some(all)
    }

    /// Where a secret is: `KEY_file` names a file or `KEY_env` an environment variable, one of the two.
    pub(crate) fn secret(&mut self, key: &str) -> Option<SecretSource> {
        let (file_key, env_key) = (format!("{key}_file"), format!("{key}_env"));
        let file = self
            .text(&file_key, "a path; ./NAME for a file in the working directory", |text| {
                may_be_a_path(text).then(|| PathBuf::from(text))
            })
            .map(SecretSource::File);
        let variable = self
            .text(&env_key, "the name of an environment variable, in capitals", |text| {
                is_variable(text).then(|| text.to_owned())
            })
            .map(SecretSource::Environment);
        if let (Some(_), Some(value)) = (&file, self.value(&env_key)) {
            self.wrong(&env_key, value, &format!("only one of {file_key} and {env_key}"));
        }
        file.or(variable)
    }

    /// Says that `key` is missing.
    pub(crate) fn missing(&mut self, key: &str, allowed: &str) {
        let head = self.span.start..self.span.start.saturating_add(1).min(self.span.end);
        self.mistakes.push(Mistake {
            field: format!("{}{key}", self.prefix),
            found: MISSING.to_owned(),
            allowed: allowed.to_owned(),
            span: head,
        });
    }

    /// Says that what stands under `key` is wrong, for a rule over more than one field; nothing when it is
    /// not there.
    pub(crate) fn wrong_field(&mut self, key: &str, allowed: &str) {
        if let Some(value) = self.value(key) {
            self.wrong(key, value, allowed);
        }
    }

    /// Says that every table of the array under `key` but the first is one too many.
    pub(crate) fn only_one(&mut self, key: &str, allowed: &str) {
        let elements = self.value(key).and_then(|value| value.get_ref().as_array()).into_iter().flatten();
        for another in elements.skip(1) {
            self.wrong(key, another, allowed);
        }
    }

    fn wrong(&mut self, key: &str, value: &Spanned<DeValue<'_>>, allowed: &str) {
        let found = if sounds_secret(key) { NOT_SHOWN.to_owned() } else { found(value.get_ref()) };
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
            let known: Vec<&str> = self.asked.iter().map(String::as_str).collect();
            self.mistakes.push(Mistake {
                field: format!("{}{}", self.prefix, key.get_ref()),
                found: "unknown key".to_owned(),
                allowed: known.join(", "),
                span: key.span(),
            });
        }
    }

    fn value(&mut self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        if !self.asked.contains(key) {
            self.asked.insert(key.to_owned());
        }
        self.table?.get(key)
    }
}

fn plain_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    fits.then_some(url)
}

/// The value as an operator wrote it, cut to a length that fits a line; a URL with a user or password in it
/// is not shown.
fn found(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) if text.contains('@') => "a text that is not shown".to_owned(),
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
