//! What one engine process leaves behind when it stops or dies, and what the next one makes of it.
//!
//! One pupil, one guardian, one SMS, and a gateway that does as it is told: each test is one moment of a crash or of a stop
//! that a parent would notice. The simulation beside the program plays whole mornings of them at random.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ids::CardNumber;
use gatebell_engine::ledger::{Claim, ClaimKey, ClaimState, Event, LedgerEntry, OwnerToken};
use gatebell_engine::notice::{Channel, Passages};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile, Message, SubmitOutcome};
use gatebell_engine::ports::clock::{Clock, ScaledClock};
use gatebell_engine::ports::ledger::{ClaimVerdict, Ledger};
use gatebell_engine::ports::receipts::Receipt;
use gatebell_engine::ports::seats::OnlySeat;
use gatebell_engine::registry::ReaderDirection;
use gatebell_engine::runtime::{Engine, Ports, Settings};
use gatebell_engine::tap::RejectReason;
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use gatebell_engine::testing::fakes::{
    FakeLedger, FakeReceiptLog, FakeRegistry, FakeRejectedLog, FakeTapLog, FaultRates, Faults,
};
use gatebell_engine::testing::{lane, registry as city};
use gatebell_engine::time::{Stretch, Timestamp};
use tokio_util::sync::CancellationToken;

/// 2025-09-08T07:00+08:00, a Monday of the built-in term.
const MORNING: Timestamp = Timestamp::from_millis(1_757_286_000_000);
const CARD: &str = "0417000000000001";
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the gateway does with whatever it is handed.
#[derive(Clone, Copy)]
enum Gateway {
    CannotBeReached,
    NeverAnswers,
}

struct ScriptedLane {
    profile: LaneProfile,
    gateway: Gateway,
}

#[async_trait]
impl ChannelConnector for ScriptedLane {
    fn profile(&self) -> &LaneProfile {
        &self.profile
    }

    async fn submit(&self, messages: &[Message]) -> Vec<SubmitOutcome> {
        match self.gateway {
            Gateway::CannotBeReached => {
                vec![SubmitOutcome::NotSent { reason: "no_connection".into() }; messages.len()]
            }
            Gateway::NeverAnswers => std::future::pending().await,
        }
    }

    async fn query(&self, _submitted: &[LedgerEntry]) -> Result<Vec<Receipt>, PortError> {
        Ok(Vec::new())
    }
}

/// What outlives a process.
struct World {
    clock: Arc<dyn Clock>,
    term: Arc<Term>,
    ledger: FakeLedger,
    tap_log: FakeTapLog,
    receipts: FakeReceiptLog,
    rejected: FakeRejectedLog,
    rejected_log_faults: Faults,
    registry: FakeRegistry,
    gives_receipts: bool,
}

