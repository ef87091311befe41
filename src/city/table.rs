//! One CSV file of a city directory: its header, its rows, and the line on which each begins.
//!
//! Owns what the format says of files as such: UTF-8 with or without a byte order mark, columns in any order and each
//! exactly once, as many cells in a row as in the header. What the cells mean is left to [`super::rows`].

use std::io;

use csv::StringRecord;

use super::findings::{Findings, masked, quoted};

/// Gives the bytes of the file of a name: of a directory, or of what stands for one.
pub(super) type CityFiles<'a> = &'a dyn Fn(&'static str) -> io::Result<Vec<u8>>;

/// What the format says of one file.
#[derive(Debug)]
pub(super) struct FileSpec {
    /// Its name.
    pub(super) name: &'static str,
    /// Its columns; rows are read in this order, whatever the order in the file.
    pub(super) columns: &'static [&'static str],
    /// Whether a directory without it is a mistake.
    pub(super) required: bool,
}

/// The column of a spec that holds the key, where the file has one.
pub(super) const KEY_COLUMN: usize = 0;

/// Every file of a city directory.
pub(super) static FILES: [FileSpec; 9] =
    [SCHOOLS, READERS, PUPILS, CARDS, GUARDIANS, BINDINGS, SUBSCRIPTIONS, ORDERS, DAYS];

macro_rules! file_specs {
    ($($konst:ident, $name:literal, $required:literal, [$($column:literal),+];)+) => {
        $(pub(super) const $konst: FileSpec =
            FileSpec { name: $name, columns: &[$($column),+], required: $required };)+
    };
}

file_specs! {
    SCHOOLS, "schools.csv", true, ["school", "name", "level", "departure_opens"];
    READERS, "readers.csv", false, ["reader", "school", "name", "direction"];
    PUPILS, "pupils.csv", true, ["pupil", "school", "class", "seat", "name"];
    CARDS, "cards.csv", true, ["card", "pupil", "from", "until"];
    GUARDIANS, "guardians.csv", false,
        ["guardian", "name", "phone", "email", "app_token", "line_user", "language"];
    BINDINGS, "bindings.csv", false, ["guardian", "pupil", "relation", "from", "until"];
    SUBSCRIPTIONS, "subscriptions.csv", false, ["guardian", "pupil", "channel", "passages", "from", "until"];
    ORDERS, "orders.csv", false,
        ["order", "guardian", "pupil", "plan", "state", "prepaid", "approved_at", "cancelled_at"];
    DAYS, "days.csv", false, ["date", "school", "kind", "name"];
}

/// A file that could be read, with its header.
pub(super) struct Table {
    spec: &'static FileSpec,
    text: String,
    /// Where each column of the spec stands in the file; `None`: the column is missing.
    positions: Vec<Option<usize>>,
    /// Cells in the header.
    width: usize,
    /// Whether the header is without mistakes; else rows cannot be judged by it.
    header_is_right: bool,
}

/// What became of looking for a file.
pub(super) enum FileFound {
    /// It is there, and text.
    Table(Table),
    /// It is not there, and need not be.
    Absent,
    /// It cannot be used; the mistake is recorded.
    Unusable,
}

