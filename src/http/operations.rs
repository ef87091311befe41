//! What operators and their tools look at: `/healthz` (the process runs), `/readyz` (it can do its work, or what is
//! missing) and `/metrics` (Prometheus). Nothing personal is in any of them, and there is no login: the listener is on
//! loopback unless told otherwise.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

/// Something that keeps the process from doing its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// Which part, as a fixed word.
    pub(crate) what: &'static str,
    /// What is wrong with it and what it waits for.
    pub(crate) why: String,
}

/// Says what is missing; nothing when the process is ready.
pub(crate) type Readiness = dyn Fn() -> Vec<Missing> + Send + Sync;

#[derive(Clone)]
struct Operations {
    readiness: Arc<Readiness>,
    metrics: PrometheusHandle,
}

#[derive(Serialize)]
struct ReadinessAnswer {
    ready: bool,
    missing: Vec<Missing>,
}

/// The routes.
pub(crate) fn router(readiness: Arc<Readiness>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Operations { readiness, metrics })
}

async fn readyz(State(operations): State<Operations>) -> Response {
    let missing = (operations.readiness)();
    let ready = missing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadinessAnswer { ready, missing })).into_response()
}

async fn metrics_text(State(operations): State<Operations>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], operations.metrics.render())
        .into_response()
}