impl World {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(MORNING, 1.0));
        let ledger = FakeLedger::default();
        let registry = FakeRegistry::default();
        for entry in [
            city::school("S1", 690),
            city::reader("R1", "S1", ReaderDirection::In),
            city::pupil("P1", "S1"),
            city::card(CARD, &[("P1", Stretch::ALWAYS)]),
            city::guardian("G1"),
            city::binding("G1", "P1", &[Stretch::ALWAYS]),
            city::order(
                "O1",
                "G1",
                "P1",
                Passages::Both,
                Some(Stretch { from: MORNING.minus(Duration::from_secs(1)), until: Timestamp::MAX }),
            ),
        ] {
            registry.change(Timestamp::MIN, entry);
        }
        Self {
            tap_log: FakeTapLog::new(1, Duration::from_secs(10), Arc::clone(&clock), ledger.clone()),
            clock,
            term: Arc::new(Term::parse(Term::built_in("114-1").unwrap()).unwrap()),
            ledger,
            receipts: FakeReceiptLog::default(),
            rejected: FakeRejectedLog::default(),
            rejected_log_faults: Faults::none(),
            registry,
            gives_receipts: true,
        }
    }

    fn engine(&self, incarnation: u128, gateway: Gateway) -> Engine {
        let connect = |name: &str, channel: Channel, gives_receipts: bool| -> Arc<dyn ChannelConnector> {
            let profile = LaneProfile {
                submit_timeout: SUBMIT_TIMEOUT,
                gives_receipts,
                ..lane::profile(name, channel)
            };
            Arc::new(ScriptedLane { profile, gateway })
        };
        let settings = Settings {
            term: Arc::clone(&self.term),
            templates: Arc::new(Templates::built_in()),
            owner: OwnerToken(incarnation),
            pupils_expected: 1,
            stop_drain: Duration::from_secs(15),
        };
        let ports = Ports {
            tap_log: Box::new(self.tap_log.connect(Faults::none())),
            ledger: Arc::new(self.ledger.clone()),
            receipts: Arc::new(self.receipts.connect(Faults::none())),
            message_ids: BTreeMap::new(),
            rejected: Arc::new(self.rejected.connect(self.rejected_log_faults.clone())),
            registry: Box::new(self.registry.connect(1, Faults::none())),
            seats: Arc::new(OnlySeat),
            channels: vec![
                connect("app", Channel::App, false),
                connect("sms", Channel::Sms, self.gives_receipts),
            ],
            clock: Arc::clone(&self.clock),
        };
        Engine::new(settings, ports).unwrap()
    }

    fn tap(&self) {
        let at_ms = self.clock.now().as_millis();
        let report = format!(r#"{{"card":"{CARD}","reader":"R1","at":{at_ms}}}"#);
        self.tap_log.report(&CardNumber::new(CARD).unwrap(), report);
    }

    fn first(&self, wanted: impl Fn(Event) -> bool) -> Option<LedgerEntry> {
        self.ledger.entries().into_iter().find(|entry| wanted(entry.event))
    }

    /// Waits until the ledger has an entry of a `wanted` event.
    async fn until(&self, wanted: impl Fn(Event) -> bool) -> LedgerEntry {
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(entry) = self.first(&wanted) {
                return entry;
            }
        }
        panic!("the ledger has only {:?}", self.ledger.entries());
    }

    /// One process whose gateway never answers dies with its request on the wire; the claim's entry.
    async fn dies_with_a_request_on_the_wire(&self) -> LedgerEntry {
        self.tap();
        tokio::select! {
            biased;
            claimed = self.until(|event| event == Event::Claimed) => claimed,
            ended = self.engine(1, Gateway::NeverAnswers).run(CancellationToken::new()) => panic!("{ended:?}"),
        }
    }

    /// Another process, whose gateway never answers, runs until the ledger has an end; that end.
    async fn end_by_the_next_process(&self) -> LedgerEntry {
        tokio::select! {
            biased;
            end = self.until(Event::is_end) => end,
            ended = self.engine(2, Gateway::NeverAnswers).run(CancellationToken::new()) => panic!("{ended:?}"),
        }
    }

    async fn claim_of(&self, claimed: &LedgerEntry) -> Claim {
        let key = ClaimKey {
            term: self.term.name.clone(),
            day: claimed.day,
            pupil: claimed.pupil.clone(),
            guardian: claimed.guardian.clone(),
            kind: claimed.kind,
        };
        self.ledger.claim_of(&key).await.unwrap().unwrap()
    }
}

/// The process died with its request on the wire, and the next one started when the notice was of no use any more. It called
/// the notice *expired*, which says that nothing was sent; the parent had read it.
#[tokio::test(start_paused = true)]
async fn what_a_crash_left_in_doubt_past_its_deadline_ends_as_unknown_and_not_as_expired() {
    let world = World::new();
    world.dies_with_a_request_on_the_wire().await;
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let end = world.end_by_the_next_process().await;
    assert_eq!((end.event, end.reason.as_deref()), (Event::Failed, Some("unknown")));
}

/// A term in which notices are of use for a whole day, and a gateway that recognises a reference for half of one: sent again
/// after that, the message would have reached the parent twice.
#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_not_sent_again_once_the_gateway_has_forgotten_its_reference() {
    let text = Term::built_in("114-1").unwrap();
    let useful_for = text.lines().find(|line| line.starts_with("useful_for")).unwrap();
    let term = Term::parse(&text.replace(useful_for, "useful_for = \"24 h\"")).unwrap();
    let world = World { term: Arc::new(term), ..World::new() };
    world.dies_with_a_request_on_the_wire().await;
    tokio::time::sleep(Duration::from_secs(13 * 3600)).await;
    let end = world.end_by_the_next_process().await;
    assert_eq!((end.event, end.reason.as_deref()), (Event::Failed, Some("unknown")));
}

