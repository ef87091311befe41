//! A TOML text held against the shape of what it may say: every unknown key and every value of another type, each with its
//! line, before anything is read for good.
//!
//! The shape is a document with each key that there is and a value of its type; an array of tables has the shape of its
//! first element. What values may be is left to the configuration, which asks here only for the line of a field.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::config::Mistake;

/// What became of holding a text against the shape.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    /// Everything that does not fit.
    pub(crate) mistakes: Vec<Mistake>,
    /// The line of each field, from 1, by its dotted name.
    pub(crate) lines: BTreeMap<String, usize>,
}

impl Fit {
    /// Holds `text` against `shape`.
    pub(crate) fn of(text: &str, shape: &Table) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut fit = Self::default();
        for error in errors {
            let line = error.span().map(|span| line_of(text, span.start));
            let found = format!("no TOML ({})", error.message().replace('\n', ", "));
            fit.mistakes.push(Mistake {
                field: String::new(),
                line,
                found,
                allowed: "the syntax of TOML".into(),
            });
        }
        fit.table(text, "", document.get_ref(), shape);
        fit.mistakes.sort_by_key(|mistake| mistake.line);
        fit
    }

    /// The line of `field`, or else of the table around it.
    pub(crate) fn line(&self, field: &str) -> Option<usize> {
        let mut name = field;
        loop {
            if let Some(line) = self.lines.get(name) {
                return Some(*line);
            }
            name = name.rsplit_once('.')?.0;
        }
    }

    fn table(&mut self, text: &str, prefix: &str, table: &DeTable<'_>, shape: &Table) {
        for (key, value) in table {
            let field = format!("{prefix}{}", key.get_ref());
            let line = line_of(text, key.span().start);
            self.lines.insert(field.clone(), line);
            match shape.get(key.get_ref().as_ref()) {
                Some(wanted) => self.value(text, &field, value, wanted),
                None => {
                    let known: Vec<&str> = shape.keys().map(String::as_str).collect();
                    self.note(field, line, "an unknown key".to_owned(), known.join(", "));
                }
            }
        }
    }

    fn value(&mut self, text: &str, field: &str, value: &Spanned<DeValue<'_>>, shape: &Value) {
        let line = line_of(text, value.span().start);
        match (value.get_ref(), shape) {
            (DeValue::Table(table), Value::Table(shape)) => {
                self.table(text, &format!("{field}."), table, shape);
            }
            (DeValue::Array(elements), Value::Array(shapes)) => {
                for (position, element) in elements.iter().enumerate() {
                    let field = format!("{field}[{position}]");
                    self.lines.insert(field.clone(), line_of(text, element.span().start));
                    if let Some(shape) = shapes.first() {
                        self.value(text, &field, element, shape);
                    }
                }
            }
            (DeValue::Integer(number), Value::Integer(_)) => {
                let is_whole =
                    i64::from_str_radix(number.as_str(), number.radix()).is_ok_and(|number| number >= 0);
                if !is_whole {
                    self.note(
                        field.to_owned(),
                        line,
                        number.to_string(),
                        "a whole number, 0 or more".to_owned(),
                    );
                }
            }
            (DeValue::Float(_) | DeValue::Integer(_), Value::Float(_))
            | (DeValue::Boolean(_), Value::Boolean(_))
            | (DeValue::String(_), Value::String(_)) => {}
            (_, wanted) => {
                // A value of another type is told by its type alone: it may be a password.
                let found = value.get_ref().type_str();
                self.note(
                    field.to_owned(),
                    line,
                    format!("a value of type {found}"),
                    type_in_words(wanted).to_owned(),
                );
            }
        }
    }

    fn note(&mut self, field: String, line: usize, found: String, allowed: String) {
        self.mistakes.push(Mistake { field, line: Some(line), found, allowed: allowed.into() });
    }
}

fn type_in_words(shape: &Value) -> &'static str {
    match shape {
        Value::Integer(_) => "a whole number, 0 or more",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "an array of tables",
        Value::Table(_) => "a table",
        Value::String(_) | Value::Datetime(_) => "a text",
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
