//! Push to the city's app: a signed webhook to the app's push backend.
//!
//! Owns: the exchanges with the backend. Promises what the port promises; push tokens are in no error and no log. Leaves
//! to others: rate and retries (the lane), and the last step to Apple and Google (the backend).
//!
//! # The wire format, for the app's team
//!
//! `POST` to the configured address, `Content-Type: application/json`, HTTP/1.1, TLS 1.2 or later:
//!
//! ```text
//! Gatebell-Time: 1757287867
//! Gatebell-Signature: v1=5d1f…
//!
//! {"messages":[{
//!    "reference":   "00000000000000000000000000000042-001",
//!    "token":       "…",                          the push token or account of the guardian's app
//!    "text":        "王小明 07:31 到校",             ready to show
//!    "language":    "zh-TW",                      or "en"
//!    "kind":        "arrival",                    departure, absence, correction, emergency
//!    "pupil":       "P000123",                    whom the page behind the notification is about
//!    "guardian":    "G1",
//!    "at":          "2025-09-07T23:31:04.250Z",   when the card was read
//!    "valid_for_s": 3540                          not to be shown later than that
//! }]}
//! ```
//!
//! *Signature.* The hexadecimal HMAC-SHA-256, under the shared key, of the text of `Gatebell-Time`, a dot, and the body
//! byte for byte. Compare in constant time, and refuse times more than 300 s away from yours: `401`.
//!
//! *Idempotency.* `reference` is the key of a message. The same message comes again under the same reference, alone or in
//! other company, when an answer was lost or said to try again; remember references for a day and answer a known one as
//! accepted with `"duplicate": true`, without pushing again.
//!
//! *Answer.* `200` with one result a message, in any order, in which `status` is an HTTP status:
//!
//! ```text
//! {"results":[{"reference":"…-001","status":202,"id":"m-77"},
//!             {"reference":"…-002","status":410},
//!             {"reference":"…-003","status":429,"retry_after_s":5}]}
//! ```
//!
//! | `status` | meaning |
//! |---|---|
//! | 2xx | accepted, which is the end: no receipt is expected. `id` and `duplicate` are optional |
//! | 404, 410 | the token is gone: not tried again |
//! | other 4xx | refused for good |
//! | 429, 408, 503 | certainly not taken; tried again, after `retry_after_s` if given |
//! | other 5xx, or no result | open: sent again under the same reference |
//!
//! A status for the whole request: 429, 408 and 503 (with `Retry-After`) as above; 401, 403 and every other 3xx and 4xx
//! stop the lane until somebody mends it; any other 5xx, a time-out or a broken connection leaves all its messages open.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod signature;
mod wire;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use compact_str::CompactString;
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile, Message, SubmitOutcome};
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::receipts::Receipt;
use secrecy::{ExposeSecret, SecretString};

use self::signature::{KEY_LEN_MIN, SIGNATURE_HEADER, TIME_HEADER};
use crate::outbound::{Answer, EndpointError, Exchange, Limits, Outbound};

/// For how long the backend has to recognise a reference.
const DEDUPLICATES_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Time to connect; short, since a message that could not leave may try again at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the app's backend needs.
#[derive(Debug)]
pub struct AppSettings {
    /// Rate, window and limits; [`profile`] gives what suits most backends.
    pub profile: LaneProfile,
    /// The webhook's address.
    pub endpoint: String,
    /// The key that signs requests, at least 32 characters.
    pub key: SecretString,
    /// Whether the city is a made-up one (demo, load): only a backend on loopback takes its messages.
    pub made_up_city: bool,
}

/// Why a backend cannot be used. Names no value that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    /// The address is wrong, or not allowed for this city.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A key that could be guessed.
    #[error(
        "the app's signing key is shorter than {KEY_LEN_MIN} characters: use at least that many random ones"
    )]
    Key,
    /// Nothing could ever be sent.
    #[error("window and batch of the app's lane must be at least 1")]
    Limits,
}

/// A lane called `name` that may push `rate_per_s` messages a second.
pub fn profile(name: LaneName, rate_per_s: u32) -> LaneProfile {
    LaneProfile {
        name,
        channel: Channel::App,
        rate_per_s,
        burst: 200,
        window: 8,
        shared_by: NonZeroU32::MIN,
        batch_max: 200,
        queue_max: 1_000_000,
        submit_timeout: Duration::from_secs(10),
        gives_receipts: false,
        deduplicates_for: Some(DEDUPLICATES_FOR),
        poll_after: None,
    }
}

/// The connector to the backend.
#[derive(Debug)]
pub struct AppConnector {
    profile: LaneProfile,
    outbound: Outbound,
    key: SecretString,
    clock: Arc<dyn Clock>,
}

impl AppConnector {
    /// Checks `settings`; nothing is sent. `clock` dates the signatures, so it must show real time also where the city's
    /// own day is played faster.
    pub fn new(settings: AppSettings, clock: Arc<dyn Clock>) -> Result<Self, AppError> {
        let AppSettings { profile, endpoint, key, made_up_city } = settings;
        if profile.window == 0 || profile.batch_max == 0 {
            return Err(AppError::Limits);
        }
        if key.expose_secret().len() < KEY_LEN_MIN {
            return Err(AppError::Key);
        }
        let limits = Limits {
            connections_max: profile.window,
            connect_timeout: CONNECT_TIMEOUT.min(profile.submit_timeout),
            exchange_timeout: profile.submit_timeout,
        };
        let outbound = Outbound::open("the app's push backend", &endpoint, made_up_city, limits)?;
        Ok(Self { profile, outbound, key, clock })
    }

