//! A crash at each call of a port in turn, and what the next process makes of it (R1).
//!
//! A few pupils, a gateway that takes and delivers everything, and one process that dies at its first call of a port, or its
//! second, and so on until it lives through the morning; the one that follows lives on. However far the first one came, the
//! ledger tells of the same notices, and of each the same end and the same charge, as one that nothing befell.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatebell_engine::ids::CardNumber;
use gatebell_engine::invariants::predicates::same_ledger;
use gatebell_engine::ledger::{LedgerEntry, OwnerToken};
use gatebell_engine::notice::{Channel, Passages};
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile};
use gatebell_engine::ports::clock::{Clock, ScaledClock};
use gatebell_engine::ports::seats::OnlySeat;
use gatebell_engine::registry::ReaderDirection;
use gatebell_engine::runtime::{Engine, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{
    FakeGateway, FakeLedger, FakeReceiptLog, FakeRegistry, FakeRejectedLog, FakeTapLog, Faults,
    GatewayBehaviour,
};
use gatebell_engine::testing::{lane, registry as city};
use gatebell_engine::time::{Stretch, Timestamp};
use tokio_util::sync::CancellationToken;

/// 2025-09-08T07:00+08:00, a Monday of the built-in term.
const MORNING: Timestamp = Timestamp::from_millis(1_757_286_000_000);
const PUPILS: u32 = 3;
/// No morning takes longer, on the paused clock.
const OVER_AFTER: Duration = Duration::from_secs(300);

fn card(pupil: u32) -> String {
    format!("0417{pupil:012}")
}

/// What outlives a process.
struct World {
    clock: Arc<dyn Clock>,
    ledger: FakeLedger,
    tap_log: FakeTapLog,
    receipts: FakeReceiptLog,
    rejected: FakeRejectedLog,
    registry: FakeRegistry,
    sms: FakeGateway,
    app: FakeGateway,
}

impl World {
    /// Every pupil has been read twice, and something that is no tap once.
    fn with_taps() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(MORNING, 1.0));
        let gateway = |name: &str, channel, gives_receipts| {
            let profile = LaneProfile { gives_receipts, ..lane::profile(name, channel) };
            FakeGateway::new(profile, GatewayBehaviour::GOOD, Faults::none(), Arc::clone(&clock))
        };
        let (sms, app) = (gateway("sms", Channel::Sms, true), gateway("app", Channel::App, false));
        let ledger = FakeLedger::default();
        let world = Self {
            tap_log: FakeTapLog::new(2, Duration::from_secs(10), Arc::clone(&clock), ledger.clone()),
            ledger,
            receipts: FakeReceiptLog::default(),
            rejected: FakeRejectedLog::default(),
            registry: FakeRegistry::default(),
            sms,
            app,
            clock,
        };
        world.bring_pupils();
        let at_ms = world.clock.now().as_millis();
        for pupil in 0..PUPILS {
            for again_ms in [0, 900] {
                let (card, at_ms) = (card(pupil), at_ms - 1000 + again_ms);
                let report = format!(r#"{{"card":"{card}","reader":"R1","at":{at_ms}}}"#);
                world.tap_log.report(&CardNumber::new(&card).unwrap(), report);
            }
        }
        world.tap_log.report(&CardNumber::new(&card(0)).unwrap(), "no tap");
        world
    }

    fn bring_pupils(&self) {
        let orders = Stretch { from: MORNING.minus(Duration::from_secs(3600)), until: Timestamp::MAX };
        let mut entries = vec![city::school("S1", 690), city::reader("R1", "S1", ReaderDirection::In)];
        for number in 0..PUPILS {
            let (pupil, guardian, order) = (format!("P{number}"), format!("G{number}"), format!("O{number}"));
            entries.extend([
                city::pupil(&pupil, "S1"),
                city::card(&card(number), &[(&pupil, Stretch::ALWAYS)]),
                city::guardian(&guardian),
                city::binding(&guardian, &pupil, &[Stretch::ALWAYS]),
                city::order(&order, &guardian, &pupil, Passages::Both, Some(orders)),
                city::subscription(&guardian, &pupil, Channel::App, &[(Passages::Both, Stretch::ALWAYS)]),
            ]);
        }
        entries.into_iter().for_each(|entry| self.registry.change(Timestamp::MIN, entry));
    }

    fn engine(&self, process: u64, faults: &Faults) -> Engine {
        let lane = |gateway: &FakeGateway| -> Arc<dyn ChannelConnector> {
            Arc::new(gateway.connect(process, faults.clone()))
        };
        let settings = Settings {
            term: Arc::new(Term::parse(Term::built_in("114-1").unwrap()).unwrap()),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(u128::from(process) << 64),
            pupils_expected: PUPILS as usize,
            stop_drain: Duration::from_secs(15),
        };
        let ports = Ports {
            tap_log: Box::new(self.tap_log.connect(faults.clone())),
            ledger: Arc::new(self.ledger.connect(faults.clone())),
            receipts: Arc::new(self.receipts.connect(faults.clone())),
            message_ids: BTreeMap::new(),
            rejected: Arc::new(self.rejected.connect(faults.clone())),
            registry: Box::new(self.registry.connect(process, faults.clone())),
            seats: Arc::new(OnlySeat),
            channels: vec![lane(&self.app), lane(&self.sms)],
            clock: Arc::clone(&self.clock),
        };
        Engine::new(settings, ports).unwrap()
    }

    async fn all_settled(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let more = self.sms.send_due_receipts(&self.receipts);
            let charged = self.ledger.charges().len() == PUPILS as usize;
            if charged && !more && self.tap_log.is_settled() && self.receipts.is_settled() {
                return;
            }
        }
    }

    /// Runs a process until all is settled; `false`: it died before that.
    async fn lives(&self, process: u64, faults: &Faults, dies: &CancellationToken) -> bool {
        tokio::select! {
            biased;
            () = dies.cancelled() => false,
            settled = tokio::time::timeout(OVER_AFTER, self.all_settled()) => {
                settled.unwrap_or_else(|_| panic!("never settled: {:#?}", self.ledger.entries()));
                true
            }
            ended = self.engine(process, faults).run(CancellationToken::new()) => panic!("{ended:?}"),
        }
    }
}

/// The ledger of a morning whose first process dies at its call number `calls`; `None`: it made fewer.
async fn ledger_after_a_crash_at(calls: u64) -> Option<Vec<LedgerEntry>> {
    let world = World::with_taps();
    let faults = Faults::none();
    let crash = faults.crash_after(calls);
    if world.lives(1, &faults, &crash).await {
        return None;
    }
    let successor = Faults::none();
    assert!(world.lives(2, &successor, &CancellationToken::new()).await);
    assert_eq!(world.rejected.records().len(), 1, "what is no tap is kept");
    for gateway in [&world.sms, &world.app] {
        assert_eq!(
            gateway.taken().len(),
            PUPILS as usize,
            "call {calls}: one message a pupil on each channel"
        );
    }
    Some(world.ledger.entries())
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_of_a_port_ends_in_the_same_ledger_as_none() {
    let world = World::with_taps();
    assert!(world.lives(1, &Faults::none(), &CancellationToken::new()).await);
    let uninterrupted = world.ledger.entries();
    let mut crashes = 0;
    while let Some(crashed) = ledger_after_a_crash_at(crashes).await {
        assert!(same_ledger(&uninterrupted, &crashed), "call {crashes}: {uninterrupted:#?}\n{crashed:#?}");
        crashes += 1;
    }
    assert!(crashes > 40, "only {crashes} calls");
}
