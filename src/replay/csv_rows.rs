//! Taps from CSV: a header of the fields' names in any order, one row a tap (the public format).
//!
//! Cells are not trimmed, an empty one is a missing field, unknown columns are ignored. A row with too few or too many
//! cells, or with a quote that is never closed, is a malformed record; one longer than a tap may be is oversize. However
//! long a row is, no more of it is kept than one of the largest size has.

use std::io::{self, BufRead};

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader};
use gatebell_engine::decode::{self, fields};
use gatebell_engine::ids::CardNumber;
use gatebell_engine::tap::{Direction, RejectReason, TAP_LEN_MAX};
use gatebell_engine::time::Timestamp;

use super::ReplayRecord;

/// Bytes of a row's cells that are kept; a header, which is no tap, may be longer than one.
const CELLS_LEN_MAX: usize = 64 * 1024;

/// Cells of a row that are kept.
const CELLS_MAX: usize = 16 * 1024;

/// The fields that a header may name.
const FIELDS: [&str; 5] = ["card", "reader", "at", "dir", "received"];

/// Which of them a tap must have.
const FIELDS_REQUIRED: usize = 3;

/// A CSV file of taps, read row by row.
pub(super) struct CsvTaps<R> {
    rows: Rows<R>,
    /// Cells in the header.
    width: usize,
    header: Result<Positions, String>,
}

/// Where each of [`FIELDS`] stands in a row; `None`: the header does not name it.
type Positions = [Option<usize>; FIELDS.len()];

impl<R: BufRead> CsvTaps<R> {
    /// Reads the header of `input`.
    pub(super) fn read_header(input: R) -> io::Result<Self> {
        let mut rows = Rows::new(input);
        let Some(row) = rows.next_row()? else {
            return Ok(Self { rows, width: 0, header: Ok([None; FIELDS.len()]) });
        };
        let header = positions(&rows, &row);
        Ok(Self { rows, width: row.cells, header })
    }

    /// What keeps every row from being a tap, if anything does.
    pub(super) fn header_mistake(&self) -> Option<&str> {
        self.header.as_ref().err().map(String::as_str)
    }

    /// The next row as a record; `None` at the end.
    pub(super) fn next_record(&mut self) -> io::Result<Option<ReplayRecord>> {
        let Some(row) = self.rows.next_row()? else {
            return Ok(None);
        };
        if row.len > TAP_LEN_MAX {
            return Ok(Some(ReplayRecord::rejected(RejectReason::Oversize)));
        }
        let positions = self.header.as_ref().ok().filter(|_| row.is_closed && row.cells == self.width);
        let tap = positions.and_then(|positions| CsvTap::read(&self.rows, &row, positions));
        Ok(Some(match tap {
            Some(tap) => tap.record(),
            None => ReplayRecord::rejected(RejectReason::Malformed),
        }))
    }
}

fn positions<R>(rows: &Rows<R>, row: &Row) -> Result<Positions, String> {
    if row.is_cut || !row.is_closed {
        return Err(format!("the header is no row of at most {CELLS_LEN_MAX} bytes"));
    }
    let mut positions = [None; FIELDS.len()];
    for cell in 0..row.cells {
        let Some(field) = FIELDS.iter().position(|field| rows.cell(cell) == Some(field.as_bytes())) else {
            continue;
        };
        if let Some(position) = positions.get_mut(field)
            && position.replace(cell).is_some()
        {
            return Err(format!("the header names {} twice", FIELDS[field]));
        }
    }
    let missing: Vec<&str> = FIELDS
        .iter()
        .zip(positions)
        .take(FIELDS_REQUIRED)
        .filter(|(_, at)| at.is_none())
        .map(|(field, _)| *field)
        .collect();
    if missing.is_empty() {
        Ok(positions)
    } else {
        Err(format!("the header does not name {}", missing.join(", ")))
    }
}

/// A row that is a tap.
struct CsvTap {
    card: CardNumber,
    reader: String,
    at: Timestamp,
    direction: Option<Direction>,
    received: Option<Timestamp>,
}

impl CsvTap {
    /// `None`: some cell has not the form of its field, or some byte is not UTF-8.
    fn read<R>(rows: &Rows<R>, row: &Row, positions: &Positions) -> Option<Self> {
        for cell in 0..row.cells {
            std::str::from_utf8(rows.cell(cell)?).ok()?;
        }
        let cell = |field: usize| {
            let text = std::str::from_utf8(rows.cell(positions[field]?)?).ok()?;
            (!text.is_empty()).then_some(text)
        };
        // An empty cell is a missing field: fine for an optional one; one of another form is not.
        let direction = match cell(3) {
            Some(text) => Some(fields::direction(text)?),
            None => None,
        };
        let received = match cell(4) {
            Some(text) => Some(fields::instant(text)?),
            None => None,
        };
        let reader = cell(1).filter(|text| fields::is_reader(text))?.to_owned();
        Some(Self {
            card: fields::card(cell(0)?)?,
            reader,
            at: fields::instant(cell(2)?)?,
            direction,
            received,
        })
    }

    /// The same tap as a reader would report it: the shard reads JSON. Nothing in it needs escaping.
    fn record(&self) -> ReplayRecord {
        let direction = match self.direction {
            Some(Direction::In) => r#","dir":"in""#,
            Some(Direction::Out) => r#","dir":"out""#,
            None => "",
        };
        let at_ms = self.at.as_millis();
        let json = format!(
            r#"{{"card":"{}","reader":"{}","at":{at_ms}{direction}}}"#,
            self.card.expose(),
            self.reader
        );
        ReplayRecord {
            value: Bytes::from(json),
            received: Some(self.received.unwrap_or(self.at)),
            says_received: self.received.is_some(),
        }
    }
}

