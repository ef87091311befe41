//! The surface as a reader's vendor meets it: over a real connection, with a log that keeps what it is given.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::listener::{Listener, ListenerLimits};

const TAP: &str =
    r#"{"card":"0417391826541234","reader":"353604-G1-2","at":"2025-09-08T07:31:04.250+08:00","dir":"in"}"#;
const CITY: &str = "city-token";
const SCHOOL: &str = "school-token";
const BODY_MAX: usize = 65_536;

/// What the log answers.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Durable,
    Full,
    Broken,
    Never,
}

struct KeptTaps {
    answer: Answer,
    kept: Mutex<Vec<Bytes>>,
}

#[async_trait]
impl TapIntake for KeptTaps {
    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
        match self.answer {
            Answer::Durable => {
                self.kept.lock().unwrap().extend(taps.into_iter().map(|tap| tap.value));
                Ok(())
            }
            Answer::Full => Err(IntakeError::Full),
            Answer::Broken => Err(PortError::new("tap log", "disk full").into()),
            Answer::Never => std::future::pending().await,
        }
    }

    fn waiting_taps(&self) -> usize {
        0
    }
}

#[derive(Default)]
struct TwoTokens {
    registry_missing: AtomicBool,
}

#[async_trait]
impl Reporters for TwoTokens {
    async fn scope_of(&self, token: &str) -> Result<Option<TokenScope>, LookUpFailed> {
        Ok(match token {
            CITY => Some(TokenScope::City),
            SCHOOL => Some(TokenScope::School(SchoolId::new("353604").unwrap())),
            _ => None,
        })
    }

    fn school_of(&self, reader: &str) -> Result<Option<SchoolId>, LookUpFailed> {
        if self.registry_missing.load(Ordering::Relaxed) {
            return Err(LookUpFailed);
        }
        Ok(reader.split_once("-G").map(|(school, _)| SchoolId::new(school).unwrap()))
    }
}

struct Served {
    url: String,
    log: Arc<KeptTaps>,
    reporters: Arc<TwoTokens>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn with(answer: Answer, requests_max: usize) -> Self {
        let log = Arc::new(KeptTaps { answer, kept: Mutex::default() });
        let reporters = Arc::new(TwoTokens::default());
        let limits =
            TapsLimits { requests_max, body_bytes_max: BODY_MAX, read_timeout: Duration::from_millis(200) };
        let router = router(log.clone(), reporters.clone(), Arc::default(), limits);
        let bounds = ListenerLimits {
            connections_max: 8,
            head_timeout: Duration::from_millis(200),
            drain_timeout: Duration::from_secs(2),
        };
        let listener = Listener::bind("taps", "127.0.0.1:0".parse().unwrap(), bounds).await.unwrap();
        let url = format!("http://{}/v1/taps", listener.address());
        let stop = CancellationToken::new();
        let running = tokio::spawn(listener.serve(router, stop.clone()));
        Self { url, log, reporters, stop, running }
    }

