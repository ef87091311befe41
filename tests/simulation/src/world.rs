//! One simulated world: the city, its gateways, and what else survives every crash; all of it drawn from a seed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::channel::ChannelConnector as _;
use gatebell_engine::ports::channel::LaneProfile;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::message_ids::MessageIds;
use gatebell_engine::runtime::status::Status;
use gatebell_engine::runtime::{Engine, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{
    FakeClock, FakeGateway, FakeLedger, FakeMessageIds, FakeReceiptLog, FakeRegistry, FakeRejectedLog,
    FakeSeats, FakeTapLog, FaultRates, Faults, GatewayBehaviour, Journal, Outages,
};
use gatebell_engine::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::city::City;
use crate::plan::{Kind, Plan};
use crate::theme::Themes;

pub(crate) const PARTITIONS: u32 = 3;
pub(crate) const SMS_RATE_PER_S: u32 = 2;
pub(crate) const SMS_BURST: u32 = 4;
pub(crate) const SMS_WINDOW: usize = 4;
/// 2025-09-09T00:00+08:00, a Tuesday of term between two other days of school.
const MIDNIGHT: Timestamp = Timestamp::from_millis(1_757_347_200_000);
/// The most processes at once.
const PROCESSES_MAX: u32 = 3;
/// A submit without an answer for so long is in doubt.
pub(crate) const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// When the day begins that is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DayKind {
    /// At seven, when everybody arrives.
    Morning,
    /// Shortly before nine, when the day is declared off.
    DeclaredOff,
    /// Shortly before departures open.
    Noon,
    /// Some minutes before midnight, which comes with work unsettled.
    Midnight,
}

impl DayKind {
    fn drawn(random: &mut ChaCha8Rng) -> Self {
        match random.random_range(0..16) {
            0..=2 => Self::Midnight,
            3 => Self::Noon,
            4 | 5 => Self::DeclaredOff,
            _ => Self::Morning,
        }
    }

    fn begins_at(self) -> Timestamp {
        let minute = match self {
            Self::Morning => 7 * 60,
            Self::DeclaredOff => 8 * 60 + 57,
            Self::Noon => 11 * 60 + 27,
            Self::Midnight => 23 * 60 + 56,
        };
        MIDNIGHT.plus(Duration::from_secs(60 * minute))
    }
}

/// What becomes of the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClockKind {
    /// It is right.
    Right,
    /// It is set right by less than a second now and then, and once it jumps forward by minutes.
    Corrected,
    /// Somebody sets it back by minutes.
    SetBack,
}

/// Long enough to be sent, short enough that some notices expire within a short morning.
const USEFUL_FOR: Duration = Duration::from_secs(600);

/// The term of the simulation.
pub(crate) fn term() -> Term {
    let useful_for = format!("useful_for = \"{} min\"", USEFUL_FOR.as_secs() / 60);
    let text = Term::built_in("114-1").expect("built in");
    let text: String = text
        .lines()
        .map(|line| if line.starts_with("useful_for") { &useful_for } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    Term::parse(&text).expect("the built-in term with another useful_for")
}

/// What survives every crash, and the seed's intentions.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    pub(crate) kind: DayKind,
    pub(crate) clock_kind: ClockKind,
    pub(crate) themes: Themes,
    /// Processes at once.
    pub(crate) processes: u32,
    pub(crate) term: Arc<Term>,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) ledger: FakeLedger,
    pub(crate) tap_log: FakeTapLog,
    pub(crate) receipts: FakeReceiptLog,
    /// What the SMS gateway calls its messages, where its receipts say nothing else.
    pub(crate) message_ids: Option<FakeMessageIds>,
    pub(crate) rejected: FakeRejectedLog,
    pub(crate) registry: FakeRegistry,
    pub(crate) seats: FakeSeats,
    pub(crate) sms: FakeGateway,
    pub(crate) app: FakeGateway,
    pub(crate) journal: Journal,
    pub(crate) outages: Outages,
    pub(crate) city: Mutex<City>,
    /// When each change of the registry was written, on the monotonic clock.
    pub(crate) written_at: Mutex<Vec<Duration>>,
    pub(crate) rates: FaultRates,
    /// The processes that live now, by their place.
    pub(crate) living: Mutex<BTreeMap<u32, Living>>,
}

