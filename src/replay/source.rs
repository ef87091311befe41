//! A file of taps as records: NDJSON, or CSV where the name ends in `.csv`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use gatebell_engine::decode;
use gatebell_engine::tap::{RejectReason, TAP_LEN_MAX};

use super::ReplayRecord;
use super::csv_rows::CsvTaps;
use super::lines::Lines;

/// A byte order mark, as Excel puts it at the start of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// More bytes than a tap may have: stands for a record that was not kept whole.
static OVERSIZE: [u8; TAP_LEN_MAX + 1] = [b' '; TAP_LEN_MAX + 1];

/// No JSON: stands for a record that is none of the format's.
static MALFORMED: &[u8] = b"?";

type Input = Box<dyn BufRead>;

/// A file of taps, read from its beginning.
pub(super) enum TapFile {
    /// One JSON object a line.
    Json(Lines<Input>),
    /// One row a tap.
    Csv(Box<CsvTaps<Input>>),
}

impl TapFile {
    /// Opens the file; its name tells its format.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        Self::of(BufReader::new(file), is_csv)
    }

    /// What `input` holds, as CSV or as NDJSON.
    pub(super) fn of(input: impl BufRead + 'static, is_csv: bool) -> io::Result<Self> {
        let input: Input = Box::new(without_byte_order_mark(input)?);
        if is_csv {
            Ok(Self::Csv(Box::new(CsvTaps::read_header(input)?)))
        } else {
            Ok(Self::Json(Lines::new(input)))
        }
    }

    /// What keeps every row of the file from being a tap, if anything does.
    pub(super) fn header_mistake(&self) -> Option<&str> {
        match self {
            Self::Json(_) => None,
            Self::Csv(taps) => taps.header_mistake(),
        }
    }

    /// The next record; `None` at the end.
    pub(super) fn next_record(&mut self) -> io::Result<Option<ReplayRecord>> {
        match self {
            Self::Json(lines) => Ok(lines.next_line()?.map(ReplayRecord::of_json)),
            Self::Csv(taps) => taps.next_record(),
        }
    }
}

impl ReplayRecord {
    /// A line of NDJSON, without its line end; cut after more bytes than a tap may have.
    pub(super) fn of_json(line: &[u8]) -> Self {
        let (tap, received) = match decode::decode_replayed(line) {
            Ok(decoded) => decoded,
            Err(reason) => return Self::rejected(reason),
        };
        // Only where the two are equal is there a doubt whether the line names the time of receipt.
        let says_received = received != tap.at
            || decode::json::decode(line, decode::ReceivedField::Known)
                .is_some_and(|decoded| decoded.received.is_some());
        Self { value: Bytes::copy_from_slice(line), received: Some(received), says_received }
    }

    /// A record that the shard is to reject for `reason`.
    pub(super) fn rejected(reason: RejectReason) -> Self {
        let value = match reason {
            RejectReason::Oversize => Bytes::from_static(&OVERSIZE),
            _ => Bytes::from_static(MALFORMED),
        };
        Self { value, received: None, says_received: false }
    }
}

/// `input` from behind the byte order mark that it may begin with.
fn without_byte_order_mark(mut input: impl BufRead) -> io::Result<impl BufRead> {
    let mut start = Vec::with_capacity(BYTE_ORDER_MARK.len());
    input.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
    if start == BYTE_ORDER_MARK {
        start.clear();
    }
    Ok(Cursor::new(start).chain(input))
}