impl Table {
    /// Reads the file of `spec` and checks its header.
    pub(super) fn open(files: CityFiles<'_>, spec: &'static FileSpec, findings: &mut Findings) -> FileFound {
        let bytes = match files(spec.name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !spec.required {
                    return FileFound::Absent;
                }
                findings.mistake((spec.name, None, None), "no such file", "a file, since it is required");
                return FileFound::Unusable;
            }
            Err(error) => {
                findings.mistake(
                    (spec.name, None, None),
                    format!("a file error ({error})"),
                    "a readable file",
                );
                return FileFound::Unusable;
            }
        };
        match String::from_utf8(bytes) {
            Ok(mut text) => {
                if text.starts_with('\u{feff}') {
                    text.drain(..'\u{feff}'.len_utf8());
                }
                FileFound::Table(Self::with_header(spec, text, findings))
            }
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = 1 + count_lines(&error.as_bytes()[..valid]);
                findings.mistake((spec.name, Some(line), None), "bytes that are not UTF-8", "UTF-8");
                FileFound::Unusable
            }
        }
    }

    fn with_header(spec: &'static FileSpec, text: String, findings: &mut Findings) -> Self {
        let mut header = StringRecord::new();
        let mut reader = csv_reader(&text);
        // Text in memory that is UTF-8, with rows of any width: the reader has nothing to complain of.
        let has_header = reader.read_record(&mut header).unwrap_or(false);
        let line = has_header.then(|| 1 + count_lines(&text.as_bytes()[..row_start(&text, &header)]));
        let mut header_is_right = true;
        let mut mistake = |column, found: String, allowed: String| {
            header_is_right = false;
            findings.mistake((spec.name, line.or(Some(1)), column), found, allowed);
        };
        let allowed = || format!("the columns {}", spec.columns.join(", "));
        let is_header = header.iter().any(|name| spec.columns.contains(&name));
        if !is_header {
            // Another separator, say, or a row of data: nothing of it is quoted, and one mistake says it all.
            mistake(None, "a first line with none of the columns".to_owned(), allowed());
        }
        for (position, name) in header.iter().enumerate().filter(|_| is_header) {
            if !spec.columns.contains(&name) {
                let found = format!("the unknown column {} (number {})", quoted(name), position + 1);
                mistake(None, found, allowed());
            } else if header.iter().take(position).any(|earlier| earlier == name) {
                let known = spec.columns.iter().copied().find(|column| *column == name);
                let found = format!("the column twice (again as number {})", position + 1);
                mistake(known, found, "each column once".to_owned());
            }
        }
        let mut positions = Vec::with_capacity(spec.columns.len());
        for column in spec.columns {
            let position = header.iter().position(|name| name == *column);
            if position.is_none() && is_header {
                mistake(Some(column), "no such column".to_owned(), allowed());
            }
            positions.push(position);
        }
        Self { spec, text, positions, width: header.len(), header_is_right }
    }

    /// Whether the header has the column at `column` of the spec.
    pub(super) fn has_column(&self, column: usize) -> bool {
        self.positions.get(column).is_some_and(Option::is_some)
    }

    /// Calls `take` for each row. Of a row with too few or too many cells, which is a mistake, only the key is read. Below a
    /// header with mistakes, every row is such a row and none is one more mistake; behind a quote that is closed on a
    /// later line or never, no row can be told from another, and the reading ends.
    ///
    /// Whether the keys of all rows were read.
    pub(super) fn for_each_row(&self, findings: &mut Findings, mut take: impl FnMut(&mut Row<'_>)) -> bool {
        let mut reader = csv_reader(&self.text);
        let mut record = StringRecord::new();
        let mut lines_before = 0;
        let mut counted_to = 0;
        let mut is_header = true;
        let mut has_every_key = true;
        while reader.read_record(&mut record).unwrap_or(false) {
            let start = row_start(&self.text, &record);
            lines_before += count_lines(&self.text.as_bytes()[counted_to..start]);
            counted_to = start;
            if is_header {
                is_header = false;
                continue;
            }
            let line = lines_before + 1;
            let place = (self.spec.name, Some(line), None);
            let end = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX).min(self.text.len());
            let has_right_width = record.len() == self.width;
            if end == self.text.len() && has_open_quote(&self.text[start..]) {
                findings.mistake(place, "a quoted cell that is never closed", "a closing quote");
                return false;
            }
            let raw = self.text[start..end].trim_end_matches(['\r', '\n']);
            let is_on_one_line = count_lines(raw.as_bytes()) == 0;
            if !(is_on_one_line || has_right_width && quotes_enclose_cells(raw)) {
                let found = format!("a quote that is closed on a later line, and {} in all", cells(&record));
                let allowed = "quotes around whole cells (what follows in this file is not judged)";
                findings.mistake(place, found, allowed);
                return false;
            }
            if !has_right_width && self.header_is_right {
                findings.mistake(place, cells(&record), format!("{}, as in the header", self.width));
            }
            has_every_key &= has_right_width || self.header_is_right;
            let is_whole = has_right_width && self.header_is_right;
            take(&mut Row { table: self, record: &record, line, next: 0, is_whole, findings });
        }
        has_every_key
    }
}

