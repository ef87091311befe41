//! The body of one report, taken apart: one object, an array, or one object a line.
//!
//! Pure: bytes in, records out. Owns where one record ends and the next begins, as the public format says;
//! whether a record is a tap is `decode`'s business.

use bytes::Bytes;
use serde_json::value::RawValue;

/// How the records stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// One object, or an array of them.
    Json,
    /// One object a line.
    Ndjson,
}

/// The body is an array that is no JSON, so where its records end cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body begins as an array but is no JSON; nothing of it was taken")]
pub(super) struct BrokenArray;

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

    /// The records of `body`, in order, as slices of it.
    pub(super) fn records(self, body: &Bytes) -> Result<Vec<Bytes>, BrokenArray> {
        let body = match body.strip_prefix(b"\xef\xbb\xbf") {
            Some(without_mark) => body.slice_ref(without_mark),
            None => body.clone(),
        };
        match self {
            Self::Ndjson => Ok(lines(&body)),
            Self::Json => json_records(&body),
        }
    }
}

/// Every line that is not blank, without its line end.
fn lines(body: &Bytes) -> Vec<Bytes> {
    body.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| body.slice_ref(line))
        .collect()
}

fn json_records(body: &Bytes) -> Result<Vec<Bytes>, BrokenArray> {
    let trimmed = body.trim_ascii();
    if trimmed.first() != Some(&b'[') {
        // Whatever it is, it is one record; an empty body too, which is then no tap.
        return Ok(vec![body.slice_ref(trimmed)]);
    }
    let elements: Vec<&RawValue> = serde_json::from_slice(trimmed).map_err(|_| BrokenArray)?;
    Ok(elements.into_iter().map(|element| body.slice_ref(element.get().as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_body_is_taken_apart_as_the_public_format_says() {
        let cases: [(BodyForm, &str, &[&str]); 12] = [
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
            assert_eq!(BodyForm::Json.records(&Bytes::from(body)), Err(BrokenArray), "{body:?}");
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