    async fn post(&self, token: &str, content_type: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .post(&self.url)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The head of a request, to which more fields are to be added.
    fn head(&self) -> String {
        format!("POST /v1/taps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CITY}\r\n")
    }

    /// Sends `request` as it is and reads until the other end closes, which must not take for ever.
    async fn exchange(&self, request: &str) -> String {
        let address = self.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
        // The other end may have closed while something was still on its way to it.
        read.await.expect("the connection is closed in time").ok();
        String::from_utf8(answer).unwrap()
    }

    fn kept(&self) -> Vec<Bytes> {
        self.log.kept.lock().unwrap().clone()
    }
}

fn tap_at(reader: &str) -> String {
    TAP.replace("353604-G1-2", reader)
}

#[tokio::test]
async fn one_object_an_array_and_lines_are_all_taken_untouched() {
    let served = Served::with(Answer::Durable, 8).await;
    let all = json!({"accepted": 1, "rejected": []});
    assert_eq!(served.post(CITY, "application/json", TAP).await, (202, all.clone()));
    assert_eq!(
        served.post(CITY, "application/json; charset=utf-8", format!("[ {TAP} ]")).await,
        (202, all.clone())
    );
    assert_eq!(served.post(CITY, "application/x-ndjson", format!("{TAP}\r\n\n")).await, (202, all));
    assert_eq!(served.kept(), [TAP, TAP, TAP]);
    let none = json!({"accepted": 0, "rejected": []});
    assert_eq!(served.post(CITY, "application/json", "[]").await, (202, none));
}

#[tokio::test]
async fn what_is_no_tap_is_rejected_by_index_and_the_rest_is_taken() {
    let served = Served::with(Answer::Durable, 8).await;
    let long = format!(r#"{{"x":"{}",{}"#, "x".repeat(4096), &TAP[1..]);
    let body = format!("{TAP}\n{{\"card\":\"1\"}}\n{long}\nnonsense\n{TAP}\n");
    let expected = json!({"accepted": 2, "rejected": [
        {"index": 1, "reason": "malformed"},
        {"index": 2, "reason": "oversize"},
        {"index": 3, "reason": "malformed"},
    ]});
    assert_eq!(served.post(CITY, "application/x-ndjson", body).await, (202, expected));
    assert_eq!(served.kept(), [TAP, TAP]);
    let one = json!({"accepted": 0, "rejected": [{"index": 0, "reason": "malformed"}]});
    assert_eq!(served.post(CITY, "application/json", "nonsense").await, (202, one));
}

#[tokio::test]
async fn a_schools_token_reports_for_the_schools_own_readers_only() {
    let served = Served::with(Answer::Durable, 8).await;
    let body = format!("[{TAP},{},{}]", tap_at("400400-G1"), tap_at("unregistered"));
    let expected = json!({"accepted": 1, "rejected": [
        {"index": 1, "reason": "not_allowed"},
        {"index": 2, "reason": "not_allowed"},
    ]});
    assert_eq!(served.post(SCHOOL, "application/json", body.clone()).await, (202, expected));
    assert_eq!(served.post(CITY, "application/json", body).await.1["accepted"], 3);
}

#[tokio::test]
async fn a_schools_taps_are_not_rejected_while_nobody_knows_its_readers() {
    let served = Served::with(Answer::Durable, 8).await;
    served.reporters.registry_missing.store(true, Ordering::Relaxed);
    assert_eq!(served.post(SCHOOL, "application/json", TAP).await.0, 503);
    assert_eq!(served.post(CITY, "application/json", TAP).await.0, 202);
}

#[tokio::test]
async fn requests_that_cannot_be_taken_say_why_by_their_status() {
    let served = Served::with(Answer::Durable, 8).await;
    for (token, content_type, body, status) in [
        ("wrong", "application/json", TAP.to_owned(), 401),
        ("", "application/json", TAP.to_owned(), 401),
        (CITY, "text/csv", TAP.to_owned(), 415),
        (CITY, "application/json", format!("[{TAP}"), 400),
        (CITY, "application/x-ndjson", "x".repeat(BODY_MAX + 1), 413),
        // Small enough, but its answer would name every record.
        (CITY, "application/x-ndjson", "1\n".repeat(20_001), 413),
        (CITY, "application/json", format!("[1{}]", ",1".repeat(20_000)), 413),
    ] {
        assert_eq!(served.post(token, content_type, body).await.0, status, "{status}");
    }
    assert!(served.kept().is_empty());
}

#[tokio::test]
async fn a_body_that_does_not_announce_its_length_is_measured_as_it_comes() {
    let served = Served::with(Answer::Durable, 8).await;
    let chunk = format!("{:x}\r\n{}\r\n", 4096, " ".repeat(4096));
    let request = format!("{}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", served.head(), chunk.repeat(17));
    let answer = served.exchange(&request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_log_that_cannot_take_more_asks_the_reader_to_come_back() {
    for (answer, status) in [(Answer::Full, 429), (Answer::Broken, 503)] {
        let served = Served::with(answer, 8).await;
        let refused =
            reqwest::Client::new().post(&served.url).bearer_auth(CITY).body(TAP).send().await.unwrap();
        assert_eq!(refused.status(), status);
        assert!(refused.headers().contains_key(RETRY_AFTER));
    }
}

#[tokio::test]
async fn more_requests_than_fit_are_told_to_come_back_and_the_stop_cuts_off_what_never_ends() {
    let served = Served::with(Answer::Never, 1).await;
    let stuck = reqwest::Client::new().post(&served.url).bearer_auth(CITY).body(TAP).send();
    let stuck = tokio::spawn(stuck);
    let refused = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let answer = reqwest::Client::new().post(&served.url).bearer_auth(CITY).body("").send();
            let answer = answer.await.unwrap();
            if answer.status() != 202 {
                break answer;
            }
        }
    });
    assert_eq!(refused.await.unwrap().status(), 429);
    served.stop.cancel();
    served.running.await.unwrap();
    assert!(stuck.await.unwrap().is_err());
}

#[tokio::test]
async fn a_request_that_trickles_is_given_up() {
    let served = Served::with(Answer::Durable, 1).await;
    let slow_body = format!("{}Content-Length: 99\r\n\r\n{{", served.head());
    let answer = served.exchange(&slow_body).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let slow_head = "POST /v1/taps HTTP/1.1\r\nHost:";
    assert!(!served.exchange(slow_head).await.contains("202"));
}