/// As above, but the pupil's guardian was protected meanwhile: nothing is sent again, and what may have been sent before is
/// not *suppressed*.
#[tokio::test(start_paused = true)]
async fn what_a_crash_left_in_doubt_is_not_suppressed() {
    let world = World::new();
    world.dies_with_a_request_on_the_wire().await;
    world.registry.change(world.clock.now(), city::protection("G1", "P1", true));
    let end = world.end_by_the_next_process().await;
    assert_eq!((end.event, end.reason.as_deref()), (Event::Failed, Some("unknown")));
}

/// The process had ended the claim and died before the entry was written. Nobody knew how the notice had ended: *unknown*,
/// said the next process, or *expired*, if its deadline had passed meanwhile.
#[tokio::test(start_paused = true)]
async fn an_end_that_a_crash_kept_from_the_ledger_is_written_as_it_was() {
    for useful_still in [true, false] {
        let world = World::new();
        let claimed = world.dies_with_a_request_on_the_wire().await;
        let claim = world.claim_of(&claimed).await;
        let state = ClaimState::Ended { event: Event::Suppressed, reason: Some("protected".into()) };
        world.ledger.advance(claim.stamp(), Claim { state, ..claim.clone() }, Vec::new()).await.unwrap();
        if !useful_still {
            tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        }
        let end = world.end_by_the_next_process().await;
        assert_eq!((end.event, end.reason.as_deref()), (Event::Suppressed, Some("protected")));
        assert_eq!((end.attempt, end.notice), (claim.attempt, claimed.notice));
    }
}

/// A sleeping process woke up and wrote down that the gateway had taken the message, after the next owner had read the entries and
/// before it read the claim. Past its deadline that one called the notice *expired*; its parent had read it. A simulated day found
/// it (seed 4454).
#[tokio::test(start_paused = true)]
async fn what_was_submitted_does_not_expire_for_want_of_its_entry() {
    for useful_still in [true, false] {
        let world = World::new();
        let claimed = world.dies_with_a_request_on_the_wire().await;
        let claim = world.claim_of(&claimed).await;
        let state = ClaimState::Submitted { gateway_id: "#1".into() };
        world.ledger.advance(claim.stamp(), Claim { state, ..claim.clone() }, Vec::new()).await.unwrap();
        if !useful_still {
            tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        }
        let submitted = tokio::select! {
            biased;
            found = world.until(|event| event == Event::Submitted || event.is_end()) => found,
            ended = world.engine(2, Gateway::NeverAnswers).run(CancellationToken::new()) => panic!("{ended:?}"),
        };
        assert_eq!((submitted.event, submitted.gateway_id.as_deref()), (Event::Submitted, Some("#1")));
    }
}

/// A process that had slept found its notice past its deadline and called it *expired*, after the one that had taken its claim
/// over had sent it.
#[tokio::test(start_paused = true)]
async fn who_lost_its_claim_does_not_say_that_nothing_was_sent() {
    let world = World::new();
    world.tap();
    let taking_over = async {
        let claimed = world.until(|event| event == Event::Claimed).await;
        let ours = world.claim_of(&claimed).await;
        let theirs = Claim { owner: OwnerToken(99), ..ours.clone() };
        let verdict = world.ledger.claim(Some(ours.stamp()), theirs.clone(), claimed.clone()).await.unwrap();
        assert_eq!(verdict, ClaimVerdict::Won);
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        let end = world.until(Event::is_end).await;
        assert_eq!(world.claim_of(&claimed).await, theirs, "stays theirs");
        end
    };
    let end = tokio::select! {
        biased;
        end = taking_over => end,
        ended = world.engine(1, Gateway::CannotBeReached).run(CancellationToken::new()) => panic!("{ended:?}"),
    };
    assert_eq!((end.event, end.reason.as_deref()), (Event::Failed, Some("unknown")));
}

