//! Plays a morning: sends every upload over HTTP when its time has come, as the schools' readers do.
//!
//! One sender a school, so that a school's uploads stay in order and one slow answer holds up nobody else. An upload that
//! was not taken (`429`, `503`, no connection) is sent again, as the public format asks of a reader, until it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use hdrhistogram::Histogram;
use reqwest::{StatusCode, header};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use gatebell_engine::ports::clock::Clock;

use super::morning::Upload;

/// How often one upload is sent before the demo gives up.
const TRIES_MAX: u32 = 60;
/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);
/// A try without an answer for so long has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where taps are reported, and as whom.
#[derive(Clone)]
pub(crate) struct Gate {
    /// `http://…/v1/taps`
    pub(crate) url: String,
    /// A token of `gatebell token add`.
    pub(crate) token: String,
}

/// What the readers were answered.
#[derive(Debug)]
pub(crate) struct Played {
    /// Reports that are durable.
    pub(crate) accepted: u64,
    /// Reports that were rejected in the answer, by reason.
    pub(crate) rejected: BTreeMap<String, u64>,
    /// Uploads that had to be sent again.
    pub(crate) resent: u64,
    /// From sending an upload to its `202`, in microseconds of real time.
    pub(crate) answer_us: Histogram<u64>,
}

impl Played {
    fn new() -> anyhow::Result<Self> {
        // Up to a minute, with three digits.
        let answer_us =
            Histogram::new_with_bounds(1, 60_000_000, 3).context("the histogram's bounds are wrong")?;
        Ok(Self { accepted: 0, rejected: BTreeMap::new(), resent: 0, answer_us })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.accepted += other.accepted;
        self.resent += other.resent;
        for (reason, count) in &other.rejected {
            *self.rejected.entry(reason.clone()).or_default() += count;
        }
        self.answer_us.add(&other.answer_us).context("histograms do not fit together")
    }
}

/// The answer to an upload, in the public format.
#[derive(Deserialize)]
struct Answer {
    accepted: u64,
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    reason: String,
}

/// Sends `uploads`, each when `clock` shows its time; `answered` counts reports as their answers come. Ends early, with
/// what was played so far, when `stop` is called.
///
/// # Errors
/// When the gate refuses an upload for good, or does not take it after [`TRIES_MAX`] tries.
pub(crate) async fn play(
    uploads: Arc<Vec<Upload>>,
    gate: &Gate,
    clock: Arc<dyn Clock>,
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
) -> anyhow::Result<Played> {
    let http =
        reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build().context("cannot set up the readers")?;
    let by_school: BTreeSet<usize> = uploads.iter().map(|it| it.school).collect();
    let mut schools = JoinSet::new();
    for school in by_school {
        let sender = Sender {
            http: http.clone(),
            gate: gate.clone(),
            clock: Arc::clone(&clock),
            answered: Arc::clone(&answered),
            stop: stop.clone(),
            played: Played::new()?,
        };
        schools.spawn(sender.send(Arc::clone(&uploads), school));
    }
    let mut played = Played::new()?;
    while let Some(school) = schools.join_next().await {
        played.add(&school.context("a school's sender failed")??)?;
    }
    Ok(played)
}

/// The uploads of one school, one after another.
struct Sender {
    http: reqwest::Client,
    gate: Gate,
    clock: Arc<dyn Clock>,
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
    played: Played,
}

impl Sender {
    async fn send(mut self, uploads: Arc<Vec<Upload>>, school: usize) -> anyhow::Result<Played> {
        for upload in uploads.iter().filter(|it| it.school == school) {
            let wait = self.clock.real_time_until(upload.sent);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(self.played),
                () = tokio::time::sleep(wait) => {}
            }
            let answer = self.upload(upload.body()).await?;
            self.answered.fetch_add(upload.reports.len() as u64, Ordering::Relaxed);
            self.played.accepted += answer.accepted;
            for rejected in answer.rejected {
                *self.played.rejected.entry(rejected.reason).or_default() += 1;
            }
        }
        Ok(self.played)
    }

    /// Sends one upload until it is taken.
    async fn upload(&mut self, body: String) -> anyhow::Result<Answer> {
        let body = bytes::Bytes::from(body);
        let mut last = anyhow!("never sent");
        for _ in 0..TRIES_MAX {
            let begun = Instant::now();
            match self.try_once(body.clone()).await? {
                Ok(answer) => {
                    let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.played.answer_us.saturating_record(took_us);
                    return Ok(answer);
                }
                Err(cause) => last = cause,
            }
            self.played.resent += 1;
            tokio::time::sleep(RETRY).await;
        }
        Err(last.context(format!("an upload was not taken in {TRIES_MAX} tries")))
    }

    /// One try: the answer, or why it is worth trying again.
    async fn try_once(&self, body: bytes::Bytes) -> anyhow::Result<Result<Answer, anyhow::Error>> {
        let request = self
            .http
            .post(&self.gate.url)
            .bearer_auth(&self.gate.token)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(cause) => return Ok(Err(cause.without_url().into())),
        };
        match response.status() {
            StatusCode::ACCEPTED => {}
            busy @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                return Ok(Err(anyhow!("the gate answered {busy}")));
            }
            refused => bail!("the gate refused an upload: {refused}"),
        }
        match response.json::<Answer>().await {
            Ok(answer) => Ok(Ok(answer)),
            Err(cause) => Ok(Err(cause.without_url().into())),
        }
    }
}
