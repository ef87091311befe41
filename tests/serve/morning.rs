//! Readers at the gate in the morning: every pupil passes, and what was not acknowledged is reported again.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::process::{PATIENCE, report_to};
use crate::town::tap;

/// Pupils in one report.
const REPORT_PUPILS: usize = 8;
/// How soon a reader reports again what was not taken.
const RETRY_AFTER: Duration = Duration::from_millis(60);
/// A card that is held before the reader twice is read so much later once more.
const READ_AGAIN_AFTER_MS: i64 = 900;

/// What readers were thanked for.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// Taps that got their `202`, each pupil's twice.
    pub(crate) acknowledged: Vec<Value>,
    /// Reports that were refused, or broke off.
    pub(crate) repeated: usize,
}

/// Reports two taps of each of `pupils` to `url` until they were acknowledged, spread over `lasts`.
pub(crate) async fn morning(url: String, token: String, pupils: usize, lasts: Duration) -> Reported {
    let (_settled, ends_at) = watch::channel(Instant::now() + lasts);
    morning_until(url, token, pupils, ends_at).await
}

/// As [`morning`], until a moment that may be put off or brought forward meanwhile: whoever has not passed yet is spread
/// over the time that is left.
pub(crate) async fn morning_until(
    url: String,
    token: String,
    pupils: usize,
    mut ends_at: watch::Receiver<Instant>,
) -> Reported {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let numbers: Vec<usize> = (0..pupils).collect();
    let mut groups = numbers.chunks(REPORT_PUPILS);
    let mut reported = Reported::default();
    while let Some(group) = groups.next() {
        let taps: Vec<Value> = group.iter().map(|pupil| tap(*pupil)).flat_map(read_twice).collect();
        report_until_taken(&client, &url, &token, &taps, &mut reported).await;
        until_next(Instant::now(), groups.len(), &mut ends_at).await;
    }
    reported
}

/// Waits from `since` on for the share of one of so many `left` who are to pass before the end.
async fn until_next(since: Instant, left: usize, ends_at: &mut watch::Receiver<Instant>) {
    let Ok(left) = u32::try_from(left) else { return };
    loop {
        let until_end = ends_at.borrow_and_update().saturating_duration_since(since);
        let Some(share) = until_end.checked_div(left) else { return };
        tokio::select! {
            () = tokio::time::sleep(share.saturating_sub(since.elapsed())) => return,
            Ok(()) = ends_at.changed() => {}
        }
    }
}

fn read_twice(tap: Value) -> [Value; 2] {
    let mut again = tap.clone();
    again["at"] = Value::from(tap["at"].as_i64().unwrap() + READ_AGAIN_AFTER_MS);
    [tap, again]
}

async fn report_until_taken(
    client: &reqwest::Client,
    url: &str,
    token: &str,
    taps: &[Value],
    reported: &mut Reported,
) {
    let begun = Instant::now();
    loop {
        match report_to(client, url, token, taps).await {
            Ok((202, answer)) => {
                assert_eq!(answer["accepted"], taps.len());
                reported.acknowledged.extend_from_slice(taps);
                return;
            }
            Ok((429 | 503, _)) | Err(_) => reported.repeated += 1,
            Ok(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "taps are not taken");
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
