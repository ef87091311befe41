//! A city directory.

use std::collections::{BTreeMap, BTreeSet};

use gatebell::fuzzing::{CityFinding, CityRead, city_file_names, entries_to_import, read_city};
use gatebell_connectors::store::embedded::fuzzing::{registry_entry_of, registry_value};
use gatebell_engine::registry::Entry;
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;

/// What stands before the name of a file, on a line of its own.
const FILE_MARK: &str = "== ";
/// In the corpus every name of a person holds it, and nothing else does.
const IN_NAMES: &str = "機密";

/// Lines `== FILE` begin the files. Every mistake says where it is, a city without mistakes is whole (each row is in it, and
/// it survives the registry), importing it again changes nothing, and the form of line ends does not matter.
pub fn city_import(bytes: &[u8]) {
    let files = files(bytes);
    let city = read_files(&files);
    for finding in city.mistakes.iter().chain(&city.warnings) {
        says_where(finding, &files);
        // A header is quoted, so a name may stand where a column's name belongs: that is masked too.
        assert!(!finding.text.contains(IN_NAMES), "{}", finding.text);
    }
    for findings in [&city.mistakes, &city.warnings] {
        assert!(findings.is_sorted_by_key(|finding| (order(finding.file), finding.line)));
    }
    if city.mistakes.is_empty() {
        is_whole(&city, &files);
    } else {
        assert!(city.entries.is_empty(), "a directory with mistakes is not imported at all");
    }
    line_ends_do_not_matter(&files, &city);
}

/// Reads a city in the form of the corpus.
pub(super) fn read(bytes: &[u8]) -> CityRead {
    read_files(&files(bytes))
}

type Files<'a> = BTreeMap<&'a str, Vec<u8>>;

fn files(bytes: &[u8]) -> Files<'_> {
    let mut files = Files::new();
    let mut current = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(FILE_MARK.as_bytes()).and_then(|name| std::str::from_utf8(name).ok());
        if let Some(name) = name {
            current = Some(name.trim_end());
            files.insert(name.trim_end(), Vec::new());
        } else if let Some(file) = current.and_then(|name| files.get_mut(name)) {
            file.extend_from_slice(line);
        }
    }
    files
}

fn read_files(files: &Files<'_>) -> CityRead {
    // Not the fixture's term, which is read with this.
    thread_local! {
        static TERM: Term = Term::parse(Term::built_in("114-1").expect("it is built in")).expect("no mistakes");
    }
    TERM.with(|term| read_city(&|name| files.get(name).cloned(), term))
}

fn order(file: &str) -> Option<usize> {
    city_file_names().into_iter().position(|name| name == file)
}

fn says_where(finding: &CityFinding, files: &Files<'_>) {
    assert!(order(finding.file).is_some(), "{}", finding.text);
    let Some(line) = finding.line else { return };
    let file = files.get(finding.file).expect("a line is of a file that is there");
    let lines = 1 + file.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!((1..=lines).contains(&line), "{} of {lines} lines", finding.text);
}

fn is_whole(city: &CityRead, files: &Files<'_>) {
    let keys: BTreeSet<_> = city.entries.iter().map(Entry::key).collect();
    assert_eq!(keys.len(), city.entries.len(), "one entry a key");
    for (name, kind) in [
        ("schools.csv", "school"),
        ("readers.csv", "reader"),
        ("pupils.csv", "pupil"),
        ("orders.csv", "order"),
    ] {
        let rows = files.get(name).map_or(0, |file| rows(file));
        let entries = city.entries.iter().filter(|entry| entry.kind() == kind).count();
        assert_eq!(entries, rows, "every row of {name} is an entry");
    }
    for entry in &city.entries {
        let value = registry_value(entry).expect("an entry can be written");
        assert_eq!(registry_entry_of(entry.kind(), &value).as_ref(), Some(entry));
    }
    let now = Timestamp::from_millis(0);
    assert_eq!(entries_to_import(city.entries.clone(), &city.entries, now), 0, "imported twice is once");
}

/// Rows as the `csv` crate counts them, without the header.
fn rows(file: &[u8]) -> usize {
    let file = file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file);
    csv::ReaderBuilder::new().flexible(true).from_reader(file).into_byte_records().count()
}

fn line_ends_do_not_matter(files: &Files<'_>, city: &CityRead) {
    let is_plain =
        |file: &Vec<u8>| !file.contains(&b'\r') && !file.contains(&b'"') && !file.starts_with(b"\xef");
    if !files.values().all(is_plain) {
        return;
    }
    let as_excel_writes: Files<'_> = files
        .iter()
        .map(|(name, file)| {
            let lines: Vec<&[u8]> = file.split(|byte| *byte == b'\n').collect();
            (*name, ["\u{feff}".as_bytes(), &lines.join(&b"\r\n"[..])].concat())
        })
        .collect();
    assert_eq!(&read_files(&as_excel_writes), city);
}