/// A process that lives.
#[derive(Clone)]
pub(crate) struct Living {
    pub(crate) faults: Faults,
    pub(crate) status: Arc<Status>,
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

fn as_clock(clock: &Arc<FakeClock>) -> Arc<dyn Clock> {
    Arc::<FakeClock>::clone(clock)
}

fn gateway_behaviour(plan: &Plan, themes: Themes, up_to: &mut impl FnMut(u32) -> u32) -> GatewayBehaviour {
    let doubts = if themes.doubt { 5 } else { 1 };
    let receipt_delay_max = if themes.doubt { USEFUL_FOR } else { Duration::from_secs(120) };
    GatewayBehaviour {
        throttles: plan.rate(Kind::Refusers, up_to(100)),
        troubled: plan.rate(Kind::Refusers, up_to(100)),
        refuses: plan.rate(Kind::Refusers, up_to(50)),
        down: plan.rate(Kind::Refusers, up_to(20)),
        unreachable: plan.rate(Kind::Refusers, up_to(20)),
        hangs_after: plan.rate(Kind::Hangs, doubts * up_to(100)),
        hangs_before: plan.rate(Kind::Hangs, doubts * up_to(50)),
        lingers: plan.rate(Kind::Hangs, doubts * up_to(60)),
        babbles: plan.rate(Kind::Rubbish, up_to(50)),
        cuts_short: plan.rate(Kind::Rubbish, up_to(50)),
        fails: plan.rate(Kind::OddReceipts, up_to(200)),
        repeats: plan.rate(Kind::OddReceipts, up_to(300)),
        contradicts: plan.rate(Kind::OddReceipts, up_to(100)),
        overtakes: plan.rate(Kind::OddReceipts, up_to(200)),
        forgets: plan.rate(Kind::LostReceipts, up_to(200)),
        // On most days every message can be asked for.
        loses: plan.rate(Kind::LostReceipts, up_to(100).saturating_sub(70)),
        receipt_delay_max,
    }
}

impl World {
    /// The world of `plan`.
    pub(crate) fn planned(plan: Plan) -> Self {
        let seed = plan.seed;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let kind = DayKind::drawn(&mut random);
        let clock_kind = match random.random_range(0..8) {
            0 | 1 if plan.has(Kind::ClockJumps) => ClockKind::Corrected,
            2 if plan.has(Kind::ClockJumps) => ClockKind::SetBack,
            _ => ClockKind::Right,
        };
        let clock = Arc::new(FakeClock::starting_at(kind.begins_at()));
        let mut up_to = |most: u32| random.random_range(0..=most);
        let themes = Themes::of(seed);
        let behaviour = gateway_behaviour(&plan, themes, &mut up_to);
        // Some gateways give no receipts: what they accept counts as delivered.
        let receipts = up_to(4) > 0;
        let failures = if themes.failing_ports { 5 } else { 1 };
        let rates = FaultRates {
            error_before: plan.rate(Kind::Refusals, failures * up_to(20)),
            error_after: plan.rate(Kind::TimeOuts, failures * up_to(20)),
            slow: plan.rate(Kind::SlowPorts, failures * up_to(30)),
            torn: plan.rate(Kind::TornWrites, failures * up_to(20)),
        };
        let processes = match up_to(9) {
            0..=3 => 1,
            4..=6 => 2,
            _ => PROCESSES_MAX,
        };
        let processes = processes.min(plan.processes_max);
        // Sometimes one process more than may send.
        let one_stands = up_to(2) == 0;
        let seats = if processes > 1 && one_stands { processes - 1 } else { processes };
        let shared_by = NonZeroU32::new(seats).expect("at least one");
        // Some gateways know no references: a message that is sent again is another one.
        let recognises = up_to(3) > 0;
        let group_patience = Duration::from_secs(u64::from(8 + up_to(37)));
        // The receipts of some name the message by the gateway's own id alone.
        let names_ids_only = receipts && ChaCha8Rng::seed_from_u64(seed ^ 0x1d).random_range(0..4) == 0;
        let journal = Journal::default();
        if plan.is_traced {
            journal.keep_lines();
        }
        let outages = Outages::default();
        let faults = Faults::from_seed(seed ^ 0x5eed, rates).in_world(None, &outages, &journal);
        let ledger = FakeLedger::default();
        let registry = FakeRegistry::default();
        let city = City::founded(&mut random, clock_kind == ClockKind::SetBack);
        city.entries().for_each(|entry| registry.change(Timestamp::MIN, entry.clone()));
        let gateway = |profile| FakeGateway::new(profile, behaviour, faults.clone(), as_clock(&clock));
        Self {
            seed,
            kind,
            clock_kind,
            themes,
            processes,
            term: Arc::new(term()),
            tap_log: FakeTapLog::new(PARTITIONS, group_patience, as_clock(&clock), ledger.clone()),
            sms: gateway(profile("sms", Channel::Sms, receipts, shared_by, recognises)),
            app: gateway(profile("app", Channel::App, false, shared_by, true)),
            seats: FakeSeats::new(seats as usize, as_clock(&clock)),
            receipts: FakeReceiptLog::default(),
            message_ids: names_ids_only.then(FakeMessageIds::default),
            rejected: FakeRejectedLog::default(),
            written_at: Mutex::new(vec![Duration::ZERO; city.entries().count()]),
            city: Mutex::new(city),
            registry,
            ledger,
            clock,
            journal,
            outages,
            rates,
            living: Mutex::default(),
            plan,
        }
    }

