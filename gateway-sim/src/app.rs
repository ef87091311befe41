//! The city app's push backend, as the webhook's wire format describes it.
//!
//! Owns: checking signatures, recognising references, and results with faults from the seed.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::APP_PATH;
use crate::fate::Dice;
use crate::log::TakenPush;
use crate::mitake::cut_off;
use crate::server::Sim;

/// Most messages of one request.
const MESSAGES_MAX: usize = 1000;
/// How long a message that cannot be taken now should wait, in seconds.
const RETRY_AFTER_S: u64 = 1;

pub(crate) fn routes() -> Router<Arc<Sim>> {
    Router::new().route(APP_PATH, post(push))
}

#[derive(Deserialize)]
struct Request {
    messages: Vec<Push>,
}

#[derive(Deserialize)]
struct Push {
    reference: String,
    token: String,
    text: String,
    language: String,
    kind: String,
    pupil: String,
    guardian: String,
    at: String,
    valid_for_s: u64,
}

#[derive(Serialize)]
struct Reply {
    results: Vec<PushResult>,
}

#[derive(Serialize)]
struct PushResult {
    reference: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
}

async fn push(State(sim): State<Arc<Sim>>, headers: HeaderMap, body: Bytes) -> Response {
    sim.book().counts.app_requests += 1;
    if !is_signed(&sim, &headers, &body) {
        sim.book().counts.signature_failures += 1;
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let request: Request = match serde_json::from_slice::<Request>(&body) {
        Ok(request) if request.messages.len() <= MESSAGES_MAX => request,
        Ok(_) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    };
    let app = &sim.config.app;
    let name = request.messages.first().map_or("", |push| push.reference.as_str());
    let earlier = sim.book().attempt(&format!("app request {name}"));
    let mut dice = Dice::new(sim.config.seed, "app request", name, earlier);
    let hangs = sim.config.faults.hang_ms;
    let latency = dice.time(app.latency);
    if dice.chance(app.no_answer) {
        sim.hang(hangs).await;
        return cut_off(Bytes::new());
    }
    let is_answered = !dice.chance(app.taken_no_answer);
    let results = request.messages.into_iter().map(|push| take(&sim, push)).collect();
    sim.pause(latency).await;
    if !is_answered {
        sim.hang(hangs).await;
        return cut_off(Bytes::new());
    }
    axum::Json(Reply { results }).into_response()
}

fn take(sim: &Sim, push: Push) -> PushResult {
    let app = &sim.config.app;
    let mut book = sim.book();
    let result = |reference: String, status: u16| PushResult {
        reference,
        status,
        id: None,
        duplicate: false,
        retry_after_s: None,
    };
    if let Some(index) = book.repeated_push(&push.reference) {
        let id = Some(format!("push-{index}"));
        return PushResult { id, duplicate: true, ..result(push.reference, 202) };
    }
    if push.token.is_empty() || push.text.is_empty() || push.valid_for_s == 0 {
        return result(push.reference, 400);
    }
    if Dice::new(sim.config.seed, "token", &push.token, 0).chance(app.gone) {
        return result(push.reference, 410);
    }
    let earlier = book.attempt(&push.reference);
    let mut dice = Dice::new(sim.config.seed, "push", &push.reference, earlier);
    if dice.chance(app.retry_later) {
        return PushResult { retry_after_s: Some(RETRY_AFTER_S), ..result(push.reference, 503) };
    }
    if dice.chance(app.throttled) {
        return PushResult { retry_after_s: Some(RETRY_AFTER_S), ..result(push.reference, 429) };
    }
    let Push { reference, token, text, language, kind, pupil, guardian, at, .. } = push;
    let index = book.take_push(TakenPush {
        reference: reference.clone(),
        token,
        text,
        language,
        kind,
        pupil,
        guardian,
        at,
        accepted_at: Timestamp::now(),
        submits: 1,
    });
    PushResult { id: Some(format!("push-{index}")), ..result(reference, 202) }
}

/// Whether time and signature are ours and of now.
fn is_signed(sim: &Sim, headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(time_s), Some(signature)) = (header("gatebell-time"), header("gatebell-signature")) else {
        return false;
    };
    let Some(Ok(signature)) = signature.strip_prefix("v1=").map(hex::decode) else {
        return false;
    };
    let Ok(signed_s) = time_s.parse::<i64>() else {
        return false;
    };
    if signed_s.abs_diff(Timestamp::now().as_second()) > u64::from(sim.config.app.clock_tolerance_s) {
        return false;
    }
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(sim.config.app.key.as_bytes()) else {
        return false;
    };
    mac.update(time_s.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.verify_slice(&signature).is_ok()
}