/// A partition moves while its notice waits for a gateway that cannot be reached: its next owner need not wait until a request
/// that never left would be over, nor doubt it.
#[tokio::test(start_paused = true)]
async fn a_partition_that_moves_gives_back_the_claim_of_a_request_that_never_left() {
    let world = World::new();
    world.tap();
    let moving = async {
        world.until(|event| event == Event::Claimed).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let successor = world.engine(2, Gateway::NeverAnswers).run(CancellationToken::new());
        let anew = async {
            let second = |entry: &LedgerEntry| entry.event == Event::Claimed && entry.attempt == 2;
            for seed in 0..10 {
                world.tap_log.rebalance(seed);
                tokio::time::sleep(Duration::from_millis(500)).await;
                if world.ledger.entries().iter().any(second) {
                    return;
                }
            }
            panic!("nobody claims anew before a request that never left would be over");
        };
        tokio::select! {
            biased;
            () = anew => {}
            ended = successor => panic!("{ended:?}"),
        }
    };
    tokio::select! {
        biased;
        () = moving => {}
        ended = world.engine(1, Gateway::CannotBeReached).run(CancellationToken::new()) => panic!("{ended:?}"),
    }
}

/// A gateway without receipts had accepted the message, and the process died before the charge was written: the notice was
/// settled, so nobody looked at it again, and the recount found a message that was proved and never booked.
#[tokio::test(start_paused = true)]
async fn acceptance_that_a_crash_kept_from_being_charged_is_charged_by_the_next_process() {
    let world = World { gives_receipts: false, ..World::new() };
    let claimed = world.dies_with_a_request_on_the_wire().await;
    let claim = world.claim_of(&claimed).await;
    let submitted = ClaimState::Submitted { gateway_id: "1".into() };
    let accepted = claimed.followed_by(Event::Accepted, world.clock.now()).known_as("1");
    let moved = Claim { state: submitted, ..claim.clone() };
    world.ledger.advance(claim.stamp(), moved, vec![accepted]).await.unwrap();

    let charged = tokio::select! {
        biased;
        charged = world.until(|event| event == Event::Charged) => charged,
        ended = world.engine(2, Gateway::NeverAnswers).run(CancellationToken::new()) => panic!("{ended:?}"),
    };
    assert_eq!(charged.notice, claimed.notice);
    assert_eq!(world.ledger.charges().len(), 1);
}

/// The gateway could not be reached, and the process was stopped. The notice waited to be tried again with its claim open,
/// so that the next process waited for an answer to a request that had never left, and called it *unknown* at the end.
#[tokio::test(start_paused = true)]
async fn a_clean_stop_gives_back_the_claim_of_a_request_that_never_left() {
    let world = World::new();
    world.tap();
    let stop = CancellationToken::new();
    let running = world.engine(1, Gateway::CannotBeReached).run(stop.clone());
    let stopping = async {
        let claimed = world.until(|event| event == Event::Claimed).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
        claimed
    };
    let (ended, claimed) = tokio::join!(running, stopping);
    ended.unwrap();
    assert_eq!(world.claim_of(&claimed).await.state, ClaimState::Refused);
}

/// What is no tap is owed to somebody who looks at it: until it is kept, its offset is not committed. Taps behind it are
/// decided meanwhile.
#[tokio::test(start_paused = true)]
async fn a_rejected_record_is_kept_before_it_is_committed_and_keeps_no_tap_waiting() {
    let down = FaultRates { error_before: 1000, ..FaultRates::NONE };
    let world = World { rejected_log_faults: Faults::from_seed(0, down), ..World::new() };
    world.tap_log.report(&CardNumber::new(CARD).unwrap(), "no tap");
    world.dies_with_a_request_on_the_wire().await;
    assert!(world.rejected.records().is_empty() && world.tap_log.commits().is_empty());

    let world = World { rejected_log_faults: Faults::none(), ..world };
    let committed = async {
        while world.tap_log.commits().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        biased;
        () = committed => {}
        ended = world.engine(2, Gateway::NeverAnswers).run(CancellationToken::new()) => panic!("{ended:?}"),
    }
    let [kept] = world.rejected.records().try_into().unwrap();
    assert_eq!(
        (kept.position.offset, kept.reason, &kept.value[..]),
        (0, RejectReason::Malformed, &b"no tap"[..])
    );
}
