//! What operators and their tools look at: `/healthz` (the process runs), `/readyz` (it can do its work, or
//! what is missing) and `/metrics` (Prometheus). Nothing personal is in any of them, and there is no login:
//! the listener is on loopback unless told otherwise.

use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

use super::figures;

/// Upper bounds of the buckets of every histogram in seconds: from a commit on a fast disk to the deadline of
/// a notice.
const SECONDS_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0];

/// Installs the recorder of this process's metrics. Once a process.
///
/// # Errors
/// When another one is installed.
pub(crate) fn install_recorder() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .context("the buckets of histograms")?
        .install_recorder()
        .context("cannot install the recorder of metrics")?;
    figures::describe();
    Ok(recorder)
}

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
