//! What would keep `gatebell serve` from starting, all of it at once: for the start itself and for `gatebell config check`.
//!
//! Puts together what each room finds wrong on its own: the file, the term, secrets, lanes, texts, the data directory. A
//! mistake in one does not hide those of another. What only shows when it is tried, such as a port that another program
//! has taken, is left to the start.

use std::fmt;
use std::path::Path;

use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::registry::EmbeddedRegistry;
use gatebell_engine::term::Term;

use crate::config::{Configuration, ConfigurationMistakes, Draft};
use crate::wiring;

/// Why there would be no start.
#[derive(Debug)]
pub(crate) struct StartRefusal {
    troubles: Vec<String>,
    mistakes: Option<ConfigurationMistakes>,
}

impl fmt::Display for StartRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gatebell serve cannot start with this")?;
        for line in self.troubles.iter().flat_map(|trouble| trouble.lines()) {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StartRefusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.mistakes.as_ref().map(|mistakes| mistakes as _)
    }
}

/// The configuration and the term, when nothing speaks against a start on `data` with them.
///
/// # Errors
/// [`StartRefusal`] with everything that does.
pub(crate) fn checked<T: AsRef<Term>>(
    draft: anyhow::Result<Draft>,
    term: anyhow::Result<T>,
    data: &Path,
) -> Result<(Configuration, T), StartRefusal> {
    let mut troubles = Vec::new();
    let term = term.map_err(|error| troubles.push(told(&error))).ok();
    let draft = draft.map_err(|error| troubles.push(told(&error))).ok();
    // What a shared city lives on is asked at the start only; the directory holds none of it.
    let is_shared = draft.as_ref().is_some_and(|draft| draft.configuration.cluster.is_some());
    let registry = if is_shared { Ok(None) } else { open_registry(data) };
    let registry = registry.unwrap_or_else(|error| {
        troubles.push(told(&error));
        None
    });
    if let Some(Draft { configuration, .. }) = &draft {
        troubles.extend(wiring::troubles(configuration, registry.as_ref().map(|registry| registry as _)));
        troubles.extend(term.iter().flat_map(|term| missing_lanes(configuration, term.as_ref())));
    }
    match (draft, term) {
        (Some(Draft { configuration, mistakes: None }), Some(term)) if troubles.is_empty() => {
            Ok((configuration, term))
        }
        (draft, _) => Err(StartRefusal { troubles, mistakes: draft.and_then(|draft| draft.mistakes) }),
    }
}

fn missing_lanes(configuration: &Configuration, term: &Term) -> Vec<String> {
    let missing = term.channels.iter().filter(|channel| !configuration.channels.contains(channel));
    missing
        .map(|channel| {
            format!(
                "the term {} offers {channel}, but no lane is configured for it: add one, or take the channel off the term",
                term.name
            )
        })
        .collect()
}

/// The registry, where there is one already: a check makes none.
fn open_registry(data: &Path) -> anyhow::Result<Option<EmbeddedRegistry>> {
    if !data.exists() {
        return Ok(None);
    }
    let directory = DataDir::existing(data)?;
    if !directory.registry().exists() {
        return Ok(None);
    }
    Ok(Some(EmbeddedRegistry::open(&directory)?))
}

/// An error and its causes, of which each may have a line a mistake.
fn told(error: &anyhow::Error) -> String {
    let lines = error.chain().enumerate().flat_map(|(depth, cause)| {
        let lines: Vec<String> =
            cause.to_string().lines().map(|line| format!("{}{line}", "  ".repeat(depth))).collect();
        lines
    });
    lines.collect::<Vec<String>>().join("\n")
}
