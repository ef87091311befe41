//! The Mitake connector against the gateway simulator, over real HTTP on loopback.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use gatebell_connectors::sms::callback_address::{CallbackAddresses, CallbackKeys};
use gatebell_connectors::sms::mitake::{MitakeSettings, PROTOCOL, callback};
use gatebell_engine::ids::{OrderId, Personal};
use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::channel::{ChannelConnector, Message, SubmitOutcome};
use gatebell_engine::ports::receipts::{Receipt, ReceiptStatus};
use gatebell_engine::time::{Day, Timestamp};
use gatebell_gateway_sim::{Account, Faults, Limits, Receipts, SimConfig, Spread};

use support::{
    accepted, connector, flawless, impatient_mitake, lane, message, mitake, mitake_settings, simulator,
    submit_one, unknown,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn faulty(faults: impl FnOnce(&mut Faults)) -> SimConfig {
    let mut config = flawless();
    faults(&mut config.faults);
    config
}

#[tokio::test]
async fn one_message_arrives_as_it_was_written() {
    let sim = simulator(flawless()).await;
    let sent = message(1);
    let outcome = submit_one(&mitake(&sim, None), &sent).await;
    let (gateway_id, duplicate) = accepted(&outcome);
    let log = sim.stop().await;
    let taken = &log.messages[0];
    assert_eq!(log.messages.len(), 1);
    assert_eq!((taken.msgid.as_str(), duplicate), (gateway_id, false));
    assert_eq!(taken.dstaddr, "0910000001");
    assert_eq!(taken.smbody, "王O明 07:31 到校");
    assert_eq!(taken.clientid, sent.reference.as_str());
    assert_eq!(taken.valid_for_s, 3540);
}

#[tokio::test]
async fn a_batch_is_answered_message_by_message_and_what_may_not_leave_stays_here() {
    let sim = simulator(flawless()).await;
    let mut batch: Vec<Message> = (1..=500).map(message).collect();
    batch[7].text = Personal::new("早安$$0987654321$$$$$$$$$$中獎了");
    batch[8].text = Personal::new("早安\r\nx$$0987654321$$$$$$$$$$中獎了");
    batch[9].address = Personal::new("0223456789");
    let outcomes = mitake(&sim, None).submit(&batch).await;
    let refused = |reason: &str| SubmitOutcome::Refused { reason: reason.into() };
    let log = sim.stop().await;
    assert_eq!((outcomes.len(), log.messages.len(), log.counts.requests), (500, 497, 1));
    for (position, (sent, outcome)) in batch.iter().zip(&outcomes).enumerate() {
        match position {
            7 | 8 => assert_eq!(*outcome, refused("forbidden_text")),
            9 => assert_eq!(*outcome, refused("bad_phone")),
            _ => {
                let (gateway_id, _) = accepted(outcome);
                let taken = log.messages.iter().find(|taken| taken.msgid == gateway_id).expect("was taken");
                assert_eq!(taken.clientid, sent.reference.as_str(), "the id is that of this message");
                assert_eq!(taken.smbody, "王O明 07:31 到校");
            }
        }
    }
    assert!(log.messages.iter().all(|taken| taken.dstaddr.starts_with("0910")), "nobody else got anything");
}

#[tokio::test]
async fn each_class_of_answers_has_its_outcome() {
    let cases: [(SimConfig, SubmitOutcome); 4] = [
        (faulty(|f| f.refused = 1.0), SubmitOutcome::Refused { reason: "v".into() }),
        (
            faulty(|f| f.retry_later = 1.0),
            SubmitOutcome::RetryLater { reason: "a".into(), retry_after: None },
        ),
        (faulty(|f| f.throttled = 1.0), SubmitOutcome::Throttled { retry_after: None }),
        (faulty(|f| f.stopped = 1.0), SubmitOutcome::GatewayDown { reason: "s".into() }),
    ];
    for (config, outcome) in cases {
        let sim = simulator(config).await;
        let gateway = mitake(&sim, None);
        assert_eq!(submit_one(&gateway, &message(1)).await, outcome);
        assert_eq!(gateway.submit(&[message(2), message(3)]).await, vec![outcome.clone(), outcome]);
        assert!(sim.stop().await.messages.is_empty());
    }
}

#[tokio::test]
async fn an_account_that_does_not_work_stops_the_gateway() {
    let config = flawless();
    let expired = Account { username: "expired".into(), status: "f".into(), ..config.accounts[0].clone() };
    let empty = Account { username: "empty".into(), points: 0, ..config.accounts[0].clone() };
    let accounts = vec![config.accounts[0].clone(), expired, empty];
    let sim = simulator(SimConfig { accounts, ..config }).await;
    for (username, password, reason) in [
        ("nobody", "only-a-simulator", "e"),
        ("gatebell-sim", "hunter2", "e"),
        ("expired", "only-a-simulator", "f"),
        ("empty", "only-a-simulator", "s"),
    ] {
        let settings = mitake_settings(&sim.mitake_url());
        let gateway =
            connector(MitakeSettings { username: username.into(), password: password.into(), ..settings });
        let outcome = SubmitOutcome::GatewayDown { reason: reason.into() };
        assert_eq!(submit_one(&gateway, &message(1)).await, outcome, "{username}");
        assert_eq!(gateway.submit(&[message(2), message(3)]).await, vec![outcome.clone(), outcome]);
        if reason != "s" {
            let error = gateway.balance().await.expect_err("no balance for a wrong account").to_string();
            assert!(error.contains("status") && !error.contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_unknown_and_is_recognised_when_it_comes_again() {
    for (fault, config) in [
        ("timeout", faulty(|f| f.taken_no_answer = 0.5)),
        ("unreadable_answer", faulty(|f| f.taken_rubbish = 0.5)),
        ("broken_off", faulty(|f| f.taken_cut_off = 0.5)),
    ] {
        let sim = simulator(config).await;
        let hangs = fault == "timeout";
        let gateway = if hangs { impatient_mitake(&sim.mitake_url()) } else { mitake(&sim, None) };
        let (mut doubts, mut recognised) = (0, 0);
        for number in 1..=12 {
            let sent = message(number);
            let mut outcome = submit_one(&gateway, &sent).await;
            let mut was_in_doubt = false;
            while !matches!(outcome, SubmitOutcome::Accepted { .. }) {
                assert_eq!(outcome, unknown(fault));
                doubts += 1;
                was_in_doubt = true;
                outcome = submit_one(&gateway, &sent).await;
            }
            let (gateway_id, duplicate) = accepted(&outcome);
            assert_eq!(duplicate, was_in_doubt, "recognised as sent before");
            recognised += usize::from(duplicate);
            let log = sim.log();
            let taken: Vec<_> =
                log.messages.iter().filter(|taken| taken.clientid == sent.reference.as_str()).collect();
            assert_eq!((taken.len(), taken[0].msgid.as_str()), (1, gateway_id), "taken once");
        }
        assert!(doubts > 0 && recognised > 0, "{fault} happened");
        sim.stop().await;
    }
}

#[tokio::test]
async fn a_request_without_an_answer_is_unknown_even_where_nothing_was_taken() {
    let sim = simulator(faulty(|f| f.no_answer = 1.0)).await;
    let outcomes = impatient_mitake(&sim.mitake_url()).submit(&[message(1), message(2)]).await;
    assert_eq!(outcomes, vec![unknown("timeout"), unknown("timeout")]);
    assert!(sim.stop().await.messages.is_empty());
}

#[tokio::test]
async fn a_gateway_that_is_not_there_was_sent_nothing() {
    let sim = simulator(flawless()).await;
    let gateway = mitake(&sim, None);
    sim.stop().await;
    let not_sent = SubmitOutcome::NotSent { reason: "no_connection".into() };
    assert_eq!(gateway.submit(&[message(1), message(2)]).await, vec![not_sent.clone(), not_sent]);
}

#[tokio::test]
async fn too_fast_is_throttled_and_counted_and_takes_nothing() {
    let limits = Limits { rate_per_s: 1, burst: 2, jitter_ms: 0, ..Limits::default() };
    let sim = simulator(SimConfig { limits, ..flawless() }).await;
    let gateway = mitake(&sim, None);
    accepted(&submit_one(&gateway, &message(1)).await);
    accepted(&submit_one(&gateway, &message(2)).await);
    let throttled = SubmitOutcome::Throttled { retry_after: None };
    assert_eq!(gateway.submit(&[message(3), message(4)]).await, vec![throttled.clone(), throttled]);
    let log = sim.stop().await;
    assert_eq!((log.messages.len(), log.counts.throttled), (2, 2));
    assert!(log.counts.overruns >= 1);
}

#[tokio::test]
async fn the_gateways_limit_of_connections_is_never_exceeded() {
    let latency = Spread { median_ms: 20, p99_ms: 40 };
    let sim = simulator(SimConfig { latency, ..flawless() }).await;
    let gateway = mitake(&sim, None);
    let messages: Vec<Message> = (1..=120).map(message).collect();
    let outcomes = join_all(messages.iter().map(|message| submit_one(&gateway, message))).await;
    let log = sim.stop().await;
    for outcome in &outcomes {
        accepted(outcome);
    }
    assert_eq!((log.counts.connections_peak, log.counts.throttled), (15, 0));
}

fn submitted(sent: &Message, outcome: &SubmitOutcome) -> LedgerEntry {
    LedgerEntry {
        notice: sent.notice,
        position: sent.position,
        pupil: sent.pupil.clone(),
        guardian: sent.guardian.clone(),
        channel: Channel::Sms,
        kind: sent.kind,
        day: Day::from_epoch_days(20_339),
        at: sent.at,
        event: Event::Submitted,
        time: sent.at,
        attempt: 1,
        order: Some(OrderId::new("O1").expect("of the allowed form")),
        gateway: Some(lane()),
        gateway_id: Some(accepted(outcome).0.into()),
        reason: None,
    }
}

#[tokio::test]
async fn receipts_that_were_lost_are_found_by_asking() {
    let receipts = Receipts { lost: 1.0, failed: 0.3, ..flawless().receipts };
    let sim = simulator(SimConfig { receipts, ..flawless() }).await;
    let gateway = mitake(&sim, None);
    let messages: Vec<Message> = (1..=250).map(message).collect();
    let outcomes = gateway.submit(&messages).await;
    let mut entries: Vec<LedgerEntry> =
        messages.iter().zip(&outcomes).map(|(sent, outcome)| submitted(sent, outcome)).collect();
    assert!(sim.settled(PATIENCE).await);
    entries.push(LedgerEntry { gateway_id: Some("never-heard-of".into()), ..entries[0].clone() });
    let receipts = gateway.query(&entries).await.expect("the gateway answers");
    assert_eq!(gateway.balance().await.expect("the gateway answers"), 10_000_000 - 250);
    let log = sim.stop().await;
    assert_eq!(receipts.len(), 250);
    for receipt in &receipts {
        let taken = log.messages.iter().find(|taken| taken.msgid == receipt.gateway_id).expect("was taken");
        let sent = messages.iter().find(|sent| sent.reference.as_str() == taken.clientid).expect("was sent");
        assert_eq!((receipt.notice, receipt.position), (sent.notice, sent.position));
        assert_eq!(receipt.status == ReceiptStatus::Delivered, taken.is_delivered());
    }
    let delivered = log.messages.iter().filter(|taken| taken.is_delivered()).count();
    assert!((1..250).contains(&delivered), "{delivered}");
}

#[tokio::test]
async fn asking_about_nothing_known_or_still_underway_brings_no_end() {
    let delay = Spread { median_ms: 60_000, p99_ms: 60_000 };
    let sim =
        simulator(SimConfig { receipts: Receipts { delay, ..flawless().receipts }, ..flawless() }).await;
    let gateway = mitake(&sim, None);
    let outcome = submit_one(&gateway, &message(1)).await;
    let entry = submitted(&message(1), &outcome);
    let underway = gateway.query(std::slice::from_ref(&entry)).await.expect("the gateway answers");
    assert!(underway.iter().all(|receipt| receipt.status == ReceiptStatus::Underway));
    let unheard = LedgerEntry { gateway_id: Some("never-heard-of".into()), ..entry.clone() };
    assert_eq!(gateway.query(&[unheard]).await.expect("the gateway answers"), vec![]);
    let never_answered = LedgerEntry { gateway_id: None, ..entry };
    assert_eq!(gateway.query(&[never_answered]).await.expect("nothing to ask"), vec![]);
    sim.stop().await;
}

/// A callback listener that refuses every first report, so that the gateway has to repeat it.
#[derive(Clone)]
struct Listener {
    keys: CallbackKeys,
    heard: Arc<Mutex<Vec<Receipt>>>,
    refused_once: Arc<Mutex<std::collections::HashSet<String>>>,
}

async fn hear(
    State(listener): State<Listener>,
    Path((lane_name, segment)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    assert_eq!(lane_name, lane().as_str());
    let query = query.unwrap_or_default();
    let arrived = Timestamp::from_millis(1);
    match callback::accept(&listener.keys, &lane(), &segment, &query, arrived) {
        Ok(accepted) => {
            if listener.refused_once.lock().expect("no panic").insert(segment) {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            listener.heard.lock().expect("no panic").push(accepted.receipt);
            accepted.answer.into_response()
        }
        Err(refusal) => panic!("a genuine callback was refused: {refusal}"),
    }
}

#[tokio::test]
async fn receipts_come_back_late_repeated_and_out_of_order_and_each_names_its_notice() {
    let keys = CallbackKeys::parse(&"0123456789abcdef0123456789abcdef".into()).expect("long enough");
    let listener = Listener { keys: keys.clone(), heard: Arc::default(), refused_once: Arc::default() };
    let router = axum::Router::new()
        .route("/v1/callbacks/mitake/{lane}/{segment}", axum::routing::get(hear))
        .with_state(listener.clone());
    let socket = tokio::net::TcpListener::bind(support::LOOPBACK).await.expect("a free port");
    let base = format!("http://{}", socket.local_addr().expect("bound"));
    let server = tokio::spawn(async move { axum::serve(socket, router).await });

    let receipts = Receipts {
        failed: 0.2,
        delay: Spread { median_ms: 20, p99_ms: 100 },
        late: 0.1,
        late_ms: 200,
        early: 0.2,
        repeated: 0.5,
        underway_first: 0.5,
        out_of_order: 0.5,
        ..flawless().receipts
    };
    let sim = simulator(SimConfig { receipts, ..flawless() }).await;
    let addresses = CallbackAddresses::new(&base, PROTOCOL, &lane(), keys).expect("short enough");
    let gateway = mitake(&sim, Some(addresses));
    let messages: Vec<Message> = (1..=60).map(message).collect();
    for outcome in gateway.submit(&messages).await {
        accepted(&outcome);
    }
    assert!(sim.settled(PATIENCE).await);
    let log = sim.stop().await;
    server.abort();

    let heard = listener.heard.lock().expect("no panic").clone();
    assert_eq!(heard.len(), log.messages.iter().map(|taken| taken.receipts.len()).sum::<usize>());
    assert_eq!(log.counts.callbacks_unanswered, 60, "each first report was refused and came again");
    for taken in &log.messages {
        let sent = messages.iter().find(|sent| sent.reference.as_str() == taken.clientid).expect("was sent");
        let of_it: Vec<&Receipt> = heard.iter().filter(|receipt| receipt.notice == sent.notice).collect();
        assert!(of_it.iter().all(|r| r.position == sent.position && r.gateway_id == taken.msgid));
        let ends: Vec<bool> = of_it
            .iter()
            .filter(|receipt| receipt.status != ReceiptStatus::Underway)
            .map(|receipt| receipt.status == ReceiptStatus::Delivered)
            .collect();
        assert!(!ends.is_empty() && ends.iter().all(|is_delivered| *is_delivered == taken.is_delivered()));
        assert!(taken.receipts.iter().all(|receipt| receipt.acknowledged));
    }
    let repeated = log.messages.iter().filter(|taken| taken.receipts.len() > 1).count();
    assert!(repeated > 20, "{repeated}");
}
