//! The configuration: one TOML file, checked as a whole before anything starts.
//!
//! Owns what may be set and what holds when it is not; [`Configuration::built_in`] is the commented file that comes with
//! the program, so the two cannot drift apart. A mistake stops the start, with every other one, each at its line. Secrets
//! are never in the file: it names the file or the environment variable that has them.

mod mistakes;
mod section;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toml::de::DeTable;

pub(crate) use mistakes::ConfigurationMistakes;
use mistakes::Mistake;
use section::Section;

/// The file that holds when no other is named.
pub(crate) const BUILT_IN: &str = include_str!("../../config/gatebell.toml");
const BUILT_IN_NAME: &str = "the built-in configuration";

/// A configuration without mistakes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configuration {
    /// The data directory of the embedded log and store, relative to the working directory.
    pub(crate) data: Option<PathBuf>,
}

impl Configuration {
    /// Reads `file`.
    ///
    /// # Errors
    /// When it cannot be read, or with every mistake in it ([`ConfigurationMistakes`]).
    pub(crate) fn load(file: &Path) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).with_context(|| format!("cannot read the configuration {name}"))?;
        let text = String::from_utf8(bytes)
            .ok()
            .with_context(|| format!("the configuration {name} is not UTF-8"))?;
        Ok(Self::parse(&name, text.strip_prefix('\u{feff}').unwrap_or(&text))?)
    }

    /// What holds without a file: a trial on this machine.
    pub(crate) fn built_in() -> Result<Self, ConfigurationMistakes> {
        Self::parse(BUILT_IN_NAME, BUILT_IN)
    }

    fn parse(name: &str, text: &str) -> Result<Self, ConfigurationMistakes> {
        let (table, syntax_errors) = DeTable::parse_recoverable(text);
        let mut mistakes: Vec<Mistake> = syntax_errors
            .iter()
            .map(|error| Mistake {
                field: String::new(),
                found: error.message().to_owned(),
                allowed: "TOML 1.1".to_owned(),
                span: error.span().unwrap_or(0..0),
            })
            .collect();
        let configuration = Self::read(Section::top(table.get_ref(), &mut mistakes));
        if mistakes.is_empty() {
            return Ok(configuration);
        }
        Err(ConfigurationMistakes::new(name, text, mistakes))
    }

    fn read(mut top: Section<'_, '_>) -> Self {
        let data = top.text("data", "a directory", |text| (!text.is_empty()).then(|| PathBuf::from(text)));
        top.end();
        Self { data }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_built_in_configuration_has_no_mistakes() {
        Configuration::built_in().unwrap();
    }

    #[test]
    fn every_mistake_is_named_at_once_with_its_line() {
        let mistakes = Configuration::parse("city.toml", "data = 5\nwrong = 1\nnot toml\n").unwrap_err();
        let drawn = mistakes.drawn();
        for expected in
            ["city.toml:1:8", "data: found 5", "city.toml:2:1", "wrong: unknown key", "city.toml:3"]
        {
            assert!(drawn.contains(expected), "{expected} in\n{drawn}");
        }
    }
}
