//! The simulator as an integrator meets it: plain HTTP requests, read with nothing but the provider's document.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gatebell_gateway_sim::{
    Faults, GatewaySim, Limits, Receipts, SIMULATOR_APP_KEY, SIMULATOR_PASSWORD, SIMULATOR_USERNAME,
    SimConfig, Spread,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(20);
const AT_ONCE: Spread = Spread { median_ms: 0, p99_ms: 0 };

/// No faults and no limits; receipts at once.
fn flawless() -> SimConfig {
    SimConfig {
        latency: AT_ONCE,
        limits: Limits { rate_per_s: 100_000, burst: 100_000, ..Limits::default() },
        faults: Faults {
            refused: 0.0,
            retry_later: 0.0,
            no_answer: 0.0,
            taken_no_answer: 0.0,
            taken_rubbish: 0.0,
            taken_cut_off: 0.0,
            ..Faults::default()
        },
        receipts: Receipts { failed: 0.0, late: 0.0, delay: AT_ONCE, ..Receipts::default() },
        ..SimConfig::default()
    }
}

async fn start(config: SimConfig) -> GatewaySim {
    GatewaySim::start(config, LOOPBACK).await.expect("a free port")
}

/// Posts `fields` beside the credentials.
async fn post(sim: &GatewaySim, command: &str, fields: &[(&str, &str)]) -> String {
    let credentials = [("username", SIMULATOR_USERNAME), ("password", SIMULATOR_PASSWORD)];
    let form: Vec<(&str, &str)> = credentials.iter().chain(fields).copied().collect();
    let request = reqwest::Client::new().post(format!("{}/{command}", sim.mitake_url())).form(&form);
    request.send().await.expect("answers").text().await.expect("is text")
}

async fn send(sim: &GatewaySim, fields: &[(&str, &str)]) -> String {
    post(sim, "SmSend?CharsetURL=UTF8", fields).await
}

#[tokio::test]
async fn each_field_that_cannot_be_has_the_status_of_the_document() {
    let sim = start(flawless()).await;
    let phone = ("dstaddr", "0912345678");
    let text = ("smbody", "早安");
    let long_id = "x".repeat(37);
    for (fields, answer) in [
        (vec![("dstaddr", "0223456789"), text], "[1]\r\nstatuscode=v\r\n"),
        (vec![phone, ("smbody", " "), ("clientid", "c")], "[c]\r\nstatuscode=u\r\n"),
        (vec![phone, text, ("vldtime", "20200101000000")], "[1]\r\nstatuscode=t\r\n"),
        (vec![phone, text, ("vldtime", "tomorrow")], "[1]\r\nstatuscode=y\r\n"),
        (vec![phone, text, ("clientid", long_id.as_str())], "statuscode=y\r\n"),
    ] {
        let said = send(&sim, &fields).await;
        assert!(said.contains(answer), "{fields:?}: {said}");
    }
    assert!(sim.stop().await.messages.is_empty());
}

#[tokio::test]
async fn a_repeated_clientid_is_answered_with_the_first_id_and_costs_nothing() {
    let sim = start(flawless()).await;
    let fields = [("dstaddr", "0912345678"), ("smbody", "早安"), ("clientid", "c-1")];
    let first = send(&sim, &fields).await;
    let second = send(&sim, &fields).await;
    assert!(first.starts_with("[c-1]\r\nmsgid=0000000001\r\nstatuscode=1\r\n"), "{first}");
    assert!(second.starts_with("[c-1]\r\nmsgid=0000000001\r\nstatuscode=1\r\nDuplicate=Y\r\n"), "{second}");
    assert!(second.ends_with("AccountPoint=9999999\r\n"), "{second}");
    let log = sim.stop().await;
    assert_eq!((log.messages.len(), log.messages[0].submits, log.counts.duplicates), (1, 2, 1));
}

#[tokio::test]
async fn text_is_garbled_without_the_declaration_and_cut_without_the_permission() {
    let sim = start(flawless()).await;
    let long = "校".repeat(80);
    let phone = ("dstaddr", "0912345678");
    post(&sim, "SmSend", &[phone, ("smbody", "a早安")]).await;
    send(&sim, &[phone, ("smbody", long.as_str())]).await;
    let log = sim.stop().await;
    assert_eq!(log.messages[0].smbody, "a\u{fffd}\u{fffd}");
    assert_eq!((log.messages[1].smbody.chars().count(), log.messages[1].cut), (70, true));
}

#[tokio::test]
async fn what_waits_for_its_time_can_be_cancelled_and_what_was_sent_cannot() {
    let sim = start(flawless()).await;
    let phone = ("dstaddr", "0912345678");
    let waiting = send(&sim, &[phone, ("smbody", "later"), ("dlvtime", "3600")]).await;
    let sent = send(&sim, &[phone, ("smbody", "now")]).await;
    assert!(waiting.contains("statuscode=0") && sent.contains("statuscode=1"), "{waiting}{sent}");
    let status = async || post(&sim, "SmQuery", &[("msgid", "0000000001")]).await;
    assert!(status().await.starts_with("0000000001\t0\t"));
    let ids = ("msgid", "0000000001,#0000000002,77");
    let cancelled = post(&sim, "SmCancel", &[ids]).await;
    assert!(cancelled.starts_with("0000000001=9\r\n#0000000002="), "{cancelled}");
    assert!(!cancelled.contains("2=9") && cancelled.ends_with("77=z\r\n"), "{cancelled}");
    assert!(status().await.starts_with("0000000001\t9\t"));
    sim.stop().await;
}

