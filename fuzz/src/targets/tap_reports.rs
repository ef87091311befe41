//! The body of a report of taps over HTTP.

use std::cell::RefCell;

use bytes::Bytes;
use gatebell::fuzzing::{BODY_BYTES_MAX, ReportAnswer, post_taps};
use gatebell_engine::decode::decode;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::{Builder, Runtime};

use super::input::first_line;

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// The first line is the content type; behind `!` the token is a school's. What is answered adds up to the records that are
/// in the body, what is accepted is in the log byte for byte, and an array is answered as the same records one a line are.
pub fn tap_reports(bytes: &[u8]) {
    let (head, body) = first_line(bytes);
    let Ok(head) = std::str::from_utf8(head) else { return };
    let (content_type, of_school) = head.strip_prefix('!').map_or((head, false), |rest| (rest, true));
    let answer = posted(of_school, content_type, body);
    if answer.status != 202 {
        assert!(answer.kept.is_empty(), "a refused report leaves nothing in the log");
        assert!([400, 413, 415].contains(&answer.status), "{}", answer.status);
        assert!(answer.status != 413 || body.len() > BODY_BYTES_MAX || body.len() > 20_000);
        if answer.status == 400 {
            assert!(array_of(body).is_none(), "an array that is JSON is taken");
        }
        return;
    }
    let essence = content_type.split(';').next().unwrap_or_default();
    let is_ndjson = essence.to_ascii_lowercase().contains("ndjson");
    let records = if is_ndjson { lines_of(body) } else { json_of(body) };
    let rejected = rejected(&answer);
    adds_up(&records, &rejected, &answer, of_school);
    if !is_ndjson && records.iter().all(|record| !record.contains(&b'\n') && !is_blank(record)) {
        let lines = posted(of_school, "application/x-ndjson", &records.join(&b'\n'));
        if records.first().is_none_or(|first| !first.starts_with("\u{feff}".as_bytes())) {
            assert_eq!(lines, answer, "one a line is answered as an array is");
        }
    }
}

fn posted(of_school: bool, content_type: &str, body: &[u8]) -> ReportAnswer {
    RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.get_or_insert_with(|| {
            Builder::new_current_thread().enable_time().build().expect("a runtime can be built")
        });
        runtime.block_on(post_taps(of_school, content_type, Bytes::copy_from_slice(body)))
    })
}

fn adds_up(records: &[&[u8]], rejected: &[(usize, String)], answer: &ReportAnswer, of_school: bool) {
    let said: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    assert_eq!(said["accepted"], answer.kept.len());
    assert_eq!(answer.kept.len() + rejected.len(), records.len(), "every record is accepted or rejected");
    assert!(rejected.is_sorted_by(|(one, _), (next, _)| one < next), "each once, in order");
    let mut kept = answer.kept.iter();
    let mut rejected = rejected.iter().peekable();
    for (index, record) in records.iter().enumerate() {
        let reason = rejected.next_if(|(rejected, _)| *rejected == index).map(|(_, reason)| reason.as_str());
        match decode(record) {
            Err(expected) => assert_eq!(reason, Some(expected.name())),
            Ok(tap) if of_school && tap.reader.split_once("-G").is_none_or(|(of, _)| of != "353604") => {
                assert_eq!(reason, Some("not_allowed"));
            }
            Ok(_) => {
                assert_eq!(reason, None);
                assert_eq!(kept.next().map(|kept| &kept[..]), Some(*record), "kept as it was sent");
            }
        }
    }
}

fn rejected(answer: &ReportAnswer) -> Vec<(usize, String)> {
    let said: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    let rejected = said["rejected"].as_array().expect("it lists what was rejected");
    rejected
        .iter()
        .map(|one| {
            let index = one["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            (index.expect("an index"), one["reason"].as_str().expect("a reason").to_owned())
        })
        .collect()
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| b" \t\r\n".contains(byte))
}

fn lines_of(body: &[u8]) -> Vec<&[u8]> {
    without_mark(body)
        .split(|byte| *byte == b'\n')
        .filter(|line| !is_blank(line))
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect()
}

fn array_of(body: &[u8]) -> Option<Vec<&RawValue>> {
    serde_json::from_slice(without_mark(body).trim_ascii()).ok()
}

fn json_of(body: &[u8]) -> Vec<&[u8]> {
    let trimmed = without_mark(body).trim_ascii();
    match array_of(body) {
        Some(records) => records.into_iter().map(|record| record.get().as_bytes()).collect(),
        None => vec![trimmed],
    }
}
