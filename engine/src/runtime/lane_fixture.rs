//! An SMS lane of a process that may send, with one guardian whom it may tell: for tests of what a lane does.

use std::sync::Arc;
use std::time::Duration;

use super::last_look::Outgoing;
use super::pending::Pending;
use super::sending::{self, ClaimStep, LaneContext};
use super::settling::Settling;
use super::status::Status;
use super::tenure::Tenure;
use super::vitals::Vitals;
use crate::ids::{GuardianId, LogPosition, NoticeId, OrderId, PupilId, SchoolId};
use crate::index::RegistryIndex;
use crate::invariants::Invariant;
use crate::ledger::OwnerToken;
use crate::notice::{Channel, Notice, NoticeKind};
use crate::ports::channel::LaneProfile;
use crate::ports::clock::{Clock, ScaledClock};
use crate::shard::NoticeStart;
use crate::template::Templates;
use crate::term::Term;
use crate::testing::fakes::{FakeGateway, FakeLedger, Faults, GatewayBehaviour};
use crate::testing::{lane, registry as city};
use crate::time::{Stretch, Timestamp};

/// 2025-09-08T07:00+08:00, a Monday of the built-in term.
const MORNING: Timestamp = Timestamp::from_millis(1_757_286_000_000);
/// From one message of the lane to the next.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);
/// Messages that the lane may send at once after a pause.
pub(crate) const BURST: u32 = 3;

/// See the module. Runs on a paused clock.
pub(crate) struct LaneFixture {
    pub(crate) context: Arc<LaneContext>,
    pub(crate) gateway: FakeGateway,
    tenure: Arc<Tenure>,
}

impl LaneFixture {
    pub(crate) fn new() -> Self {
        Self::with_receipts(true)
    }

    /// One whose gateway's acceptance is proof, or is not.
    pub(crate) fn with_receipts(gives_receipts: bool) -> Self {
        Self::of(gives_receipts, 1.0)
    }

    /// One whose wall clock runs `speed` times faster than real time.
    pub(crate) fn at_speed(speed: f64) -> Self {
        Self::of(true, speed)
    }

    fn of(gives_receipts: bool, speed: f64) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(MORNING, speed));
        let term = Arc::new(Term::parse(Term::built_in("114-1").expect("built in")).expect("parses"));
        let index = Arc::new(RegistryIndex::new(Arc::clone(&term), 1));
        let entries = vec![
            city::school("S1", 690),
            city::pupil("P1", "S1"),
            city::guardian("G1"),
            city::binding("G1", "P1", &[Stretch::ALWAYS]),
        ];
        city::changes(1, Timestamp::MIN, entries).iter().for_each(|change| {
            index.apply(change);
        });
        let profile = LaneProfile {
            rate_per_s: 10,
            burst: BURST,
            batch_max: 10,
            gives_receipts,
            deduplicates_for: None,
            ..lane::profile("sms", Channel::Sms)
        };
        let vitals = Arc::new(Vitals::new(Arc::clone(&clock)));
        vitals.registry_confirmed(clock.monotonic(), clock.now());
        vitals.assignment_confirmed(clock.monotonic());
        vitals.seat_confirmed(clock.monotonic());
        let status = Arc::new(Status::new(Arc::clone(&vitals), [(profile.name.clone(), profile.channel)]));
        let watch = Arc::clone(status.watch());
        let tenure = Arc::new(Tenure::beginning_with(0, 0, OwnerToken(1), clock.monotonic(), watch));
        let lane_status = status.lane(&profile.name).expect("the lane it was made with");
        let gateway = FakeGateway::new(profile, GatewayBehaviour::GOOD, Faults::none(), Arc::clone(&clock));
        let context = Arc::new(LaneContext {
            connector: Arc::new(gateway.clone()),
            ledger: Arc::new(FakeLedger::default()),
            index,
            term,
            templates: Arc::new(Templates::built_in()),
            clock,
            vitals,
            status,
            lane_status,
            settling: Arc::new(Settling::default()),
            message_ids: None,
        });
        Self { context, gateway, tenure }
    }

    /// A notice of the tap at `offset`, unclaimed.
    pub(crate) fn pending(&self, offset: u64, kind: NoticeKind) -> Box<Pending> {
        let now = self.context.clock.now();
        let notice = Notice {
            id: NoticeId::from_u128(offset.into()),
            position: LogPosition { partition: 0, offset },
            kind,
            channel: Channel::Sms,
            pupil: PupilId::new("P1").expect("an identifier"),
            guardian: GuardianId::new("G1").expect("an identifier"),
            order: Some(OrderId::new("O1").expect("an identifier")),
            place: SchoolId::new("S1").expect("an identifier"),
            at: now,
            day: self.context.term.day_of(now),
            received: now,
            deadline: now.plus(self.context.term.useful_for),
        };
        let refs = self.context.index.refs_of(&notice).expect("a pupil and a guardian of the registry");
        Pending::new((notice, refs), NoticeStart::Queued, Arc::clone(&self.tenure))
    }

    /// An arrival that is claimed, looked up and ready to leave.
    pub(crate) async fn outgoing(&self) -> Outgoing {
        let (item, step) =
            sending::claim(Arc::clone(&self.context), self.pending(0, NoticeKind::Arrival)).await;
        assert!(matches!(step, ClaimStep::Ready), "{step:?}");
        let now = self.context.clock.now();
        let recipient = self.context.index.recipient(&item.notice, now).expect("bound, with a phone");
        let message = sending::message(&self.context, &item, recipient, now);
        Outgoing { item, message, looked_up_on: now, looked_up_at: self.context.clock.monotonic() }
    }

    /// The invariants that were broken so far.
    pub(crate) fn broken(&self) -> Vec<Invariant> {
        self.context.status.watch().violations().iter().map(|seen| seen.invariant).collect()
    }
}