    async fn send(&self, messages: &[&Message]) -> Vec<SubmitOutcome> {
        let Ok(body) = wire::write(messages) else {
            return vec![SubmitOutcome::NotSent { reason: "unwritable".into() }; messages.len()];
        };
        let (time_s, signature) = signature::sign(&self.key, self.clock.now(), &body);
        let request = self
            .outbound
            .post()
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header(TIME_HEADER, time_s)
            .header(SIGNATURE_HEADER, signature)
            .body(body);
        let answer = match self.outbound.exchange(request).await {
            Exchange::Answer(answer) => answer,
            Exchange::NotSent(reason) => {
                return vec![SubmitOutcome::NotSent { reason: reason.into() }; messages.len()];
            }
            Exchange::Unknown(reason) => {
                return vec![SubmitOutcome::Unknown { reason: reason.into() }; messages.len()];
            }
        };
        if let Some(outcome) = refusal_of_all(&answer) {
            return vec![outcome; messages.len()];
        }
        let references: Vec<&str> = messages.iter().map(|message| message.reference.as_str()).collect();
        wire::read(&answer.body, &references)
    }
}

/// What a status for the whole request means; `None` for one whose results are to be read.
fn refusal_of_all(answer: &Answer) -> Option<SubmitOutcome> {
    let reason: CompactString = compact_str::format_compact!("http_{}", answer.status.as_u16());
    let retry_after = answer.retry_after;
    match answer.status.as_u16() {
        200..=299 => None,
        429 => Some(SubmitOutcome::Throttled { retry_after }),
        408 | 503 => Some(SubmitOutcome::RetryLater { reason, retry_after }),
        300..=499 => Some(SubmitOutcome::GatewayDown { reason }),
        _ => Some(SubmitOutcome::Unknown { reason }),
    }
}

#[async_trait]
impl ChannelConnector for AppConnector {
    fn profile(&self) -> &LaneProfile {
        &self.profile
    }

    async fn submit(&self, messages: &[Message]) -> Vec<SubmitOutcome> {
        let mut outcomes: Vec<SubmitOutcome> = Vec::with_capacity(messages.len());
        let mut places = Vec::with_capacity(messages.len());
        for (place, message) in messages.iter().enumerate() {
            let outcome = if message.address.is_empty() {
                SubmitOutcome::Refused { reason: "no_token".into() }
            } else if message.valid_for < Duration::from_secs(1) {
                // Only this message is too late: it expires while it waits, and the lane goes on.
                SubmitOutcome::RetryLater { reason: "deadline".into(), retry_after: None }
            } else {
                places.push(place);
                SubmitOutcome::NotSent { reason: "not_tried".into() }
            };
            outcomes.push(outcome);
        }
        if places.is_empty() {
            return outcomes;
        }
        let to_send: Vec<&Message> = places.iter().map(|place| &messages[*place]).collect();
        for (place, outcome) in places.into_iter().zip(self.send(&to_send).await) {
            outcomes[place] = outcome;
        }
        outcomes
    }

    /// Nothing to ask: accepted is the end.
    async fn query(&self, _submitted: &[LedgerEntry]) -> Result<Vec<Receipt>, PortError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use gatebell_engine::ports::clock::SystemClock;
    use reqwest::StatusCode;

    use super::*;

    fn settings(endpoint: &str, key: &str, made_up_city: bool) -> AppSettings {
        let profile = profile(LaneName::new("app").unwrap(), 1000);
        AppSettings { profile, endpoint: endpoint.to_owned(), key: SecretString::from(key), made_up_city }
    }

    #[test]
    fn a_weak_key_an_open_line_and_a_made_up_city_are_refused() {
        let refusal =
            |settings: AppSettings| AppConnector::new(settings, Arc::new(SystemClock::new())).unwrap_err();
        let key = "0123456789abcdef0123456789abcdef";
        assert_eq!(refusal(settings("https://app.example/push", "hunter2", false)), AppError::Key);
        let open = refusal(settings("http://app.example/push", key, false));
        assert_eq!(open, AppError::Endpoint(EndpointError::NotEncrypted("the app's push backend")));
        let made_up = refusal(settings("https://app.example/push", key, true));
        assert_eq!(made_up, AppError::Endpoint(EndpointError::MadeUpCity("the app's push backend")));
    }

    #[test]
    fn each_status_of_a_whole_request_has_its_outcome() {
        let wait = Some(Duration::from_secs(7));
        let meaning = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            refusal_of_all(&Answer { status, retry_after: wait, body: vec![] })
        };
        assert_eq!(meaning(200), None);
        assert_eq!(meaning(202), None);
        assert_eq!(meaning(429), Some(SubmitOutcome::Throttled { retry_after: wait }));
        let later = SubmitOutcome::RetryLater { reason: "http_503".into(), retry_after: wait };
        assert_eq!(meaning(503), Some(later));
        for status in [302, 400, 401, 403, 404, 410, 413, 422] {
            let reason = compact_str::format_compact!("http_{status}");
            assert_eq!(meaning(status), Some(SubmitOutcome::GatewayDown { reason }), "{status}");
        }
        for status in [500, 502, 504] {
            let reason = compact_str::format_compact!("http_{status}");
            assert_eq!(meaning(status), Some(SubmitOutcome::Unknown { reason }), "{status}");
        }
    }
}
