//! The webhook's JSON, both ways.
//!
//! Owns: how messages are written and results are read. Promises: an answer is believed only as far as it names our
//! messages; what it leaves open is [`SubmitOutcome::Unknown`]. The format is told in the parent module.

use std::collections::HashMap;
use std::time::Duration;

use compact_str::CompactString;
use gatebell_engine::ports::channel::{Message, SubmitOutcome};
use serde::{Deserialize, Serialize};

/// Longest id that is taken from the backend, in characters.
const ID_LEN_MAX: usize = 64;
/// Longest wait that a result may ask for, in seconds.
const RETRY_AFTER_S_MAX: u64 = 3600;

#[derive(Serialize)]
struct Request<'a> {
    messages: Vec<Push<'a>>,
}

#[derive(Serialize)]
struct Push<'a> {
    reference: &'a str,
    token: &'a str,
    text: &'a str,
    language: &'static str,
    kind: &'static str,
    pupil: &'a str,
    guardian: &'a str,
    at: String,
    valid_for_s: u64,
}

#[derive(Deserialize)]
struct Reply {
    results: Vec<PushResult>,
}

#[derive(Deserialize, PartialEq)]
struct PushResult {
    reference: String,
    status: u16,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    retry_after_s: Option<u64>,
}

/// The body of a request with `messages`.
pub(super) fn write(messages: &[&Message]) -> Result<Vec<u8>, serde_json::Error> {
    let messages = messages
        .iter()
        .map(|message| Push {
            reference: message.reference.as_str(),
            token: message.address.expose(),
            text: message.text.expose(),
            language: message.language.tag(),
            kind: message.kind.name(),
            pupil: message.pupil.as_str(),
            guardian: message.guardian.as_str(),
            at: message.at.to_string(),
            valid_for_s: message.valid_for.as_secs(),
        })
        .collect();
    serde_json::to_vec(&Request { messages })
}

/// What a `2xx` with `body` says of the messages that are called `references`, in that order.
pub(super) fn read(body: &[u8], references: &[&str]) -> Vec<SubmitOutcome> {
    let unknown = |reason: &str| SubmitOutcome::Unknown { reason: reason.into() };
    let Ok(reply) = serde_json::from_slice::<Reply>(body) else {
        return vec![unknown("unreadable_answer"); references.len()];
    };
    let mut results: HashMap<&str, Option<&PushResult>> = HashMap::with_capacity(reply.results.len());
    for result in &reply.results {
        results
            .entry(result.reference.as_str())
            .and_modify(|earlier| *earlier = earlier.filter(|earlier| *earlier == result))
            .or_insert(Some(result));
    }
    let outcome = |reference: &&str| match results.get(reference) {
        Some(Some(result)) => result.outcome(),
        Some(None) => unknown("contradictory_answer"),
        None => unknown("no_result"),
    };
    references.iter().map(outcome).collect()
}

impl PushResult {
    fn outcome(&self) -> SubmitOutcome {
        let reason: CompactString = compact_str::format_compact!("{}", self.status);
        let retry_after =
            self.retry_after_s.map(|seconds| Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)));
        match self.status {
            200..=299 => SubmitOutcome::Accepted { gateway_id: self.gateway_id(), duplicate: self.duplicate },
            404 | 410 => SubmitOutcome::Refused { reason: CompactString::const_new("token_gone") },
            429 => SubmitOutcome::Throttled { retry_after },
            408 | 503 => SubmitOutcome::RetryLater { reason, retry_after },
            400..=499 => SubmitOutcome::Refused { reason },
            _ => SubmitOutcome::Unknown { reason },
        }
    }

    /// The backend's own id where it gives a usable one, else our reference, which it knows as well.
    fn gateway_id(&self) -> CompactString {
        let is_id = |id: &&str| {
            !id.is_empty() && id.len() <= ID_LEN_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        CompactString::new(self.id.as_deref().filter(is_id).unwrap_or(&self.reference))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn single(result: &str) -> SubmitOutcome {
        let body = format!("{{\"results\":[{{\"reference\":\"a\",{result}}}]}}");
        read(body.as_bytes(), &["a"]).pop().unwrap()
    }

    #[test]
    fn each_status_of_a_message_has_its_outcome() {
        let wait = Some(Duration::from_secs(5));
        let refused = |reason: &str| SubmitOutcome::Refused { reason: reason.into() };
        let accepted = |id: &str, duplicate| SubmitOutcome::Accepted { gateway_id: id.into(), duplicate };
        for (result, outcome) in [
            (r#""status":202,"id":"m-1""#, accepted("m-1", false)),
            (r#""status":200,"duplicate":true"#, accepted("a", true)),
            (r#""status":200,"id":"a b\n""#, accepted("a", false)),
            (r#""status":404"#, refused("token_gone")),
            (r#""status":410,"extra":[1]"#, refused("token_gone")),
            (r#""status":400"#, refused("400")),
            (r#""status":429,"retry_after_s":5"#, SubmitOutcome::Throttled { retry_after: wait }),
            (r#""status":503"#, SubmitOutcome::RetryLater { reason: "503".into(), retry_after: None }),
            (r#""status":500"#, SubmitOutcome::Unknown { reason: "500".into() }),
            (r#""status":100"#, SubmitOutcome::Unknown { reason: "100".into() }),
        ] {
            assert_eq!(single(result), outcome, "{result}");
        }
    }

    #[test]
    fn what_an_answer_leaves_open_is_unknown() {
        let unknown = |reason: &str| SubmitOutcome::Unknown { reason: reason.into() };
        assert_eq!(single(r#""status":"ok""#), unknown("unreadable_answer"));
        assert_eq!(read(b"<html>", &["a"]), vec![unknown("unreadable_answer")]);
        let body = br#"{"results":[{"reference":"b","status":200},{"reference":"c","status":410},
            {"reference":"a","status":200},{"reference":"c","status":200}]}"#;
        let accepted = |id: &str| SubmitOutcome::Accepted { gateway_id: id.into(), duplicate: false };
        let expected =
            vec![accepted("a"), accepted("b"), unknown("contradictory_answer"), unknown("no_result")];
        assert_eq!(read(body, &["a", "b", "c", "d"]), expected);
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_every_message_gets_one_outcome(
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert_eq!(read(&body, &["a", "b"]).len(), 2);
        }
    }
}
