//! What processes do with their partitions when they lose their seat or their place in the group.
//!
//! Two processes, two partitions, and a gateway that does as it is told. A partition of a process that may not send would be
//! silent until its notices are of no use.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ids::CardNumber;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::notice::{Channel, Passages};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile};
use gatebell_engine::ports::clock::{Clock, ScaledClock};
use gatebell_engine::ports::seats::{SEAT_LAPSES_AFTER, Seating, Seats};
use gatebell_engine::ports::tap_log::partition_of;
use gatebell_engine::registry::ReaderDirection;
use gatebell_engine::runtime::{Engine, EngineError, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{
    FakeGateway, FakeLedger, FakeReceiptLog, FakeRegistry, FakeRejectedLog, FakeSeats, FakeTapLog, Faults,
    GatewayBehaviour,
};
use gatebell_engine::testing::{lane, registry as city};
use gatebell_engine::time::{Stretch, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// 2025-09-08T07:00+08:00, a Monday of the built-in term.
const MORNING: Timestamp = Timestamp::from_millis(1_757_286_000_000);
const PARTITIONS: u32 = 2;
const PUPILS: u32 = 40;
/// How long the group waits for a process that is silent.
const GROUP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a notice may take while somebody may send it.
const SENT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the group waits and a seat lasts, with time for the other process to take both.
const LONG_SLEEP: Duration = Duration::from_secs(SEAT_LAPSES_AFTER.as_secs() + 10);

/// What outlives a process.
struct World {
    clock: Arc<dyn Clock>,
    ledger: FakeLedger,
    tap_log: FakeTapLog,
    registry: FakeRegistry,
    sms: FakeGateway,
    app: FakeGateway,
    seats: FakeSeats,
    /// Cards that nobody has tapped yet.
    unused: Vec<CardNumber>,
}

/// A process that runs.
struct Process {
    faults: Faults,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), EngineError>>,
}

impl World {
    fn with_seats(seats: usize) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(MORNING, 1.0));
        let ledger = FakeLedger::default();
        let registry = FakeRegistry::default();
        let in_force = Stretch { from: MORNING.minus(Duration::from_secs(1)), until: Timestamp::MAX };
        let mut entries = vec![city::school("S1", 690), city::reader("R1", "S1", ReaderDirection::In)];
        let mut unused = Vec::new();
        for number in 0..PUPILS {
            let (pupil, guardian) = (format!("P{number}"), format!("G{number}"));
            let card = format!("{number:016}");
            entries.extend([
                city::pupil(&pupil, "S1"),
                city::card(&card, &[(&pupil, Stretch::ALWAYS)]),
                city::guardian(&guardian),
                city::binding(&guardian, &pupil, &[Stretch::ALWAYS]),
                city::order(&format!("O{number}"), &guardian, &pupil, Passages::Both, Some(in_force)),
                city::subscription(&guardian, &pupil, Channel::App, &[(Passages::Both, in_force)]),
            ]);
            unused.push(CardNumber::new(&card).unwrap());
        }
        for entry in entries {
            registry.change(Timestamp::MIN, entry);
        }
        let gateway = |name: &str, channel: Channel| {
            let profile = LaneProfile { deduplicates_for: None, ..lane::profile(name, channel) };
            FakeGateway::new(profile, GatewayBehaviour::GOOD, Faults::none(), Arc::clone(&clock))
        };
        Self {
            tap_log: FakeTapLog::new(PARTITIONS, GROUP_PATIENCE, Arc::clone(&clock), ledger.clone()),
            sms: gateway("sms", Channel::Sms),
            app: gateway("app", Channel::App),
            seats: FakeSeats::new(seats, Arc::clone(&clock)),
            clock,
            ledger,
            registry,
            unused,
        }
    }

    fn start(&self, process: u64) -> Process {
        let faults = Faults::none();
        self.start_on(process, &faults, Arc::new(self.seats.connect(process, faults.clone())))
    }

    fn start_on(&self, process: u64, faults: &Faults, seats: Arc<dyn Seats>) -> Process {
        let settings = Settings {
            term: Arc::new(Term::parse(Term::built_in("114-1").unwrap()).unwrap()),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(u128::from(process) << 64),
            pupils_expected: PUPILS as usize,
            stop_drain: Duration::from_secs(15),
        };
        let channels: Vec<Arc<dyn ChannelConnector>> = vec![
            Arc::new(self.sms.connect(process, faults.clone())),
            Arc::new(self.app.connect(process, faults.clone())),
        ];
        let ports = Ports {
            tap_log: Box::new(self.tap_log.connect(faults.clone())),
            ledger: Arc::new(self.ledger.connect(faults.clone())),
            receipts: Arc::new(FakeReceiptLog::default().connect(faults.clone())),
            message_ids: BTreeMap::new(),
            rejected: Arc::new(FakeRejectedLog::default().connect(faults.clone())),
            registry: Box::new(self.registry.connect(process, faults.clone())),
            seats,
            channels,
            clock: Arc::clone(&self.clock),
        };
        let (doze, parts) = (faults.doze(), faults.doze());
        let engine = Engine::new(settings, ports)
            .unwrap()
            .with_tasks_inside(Arc::new(move |task| Box::pin(parts.part(task))));
        let stop = CancellationToken::new();
        let ended = tokio::spawn(doze.part(engine.run(stop.clone())));
        Process { faults: faults.clone(), stop, ended }
    }

    /// Two pupils pass, whose cards are in one partition each.
    fn tap_in_each_partition(&mut self) {
        for partition in 0..PARTITIONS {
            let of_partition = |card: &CardNumber| partition_of(card, PARTITIONS) == partition;
            let place = self.unused.iter().position(of_partition).expect("enough cards");
            let card = self.unused.remove(place);
            let at_ms = self.clock.now().as_millis();
            let report = format!(r#"{{"card":"{}","reader":"R1","at":{at_ms}}}"#, card.expose());
            self.tap_log.report(&card, report);
        }
    }

    /// The processes that sent the messages about a tap in each partition.
    async fn senders_of_a_tap_in_each_partition(&mut self) -> Vec<u64> {
        let sent_before = self.sms.arrivals().len();
        self.tap_in_each_partition();
        tokio::time::sleep(SENT_WITHIN).await;
        let sent = self.sms.arrivals();
        let mut senders: Vec<u64> = sent.iter().skip(sent_before).map(|arrival| arrival.process).collect();
        senders.sort_unstable();
        senders
    }
}

