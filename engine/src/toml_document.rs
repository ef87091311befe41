//! TOML read with all of its mistakes at once: each with line, column, what was found and what is allowed.
//!
//! A [`Document`] is walked by whoever knows its form: [`Table`] hands out the values it is asked for, notes
//! a [`Mistake`] for each that is missing or of the wrong kind, and at its end one for each key that nobody
//! asked for. What the values mean is left to the caller, who can [`note`](Document::note) mistakes of its
//! own.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest text that a mistake repeats, in characters.
const FOUND_CHARS_MAX: usize = 60;

/// One mistake, with its place. Prints as `LINE:COLUMN: field: found …; allowed: …`, so that a file name with
/// a colon before it makes a place that editors open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The key, with the tables around it; empty where the text is no TOML.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What may be there.
    pub allowed: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "found {}; allowed: {}", self.found, self.allowed)
    }
}

/// Every mistake of one text, in the order of their places. Prints one a line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes; never empty.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, mistake) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

/// A parsed text and the mistakes noted so far.
pub(crate) struct Document<'t> {
    text: &'t str,
    tree: Spanned<DeTable<'t>>,
    noted: RefCell<Vec<(usize, Mistake)>>,
}

impl<'t> Document<'t> {
    /// Parses `text`; what is no TOML is noted, and the rest is there to be walked.
    pub(crate) fn parse(text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (tree, errors) = DeTable::parse_recoverable(text);
        let document = Self { text, tree, noted: RefCell::default() };
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let found = format!("no TOML ({})", error.message().replace('\n', ", "));
            document.note(&span, "", found, "the syntax of TOML");
        }
        document
    }

    /// The table around everything.
    pub(crate) fn root(&self) -> Table<'_> {
        let span = self.tree.span();
        // Where something is missing from the whole document, its beginning is the place to say so.
        let place = span.start..span.start;
        Table {
            document: self,
            path: String::new(),
            place,
            tree: self.tree.get_ref(),
            asked: RefCell::default(),
        }
    }

    /// Notes a mistake at `span`.
    pub(crate) fn note(
        &self,
        span: &Range<usize>,
        field: &str,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        let (line, column) = self.place_of(span.start);
        let mistake =
            Mistake { line, column, field: field.to_owned(), found: found.into(), allowed: allowed.into() };
        self.noted.borrow_mut().push((span.start, mistake));
    }

    /// The mistakes, if any.
    pub(crate) fn finish(self) -> Result<(), Mistakes> {
        let mut noted = self.noted.into_inner();
        if noted.is_empty() {
            return Ok(());
        }
        noted.sort_by_key(|(start, _)| *start);
        // Sorted stably, a mistake of syntax comes first; what follows from it at the same place says nothing
        // new.
        noted.dedup_by(|later, earlier| later.0 == earlier.0 && earlier.1.field.is_empty());
        Err(Mistakes(noted.into_iter().map(|(_, mistake)| mistake).collect()))
    }

    fn place_of(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |start| start.chars().count()) + 1;
        (line, column)
    }
}

/// One table of a document.
pub(crate) struct Table<'d> {
    document: &'d Document<'d>,
    path: String,
    place: Range<usize>,
    tree: &'d DeTable<'d>,
    asked: RefCell<Vec<&'static str>>,
}

/// One value, with its place.
#[derive(Clone)]
pub(crate) struct Value<'d> {
    document: &'d Document<'d>,
    /// The key, with the tables around it.
    pub(crate) field: String,
    span: Range<usize>,
    value: &'d DeValue<'d>,
}

impl<'d> Table<'d> {
    /// The value of `key`, if there is one.
    pub(crate) fn optional(&self, key: &'static str) -> Option<Value<'d>> {
        self.asked.borrow_mut().push(key);
        let (_, value) = self.tree.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some(Value {
            document: self.document,
            field: self.name(key),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// The value of `key`; its absence is noted as a mistake.
    pub(crate) fn required(&self, key: &'static str, allowed: &str) -> Option<Value<'d>> {
        let value = self.optional(key);
        if value.is_none() {
            self.document.note(&self.place, &self.name(key), "nothing", allowed);
        }
        value
    }

    /// To be called when every key was asked for: all others are mistakes.
    pub(crate) fn end(self) {
        let asked = self.asked.borrow();
        for name in self.tree.keys() {
            if !asked.iter().any(|key| name.get_ref().as_ref() == *key) {
                let field = self.name(&shortened(name.get_ref()));
                self.document.note(&name.span(), &field, "an unknown key", asked.join(", "));
            }
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl<'d> Value<'d> {
    /// Notes that this value is not what is allowed here.
    pub(crate) fn wrong(&self, allowed: impl Into<String>) {
        let found = match self.value {
            DeValue::String(text) => format!("{:?}", shortened(text)),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                shortened(self.document.text.get(self.span.clone()).unwrap_or_default())
            }
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.document.note(&self.span, &self.field, found, allowed);
    }

    /// Its text.
    pub(crate) fn text(&self, allowed: &str) -> Option<&'d str> {
        self.or_wrong(self.value.as_str(), allowed)
    }

    /// Its text, when it is one; nothing is noted when it is not.
    pub(crate) fn as_text(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    /// Its integer.
    pub(crate) fn integer(&self, allowed: &str) -> Option<i64> {
        let number = self
            .value
            .as_integer()
            .and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok());
        self.or_wrong(number, allowed)
    }

    /// Its truth value.
    pub(crate) fn boolean(&self) -> Option<bool> {
        self.or_wrong(self.value.as_bool(), "true or false")
    }

    /// Its civil date, bare or in quotes.
    pub(crate) fn date(&self) -> Option<jiff::civil::Date> {
        let text = match self.value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Datetime(stamp) if stamp.time.is_none() && stamp.offset.is_none() => {
                Some(stamp.to_string())
            }
            _ => None,
        };
        let date = text
            .filter(|text| text.len() == "2025-09-08".len())
            .and_then(|text| text.parse::<jiff::civil::Date>().ok());
        self.or_wrong(date, "a date such as 2025-09-08")
    }

    /// Its items.
    pub(crate) fn items(&self, allowed: &str) -> Option<Vec<Value<'d>>> {
        let array = self.or_wrong(self.value.as_array(), allowed)?;
        let item = |(position, item): (usize, &'d Spanned<DeValue<'d>>)| Value {
            document: self.document,
            field: format!("{}[{position}]", self.field),
            span: item.span(),
            value: item.get_ref(),
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// Its keys and values.
    pub(crate) fn table(&self, allowed: &str) -> Option<Table<'d>> {
        let tree = self.or_wrong(self.value.as_table(), allowed)?;
        Some(Table {
            document: self.document,
            path: self.field.clone(),
            place: self.span.clone(),
            tree,
            asked: RefCell::default(),
        })
    }

    fn or_wrong<T>(&self, value: Option<T>, allowed: &str) -> Option<T> {
        if value.is_none() {
            self.wrong(allowed);
        }
        value
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
