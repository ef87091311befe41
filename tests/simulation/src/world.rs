//! One simulated day: the city, its gateways, and the engine processes that share the work, crash, stop, fall asleep and are
//! started again.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::channel::LaneProfile;
use gatebell_engine::ports::clock::{Clock, ScaledClock};
use gatebell_engine::registry::CHANGE_LEAD;
use gatebell_engine::runtime::{Engine, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{
    FakeGateway, FakeLedger, FakeReceiptLog, FakeRegistry, FakeRejectedLog, FakeSeats, FakeTapLog,
    FaultRates, Faults, GatewayBehaviour,
};
use gatebell_engine::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

use crate::city;

pub(crate) const PARTITIONS: u32 = 3;
pub(crate) const SMS_RATE_PER_S: u32 = 2;
pub(crate) const SMS_BURST: u32 = 4;
pub(crate) const SMS_WINDOW: usize = 4;
/// 2025-09-08T07:00+08:00, a Monday of term.
const MORNING: Timestamp = Timestamp::from_millis(1_757_286_000_000);
/// The most processes at once.
const PROCESSES_MAX: u32 = 3;
/// A submit without an answer for so long is in doubt.
pub(crate) const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);
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
    /// Processes at once.
    pub(crate) processes: u32,
    pub(crate) term: Arc<Term>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: FakeLedger,
    pub(crate) tap_log: FakeTapLog,
    pub(crate) receipts: FakeReceiptLog,
    pub(crate) rejected: FakeRejectedLog,
    pub(crate) registry: FakeRegistry,
    pub(crate) seats: FakeSeats,
    pub(crate) sms: FakeGateway,
    pub(crate) app: FakeGateway,
    rates: FaultRates,
    /// The misfortunes of the processes that live now, by their place.
    living: Mutex<BTreeMap<u32, Faults>>,
}

/// How the day went.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) crashes: u32,
    pub(crate) stops: u32,
    pub(crate) naps: u64,
    pub(crate) naps_in_mid_submit: u32,
    pub(crate) cut_offs: u32,
    pub(crate) came_to_rest: bool,
    pub(crate) trouble: Vec<String>,
    /// The numbers of the processes that were alive at the end.
    pub(crate) survivors: Vec<u64>,
}