/// It kept what came back to it from the group, and could not send.
#[tokio::test(start_paused = true)]
async fn who_loses_its_seat_leaves_its_partitions_to_those_who_have_one_and_comes_back_with_the_next() {
    let mut world = World::with_seats(1);
    let first = world.start(1);
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 1]);
    let second = world.start(2);
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 1], "the other one waits for a seat");

    first.faults.doze().fall_asleep(LONG_SLEEP);
    tokio::time::sleep(LONG_SLEEP + SENT_WITHIN).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [2, 2], "the seat is the other one's");
    assert_eq!(world.tap_log.unowned(), 0);

    second.stop.cancel();
    second.ended.await.unwrap().unwrap();
    tokio::time::sleep(SENT_WITHIN).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 1], "there is a seat again");
    assert_eq!(world.tap_log.breaches(), [] as [&str; 0]);
}

/// A seat in a store that answers what the test says, or nothing.
struct ScriptedSeat {
    answer: Mutex<Option<Seating>>,
}

impl ScriptedSeat {
    fn held() -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(Some(Seating::Held)) })
    }

    fn answers(&self, answer: Option<Seating>) {
        *self.answer.lock().unwrap() = answer;
    }
}

#[async_trait]
impl Seats for ScriptedSeat {
    async fn hold(&self) -> Result<Seating, PortError> {
        self.answer.lock().unwrap().ok_or_else(|| PortError::new("seats", "no answer"))
    }