    pub(crate) fn start_engine(&self, process: u64, faults: &Faults) -> Engine {
        let settings = Settings {
            term: Arc::clone(&self.term),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(u128::from(process) << 64),
            pupils_expected: 100,
            stop_drain: Duration::from_secs(15),
        };
        let message_ids = self.message_ids.iter().map(|ids| -> (_, Arc<dyn MessageIds>) {
            (self.sms.profile().name.clone(), Arc::new(ids.connect(faults.clone())))
        });
        let ports = Ports {
            tap_log: Box::new(self.tap_log.connect(faults.clone())),
            ledger: Arc::new(self.ledger.connect(faults.clone())),
            receipts: Arc::new(self.receipts.connect(faults.clone())),
            message_ids: message_ids.collect(),
            rejected: Arc::new(self.rejected.connect(faults.clone())),
            registry: Box::new(self.registry.connect(process, faults.clone())),
            seats: Arc::new(self.seats.connect(process, faults.clone())),
            channels: vec![
                Arc::new(self.sms.connect(process, faults.clone())),
                Arc::new(self.app.connect(process, faults.clone())),
            ],
            clock: as_clock(&self.clock),
        };
        let doze = faults.doze();
        Engine::new(settings, ports)
            .expect("both channels on offer have a lane")
            .with_tasks_inside(Arc::new(move |task| Box::pin(doze.part(task))))
    }

    /// When each change of the registry was written, on the monotonic clock; in the order of the changes.
    pub(crate) fn changes_written_at(&self) -> Vec<Duration> {
        self.written_at.lock().expect("nobody panicked").clone()
    }

    /// Runs the processes through the day, over as many misfortunes as the seed has, until all is at rest.
    pub(crate) async fn play(&self) -> Outcome {
        self.journal.note(None, || format!("{:?}, {:?}", self.kind, self.themes));
        let outcome = Mutex::new(Outcome::default());
        let lives = join_all((0..self.processes).map(|place| self.lives(place, &outcome)));
        let at_rest = tokio::select! {
            biased;
            at_rest = self.day_goes_by(&outcome) => at_rest,
            _ = lives => false,
        };
        let mut outcome = outcome.into_inner().expect("nobody panicked");
        outcome.came_to_rest = at_rest;
        outcome
    }
}
