//! What is wrong with a city directory: one [`Finding`] a mistake or warning, in words that tell where it is, what was
//! found and what is allowed.
//!
//! This file owns the masking: names, phones, addresses, tokens and cards never show in a finding (P1).

use std::borrow::Cow;
use std::fmt;

use super::table::FILES;

/// Longest value that a finding quotes, in characters.
const QUOTED_LEN_MAX: usize = 48;

/// One mistake or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file's name within the directory.
    pub(crate) file: &'static str,
    /// The line on which the row begins, from 1; `None`: it is about the file as a whole.
    pub(crate) line: Option<u64>,
    /// The column; `None`: it is about the row as a whole.
    pub(crate) column: Option<Cow<'static, str>>,
    /// What was found, masked where personal.
    pub(crate) found: Cow<'static, str>,
    /// What is allowed.
    pub(crate) allowed: Cow<'static, str>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ": {column}")?;
        }
        write!(f, ": found {}; allowed: {}", self.found, self.allowed)
    }
}

/// Everything that is wrong with a directory.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// With one of these a directory is not imported at all.
    pub(crate) mistakes: Vec<Finding>,
    /// Worth a look, but no hindrance.
    pub(crate) warnings: Vec<Finding>,
}

impl Findings {
    /// Adds a mistake.
    pub(super) fn mistake(
        &mut self,
        (file, line, column): (&'static str, Option<u64>, Option<&'static str>),
        found: impl Into<Cow<'static, str>>,
        allowed: impl Into<Cow<'static, str>>,
    ) {
        let column = column.map(Cow::Borrowed);
        self.mistakes.push(Finding { file, line, column, found: found.into(), allowed: allowed.into() });
    }

    /// Adds a warning.
    pub(super) fn warning(
        &mut self,
        (file, line, column): (&'static str, u64, &'static str),
        found: impl Into<Cow<'static, str>>,
        allowed: impl Into<Cow<'static, str>>,
    ) {
        let column = Some(Cow::Borrowed(column));
        self.warnings.push(Finding {
            file,
            line: Some(line),
            column,
            found: found.into(),
            allowed: allowed.into(),
        });
    }

    /// By file, in the order in which the format lists them, then by line.
    pub(super) fn sort(&mut self) {
        let place = |finding: &Finding| {
            let file = FILES.iter().position(|spec| spec.name == finding.file);
            (file, finding.line)
        };
        self.mistakes.sort_by_key(place);
        self.warnings.sort_by_key(place);
    }
}

/// `value` as a finding quotes it: escaped, and cut when it is long. What looks personal is masked even in a column that
/// is not, since a row whose cells moved by one puts a name where a code should be.
pub(super) fn quoted(value: &str) -> String {
    if looks_personal(value) {
        return masked(value);
    }
    if value.is_empty() {
        return "an empty cell".to_owned();
    }
    let mut start: String = value.chars().take(QUOTED_LEN_MAX).collect();
    if start.len() < value.len() {
        start.push('…');
    }
    format!("{start:?}")
}

/// A personal value as a finding tells of it: its length alone.
pub(super) fn masked(value: &str) -> String {
    match value.chars().count() {
        0 => "an empty cell".to_owned(),
        1 => "a masked value of 1 character".to_owned(),
        count => format!("a masked value of {count} characters"),
    }
}

fn looks_personal(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let is_national_id = value.len() == 10 && digits >= 8 && value.as_bytes()[0].is_ascii_alphabetic();
    let is_phone =
        digits >= 9 && (value.starts_with("09") || value.starts_with('+') || value.starts_with("886"));
    let is_card = digits >= 12 && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_national_id || is_phone || is_card || value.contains('@') || !value.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_personal_is_masked_wherever_it_is_found() {
        for value in
            ["王小明", "0912345678", "+886912345678", "A123456789", "a@example.org", "0417391826541234"]
        {
            assert!(!quoted(value).contains(value), "{value}");
        }
        for value in ["P 1", "2025-13-01", "sms", "25:00"] {
            assert!(quoted(value).contains(value), "{value}");
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        assert!(quoted(&"x".repeat(10_000)).len() < 100);
    }
}
