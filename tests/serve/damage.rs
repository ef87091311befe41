//! Files that a failing disk has damaged while nothing ran: a flipped byte, and what a power cut leaves at the end of a log.

use std::fs;
use std::io::Write as _;

use serde_json::Value;

use crate::process::{Station, printed};
use crate::town::{card, phone, tap};
use crate::{entries, gentle, simulator};

const PUPILS: usize = 24;
/// Pupils who pass before the damage is done.
const EARLY: usize = 12;

/// Flips a bit of the card in the tap of `pupil`: then it is the next pupil's.
fn flip_card_of(station: &Station, pupil: usize) {
    let path = station.data.join("taps.db");
    let log = rusqlite::Connection::open(&path).unwrap();
    log.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(log);
    let mut bytes = fs::read(&path).unwrap();
    let text = card(pupil);
    let place = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("it is there");
    bytes[place + text.len() - 1] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_flipped_byte_in_the_log_is_said_holds_its_partition_and_is_never_read_as_a_tap() {
    const DAMAGED: usize = 2;
    assert_ne!(card(DAMAGED), card(DAMAGED + 1));
    let sim = simulator(gentle()).await;
    let station = Station::of(PUPILS, &sim, &[]);
    let mut serving = station.serve().await;
    let taps: Vec<Value> = (0..EARLY).filter(|pupil| *pupil != DAMAGED + 1).map(tap).collect();
    assert_eq!(serving.report(&taps).await.unwrap().0, 202);
    let charged = |ledger: &[Value], count: usize| entries(ledger, "charged").len() == count;
    station.until_ledger("the early charges", |ledger| charged(ledger, EARLY - 1)).await;
    assert!(serving.stop("TERM").await.success());
    assert!(station.gatebell(&["data", "check"]).status.success());
    flip_card_of(&station, DAMAGED);

    let mut serving = station.serve().await;
    let says_damaged = |status: u16, answer: &Value| {
        let missing = answer["missing"].as_array().unwrap();
        let damaged = |why: &str| why.contains("is damaged") && why.contains("gatebell data check");
        status == 503 && missing.iter().any(|missing| damaged(missing["why"].as_str().unwrap()))
    };
    serving.until_ready("the damage", says_damaged).await;
    let late: Vec<Value> = (EARLY..PUPILS).map(tap).collect();
    assert_eq!(serving.report(&late).await.unwrap().0, 202, "taps are taken all the same");
    let more = |ledger: &[Value]| entries(ledger, "charged").len() > EARLY - 1;
    station.until_ledger("charges of the other partitions", more).await;
    let (status, answer) = serving.page("/readyz").await;
    assert_eq!(status, 503, "it is said until it is mended: {answer}");

    let found = station.gatebell(&["data", "check"]);
    assert_eq!(found.status.code(), Some(1));
    let said = printed(&found);
    let place = said.split_once("the tap at ").unwrap().1.split(' ').next().unwrap().to_owned();
    assert!(said.contains("taps.db"), "{said}");
    let mended = station.gatebell(&["data", "set-aside", &place]);
    assert!(mended.status.success(), "{}", printed(&mended));
    serving.until_ready("readiness", |status, _| status == 200).await;
    let all = EARLY - 1 + late.len();
    station.until_ledger("every charge", |ledger| charged(ledger, all)).await;
    station.assert_recounted();
    assert!(station.gatebell(&["data", "check"]).status.success());
    assert!(serving.stop("TERM").await.success());
    let seen = sim.stop().await;
    assert_eq!(seen.messages.len(), all);
    assert!(
        seen.messages.iter().all(|message| message.dstaddr != phone(DAMAGED + 1)),
        "nobody is told of a passage that was not there"
    );
}

#[tokio::test]
async fn a_torn_write_behind_the_acknowledged_taps_is_dropped_and_they_are_told() {
    let sim = simulator(gentle()).await;
    let station = Station::of(PUPILS, &sim, &[]);
    let mut serving = station.serve().await;
    let taps: Vec<Value> = (0..EARLY).map(tap).collect();
    assert_eq!(serving.report(&taps).await.unwrap().0, 202);
    serving.kill();
    for file in ["taps.db-wal", "store.db-wal"] {
        let path = station.data.join(file);
        let whole = fs::read(&path).unwrap();
        // As if the machine had stopped while the next page was on its way: its first half, of an earlier one's bytes. The store
        // may not have written anything yet.
        let half_a_frame = whole.get(32..whole.len().min(32 + 2_000)).unwrap_or_default();
        assert!(file != "taps.db-wal" || !half_a_frame.is_empty(), "acknowledged taps are in the file");
        fs::File::options().append(true).open(&path).unwrap().write_all(half_a_frame).unwrap();
    }
    let mut serving = station.serve().await;
    assert_eq!(serving.report(&(EARLY..PUPILS).map(tap).collect::<Vec<_>>()).await.unwrap().0, 202);
    station.until_ledger("every charge", |ledger| entries(ledger, "charged").len() == PUPILS).await;
    station.assert_recounted();
    assert!(serving.stop("TERM").await.success());
    assert!(station.gatebell(&["data", "check"]).status.success());
    assert_eq!(sim.stop().await.messages.len(), PUPILS);
}