    async fn leave(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Nobody else can be asked either: partitions that moved would be no better off.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_stops_the_sending_and_moves_no_partition() {
    let mut world = World::with_seats(1);
    let seat = ScriptedSeat::held();
    let _first = world.start_on(1, &Faults::none(), Arc::<ScriptedSeat>::clone(&seat));
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 1]);

    seat.answers(None);
    tokio::time::sleep(LONG_SLEEP).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [] as [u64; 0], "it holds");
    assert_eq!((world.tap_log.unowned(), world.tap_log.tally().left), (0, 0));

    let sent_before = world.sms.arrivals().len();
    seat.answers(Some(Seating::Held));
    tokio::time::sleep(SENT_WITHIN).await;
    assert_eq!(world.sms.arrivals().len(), sent_before + 2, "and goes on");
}

#[tokio::test(start_paused = true)]
async fn who_divides_the_rates_by_another_number_leaves_its_partitions_to_the_others() {
    let mut world = World::with_seats(1);
    let seat = ScriptedSeat::held();
    let _first = world.start_on(1, &Faults::none(), Arc::<ScriptedSeat>::clone(&seat));
    let _second = world.start(2);
    tokio::time::sleep(SENT_WITHIN).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 2]);

    seat.answers(Some(Seating::DividedOtherwise { ours: 3, theirs: 4 }));
    tokio::time::sleep(SENT_WITHIN).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [2, 2]);

    seat.answers(Some(Seating::Held));
    tokio::time::sleep(SENT_WITHIN).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 2], "all share by one number again");
    assert_eq!(world.tap_log.breaches(), [] as [&str; 0]);
}

/// What it had settled may not be committed any more: the next owner may have come further.
#[tokio::test(start_paused = true)]
async fn who_was_put_out_of_the_group_commits_nothing_of_what_it_lost() {
    let mut world = World::with_seats(2);
    let first = world.start(1);
    let _second = world.start(2);
    tokio::time::sleep(SENT_WITHIN).await;
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 2]);

    world.tap_in_each_partition();
    let all_sent = 2 * PARTITIONS as usize;
    while world.sms.arrivals().len() < all_sent {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.faults.cut_off("tap log", 2 * GROUP_PATIENCE);
    tokio::time::sleep(3 * GROUP_PATIENCE).await;
    let group = world.tap_log.tally();
    assert_eq!(group.given_up, 1);
    assert!(group.commits_refused > 0, "there was something to commit");
    assert_eq!(world.tap_log.breaches(), [] as [&str; 0]);
    assert_eq!(world.sms.arrivals().len(), all_sent, "nothing was sent again");
    assert!(world.tap_log.is_settled());
    assert_eq!(world.senders_of_a_tap_in_each_partition().await, [1, 2], "it is a member again");
}

/// A push was accepted and its entry still waited for the ledger when the partition went and came back: the new tenure found
/// nothing in the ledger, and sent it once more.
#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_waits_until_the_ledger_has_what_was_sent_before() {
    // Old and new tenure ask the ledger again and again, twice a second: whoever asks first.
    for ahead_ms in (0..500).step_by(50) {
        let mut world = World::with_seats(1);
        let only = world.start(1);
        tokio::time::sleep(SENT_WITHIN).await;
        world.tap_in_each_partition();
        while world.app.arrivals().len() < PARTITIONS as usize {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        only.faults.cut_off("ledger", 3 * GROUP_PATIENCE + Duration::from_millis(ahead_ms));
        only.faults.cut_off("tap log", 2 * GROUP_PATIENCE);
        tokio::time::sleep(6 * GROUP_PATIENCE).await;
        assert_eq!(world.tap_log.tally().given_up, 1);
        assert_eq!(world.app.arrivals().len(), PARTITIONS as usize, "with {ahead_ms} ms");
        assert!(world.tap_log.is_settled());
    }
}
