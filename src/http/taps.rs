//! `POST /v1/taps`: readers report, and get their `202` only once every accepted tap is durable.
//!
//! Promises what the public format says of the answers: `202` with what was accepted and what was rejected,
//! `401` without a valid token, `413` beyond the limits of size and records, `429` or `503` with `Retry-After`
//! when the log cannot take more. Each tap is decoded once, to know its card and reader; the bytes that the reader sent go
//! into the log untouched. What becomes of a tap afterwards is the shards' business.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::post};
use bytes::Bytes;
use gatebell_connectors::store::tokens::TokenScope;
use gatebell_engine::decode::decode;
use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::tap_log::{IncomingTap, IntakeError, TapIntake};
use gatebell_engine::tap::RejectReason;
use metrics::{Counter, Histogram, counter, histogram};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::tap_batch::{BadBatch, BodyForm};

/// When to come back after a full queue.
const RETRY_FULL_S: u16 = 1;
/// When to come back while the log or the registry is not there.
const RETRY_UNAVAILABLE_S: u16 = 5;

/// How long a request waits for room: readers all over the city send at the full minute, and a refusal costs
/// both sides more than a moment.
const ROOM_WAIT: Duration = Duration::from_millis(500);
/// How long a trouble of the log counts.
const TROUBLE_KEPT: Duration = Duration::from_secs(30);

/// Why a token or a reader could not be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be looked up just now")]
pub(crate) struct LookUpFailed;

/// What the surface asks about who reports.
#[async_trait]
pub(crate) trait Reporters: Send + Sync {
    /// For whom `token` speaks; `None`: it is not valid.
    async fn scope_of(&self, token: &str) -> Result<Option<TokenScope>, LookUpFailed>;

    /// The school at whose gate `reader` hangs; `None`: nobody registered it.
    fn school_of(&self, reader: &str) -> Result<Option<SchoolId>, LookUpFailed>;
}

/// What bounds the surface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TapsLimits {
    /// Requests at work at once; with the body's limit it bounds the memory.
    pub(crate) requests_max: usize,
    /// Largest body.
    pub(crate) body_bytes_max: usize,
    /// The body must have arrived by then.
    pub(crate) read_timeout: Duration,
}

/// Whether the log took what it was given last: for readiness. A trouble is forgotten after a while, since
/// nobody sends taps to a process that says it is not ready.
#[derive(Debug, Default)]
pub(crate) struct IntakeHealth {
    trouble: Mutex<Option<(Instant, String)>>,
}

impl IntakeHealth {
    /// Why taps could not be made durable just now, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().filter(|(since, _)| since.elapsed() < TROUBLE_KEPT).map(|(_, why)| why.clone())
    }

    fn note(&self, trouble: Option<String>) {
        let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = trouble.map(|why| (Instant::now(), why));
    }
}

struct Surface {
    health: Arc<IntakeHealth>,
    intake: Arc<dyn TapIntake>,
    reporters: Arc<dyn Reporters>,
    limits: TapsLimits,
    room: Semaphore,
    measures: Measures,
}

/// Handles are looked up once: a label costs more than a tap.
struct Measures {
    accepted: Counter,
    malformed: Counter,
    oversize: Counter,
    not_allowed: Counter,
    append_s: Histogram,
}

