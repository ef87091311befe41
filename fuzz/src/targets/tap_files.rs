//! A file of taps for `replay`, NDJSON or CSV, through a real shard.

use gatebell_engine::decode::decode_replayed;
use gatebell_engine::tap::TAP_LEN_MAX;
use serde_json::Value;

use super::fixture;
use super::input::first_line;

/// The first line says `csv` or anything else. Every record gets exactly one outcome, in order, and the same ones however
/// the file arrives.
pub fn tap_files(bytes: &[u8]) {
    let (form, file) = first_line(bytes);
    let is_csv = form == b"csv";
    let whole = replayed(file, is_csv, file.len());
    let in_pieces = replayed(file, is_csv, 1 + file.len() % 7);
    assert_eq!(String::from_utf8_lossy(&whole.0), String::from_utf8_lossy(&in_pieces.0));

    let outcomes: Vec<Value> = whole
        .0
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("an outcome is JSON"))
        .collect();
    assert_eq!(outcomes.len() as u64, whole.1, "the counts add up to the records");
    for (record, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome["record"], record);
        assert_eq!(outcome["reason"].is_string(), outcome["outcome"] == "rejected");
    }
    if !is_csv {
        rejected_as_decoded(file, &outcomes);
    }
}

/// A record is rejected as malformed or oversize exactly where it cannot be decoded.
fn rejected_as_decoded(file: &[u8], outcomes: &[Value]) {
    let file = file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file);
    let records: Vec<&[u8]> = file
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.iter().all(|byte| b" \t\r".contains(byte)))
        .collect();
    assert_eq!(records.len(), outcomes.len());
    for (record, outcome) in records.into_iter().zip(outcomes) {
        let reason = decode_replayed(record).err().map(|reason| reason.name());
        let told = outcome["reason"].as_str().filter(|reason| ["malformed", "oversize"].contains(reason));
        assert_eq!(told, reason, "{}", String::from_utf8_lossy(&record[..record.len().min(TAP_LEN_MAX)]));
    }
}

fn replayed(file: &[u8], is_csv: bool, chunk_bytes: usize) -> (Vec<u8>, u64) {
    let input = (file.to_vec(), is_csv);
    gatebell::fuzzing::replay(fixture::term().clone(), fixture::entries().to_vec(), input, chunk_bytes)
        .expect("no bytes stop a replay")
}
