//! What the tests of gateways and backends build on: messages, lanes and a simulator on loopback.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatebell_connectors::app::{self, AppConnector, AppSettings};
use gatebell_connectors::sms::callback_address::CallbackAddresses;
use gatebell_connectors::sms::mitake::{self, MitakeConnector, MitakeSettings};
use gatebell_engine::ids::{GuardianId, LaneName, LogPosition, NoticeId, Personal, PupilId};
use gatebell_engine::ledger::ClientReference;
use gatebell_engine::notice::{Language, NoticeKind};
use gatebell_engine::ports::channel::{ChannelConnector, Message, SubmitOutcome};
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::time::Timestamp;
use gatebell_gateway_sim::{
    AppBackend, Faults, GatewaySim, Limits, Receipts, SIMULATOR_APP_KEY, SIMULATOR_PASSWORD,
    SIMULATOR_USERNAME, SimConfig, Spread,
};

/// Any free port of this machine.
pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Longest wait for an answer that will come, on however busy a machine.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer that may not come.
const IMPATIENT_TIMEOUT: Duration = Duration::from_millis(700);

const AT_ONCE: Spread = Spread { median_ms: 0, p99_ms: 0 };

/// A gateway that does everything right, at once.
pub(crate) fn flawless() -> SimConfig {
    SimConfig {
        latency: AT_ONCE,
        limits: Limits { rate_per_s: 100_000, burst: 100_000, ..Limits::default() },
        faults: Faults {
            refused: 0.0,
            retry_later: 0.0,
            throttled: 0.0,
            stopped: 0.0,
            no_answer: 0.0,
            taken_no_answer: 0.0,
            taken_rubbish: 0.0,
            taken_cut_off: 0.0,
            hang_ms: 20_000,
        },
        receipts: Receipts {
            failed: 0.0,
            delay: AT_ONCE,
            late: 0.0,
            early: 0.0,
            lost: 0.0,
            repeated: 0.0,
            underway_first: 0.0,
            out_of_order: 0.0,
            retry_ms: 10,
            ..Receipts::default()
        },
        app: AppBackend {
            latency: AT_ONCE,
            gone: 0.0,
            retry_later: 0.0,
            throttled: 0.0,
            no_answer: 0.0,
            taken_no_answer: 0.0,
            ..AppBackend::default()
        },
        ..SimConfig::default()
    }
}

pub(crate) async fn simulator(config: SimConfig) -> GatewaySim {
    GatewaySim::start(config, LOOPBACK).await.expect("the simulator starts on a free port")
}

pub(crate) fn lane() -> LaneName {
    LaneName::new("mitake").expect("of the allowed form")
}

/// Message `number` to the phone `0910` and `number`.
pub(crate) fn message(number: u32) -> Message {
    let notice = NoticeId::from_u128(u128::from(number));
    Message {
        notice,
        position: LogPosition { partition: 3, offset: u64::from(number) },
        reference: ClientReference::new(notice, 1),
        address: Personal::new(&format!("0910{number:06}")),
        text: Personal::new("王O明 07:31 到校"),
        language: Language::ZhTw,
        kind: NoticeKind::Arrival,
        pupil: PupilId::new("P1").expect("of the allowed form"),
        guardian: GuardianId::new("G1").expect("of the allowed form"),
        at: Timestamp::from_millis(1_757_287_864_250),
        valid_for: Duration::from_secs(3540),
    }
}

pub(crate) fn mitake_settings(endpoint: &str) -> MitakeSettings {
    let mut profile = mitake::profile(lane(), 1000);
    profile.submit_timeout = SUBMIT_TIMEOUT;
    MitakeSettings {
        profile,
        endpoint: endpoint.to_owned(),
        username: SIMULATOR_USERNAME.into(),
        password: SIMULATOR_PASSWORD.into(),
        callbacks: None,
        made_up_city: true,
    }
}

pub(crate) fn connector(settings: MitakeSettings) -> MitakeConnector {
    MitakeConnector::new(settings, Arc::new(SystemClock::new())).expect("the settings are right")
}

/// The connector to a gateway that may not answer.
pub(crate) fn impatient_mitake(endpoint: &str) -> MitakeConnector {
    let mut settings = mitake_settings(endpoint);
    settings.profile.submit_timeout = IMPATIENT_TIMEOUT;
    connector(settings)
}

/// The connector to `sim`, which calls back to `callbacks`.
pub(crate) fn mitake(sim: &GatewaySim, callbacks: Option<CallbackAddresses>) -> MitakeConnector {
    connector(MitakeSettings { callbacks, ..mitake_settings(&sim.mitake_url()) })
}

fn app_waiting(endpoint: &str, key: &str, submit_timeout: Duration) -> AppConnector {
    let mut profile = app::profile(LaneName::new("app").expect("of the allowed form"), 1000);
    profile.submit_timeout = submit_timeout;
    let settings =
        AppSettings { profile, endpoint: endpoint.to_owned(), key: key.into(), made_up_city: true };
    AppConnector::new(settings, Arc::new(SystemClock::new())).expect("the settings are right")
}

pub(crate) fn app_at(endpoint: &str, key: &str) -> AppConnector {
    app_waiting(endpoint, key, SUBMIT_TIMEOUT)
}

/// The connector to a backend that may not answer.
pub(crate) fn impatient_app(sim: &GatewaySim) -> AppConnector {
    app_waiting(&sim.app_url(), SIMULATOR_APP_KEY, IMPATIENT_TIMEOUT)
}

pub(crate) fn app(sim: &GatewaySim) -> AppConnector {
    app_at(&sim.app_url(), SIMULATOR_APP_KEY)
}

/// Submits one message.
pub(crate) async fn submit_one(connector: &dyn ChannelConnector, message: &Message) -> SubmitOutcome {
    let mut outcomes = connector.submit(std::slice::from_ref(message)).await;
    assert_eq!(outcomes.len(), 1, "one outcome a message");
    outcomes.remove(0)
}

/// The gateway's id, where the message was accepted.
pub(crate) fn accepted(outcome: &SubmitOutcome) -> (&str, bool) {
    match outcome {
        SubmitOutcome::Accepted { gateway_id, duplicate } => (gateway_id, *duplicate),
        other => panic!("not accepted but {other:?}"),
    }
}

pub(crate) fn unknown(reason: &str) -> SubmitOutcome {
    SubmitOutcome::Unknown { reason: reason.into() }
}
