//! A city directory: the schools, readers, pupils, cards, guardians, bindings, subscriptions, orders and days of a city
//! as CSV files (the public format).
//!
//! [`read`] turns a directory into registry entries and finds every mistake at once; [`diff`] compares them with what a
//! registry holds. This module owns the form of the files and promises that entries without mistakes are whole: every
//! reference leads somewhere and no two rows contradict each other. Storing them is left to the commands.

pub(crate) mod commanded;
pub(crate) mod diff;
mod entries;
mod findings;
mod forms;
pub(crate) mod made_up;
#[cfg(test)]
mod model_tests;
mod relations;
pub(crate) mod removal;
mod rows;
#[cfg(test)]
mod sample_entries;
mod table;
#[cfg(test)]
mod tests;
mod wording;

use std::path::Path;

use gatebell_engine::registry::Entry;
use gatebell_engine::time::Timestamp;
use jiff::tz::TimeZone;

#[cfg(feature = "fuzzing")]
pub(crate) use findings::Finding;
pub(crate) use findings::Findings;

/// What a directory holds and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Reading {
    /// One entry a key; schools first, then what refers to them. To be used only when there is no mistake.
    pub(crate) entries: Vec<Entry>,
    /// Every mistake and warning, by file and line.
    pub(crate) findings: Findings,
}

impl Reading {
    /// How many entries there are of each kind, in the order in which they come.
    pub(crate) fn counts(&self) -> Vec<(&'static str, usize)> {
        let mut counts: Vec<(&'static str, usize)> = Vec::new();
        for entry in &self.entries {
            match counts.last_mut() {
                Some((kind, count)) if *kind == entry.kind() => *count += 1,
                _ => counts.push((entry.kind(), 1)),
            }
        }
        counts
    }
}

/// The names of the files of a city directory.
pub(crate) fn file_names() -> impl Iterator<Item = &'static str> {
    table::FILES.iter().map(|spec| spec.name)
}

/// Reads the city directory at `dir`. Times without an offset are of `zone`; `now` tells the orders that are over from
/// those in force. A file that cannot be read is a mistake like any other.
pub(crate) fn read(dir: &Path, zone: &TimeZone, now: Timestamp) -> Reading {
    read_files(&|name| std::fs::read(dir.join(name)), zone, now)
}

/// The same for files that `files` gives by name.
pub(crate) fn read_files(files: table::CityFiles<'_>, zone: &TimeZone, now: Timestamp) -> Reading {
    let mut findings = Findings::default();
    let rows = rows::CityRows::read(files, zone, &mut findings);
    relations::check(&rows, zone, now, &mut findings);
    findings.sort();
    let entries = if findings.mistakes.is_empty() { entries::of(rows) } else { Vec::new() };
    Reading { entries, findings }
}