fn cells(record: &StringRecord) -> String {
    match record.len() {
        1 => "1 cell".to_owned(),
        count => format!("{count} cells"),
    }
}

fn csv_reader(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes())
}

/// Where the row of `record` really begins: the reader's own position is before the line ends that it skips.
fn row_start(text: &str, record: &StringRecord) -> usize {
    let position = record.position().map_or(0, csv::Position::byte);
    let start = usize::try_from(position).unwrap_or(0).min(text.len());
    let skipped = text.as_bytes()[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    start + skipped
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Whether the last row, `text`, ends inside a quoted cell: then what is put after it belongs to that cell.
fn has_open_quote(text: &str) -> bool {
    if !text.contains('"') {
        return false;
    }
    let probe = format!("{text}\nx");
    let mut record = StringRecord::new();
    let mut reader = csv_reader(&probe);
    reader.read_record(&mut record).unwrap_or(false)
        && record.iter().next_back().is_some_and(|cell| cell.ends_with("\nx"))
}

/// Whether each quote of the row `raw` begins or ends a cell, or is doubled within one.
fn quotes_enclose_cells(raw: &str) -> bool {
    let mut rest = raw;
    loop {
        let after = match rest.strip_prefix('"') {
            Some(mut quoted) => loop {
                let Some((_, after)) = quoted.split_once('"') else { return false };
                let Some(doubled) = after.strip_prefix('"') else { break after };
                quoted = doubled;
            },
            None => {
                let (cell, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if cell.contains('"') {
                    return false;
                }
                after
            }
        };
        if after.is_empty() {
            return true;
        }
        let Some(next) = after.strip_prefix(',') else { return false };
        rest = next;
    }
}

/// One row; its cells are read in the order of the spec.
pub(super) struct Row<'a> {
    table: &'a Table,
    record: &'a StringRecord,
    /// The line on which it begins.
    pub(super) line: u64,
    next: usize,
    /// Whether its cells stand under their columns; of another row only the key is of use.
    is_whole: bool,
    findings: &'a mut Findings,
}

impl Row<'_> {
    /// The next column's value. `None` when the column is missing or the value is not of the form; the mistake is
    /// recorded.
    pub(super) fn cell<T>(&mut self, form: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        self.read(form, quoted)
    }

    /// The same for a column whose values are personal: what is found is masked.
    pub(super) fn personal<T>(&mut self, form: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        self.read(form, masked)
    }

    fn read<T>(
        &mut self,
        form: impl Fn(&str) -> Result<T, &'static str>,
        shown: impl Fn(&str) -> String,
    ) -> Option<T> {
        let column = self.next;
        self.next += 1;
        if !self.is_whole && column != KEY_COLUMN {
            return None;
        }
        let position = (*self.table.positions.get(column)?)?;
        let value = self.record.get(position)?;
        match form(value) {
            Ok(value) => Some(value),
            Err(allowed) => {
                self.mistake(column, shown(value), allowed);
                None
            }
        }
    }

    /// The column of the spec that the next call reads.
    pub(super) fn next_column(&self) -> usize {
        self.next
    }

    /// What the column at `column` of the spec holds, as a finding quotes it.
    pub(super) fn value(&self, column: usize) -> String {
        let position = self.table.positions.get(column).copied().flatten();
        quoted(position.and_then(|position| self.record.get(position)).unwrap_or_default())
    }

    /// Records a mistake about the column at `column` of the spec. A row that is not whole has its mistake already.
    pub(super) fn mistake(
        &mut self,
        column: usize,
        found: String,
        allowed: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        if !self.is_whole {
            return;
        }
        let name = self.table.spec.columns.get(column).copied();
        self.findings.mistake((self.table.spec.name, Some(self.line), name), found, allowed);
    }
}
