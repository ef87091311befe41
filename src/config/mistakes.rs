//! What is wrong with a configuration file: every mistake at once, each with its line and a caret.
//!
//! Owns how a mistake is shown. Promises that no secret is: a value under a key that sounds like one, and the
//! user part of a URL, are blotted out of the lines shown (P1), also when somebody has put a password where
//! only the name of its file belongs. What is a mistake is decided where the file is read.

use std::fmt;
use std::io::IsTerminal as _;
use std::ops::Range;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Width of what is drawn, in columns.
const DRAWN_WIDTH: usize = 110;

/// What is found where nothing is.
pub(crate) const MISSING: &str = "missing";
/// What is found where something secret is, or may be.
pub(crate) const NOT_SHOWN: &str = "a value that is not shown";

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The dotted name of the field, such as `taps.listen`; empty for the file as a whole.
    pub(crate) field: String,
    /// What is there; masked where it may be secret.
    pub(crate) found: String,
    /// What would be right.
    pub(crate) allowed: String,
    /// Where, in bytes of the file.
    pub(crate) span: Range<usize>,
}

impl Mistake {
    /// Whether something is not there.
    pub(crate) fn is_missing(&self) -> bool {
        self.found == MISSING
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}", self.found)
        } else {
            write!(f, "{}: {}", self.field, self.found)
        }
    }
}

/// Every mistake of one file.
#[derive(Debug, Clone)]
pub(crate) struct ConfigurationMistakes {
    file: String,
    /// The text with everything secret blotted out, byte for byte, so that spans still fit.
    text: String,
    mistakes: Vec<Mistake>,
}

impl ConfigurationMistakes {
    /// The mistakes of `file`, which holds `text`; sorted by place.
    pub(crate) fn new(file: &str, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.span.start);
        let shown = without_secrets(text);
        // A secret may stand where its key is not taken for one: behind a string that was never closed, say.
        let is_blotted_out =
            |mistake: &Mistake| text.get(mistake.span.clone()) != shown.get(mistake.span.clone());
        for mistake in mistakes.iter_mut().filter(|mistake| is_blotted_out(mistake)) {
            mistake.found = format!("found {NOT_SHOWN}");
        }
        Self { file: file.to_owned(), text: shown, mistakes }
    }

    /// One paragraph a mistake: file, line, column, field, what was found, what is allowed, and the line with
    /// a caret.
    pub(crate) fn drawn(&self) -> String {
        let theme = if std::io::stderr().is_terminal() {
            GraphicalTheme::default()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(DRAWN_WIDTH);
        let source = NamedSource::new(&self.file, self.text.clone());
        let mut drawn = String::new();
        for mistake in &self.mistakes {
            let drawing = Drawing { mistake, source: &source };
            // Writing to a string does not fail.
            handler.render_report(&mut drawn, &drawing).ok();
        }
        drawn
    }
}

impl fmt::Display for ConfigurationMistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => write!(f, "{} has a mistake", self.file),
            count => write!(f, "{} has {count} mistakes", self.file),
        }
    }
}

impl std::error::Error for ConfigurationMistakes {}

/// One mistake as miette draws it.
#[derive(Debug)]
struct Drawing<'a> {
    mistake: &'a Mistake,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Drawing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistake.fmt(f)
    }
}

impl std::error::Error for Drawing<'_> {}

impl Diagnostic for Drawing<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("allowed: {}", self.mistake.allowed)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.mistake.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}

/// Whether a key by this name would hold a secret itself, rather than name the file or variable that does.
pub(crate) fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !names_where(&key)
        && (["password", "passwd", "secret", "token", "key", "credential", "account", "user"]
            .iter()
            .any(|word| key.contains(word))
            || key.split(['_', '-']).any(|word| ["pass", "pwd", "auth", "pin"].contains(&word)))
}

/// Whether what stands under `key` says where a secret is.
fn names_where(key: &str) -> bool {
    key.ends_with("_file") || key.ends_with("_env")
}

