//! One record of a tap log.

use std::fmt::Write as _;

use gatebell_engine::decode::{ReceivedField, decode, decode_replayed, json, scan};
use gatebell_engine::ids::CardNumber;
use gatebell_engine::tap::{Direction, RejectReason, TAP_LEN_MAX, Tap};

use super::fixture;

/// Both ways of decoding agree, `received` only ever narrows, and a tap written anew is the same tap.
pub fn tap_decode(record: &[u8]) {
    let line = record.strip_suffix(b"\n").unwrap_or(record);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > TAP_LEN_MAX {
        assert_eq!(decode(record), Err(RejectReason::Oversize));
        assert_eq!(decode_replayed(record), Err(RejectReason::Oversize));
        return;
    }
    for received in [ReceivedField::Known, ReceivedField::Unknown] {
        if let Some(scanned) = scan::scan(line, received) {
            assert_eq!(json::decode(line, received), Some(scanned), "the scanner and serde_json agree");
        }
    }
    let truth = json::decode(line, ReceivedField::Unknown).map(|decoded| decoded.tap);
    let tap = decode(record);
    assert_eq!(tap, truth.ok_or(RejectReason::Malformed), "a line end is no part of a record");
    if let Ok((replayed, _)) = decode_replayed(record) {
        assert_eq!(Ok(replayed), tap, "what a replay takes, the log takes");
    }
    if let Ok(tap) = tap {
        a_tap_written_anew_is_the_same(&tap.to_tap());
    }
}

fn a_tap_written_anew_is_the_same(tap: &Tap) {
    let card = tap.card.expose();
    assert_eq!(CardNumber::new(&card), Ok(tap.card));
    let direction = match tap.direction {
        Some(Direction::In) => ",\"dir\":\"in\"",
        Some(Direction::Out) => ",\"dir\":\"out\"",
        None => "",
    };
    let reader = tap.reader.as_str();
    let mut texts = vec![format!(
        "{{\"card\":\"{card}\",\"reader\":\"{reader}\",\"at\":{}{direction}}}",
        tap.at.as_millis()
    )];
    let at = tap.at.to_string();
    // The last hours of the year 9999 are beyond what is printed.
    if at.starts_with(|first: char| first.is_ascii_digit()) {
        let mut text = String::new();
        write!(text, "{{\"at\":\"{at}\",\"card\":\"{card}\",\"reader\":\"{reader}\"{direction}}}")
            .expect("a text can be written to");
        texts.push(text);
    }
    for text in texts {
        assert_eq!(decode(text.as_bytes()).map(|view| view.to_tap()).as_ref(), Ok(tap), "{text}");
    }
    let (day, minute) = fixture::term().local(tap.at);
    assert!(minute < 24 * 60);
    assert_eq!(day, fixture::term().day_of(tap.at));
    assert!(fixture::term().midnight(day) <= tap.at, "a day begins before what happens on it");
}
