//! The entrances for fuzzing: what production reads files and requests with, from bytes in memory.
//!
//! Adds nothing to the decoders: each function hands its argument on and gives back what came of it, in types that the
//! fuzz targets can see.

use std::convert::Infallible;
use std::io::{BufReader, Cursor};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use gatebell_connectors::store::tokens::TokenScope;
use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::tap_log::{IncomingTap, IntakeError, TapIntake};
use gatebell_engine::registry::Entry;
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use crate::city::diff::Difference;
use crate::city::{self, commanded::Commanded};
use crate::config::Configuration;
use crate::http::taps::{LookUpFailed, Reporters, TapsLimits, router};
use crate::replay;

/// The largest body that [`post_taps`] takes, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A mistake or warning about a city's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CityFinding {
    /// The file's name.
    pub file: &'static str,
    /// The line on which the row begins, from 1.
    pub line: Option<u64>,
    /// The column.
    pub column: Option<String>,
    /// As people read it.
    pub text: String,
}

/// What a city's files hold.
#[derive(Debug, PartialEq, Eq)]
pub struct CityRead {
    /// The entries; none where there is a mistake.
    pub entries: Vec<Entry>,
    /// Mistakes, by file and line.
    pub mistakes: Vec<CityFinding>,
    /// Warnings, by file and line.
    pub warnings: Vec<CityFinding>,
}

/// Reads a city of the files that `file` gives by name, with the time zone and the beginning of `term`.
pub fn read_city(file: &dyn Fn(&str) -> Option<Vec<u8>>, term: &Term) -> CityRead {
    let files = |name: &'static str| file(name).ok_or_else(|| std::io::ErrorKind::NotFound.into());
    let reading = city::read_files(&files, term.time_zone(), Timestamp::from_millis(0));
    let told = |finding: &city::Finding| CityFinding {
        file: finding.file,
        line: finding.line,
        column: finding.column.as_ref().map(ToString::to_string),
        text: finding.to_string(),
    };
    CityRead {
        mistakes: reading.findings.mistakes.iter().map(told).collect(),
        warnings: reading.findings.warnings.iter().map(told).collect(),
        entries: reading.entries,
    }
}

/// The names of a city's files.
pub fn city_file_names() -> Vec<&'static str> {
    city::file_names().collect()
}

/// How many entries an import of `wanted` at `now` would write where `standing` is there already.
pub fn entries_to_import(wanted: Vec<Entry>, standing: &[Entry], now: Timestamp) -> usize {
    let difference = Difference::between(wanted, now, &Commanded::default(), |kind, each| {
        standing.iter().filter(|entry| entry.kind() == kind).cloned().for_each(each);
        Ok::<(), Infallible>(())
    });
    let Ok(difference) = difference;
    difference.entries.len()
}

/// Decides the taps in a file of `bytes`, read in chunks of `chunk_bytes`: the lines for people's eyes, and how many records
/// were counted.
///
/// # Errors
/// When something else than the taps is wrong: never.
pub fn replay(
    term: Term,
    entries: Vec<Entry>,
    (bytes, is_csv): (Vec<u8>, bool),
    chunk_bytes: usize,
) -> anyhow::Result<(Vec<u8>, u64)> {
    let input = BufReader::with_capacity(chunk_bytes.max(1), Cursor::new(bytes));
    let mut out = Vec::new();
    let summary = replay::replay_input(term, entries, (input, is_csv), &mut out)?;
    Ok((out, summary.records()))
}

/// What is wrong with the service's configuration `text`: how many mistakes, and as they are drawn for the operator.
pub fn configuration_mistakes(text: &str) -> Option<(String, String)> {
    let mistakes = Configuration::parse("city.toml", text).whole().err()?;
    Some((mistakes.to_string(), mistakes.drawn()))
}

/// The answer to a report of taps, and what went into the log.
#[derive(Debug, PartialEq, Eq)]
pub struct ReportAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The answer's body.
    pub body: Bytes,
    /// The taps that the log was given, as they were sent.
    pub kept: Vec<Bytes>,
}

/// Posts `body` to the readers' surface: with a token of the city, or of the school `353604`.
pub async fn post_taps(of_school: bool, content_type: &str, body: Bytes) -> ReportAnswer {
    let log = Arc::new(KeptTaps::default());
    let limits =
        TapsLimits { requests_max: 1, body_bytes_max: BODY_BYTES_MAX, read_timeout: Duration::from_secs(60) };
    let router = router(log.clone(), Arc::new(TwoTokens), Arc::default(), limits);
    let token = if of_school { "school" } else { "city" };
    let request = Request::post("/v1/taps")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from(body));
    let Ok(request) = request else {
        // No client can send such a header.
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE.as_u16();
        return ReportAnswer { status, body: Bytes::new(), kept: Vec::new() };
    };
    let Ok(response) = TowerToHyperService::new(router).call(request).await;
    let status = response.status().as_u16();
    let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap_or_default();
    let kept = std::mem::take(&mut *log.taps.lock().unwrap_or_else(PoisonError::into_inner));
    ReportAnswer { status, body, kept }
}

/// A log that keeps what it is given.
#[derive(Default)]
struct KeptTaps {
    taps: Mutex<Vec<Bytes>>,
}

#[async_trait]
impl TapIntake for KeptTaps {
    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
        let mut kept = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(taps.into_iter().map(|tap| tap.value));
        Ok(())
    }

    fn waiting_taps(&self) -> usize {
        0
    }
}

/// A token of the city and one of a school; a reader's code begins with its school's.
struct TwoTokens;

#[async_trait]
impl Reporters for TwoTokens {
    async fn scope_of(&self, token: &str) -> Result<Option<TokenScope>, LookUpFailed> {
        let school = || SchoolId::new("353604").map(TokenScope::School).ok();
        Ok(if token == "school" { school() } else { Some(TokenScope::City) })
    }

    fn school_of(&self, reader: &str) -> Result<Option<SchoolId>, LookUpFailed> {
        Ok(reader.split_once("-G").and_then(|(school, _)| SchoolId::new(school).ok()))
    }
}
