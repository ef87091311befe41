//! One simulated day: the city, its gateways, and an engine process that crashes and is started again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::channel::LaneProfile;
use gatebell_engine::ports::clock::{Clock, ScaledClock};
use gatebell_engine::ports::seats::OnlySeat;
use gatebell_engine::registry::CHANGE_LEAD;
use gatebell_engine::runtime::{Engine, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{
    FakeGateway, FakeLedger, FakeReceiptLog, FakeRegistry, FakeRejectedLog, FakeTapLog, FaultRates, Faults,
    GatewayBehaviour,
};
use gatebell_engine::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

use crate::city;

pub(crate) const PARTITIONS: u32 = 2;
pub(crate) const SMS_RATE_PER_S: u32 = 2;
pub(crate) const SMS_BURST: u32 = 3;
pub(crate) const SMS_WINDOW: usize = 4;
/// 2025-09-08T07:00+08:00, a Monday of term.
const MORNING: Timestamp = Timestamp::from_millis(1_757_286_000_000);
/// Simulated time after which a morning that has not come to rest never will.
const REST_MAX: Duration = Duration::from_secs(3 * 3600);

/// The term of the simulation: notices are of use for ten minutes, so that some expire within a short morning.
pub(crate) fn term() -> Term {
    let text = Term::built_in("114-1").expect("built in");
    let text: String = text
        .lines()
        .map(|line| if line.starts_with("useful_for") { "useful_for = \"10 min\"" } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    Term::parse(&text).expect("the built-in term with another useful_for")
}

/// What survives every crash, and the seed's intentions.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) term: Arc<Term>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: FakeLedger,
    pub(crate) tap_log: FakeTapLog,
    pub(crate) receipts: FakeReceiptLog,
    pub(crate) rejected: FakeRejectedLog,
    pub(crate) registry: FakeRegistry,
    pub(crate) sms: FakeGateway,
    pub(crate) app: FakeGateway,
    faults: Faults,
}

/// How the day went.
pub(crate) struct Outcome {
    pub(crate) crashes: u32,
    pub(crate) stops: u32,
    pub(crate) came_to_rest: bool,
    pub(crate) trouble: Vec<String>,
}

fn profile(name: &str, channel: Channel, gives_receipts: bool) -> LaneProfile {
    let sms = channel == Channel::Sms;
    LaneProfile {
        name: LaneName::new(name).expect("of the form of an identifier"),
        channel,
        rate_per_s: if sms { SMS_RATE_PER_S } else { 100 },
        burst: if sms { SMS_BURST } else { 20 },
        window: SMS_WINDOW,
        shared_by: NonZeroU32::MIN,
        batch_max: if sms { 3 } else { 10 },
        queue_max: 40,
        submit_timeout: Duration::from_secs(10),
        gives_receipts,
        deduplicates_for: Some(Duration::from_secs(12 * 3600)),
        poll_after: gives_receipts.then_some(Duration::from_secs(120)),
    }
}

impl World {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(MORNING, 1.0));
        let mut up_to = |most: u32| random.random_range(0..=most);
        let behaviour = GatewayBehaviour {
            throttles: up_to(100),
            troubled: up_to(100),
            refuses: up_to(50),
            down: up_to(20),
            unreachable: up_to(20),
            hangs_after: up_to(100),
            hangs_before: up_to(50),
            babbles: up_to(50),
            fails: up_to(200),
            repeats: up_to(300),
            contradicts: up_to(100),
            forgets: up_to(200),
            overtakes: up_to(200),
            receipt_delay_max: Duration::from_secs(120),
        };
        // Some gateways give no receipts: what they accept counts as delivered.
        let receipts = up_to(4) > 0;
        let rates = FaultRates { error_before: up_to(20), error_after: up_to(20), slow: up_to(30) };
        let faults = Faults::from_seed(seed ^ 0x5eed, rates);
        let ledger = FakeLedger::default();
        let registry = FakeRegistry::default();
        for entry in city::registry(&mut random) {
            registry.change(Timestamp::MIN, entry);
        }
        Self {
            seed,
            term: Arc::new(term()),
            tap_log: FakeTapLog::new(PARTITIONS, Arc::clone(&clock), ledger.clone()),
            sms: FakeGateway::new(
                profile("sms", Channel::Sms, receipts),
                behaviour,
                faults.clone(),
                Arc::clone(&clock),
            ),
            app: FakeGateway::new(
                profile("app", Channel::App, false),
                behaviour,
                faults.clone(),
                Arc::clone(&clock),
            ),
            receipts: FakeReceiptLog::default(),
            rejected: FakeRejectedLog::default(),
            registry,
            ledger,
            clock,
            faults,
        }
    }

    fn start_engine(&self, incarnation: u32) -> Engine {
        let settings = Settings {
            term: Arc::clone(&self.term),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(u128::from(incarnation) + 1),
            pupils_expected: 100,
            stop_drain: Duration::from_secs(15),
        };
        let ports = Ports {
            tap_log: Box::new(self.tap_log.connect(self.faults.clone())),
            ledger: Arc::new(self.ledger.connect(self.faults.clone())),
            receipts: Arc::new(self.receipts.connect(self.faults.clone())),
            rejected: Arc::new(self.rejected.connect(self.faults.clone())),
            registry: Box::new(self.registry.connect(self.faults.clone())),
            seats: Arc::new(OnlySeat),
            channels: vec![
                Arc::new(self.sms.connect(self.faults.clone())),
                Arc::new(self.app.connect(self.faults.clone())),
            ],
            clock: Arc::clone(&self.clock),
        };
        Engine::new(settings, ports).expect("both channels on offer have a lane")
    }

    /// Runs the engine through the morning, over as many crashes and stops as the seed has, until all is at rest.
    pub(crate) async fn play(&self) -> Outcome {
        let mut outcome = Outcome { crashes: 0, stops: 0, came_to_rest: false, trouble: Vec::new() };
        tokio::select! {
            biased;
            at_rest = self.readers_and_gateways() => outcome.came_to_rest = at_rest,
            () = self.engine_lives(&mut outcome.crashes, &mut outcome.stops, &mut outcome.trouble) => {}
        }
        outcome
    }

    /// The world outside the engine: taps come in, the registry changes, receipts arrive. Ends when everything that the
    /// morning owes is settled (true), or when it never will be (false).
    async fn readers_and_gateways(&self) -> bool {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x7a95);
        let taps = random.random_range(30..120);
        for _ in 0..taps {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..6000))).await;
            // Now and then a whole class comes at once, and the SMS lane has more than it may send.
            let most_at_once = if random.random_range(0..15) == 0 { 40 } else { 4 };
            let mut last_read = 0;
            for _ in 0..random.random_range(1..most_at_once) {
                let (pupil, key, value) = city::report(&mut random, self.clock.now());
                self.tap_log.report(&key, value);
                last_read = pupil;
            }
            if random.random_range(0..6) == 0 {
                let counts_from = self.clock.now().plus(CHANGE_LEAD);
                self.registry.change(counts_from, city::change(&mut random, counts_from, last_read));
            }
            self.send_receipts();
        }
        let last_tap = self.clock.monotonic();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let more_receipts = self.send_receipts();
            let settled = self.tap_log.is_settled() && self.receipts.is_settled() && !more_receipts;
            let heard_of_all = settled && crate::judge::every_notice_has_ended(self);
            if heard_of_all {
                return true;
            }
            if self.clock.monotonic() - last_tap > REST_MAX {
                return false;
            }
        }
    }

    fn send_receipts(&self) -> bool {
        let sms = self.sms.send_due_receipts(&self.receipts);
        let app = self.app.send_due_receipts(&self.receipts);
        sms || app
    }

    /// One process after the other; the last one lives on.
    async fn engine_lives(&self, crashes: &mut u32, stops: &mut u32, trouble: &mut Vec<String>) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0xc4a5);
        let lives = random.random_range(0..6);
        for life in 0..lives {
            let stop = CancellationToken::new();
            let engine = self.start_engine(life);
            if random.random_range(0..4) == 0 {
                let crash = self.faults.never_crash();
                drop(crash);
                let after = Duration::from_millis(random.random_range(0..120_000));
                let running = engine.run(stop.clone());
                tokio::pin!(running);
                let early = tokio::select! {
                    ended = &mut running => Some(ended),
                    () = tokio::time::sleep(after) => None,
                };
                stop.cancel();
                let ended = match early {
                    Some(ended) => ended,
                    None => running.await,
                };
                if let Err(cause) = ended {
                    trouble.push(format!("the engine failed: {cause}"));
                }
                *stops += 1;
                continue;
            }
            let crash = self.faults.crash_after(random.random_range(0..4000));
            tokio::select! {
                biased;
                () = crash.cancelled() => *crashes += 1,
                ended = engine.run(stop) => trouble.push(format!("the engine ended by itself: {ended:?}")),
            }
            // The dead process's tasks are gone before its successor starts, be it at once.
            let pause_ms_max = if random.random_range(0..2) == 0 { 50 } else { 20_000 };
            tokio::time::sleep(Duration::from_millis(random.random_range(1..pause_ms_max))).await;
        }
        let _never = self.faults.never_crash();
        let ended = self.start_engine(lives).run(CancellationToken::new()).await;
        trouble.push(format!("the last engine ended by itself: {ended:?}"));
    }
}
