//! No personal data in a log line, a metric label or an error (invariant P1): a run under load, every line of
//! it searched.

use std::fs;

use serde_json::Value;

use crate::process::{PATIENCE, Station, printed};
use crate::town::tap;
use crate::{entries, gentle, simulator};
use gatebell_engine::invariants::predicates::says_none_of;
use gatebell_gateway_sim::{AppBackend, Faults, SimConfig};

const PUPILS: usize = 80;

/// Everything that could make the program talk.
fn talkative() -> SimConfig {
    let gentle = gentle();
    SimConfig {
        faults: Faults {
            refused: 0.1,
            retry_later: 0.1,
            throttled: 0.05,
            no_answer: 0.02,
            taken_no_answer: 0.05,
            taken_rubbish: 0.05,
            taken_cut_off: 0.05,
            hang_ms: 200,
            ..gentle.faults.clone()
        },
        app: AppBackend { gone: 0.1, retry_later: 0.1, taken_no_answer: 0.05, ..gentle.app.clone() },
        ..gentle
    }
}

#[tokio::test]
async fn no_line_that_the_program_writes_holds_anything_personal() {
    let sim = simulator(talkative()).await;
    let more = [("logs", "level = \"trace\""), ("gateway", "submit_timeout_s = 1")];
    let station = Station::of(PUPILS, &sim, &more);
    let mut serving = station.serve().await;
    let mut written = String::new();

    for pupil in 0..PUPILS {
        let mut odd = tap(pupil);
        odd["at"] = Value::from("2025-09-08T07:31:04"); // without an offset: malformed
        assert_eq!(serving.report(&[tap(pupil), odd]).await.unwrap().0, 202);
    }
    let refused =
        reqwest::Client::new().post(serving.taps_url()).bearer_auth("wrong").json(&tap(0)).send().await;
    written += &refused.unwrap().text().await.unwrap();

    let every_end = |ledger: &[Value]| {
        let ended = ["delivered", "failed", "expired", "suppressed", "accepted"];
        ended.iter().map(|end| entries(ledger, end).len()).sum::<usize>() >= 2 * PUPILS
    };
    station.until_ledger("every end", every_end).await;
    for page in ["/readyz", "/metrics", "/healthz"] {
        written += &serving.page(page).await.1;
    }
    for command in [&["token", "list"][..], &["token", "revoke", "99"], &["recount"], &["serve"]] {
        written += &printed(&station.gatebell(command));
    }
    assert!(serving.stop("TERM").await.success());
    assert!(tokio::time::timeout(PATIENCE, async { sim.stop().await }).await.is_ok());
    let logged = serving.logged();
    assert!(logged.lines().count() > 20, "the run is logged:\n{logged}");
    assert!(
        logged.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "every line is JSON:\n{logged}"
    );
    written += &logged;

    let key = fs::read_to_string(station.data.join("callback.key")).unwrap();
    let mut secrets = station.town.personal();
    secrets.extend([
        station.token.clone(),
        key.trim().to_owned(),
        "only-a-simulator".to_owned(),
        "/v1/callbacks/".to_owned(),
    ]);
    for line in written.lines() {
        assert!(says_none_of(line, &secrets), "one of {secrets:?} in {line}");
    }
}
