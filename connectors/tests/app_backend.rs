//! The app connector against the simulated push backend, over real HTTP on loopback.

mod support;

use std::time::Duration;

use gatebell_engine::ids::Personal;
use gatebell_engine::ports::channel::{ChannelConnector, Message, SubmitOutcome};
use gatebell_gateway_sim::{AppBackend, SimConfig};

use support::{accepted, app, app_at, flawless, impatient_app, message, simulator, submit_one, unknown};

fn push(number: u32) -> Message {
    Message {
        address: Personal::new(&format!("token-{number}")),
        text: Personal::new("王小明 07:31 到校"),
        ..message(number)
    }
}

fn faulty(faults: impl FnOnce(&mut AppBackend)) -> SimConfig {
    let mut config = flawless();
    faults(&mut config.app);
    config
}

#[tokio::test]
async fn a_batch_is_signed_taken_and_answered_message_by_message() {
    let sim = simulator(flawless()).await;
    let mut batch: Vec<Message> = (1..=200).map(push).collect();
    batch[3].address = Personal::default();
    batch[4].valid_for = Duration::from_millis(999);
    let outcomes = app(&sim).submit(&batch).await;
    let log = sim.stop().await;
    assert_eq!((log.counts.app_requests, log.counts.signature_failures), (1, 0));
    assert_eq!((outcomes.len(), log.pushes.len()), (200, 198));
    for (position, outcome) in outcomes.iter().enumerate() {
        match position {
            3 => assert_eq!(*outcome, SubmitOutcome::Refused { reason: "no_token".into() }),
            4 => {
                let later = SubmitOutcome::RetryLater { reason: "deadline".into(), retry_after: None };
                assert_eq!(*outcome, later);
            }
            _ => assert!(!accepted(outcome).1),
        }
    }
    let first = &log.pushes[0];
    assert_eq!((first.token.as_str(), first.text.as_str()), ("token-1", "王小明 07:31 到校"));
    assert_eq!((first.language.as_str(), first.kind.as_str()), ("zh-TW", "arrival"));
    assert_eq!((first.pupil.as_str(), first.guardian.as_str()), ("P1", "G1"));
    assert_eq!(first.at, "2025-09-07T23:31:04.250Z");
}

#[tokio::test]
async fn a_request_that_another_key_signed_is_refused_and_stops_the_lane() {
    let sim = simulator(flawless()).await;
    let impostor = app_at(&sim.app_url(), "another-key-another-key-another-key");
    let down = SubmitOutcome::GatewayDown { reason: "http_401".into() };
    assert_eq!(impostor.submit(&[push(1), push(2)]).await, vec![down.clone(), down]);
    let log = sim.stop().await;
    assert_eq!((log.pushes.len(), log.counts.signature_failures), (0, 1));
}

#[tokio::test]
async fn a_message_that_comes_again_in_other_company_is_recognised() {
    let sim = simulator(flawless()).await;
    let backend = app(&sim);
    let first = backend.submit(&[push(1), push(2)]).await;
    let second = backend.submit(&[push(3), push(2)]).await;
    assert_eq!(accepted(&first[1]).0, accepted(&second[1]).0);
    assert_eq!((accepted(&second[0]).1, accepted(&second[1]).1), (false, true));
    assert_eq!(sim.stop().await.pushes.len(), 3);
}

#[tokio::test]
async fn each_class_of_results_has_its_outcome() {
    let wait = Some(Duration::from_secs(1));
    for (config, outcome) in [
        (faulty(|app| app.gone = 1.0), SubmitOutcome::Refused { reason: "token_gone".into() }),
        (
            faulty(|app| app.retry_later = 1.0),
            SubmitOutcome::RetryLater { reason: "503".into(), retry_after: wait },
        ),
        (faulty(|app| app.throttled = 1.0), SubmitOutcome::Throttled { retry_after: wait }),
        (faulty(|app| app.no_answer = 1.0), unknown("timeout")),
    ] {
        let sim = simulator(config).await;
        let hangs = outcome == unknown("timeout");
        let backend = if hangs { impatient_app(&sim) } else { app(&sim) };
        assert_eq!(submit_one(&backend, &push(1)).await, outcome);
        assert!(sim.stop().await.pushes.is_empty());
    }
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_pushed_once() {
    let sim = simulator(faulty(|app| app.taken_no_answer = 0.5)).await;
    let backend = impatient_app(&sim);
    let mut doubts = 0;
    for number in 1..=8 {
        let mut outcome = submit_one(&backend, &push(number)).await;
        let mut was_in_doubt = false;
        while !matches!(outcome, SubmitOutcome::Accepted { .. }) {
            assert_eq!(outcome, unknown("timeout"));
            (doubts, was_in_doubt) = (doubts + 1, true);
            outcome = submit_one(&backend, &push(number)).await;
        }
        assert_eq!(accepted(&outcome).1, was_in_doubt);
    }
    assert!(doubts > 0);
    assert_eq!(sim.stop().await.pushes.len(), 8);
}

#[tokio::test]
async fn the_backend_has_nothing_to_ask_and_gives_no_receipts() {
    let sim = simulator(flawless()).await;
    let backend = app(&sim);
    assert_eq!(backend.query(&[]).await.expect("nothing to ask"), vec![]);
    assert!(!backend.profile().gives_receipts && backend.profile().poll_after.is_none());
    sim.stop().await;
}