fn profile(
    name: &str,
    channel: Channel,
    gives_receipts: bool,
    shared_by: NonZeroU32,
    recognises: bool,
) -> LaneProfile {
    let sms = channel == Channel::Sms;
    LaneProfile {
        name: LaneName::new(name).expect("of the form of an identifier"),
        channel,
        rate_per_s: if sms { SMS_RATE_PER_S } else { 100 },
        burst: if sms { SMS_BURST } else { 20 },
        window: SMS_WINDOW,
        shared_by,
        batch_max: if sms { 3 } else { 10 },
        queue_max: 40,
        submit_timeout: SUBMIT_TIMEOUT,
        gives_receipts,
        deduplicates_for: recognises.then_some(Duration::from_secs(12 * 3600)),
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
            lingers: up_to(60),
            receipt_delay_max: Duration::from_secs(120),
        };
        // Some gateways give no receipts: what they accept counts as delivered.
        let receipts = up_to(4) > 0;
        let rates = FaultRates { error_before: up_to(20), error_after: up_to(20), slow: up_to(30) };
        let processes = match up_to(9) {
            0..=3 => 1,
            4..=6 => 2,
            _ => PROCESSES_MAX,
        };
        // Sometimes one process more than may send.
        let seats = if processes > 1 && up_to(2) == 0 { processes - 1 } else { processes };
        let shared_by = NonZeroU32::new(seats).expect("at least one");
        // Some gateways know no references: a message that is sent again is another one.
        let recognises = up_to(3) > 0;
        let group_patience = Duration::from_secs(u64::from(8 + up_to(37)));
        let faults = Faults::from_seed(seed ^ 0x5eed, rates);
        let ledger = FakeLedger::default();
        let registry = FakeRegistry::default();
        for entry in city::registry(&mut random) {
            registry.change(Timestamp::MIN, entry);
        }
        Self {
            seed,
            processes,
            term: Arc::new(term()),
            tap_log: FakeTapLog::new(PARTITIONS, group_patience, Arc::clone(&clock), ledger.clone()),
            sms: FakeGateway::new(
                profile("sms", Channel::Sms, receipts, shared_by, recognises),
                behaviour,
                faults.clone(),
                Arc::clone(&clock),
            ),
            app: FakeGateway::new(
                profile("app", Channel::App, false, shared_by, true),
                behaviour,
                faults,
                Arc::clone(&clock),
            ),
            seats: FakeSeats::new(seats as usize, Arc::clone(&clock)),
            receipts: FakeReceiptLog::default(),
            rejected: FakeRejectedLog::default(),
            registry,
            ledger,
            clock,
            rates,
            living: Mutex::default(),
        }
    }

    fn start_engine(&self, process: u64, faults: &Faults) -> Engine {
        let settings = Settings {
            term: Arc::clone(&self.term),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(u128::from(process) << 64),
            pupils_expected: 100,
            stop_drain: Duration::from_secs(15),
        };
        let ports = Ports {
            tap_log: Box::new(self.tap_log.connect(faults.clone())),
            ledger: Arc::new(self.ledger.connect(faults.clone())),
            receipts: Arc::new(self.receipts.connect(faults.clone())),
            message_ids: BTreeMap::new(),
            rejected: Arc::new(self.rejected.connect(faults.clone())),
            registry: Box::new(self.registry.connect(process, faults.clone())),
            seats: Arc::new(self.seats.connect(process, faults.clone())),
            channels: vec![
                Arc::new(self.sms.connect(process, faults.clone())),
                Arc::new(self.app.connect(process, faults.clone())),
            ],
            clock: Arc::clone(&self.clock),
        };
        let doze = faults.doze();
        Engine::new(settings, ports)
            .expect("both channels on offer have a lane")
            .with_tasks_inside(Arc::new(move |task| Box::pin(doze.part(task))))
    }

    /// Runs the processes through the morning, over as many misfortunes as the seed has, until all is at rest.
    pub(crate) async fn play(&self) -> Outcome {
        let outcome = Mutex::new(Outcome::default());
        let lives = join_all((0..self.processes).map(|place| self.lives(place, &outcome)));
        let at_rest = tokio::select! {
            biased;
            at_rest = self.readers_and_gateways(&outcome) => at_rest,
            _ = lives => false,
        };
        let mut outcome = outcome.into_inner().expect("nobody panicked");
        outcome.came_to_rest = at_rest;
        outcome
    }

    /// The world outside the engine: taps come in, the registry changes, receipts arrive. Ends when everything that the
    /// morning owes is settled (true), or when it never will be (false).
    async fn readers_and_gateways(&self, outcome: &Mutex<Outcome>) -> bool {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x7a95);
        let taps = random.random_range(30..120);
        // On some mornings the SMS lanes have more than they may send nearly all the time.
        let classes_in = if random.random_range(0..4) == 0 { 3 } else { 15 };
        for _ in 0..taps {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..6000))).await;
            // Now and then a whole class comes at once, and the SMS lane has more than it may send.
            let most_at_once = if random.random_range(0..classes_in) == 0 { 40 } else { 4 };
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
            if random.random_range(0..12) == 0 {
                self.tap_log.rebalance(random.random());
            }
            if random.random_range(0..40) == 0 {
                self.cut_somebody_off(&mut random, outcome);
            }
            self.send_receipts();
        }
        let last_tap = self.clock.monotonic();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let more_receipts = self.send_receipts();
            let everything_owned = self.tap_log.unowned() == 0;
            let settled = everything_owned
                && self.tap_log.is_settled()
                && self.receipts.is_settled()
                && self.everybody_knows_the_registry(outcome)
                && !more_receipts;
            let heard_of_all = settled && crate::judge::every_notice_has_ended(self);
            if heard_of_all {
                return true;
            }
            if self.clock.monotonic() - last_tap > REST_MAX {
                return false;
            }
        }
    }

    /// Whether every process that lives to the end has said that it applied the last change.
    fn everybody_knows_the_registry(&self, outcome: &Mutex<Outcome>) -> bool {
        let last_change = self.registry.changes().len() as u64;
        let outcome = outcome.lock().expect("nobody panicked");
        outcome.survivors.iter().all(|process| self.registry.applied_by(*process) == last_change)
    }

    fn send_receipts(&self) -> bool {
        let sms = self.sms.send_due_receipts(&self.receipts);
        let app = self.app.send_due_receipts(&self.receipts);
        sms || app
    }

    /// Some process and the tap log do not hear of each other for a while.
    fn cut_somebody_off(&self, random: &mut ChaCha8Rng, outcome: &Mutex<Outcome>) {
        let place = random.random_range(0..self.processes);
        let lasting = Duration::from_millis(random.random_range(1000..60_000));
        if let Some(faults) = self.living.lock().expect("nobody panicked").get(&place) {
            faults.cut_off(lasting);
            outcome.lock().expect("nobody panicked").cut_offs += 1;
        }
    }

    /// One process after the other, at one place; the last one lives on, as a rule.
    async fn lives(&self, place: u32, outcome: &Mutex<Outcome>) {
        let note = || outcome.lock().expect("nobody panicked");
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0xc4a5 ^ (u64::from(place) << 32));
        let lives = random.random_range(0..6);
        for life in 0..lives {
            let process = u64::from(place) * 100 + life + 1;
            let faults = self.misfortunes(process);
            self.plan_naps(&faults, &mut random, outcome);
            let stop = CancellationToken::new();
            let running = faults.doze().part(self.start_engine(process, &faults).run(stop.clone()));
            if random.random_range(0..3) == 0 {
                let after = Duration::from_millis(random.random_range(0..120_000));
                let told_to_stop = async {
                    tokio::time::sleep(after).await;
                    stop.cancel();
                    futures::future::pending::<()>().await;
                };
                self.living.lock().expect("nobody panicked").insert(place, faults.clone());
                tokio::select! {
                    biased;
                    ended = running => if let Err(cause) = ended {
                        note().trouble.push(format!("the engine failed: {cause}"));
                    },
                    () = told_to_stop => {}
                }
                note().stops += 1;
            } else {
                let crash = faults.crash_after(random.random_range(0..4000));
                self.living.lock().expect("nobody panicked").insert(place, faults.clone());
                tokio::select! {
                    biased;
                    () = crash.cancelled() => note().crashes += 1,
                    ended = running => note().trouble.push(format!("the engine ended by itself: {ended:?}")),
                }
            }
            self.living.lock().expect("nobody panicked").remove(&place);
            note().naps += faults.doze().naps();
            // The dead process's tasks are gone before its successor starts, be it at once.
            let pause_ms_max = if random.random_range(0..2) == 0 { 50 } else { 20_000 };
            tokio::time::sleep(Duration::from_millis(random.random_range(1..pause_ms_max))).await;
        }
        let process = u64::from(place) * 100 + lives + 1;
        let faults = self.misfortunes(process);
        self.living.lock().expect("nobody panicked").insert(place, faults.clone());
        note().survivors.push(process);
        let ended = self.start_engine(process, &faults).run(CancellationToken::new()).await;
        note().trouble.push(format!("the last engine ended by itself: {ended:?}"));
    }

    fn misfortunes(&self, process: u64) -> Faults {
        Faults::from_seed(self.seed ^ 0x5eed ^ (process << 32), self.rates)
    }

    /// When the process falls asleep, and for how long: shorter or longer than anybody waits for it.
    fn plan_naps(&self, faults: &Faults, random: &mut ChaCha8Rng, outcome: &Mutex<Outcome>) {
        let lasting = |random: &mut ChaCha8Rng| {
            let ms_max = if random.random_range(0..3) == 0 { 6000 } else { 120_000 };
            Duration::from_millis(random.random_range(500..ms_max))
        };
        if random.random_range(0..2) == 0 {
            return;
        }
        for _ in 0..random.random_range(0..3) {
            faults.nap_at(random.random_range(50..3000), lasting(random));
        }
        if random.random_range(0..2) == 0 {
            faults.nap_at_submit(random.random_range(1..40), lasting(random));
            outcome.lock().expect("nobody panicked").naps_in_mid_submit += 1;
        }
    }
}
