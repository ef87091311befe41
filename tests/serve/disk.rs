//! A disk that is full: nothing is acknowledged that is not kept, the process says so, and room alone mends it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::accounts::{books_when_settled, nasty};
use crate::morning::morning;
use crate::process::{PATIENCE, Station};
use crate::town::tap;
use crate::{entries, gentle, simulator, tell};

/// Enough for an import and a morning, little enough to be filled at once.
const DISK_MIB: u32 = 24;
/// The morning goes on for so long on the full disk.
const FULL_FOR: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_full_disk_holds_everything_and_room_alone_mends_it() {
    const PUPILS: usize = 160;
    let sim = simulator(nasty()).await;
    let gateway = [("gateway", "submit_timeout_s = 1")];
    let Some((station, disk)) = Station::on_small_disk(DISK_MIB, PUPILS, &sim, &gateway) else {
        tell("a full disk was not tested: this user may not mount a small one");
        return;
    };
    let mut serving = station.serve().await;
    let lasts = FULL_FOR * 3;
    let readers = tokio::spawn(morning(serving.taps_url(), station.token.clone(), PUPILS, lasts));
    tokio::time::sleep(FULL_FOR).await;

    disk.fill();
    let says_full = |status: u16, answer: &Value| {
        let missing = answer["missing"].as_array().unwrap();
        status == 503 && missing.iter().any(|missing| missing["why"].as_str().unwrap().contains("full"))
    };
    serving.until_ready("the full disk", says_full).await;
    assert_eq!(serving.page("/healthz").await.0, 200, "it lives");
    tokio::time::sleep(FULL_FOR).await;
    let (status, answer) = serving.page("/readyz").await;
    assert_eq!(status, 503, "it does not come and go: {answer}");
    assert_eq!(serving.report(&[tap(0)]).await.unwrap().0, 503, "nothing is acknowledged");

    disk.make_room();
    let reported = readers.await.unwrap();
    serving.until_ready("readiness", |status, _| status == 200).await;
    assert!(reported.repeated > 0, "readers met the full disk");
    let books = books_when_settled(&station, PUPILS).await;
    serving.until_committed().await;
    assert!(serving.stop("TERM").await.success(), "{}", serving.logged());
    station.assert_all_kept_and_decided(&reported);
    let accounts = books.compared(PUPILS, &reported, &sim.stop().await);
    tell(format_args!("a disk that was full for {} s: {accounts}", FULL_FOR.as_secs()));
}

/// The shell's `ulimit -f` stands in for a full disk: writing beyond it fails, once the signal that would
/// come first is ignored.
#[tokio::test]
async fn a_disk_that_refuses_to_write_is_said_and_nothing_acknowledged_is_lost() {
    const BLOCKS_OF_512_MAX: u32 = 3_000;
    let sim = simulator(gentle()).await;
    let station = Station::of(3, &sim, &[]);
    let mut limited = std::process::Command::new("sh");
    limited
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {BLOCKS_OF_512_MAX}; exec \"$@\""))
        .args(["sh", env!("CARGO_BIN_EXE_gatebell"), "serve", "--config"])
        .arg(&station.configuration)
        .arg("--data")
        .arg(&station.data);
    let mut serving = station.serve_by(limited).await;
    let mut acknowledged = 0_u64;
    let begun = Instant::now();
    loop {
        let taps: Vec<Value> = (0..500).map(|_| tap(0)).collect();
        match serving.report(&taps).await.unwrap() {
            (202, _) => acknowledged += 500,
            (503, _) => break,
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "the disk never refuses");
    }
    assert!(acknowledged > 0);
    serving.until_ready("the trouble", |status, _| status == 503).await;
    serving.kill();

    let after = station.serve().await;
    let kept = station.taps_on_disk().len() as u64;
    assert!(kept >= acknowledged, "{kept} of {acknowledged}");
    assert_eq!(after.report(&[tap(1)]).await.unwrap().0, 202);
    station.until_ledger("both charges", |ledger| entries(ledger, "charged").len() == 2).await;
}