impl Measures {
    fn new() -> Self {
        let taps = |result: &'static str| counter!("gatebell_reported_taps_total", "result" => result);
        Self {
            accepted: taps("accepted"),
            malformed: taps("malformed"),
            oversize: taps("oversize"),
            not_allowed: taps("not_allowed"),
            append_s: histogram!("gatebell_tap_append_seconds"),
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Receipt {
    accepted: usize,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Serialize)]
struct Rejected {
    index: usize,
    reason: &'static str,
}

/// Why a whole request was refused. None of its taps was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("a valid token is needed: Authorization: Bearer …")]
    Unauthorized,
    #[error("the content type is application/json or application/x-ndjson, without content encoding")]
    ContentType,
    #[error("the body is larger than {0} bytes; send smaller batches")]
    TooLarge(usize),
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body ended early")]
    Broken,
    #[error(transparent)]
    Batch(#[from] BadBatch),
    #[error("too much is waiting to be written; send it again")]
    Full,
    #[error("taps cannot be taken just now; send them again")]
    Unavailable,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, retry_after_s) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, None),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, None),
            Self::TooLarge(_) | Self::Batch(BadBatch::TooManyRecords) => {
                (StatusCode::PAYLOAD_TOO_LARGE, None)
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, None),
            Self::Broken | Self::Batch(BadBatch::BrokenArray) => (StatusCode::BAD_REQUEST, None),
            Self::Full => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_FULL_S)),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_UNAVAILABLE_S)),
        };
        counter!("gatebell_refused_reports_total", "status" => status.as_str().to_owned()).increment(1);
        let mut response = (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response();
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self, Self::TooLarge(_) | Self::TooSlow | Self::Broken) {
            // What is left of the body is not waited for.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The routes. What the log answers is noted in `health`.
pub(crate) fn router(
    intake: Arc<dyn TapIntake>,
    reporters: Arc<dyn Reporters>,
    health: Arc<IntakeHealth>,
    limits: TapsLimits,
) -> Router {
    let room = Semaphore::new(limits.requests_max);
    let surface = Surface { health, intake, reporters, limits, room, measures: Measures::new() };
    Router::new()
        .route("/v1/taps", post(report))
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .with_state(Arc::new(surface))
}

async fn report(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    match surface.take(request).await {
        Ok(receipt) => (StatusCode::ACCEPTED, Json(receipt)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Surface {
    async fn take(&self, request: Request) -> Result<Receipt, Refusal> {
        let scope = self.scope(request.headers()).await?;
        let form = form_of(request.headers())?;
        // Before the body is read: bodies are what fills the memory.
        let place = tokio::time::timeout(ROOM_WAIT, self.room.acquire()).await;
        let _place = place.map_err(|_| Refusal::Full)?.map_err(|_| Refusal::Unavailable)?;
        let body = self.read(request).await?;
        let records = form.records(&body)?;
        let (taps, receipt) = self.judge(records, &scope)?;
        if !taps.is_empty() {
            self.append(taps).await?;
        }
        self.measures.accepted.increment(receipt.accepted as u64);
        Ok(receipt)
    }

    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), Refusal> {
        let begun = Instant::now();
        match self.intake.append(taps).await {
            Ok(()) => {
                self.measures.append_s.record(begun.elapsed());
                self.health.note(None);
                Ok(())
            }
            Err(IntakeError::Full) => Err(Refusal::Full),
            Err(IntakeError::Unavailable(cause)) => {
                tracing::warn!(%cause, "taps could not be made durable; the reader is told to send them again");
                self.health.note(Some(cause.to_string()));
                Err(Refusal::Unavailable)
            }
        }
    }

    async fn scope(&self, headers: &HeaderMap) -> Result<TokenScope, Refusal> {
        let token = bearer(headers).ok_or(Refusal::Unauthorized)?;
        let scope = self.reporters.scope_of(token).await.map_err(|LookUpFailed| Refusal::Unavailable)?;
        scope.ok_or(Refusal::Unauthorized)
    }

    async fn read(&self, request: Request) -> Result<Bytes, Refusal> {
        let limit = self.limits.body_bytes_max;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let announced: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(Refusal::TooLarge(limit));
        }
        match tokio::time::timeout(self.limits.read_timeout, Bytes::from_request(request, &())).await {
            Err(_) => Err(Refusal::TooSlow),
            Ok(Ok(body)) => Ok(body),
            Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Refusal::TooLarge(limit))
            }
            Ok(Err(_)) => Err(Refusal::Broken),
        }
    }

    /// Tells taps that may go into the log from those that are rejected at once.
    fn judge(&self, records: Vec<Bytes>, scope: &TokenScope) -> Result<(Vec<IncomingTap>, Receipt), Refusal> {
        let mut taps = Vec::with_capacity(records.len());
        let mut rejected = Vec::new();
        for (index, value) in records.into_iter().enumerate() {
            let card = match decode(&value) {
                Ok(tap) if self.may_report(scope, &tap.reader)? => tap.card,
                Ok(_) => {
                    self.measures.not_allowed.increment(1);
                    rejected.push(Rejected { index, reason: "not_allowed" });
                    continue;
                }
                Err(reason) => {
                    let measure = match reason {
                        RejectReason::Oversize => &self.measures.oversize,
                        _ => &self.measures.malformed,
                    };
                    measure.increment(1);
                    rejected.push(Rejected { index, reason: reason.name() });
                    continue;
                }
            };
            taps.push(IncomingTap { card, value });
        }
        let receipt = Receipt { accepted: taps.len(), rejected };
        Ok((taps, receipt))
    }

    fn may_report(&self, scope: &TokenScope, reader: &str) -> Result<bool, Refusal> {
        let TokenScope::School(school) = scope else { return Ok(true) };
        // Without a registry nobody knows whose reader it is: to reject would lose the tap.
        let place = self.reporters.school_of(reader).map_err(|LookUpFailed| Refusal::Unavailable)?;
        Ok(place.as_ref() == Some(school))
    }
}

/// The token of `Authorization: Bearer …`; the scheme's case does not matter (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn form_of(headers: &HeaderMap) -> Result<BodyForm, Refusal> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Refusal::ContentType);
    }
    let content_type = match headers.get(header::CONTENT_TYPE) {
        Some(value) => Some(value.to_str().map_err(|_| Refusal::ContentType)?),
        None => None,
    };
    BodyForm::of(content_type).ok_or(Refusal::ContentType)
}

#[cfg(test)]
mod tests;