#[tokio::test]
async fn queries_have_their_limits_and_say_the_balance_when_asked_for_nothing() {
    let sim = start(flawless()).await;
    assert_eq!(post(&sim, "SmQuery", &[]).await, "AccountPoint=10000000\r\n");
    assert_eq!(post(&sim, "SmQuery", &[("msgid", "1,2,3")]).await, "statuscode=z\r\n");
    let many = vec!["1"; 101].join(",");
    assert_eq!(post(&sim, "SmQuery", &[("msgid", many.as_str())]).await, "statuscode=w\r\n");
    sim.stop().await;
}

/// How every message ended, by reference.
async fn ends(seed: u64, order: impl Iterator<Item = u32>) -> BTreeMap<String, Option<u8>> {
    let mut config = SimConfig { seed, ..flawless() };
    config.faults.refused = 0.2;
    config.receipts.failed = 0.3;
    let sim = start(config).await;
    for number in order {
        let (clientid, phone) = (format!("c-{number}"), format!("0912{number:06}"));
        send(&sim, &[("dstaddr", &phone), ("smbody", "早安"), ("clientid", &clientid)]).await;
    }
    assert!(sim.settled(PATIENCE).await);
    sim.stop().await.messages.into_iter().map(|message| (message.clientid, message.ended)).collect()
}

#[tokio::test]
async fn two_runs_with_one_seed_end_alike_in_whatever_order_messages_come() {
    let first = ends(5, 0..60).await;
    assert_eq!(ends(5, (0..60).rev()).await, first);
    assert_ne!(ends(6, 0..60).await, first);
    assert!(first.len() < 60 && first.values().any(|end| *end != Some(4)), "faults happened");
}

#[tokio::test]
async fn the_log_has_a_line_for_each_event() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("messages.ndjson");
    let mut config = flawless();
    config.receipts.tries_max = 1;
    config.receipts.lost = 0.0;
    config.receipts.repeated = 0.0;
    config.receipts.underway_first = 0.0;
    config.receipts.out_of_order = 0.0;
    let sim = GatewaySim::start_logging(config, LOOPBACK, Some(&path)).await.expect("a free port");
    let nowhere = ("response", "http://127.0.0.1:1/callback");
    send(&sim, &[("dstaddr", "0912345678"), ("smbody", "早安"), ("clientid", "c-1"), nowhere]).await;
    assert!(sim.settled(PATIENCE).await);
    sim.stop().await;
    let text = std::fs::read_to_string(&path).expect("was written");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
    assert_eq!(events.len(), 2, "{text}");
    assert_eq!((&events[0]["event"], &events[0]["dstaddr"]), (&"message".into(), &"0912345678".into()));
    assert_eq!((&events[0]["smbody"], &events[0]["clientid"]), (&"早安".into(), &"c-1".into()));
    assert_eq!((&events[1]["event"], &events[1]["clientid"]), (&"receipt".into(), &"c-1".into()));
    assert_eq!(events[1]["receipt"]["acknowledged"], false);
}

/// Posts to the app backend as if signed at `time_s` with `key`: the HTTP status.
async fn push(sim: &GatewaySim, key: &str, time_s: i64, body: &str) -> u16 {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(format!("{time_s}.{body}").as_bytes());
    let signature = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
    let request = reqwest::Client::new()
        .post(sim.app_url())
        .header("Gatebell-Time", time_s)
        .header("Gatebell-Signature", signature)
        .body(body.to_owned());
    request.send().await.expect("answers").status().as_u16()
}

#[tokio::test]
async fn the_app_backend_takes_what_is_signed_now_with_the_key_and_nothing_else() {
    let sim = start(flawless()).await;
    let now_s = jiff::Timestamp::now().as_second();
    let body = r#"{"messages":[]}"#;
    assert_eq!(push(&sim, SIMULATOR_APP_KEY, now_s, body).await, 200);
    assert_eq!(push(&sim, "another-key", now_s, body).await, 401);
    assert_eq!(push(&sim, SIMULATOR_APP_KEY, now_s - 400, body).await, 401);
    assert_eq!(push(&sim, SIMULATOR_APP_KEY, now_s, "{}").await, 422);
    let unsigned = reqwest::Client::new().post(sim.app_url()).body(body).send().await.expect("answers");
    assert_eq!(unsigned.status().as_u16(), 401);
    let counts = sim.stop().await.counts;
    assert_eq!((counts.app_requests, counts.signature_failures), (5, 3));
}

#[tokio::test]
async fn a_simulator_that_is_stopped_lets_go_of_whoever_it_kept_waiting() {
    let mut config = flawless();
    config.faults.no_answer = 1.0;
    config.faults.hang_ms = 600_000;
    let sim = start(config).await;
    let request = reqwest::Client::new().post(format!("{}/SmSend", sim.mitake_url())).form(&[
        ("username", SIMULATOR_USERNAME),
        ("password", SIMULATOR_PASSWORD),
        ("dstaddr", "0912345678"),
        ("smbody", "hello"),
    ]);
    let waiting = tokio::spawn(async move {
        let response = request.send().await?;
        response.bytes().await
    });
    let asked = async {
        while sim.log().counts.requests == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the request arrives");
    sim.stop().await;
    let ended = tokio::time::timeout(PATIENCE, waiting).await.expect("is let go").expect("no panic");
    assert!(ended.is_err(), "no answer, as configured");
}
