//! `kill -9` in the middle of the morning, at several moments, and what is left when the day is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatebell_gateway_sim::{Faults, GatewaySim, Receipts, SimConfig};
use serde_json::Value;

use crate::process::{PATIENCE, Serving, Station, report_to};
use crate::town::tap;
use crate::{entries, gentle, simulator};

const PUPILS: usize = 240;
/// Taps in one report.
const REPORT_TAPS: usize = 8;
/// A report goes out every so often: the morning lasts some seconds.
const REPORT_EVERY: Duration = Duration::from_millis(60);
/// The process is killed when the gateway has taken so many messages.
const MOMENTS: [usize; 4] = [1, 40, 110, 200];

/// A gateway that loses answers after it has taken messages, and repeats and shuffles receipts.
pub(crate) fn nasty() -> SimConfig {
    let gentle = gentle();
    SimConfig {
        faults: Faults {
            taken_no_answer: 0.05,
            taken_rubbish: 0.02,
            taken_cut_off: 0.02,
            hang_ms: 200,
            ..gentle.faults.clone()
        },
        receipts: Receipts { early: 0.2, repeated: 0.3, out_of_order: 0.2, ..gentle.receipts.clone() },
        ..gentle
    }
}

/// What parents and the bill see of an entry that ends a notice or charges it.
pub(crate) fn seen_by_parents(ledger: &[Value]) -> BTreeSet<String> {
    ledger
        .iter()
        .filter(|line| !matches!(line["entry"].as_str().unwrap(), "claimed" | "submitted"))
        .map(|line| {
            let word = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
            ["pupil", "guardian", "channel", "kind", "day", "entry", "order", "reason"].map(word).join(" ")
        })
        .collect()
}

/// Reports every pupil's tap until each was acknowledged, as a reader does: what was not, it sends again.
async fn morning(url: Arc<tokio::sync::watch::Sender<String>>, token: String) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let pupils: Vec<usize> = (0..PUPILS).collect();
    for group in pupils.chunks(REPORT_TAPS) {
        let taps: Vec<Value> = group.iter().map(|pupil| tap(*pupil)).collect();
        let begun = Instant::now();
        loop {
            let now_at = url.borrow().clone();
            match report_to(&client, &now_at, &token, &taps).await {
                Ok((202, answer)) => {
                    assert_eq!(answer["accepted"], group.len());
                    break;
                }
                Ok((429 | 503, _)) | Err(_) => tokio::time::sleep(REPORT_EVERY).await,
                Ok(other) => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < PATIENCE, "taps are not taken");
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

async fn until_taken(sim: &GatewaySim, messages: usize, serving: &Serving) {
    let begun = Instant::now();
    while sim.log().messages.len() < messages {
        assert!(begun.elapsed() < PATIENCE, "the gateway gets nothing:\n{}", serving.logged());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Plays the morning, killing the process at each moment; the ledger when everything is charged.
async fn played(moments: &[usize]) -> BTreeSet<String> {
    let sim = simulator(nasty()).await;
    let station =
        Station::of(PUPILS, &sim, &[("gateway", "submit_timeout_s = 1\nrate_per_s = 50\nburst = 50")]);
    let mut serving = station.serve().await;
    let url = Arc::new(tokio::sync::watch::Sender::new(serving.taps_url()));
    let morning = tokio::spawn(morning(Arc::clone(&url), station.token.clone()));
    for moment in moments {
        until_taken(&sim, *moment, &serving).await;
        serving.kill();
        serving = station.serve().await;
        url.send_replace(serving.taps_url());
    }
    morning.await.unwrap();
    let ledger = station
        .until_ledger("every charge", |ledger| {
            entries(ledger, "charged").len() >= PUPILS && entries(ledger, "accepted").len() >= PUPILS
        })
        .await;
    station.assert_recounted();
    assert_eq!(entries(&ledger, "charged").len(), PUPILS, "no SMS is billed twice");
    let billed: u64 = station.bill().iter().map(|line| line["delivered"].as_u64().unwrap()).sum();
    assert_eq!(billed, PUPILS as u64);
    assert!(serving.stop("TERM").await.success());

    let seen = sim.stop().await;
    assert_eq!(seen.messages.len(), PUPILS, "what was in doubt went out again under the same reference");
    assert_eq!(seen.counts.overruns, 0, "a fresh limiter starts empty");
    let delivered: BTreeSet<&str> = seen
        .messages
        .iter()
        .filter(|message| message.is_delivered())
        .map(|message| message.msgid.as_str())
        .collect();
    let proved: BTreeSet<&str> =
        entries(&ledger, "delivered").iter().map(|line| line["gateway_id"].as_str().unwrap()).collect();
    assert_eq!(proved.len(), PUPILS);
    assert_eq!(delivered, proved, "the gateway's messages are the ledger's");
    seen_by_parents(&ledger)
}

#[tokio::test]
async fn a_morning_with_crashes_ends_in_the_same_ledger_as_one_without() {
    let (without, with) = tokio::join!(played(&[]), played(&MOMENTS));
    assert_eq!(without.len(), 3 * PUPILS, "an SMS is delivered and charged, a push accepted");
    assert_eq!(without, with);
}
