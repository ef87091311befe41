//! The body of one report, taken apart: one object, an array, or one object a line.
//!
//! Pure: bytes in, records out. Owns where one record ends and the next begins, as the public format says;
//! whether a record is a tap is `decode`'s business.

use std::fmt;

use bytes::Bytes;
use gatebell_engine::decode::{is_blank, without_byte_order_mark};
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Records in one report. What is rejected is answered one by one, in more bytes than the shortest record has,
/// so the body's limit alone would not bound the answer.
pub(super) const REPORT_RECORDS_MAX: usize = 20_000;

/// How the records stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// One object, or an array of them.
    Json,
    /// One object a line.
    Ndjson,
}

/// Why nothing of a body was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBatch {
    /// It is an array that is no JSON, so where its records end cannot be told.
    #[error("the body begins as an array but is no JSON; nothing of it was taken")]
    BrokenArray,
    /// It has more than [`REPORT_RECORDS_MAX`] records.
    #[error(
        "the body has more than {REPORT_RECORDS_MAX} records; nothing of it was taken; send smaller batches"
    )]
    TooManyRecords,
}

impl BodyForm {
    /// The form that a content type names, if it is one of ours. Without one, JSON.
    pub(super) fn of(content_type: Option<&str>) -> Option<Self> {
        let Some(content_type) = content_type else { return Some(Self::Json) };
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
            Some(Self::Ndjson)
        } else {
            None
        }
    }

    /// The records of `body`, in order, as slices of it; at most [`REPORT_RECORDS_MAX`].
    pub(super) fn records(self, body: &Bytes) -> Result<Vec<Bytes>, BadBatch> {
        let body = body.slice_ref(without_byte_order_mark(body));
        match self {
            Self::Ndjson => lines(&body),
            Self::Json => json_records(&body),
        }
    }
}

/// Every line that is not blank, without its line end.
fn lines(body: &Bytes) -> Result<Vec<Bytes>, BadBatch> {
    let mut records = Vec::new();
    for line in body.split(|byte| *byte == b'\n').filter(|line| !is_blank(line)) {
        if records.len() == REPORT_RECORDS_MAX {
            return Err(BadBatch::TooManyRecords);
        }
        records.push(body.slice_ref(line.strip_suffix(b"\r").unwrap_or(line)));
    }
    Ok(records)
}

fn json_records(body: &Bytes) -> Result<Vec<Bytes>, BadBatch> {
    let trimmed = body.trim_ascii();
    if trimmed.first() != Some(&b'[') {
        // Whatever it is, it is one record; an empty body too, which is then no tap.
        return Ok(vec![body.slice_ref(trimmed)]);
    }
    let mut records = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(trimmed);
    let read = json.deserialize_seq(Elements { body, records: &mut records }).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(records),
        Err(_) if records.len() > REPORT_RECORDS_MAX => Err(BadBatch::TooManyRecords),
        Err(_) => Err(BadBatch::BrokenArray),
    }
}

/// Takes the elements of an array as slices of `body`, and stops one beyond the limit instead of reading on.
struct Elements<'a> {
    body: &'a Bytes,
    records: &'a mut Vec<Bytes>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of taps")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            self.records.push(self.body.slice_ref(element.get().as_bytes()));
            if self.records.len() > REPORT_RECORDS_MAX {
                return Err(serde::de::Error::custom("too many records"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_body_is_taken_apart_as_the_public_format_says() {
        let cases: [(BodyForm, &str, &[&str]); 13] = [
            (BodyForm::Json, r#"{"a":1}"#, &[r#"{"a":1}"#]),
            (BodyForm::Json, " {\n\"a\":1}\r\n", &["{\n\"a\":1}"]),
            (BodyForm::Json, "\u{feff}{}", &["{}"]),
            (BodyForm::Json, "[]", &[]),
            (BodyForm::Json, " [ {\"a\":\"]\"} , 5,[1,2] ]\n", &["{\"a\":\"]\"}", "5", "[1,2]"]),
            (BodyForm::Json, r#"[{"x":1e400,"y":"\ud800"}]"#, &[r#"{"x":1e400,"y":"\ud800"}"#]),
            (BodyForm::Json, "not json", &["not json"]),
            (BodyForm::Json, "", &[""]),
            (BodyForm::Ndjson, "{}\n{}\n", &["{}", "{}"]),
            (BodyForm::Ndjson, "\u{feff}{}\r\n\r\n  \n{\"b\":2}", &["{}", "{\"b\":2}"]),
            // A form feed is no white space of JSON, so the line is a record, and no tap.
            (BodyForm::Ndjson, " \t\r\n\u{c}\n\r\r\n{}", &["\u{c}", "{}"]),
            (BodyForm::Ndjson, "", &[]),
            (BodyForm::Ndjson, "[{}]\nnot json\n", &["[{}]", "not json"]),
        ];
        for (form, body, expected) in cases {
            let records = form.records(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
            assert_eq!(records, expected, "{body:?}");
        }
    }

    #[test]
    fn deep_nesting_in_an_array_is_no_reason_to_refuse_it() {
        let deep = format!("[{{\"x\":{}{}}}]", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(BodyForm::Json.records(&Bytes::from(deep)).unwrap().len(), 1);
    }

    #[test]
    fn an_array_that_is_no_json_is_refused_as_a_whole() {
        for body in ["[{}", "[{},]", "[{} {}]", "[\u{1}]", "[{}] x"] {
            assert_eq!(BodyForm::Json.records(&Bytes::from(body)), Err(BadBatch::BrokenArray), "{body:?}");
        }
    }

    #[test]
    fn a_body_of_too_many_records_is_refused_as_a_whole() {
        for (form, start, separator, end) in
            [(BodyForm::Json, "[", ",", "]"), (BodyForm::Ndjson, "", "\n", "\n")]
        {
            let body =
                |records: usize| Bytes::from([start, &vec!["1"; records].join(separator), end].concat());
            assert_eq!(
                form.records(&body(REPORT_RECORDS_MAX)).unwrap().len(),
                REPORT_RECORDS_MAX,
                "{form:?}"
            );
            let refused = form.records(&body(REPORT_RECORDS_MAX + 1));
            assert_eq!(refused, Err(BadBatch::TooManyRecords), "{form:?}");
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        for (content_type, form) in [
            (None, Some(BodyForm::Json)),
            (Some("application/json"), Some(BodyForm::Json)),
            (Some("Application/JSON; charset=utf-8"), Some(BodyForm::Json)),
            (Some("application/x-ndjson"), Some(BodyForm::Ndjson)),
            (Some("text/plain"), None),
            (Some("application/x-www-form-urlencoded"), None),
        ] {
            assert_eq!(BodyForm::of(content_type), form, "{content_type:?}");
        }
    }
}