/// Whether `value`, under a key that says where a secret is, might be that secret itself.
fn may_be_pasted(key: &str, value: &str) -> bool {
    let key = key.to_ascii_lowercase();
    (key.ends_with("_env") && !is_variable(value)) || (key.ends_with("_file") && !may_be_a_path(value))
}

/// Whether `text` is what an environment variable with a secret is called: in capitals, which few secrets are.
pub(crate) fn is_variable(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(fits)
}

/// Whether `text` is rather the path of a secret's file than the secret.
pub(crate) fn may_be_a_path(text: &str) -> bool {
    text.contains(['/', '.']) && !text.contains(['=', '+', ' '])
}

/// `text` with everything secret overwritten by `*`, byte for byte: values under keys that sound secret,
/// found in the document and, since it may have mistakes, once more line by line.
fn without_secrets(text: &str) -> String {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut secrets = Vec::new();
    spans_of_secrets(document.get_ref(), &mut secrets);
    let mut bytes = text.as_bytes().to_vec();
    for byte in secrets.into_iter().filter_map(|span| text.get(span.clone()).map(|_| span)).flatten() {
        if let Some(byte) = bytes.get_mut(byte).filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    }
    let without_values = String::from_utf8(bytes).expect("whole values were overwritten by ASCII");
    without_values.split_inclusive('\n').map(line_without_secrets).collect()
}

fn spans_of_secrets(table: &DeTable<'_>, secrets: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        if sounds_secret(key.get_ref()) {
            secrets.push(value.span());
        } else {
            spans_within(key.get_ref(), value, secrets);
        }
    }
}

fn spans_within(key: &str, value: &Spanned<DeValue<'_>>, secrets: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::String(text) if may_be_pasted(key, text) => secrets.push(value.span()),
        DeValue::Table(inner) => spans_of_secrets(inner, secrets),
        DeValue::Array(elements) => {
            elements.iter().for_each(|element| spans_within(key, element, secrets));
        }
        _ => {}
    }
}

fn line_without_secrets(line: &str) -> String {
    let body = line.trim_end_matches(['\n', '\r']);
    let end = &line[body.len()..];
    match body.split_once('=') {
        Some((key, value)) if sounds_secret(key.trim()) || may_be_pasted(key.trim(), string_at(value)) => {
            format!("{key}={}{end}", "*".repeat(value.len()))
        }
        _ => format!("{}{end}", without_url_user(body)),
    }
}

/// What stands between the first pair of quotes of `value`; all of it where there is none.
fn string_at(value: &str) -> &str {
    let Some(quote) = value.trim_start().chars().next().filter(|first| matches!(first, '"' | '\'')) else {
        return value.trim();
    };
    value.split(quote).nth(1).unwrap_or_default()
}

/// `line` with what stands between `://` and a later `@` overwritten.
fn without_url_user(line: &str) -> String {
    let Some((before, after)) = line.split_once("://") else { return line.to_owned() };
    let Some(at) = after.rfind('@') else { return line.to_owned() };
    format!("{before}://{}{}", "*".repeat(at), &after[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_written_into_the_file_is_not_shown() {
        for line in [
            "password = \"hunter2hunter2\"\n",
            "  hmac_key=\"hunter2\"\n",
            "url = \"https://me:hunter2@sms.example/api\"\n",
            "Password = \"\"\"hunter2\"\"\"\r\n",
            "password_env = \"hunter2-Hunter2\"\n",
            "password_file = 'hunter2hunter2'\n",
            "password_env = \"hunter2\" # see a/b\n",
            "password_env = \"hunter2/hunter2\"\n",
            "key_file = \"hunter2/hunter2+hunter2==\"\n",
            "basic-auth = \"hunter2\"\n",
            "gateway = [[{ pwd = \"hunter2\" }]]\n",
        ] {
            let shown = without_secrets(line);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(shown.len(), line.len(), "spans must still fit");
        }
        for line in [
            "password_file = \"/run/secrets/sms\"\n",
            "password_env = \"SMS_PASSWORD\" # vault\n",
            "passages = 2\n",
        ] {
            assert_eq!(without_secrets(line), line);
        }
    }
}