/// Cuts `input` into rows.
struct Rows<R> {
    input: R,
    parser: Reader,
    cells: Vec<u8>,
    ends: Vec<usize>,
}

/// What is known of the row that was read last.
#[derive(Default)]
struct Row {
    /// Its cells.
    cells: usize,
    /// Its bytes as they stand in the file, without the line end.
    len: usize,
    /// Whether its last quote is closed.
    is_closed: bool,
    /// Whether it holds more than was kept.
    is_cut: bool,
    /// Whether there is more in it than white space.
    is_record: bool,
    /// Whether its last byte so far may be its line end.
    ends_line: bool,
}

impl Row {
    /// Takes note of bytes of the file that belong to it.
    fn note(&mut self, bytes: &[u8]) {
        // Line ends before a row are left over from the row before, or blank lines.
        let skipped =
            if self.len == 0 { bytes.iter().take_while(|byte| is_line_end(**byte)).count() } else { 0 };
        let own = bytes.get(skipped..).unwrap_or_default();
        self.len += own.len();
        self.is_record |= !decode::is_blank(own);
        if let Some(last) = own.last() {
            self.ends_line = is_line_end(*last);
        }
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

impl<R: BufRead> Rows<R> {
    fn new(input: R) -> Self {
        let mut rows =
            Self { input, parser: Reader::new(), cells: vec![0; CELLS_LEN_MAX], ends: vec![0; CELLS_MAX] };
        // The file's byte order mark has been taken off. csv-core would take off a second one, but only where the first
        // chunk holds all of it, and takes a chunk that holds nothing else for the end: a blank line tells it that it has
        // begun.
        rows.parser.read_record(b"\n", &mut rows.cells, &mut rows.ends);
        rows
    }

    /// Reads the next row that is not blank; its cells are then in [`Rows::cell`]. `None` at the end.
    fn next_row(&mut self) -> io::Result<Option<Row>> {
        loop {
            match self.read_row()? {
                Some(row) if !row.is_record => {}
                row => return Ok(row),
            }
        }
    }

    fn read_row(&mut self) -> io::Result<Option<Row>> {
        let mut row = Row { is_closed: true, ..Row::default() };
        let mut kept = 0;
        let mut kept_cells = 0;
        let mut at_end = AtEnd::No;
        loop {
            let chunk: &[u8] = match at_end {
                AtEnd::No => match self.input.fill_buf() {
                    Ok([]) => {
                        at_end = AtEnd::LineEndAdded;
                        b"\n"
                    }
                    Ok(chunk) => chunk,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                },
                AtEnd::LineEndAdded | AtEnd::Told => b"",
            };
            let (cells, ends) = (&mut self.cells[kept..], &mut self.ends[kept_cells..]);
            let (result, consumed, written, ended) = self.parser.read_record(chunk, cells, ends);
            if matches!(at_end, AtEnd::No) {
                row.note(&chunk[..consumed]);
                self.input.consume(consumed);
            }
            kept += written;
            kept_cells += ended;
            row.cells += ended;
            match result {
                ReadRecordResult::Record => {
                    // The line end that was read belongs to no row; the one added at the end was not counted.
                    row.len -= usize::from(row.ends_line && matches!(at_end, AtEnd::No));
                    return Ok(Some(row));
                }
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::InputEmpty => match at_end {
                    AtEnd::No => {}
                    AtEnd::LineEndAdded => {
                        // A line end does not end the row that it is added to: it is inside a quoted cell.
                        row.is_closed = row.len == 0;
                        at_end = AtEnd::Told;
                    }
                    AtEnd::Told => return Ok(None),
                },
                // Too much to keep, so no tap: the rest is only counted.
                ReadRecordResult::OutputFull => {
                    row.is_cut = true;
                    kept = 0;
                }
                ReadRecordResult::OutputEndsFull => {
                    row.is_cut = true;
                    kept_cells = 0;
                }
            }
        }
    }
}

impl<R> Rows<R> {
    /// The cell at `position` of the row read last, unquoted, as far as it was kept whole.
    fn cell(&self, position: usize) -> Option<&[u8]> {
        let start = match position.checked_sub(1) {
            Some(previous) => *self.ends.get(previous)?,
            None => 0,
        };
        self.cells.get(start..*self.ends.get(position)?)
    }
}

/// How far the end of the input has been told to the parser.
#[derive(Clone, Copy)]
enum AtEnd {
    /// There may be more.
    No,
    /// A line end was put behind the last byte.
    LineEndAdded,
    /// The parser knows that nothing comes any more.
    Told,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::BufReader;

    use super::*;

    /// A chunk that held a byte order mark and nothing else was taken for the end of a row, so that the number of records
    /// depended on how the file arrived.
    #[test]
    fn a_second_byte_order_mark_is_a_part_of_the_header_however_it_arrives() {
        let file = "\u{feff}card,reader,at\n04AA,R-in,0\n04BB,R-in,0\n".as_bytes();
        for chunk_len in 1..file.len() {
            let mut taps = CsvTaps::read_header(BufReader::with_capacity(chunk_len, file)).unwrap();
            assert_eq!(taps.header_mistake(), Some("the header does not name card"), "{chunk_len}");
            assert!(taps.next_record().unwrap().is_some() && taps.next_record().unwrap().is_some());
            assert_eq!(taps.next_record().unwrap(), None, "{chunk_len}");
        }
    }
}
