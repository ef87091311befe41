//! A gateway, or a push backend, in memory: throttles, hangs, accepts and times out, answers rubbish, and sends receipts
//! late, repeated, out of order, or before its own answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use compact_str::{CompactString, format_compact};
use tokio::sync::oneshot;

use super::{FakeReceiptLog, Faults, locked};
use crate::ledger::LedgerEntry;
use crate::ports::PortError;
use crate::ports::channel::{ChannelConnector, LaneProfile, Message, SubmitOutcome};
use crate::ports::clock::Clock;
use crate::ports::receipts::{Receipt, ReceiptStatus};
use crate::time::Timestamp;

/// How often the gateway misbehaves, in thousandths of all messages.
#[derive(Clone, Copy, Debug)]
pub struct GatewayBehaviour {
    /// Says that it was too fast.
    pub throttles: u32,
    /// Has a passing trouble.
    pub troubled: u32,
    /// Will never take the message.
    pub refuses: u32,
    /// Takes nothing until somebody mends it (the lane tries again).
    pub down: u32,
    /// Cannot be reached: the request never leaves.
    pub unreachable: u32,
    /// Takes the message and never answers.
    pub hangs_after: u32,
    /// Never answers and took nothing.
    pub hangs_before: u32,
    /// Answers rubbish; every other time it took the message.
    pub babbles: u32,
    /// Takes all messages of a request and answers for the first of them alone.
    pub cuts_short: u32,
    /// The receipt says failed.
    pub fails: u32,
    /// The receipt comes twice.
    pub repeats: u32,
    /// A delivered message gets a second receipt that says failed, before or after the right one.
    pub contradicts: u32,
    /// The receipt never comes by itself; it can be asked for.
    pub forgets: u32,
    /// There is no receipt to be had, not by asking either: until [`FakeGateway::find_lost_receipts`].
    pub loses: u32,
    /// The receipt comes before the submit's answer.
    pub overtakes: u32,
    /// The message is taken only after up to [`LINGERS_MAX`], when nobody waits for the answer any more.
    pub lingers: u32,
    /// Longest way of a receipt.
    pub receipt_delay_max: Duration,
}

impl GatewayBehaviour {
    /// Takes and delivers everything.
    pub const GOOD: Self = Self {
        throttles: 0,
        troubled: 0,
        refuses: 0,
        down: 0,
        unreachable: 0,
        hangs_after: 0,
        hangs_before: 0,
        babbles: 0,
        cuts_short: 0,
        fails: 0,
        repeats: 0,
        contradicts: 0,
        forgets: 0,
        loses: 0,
        overtakes: 0,
        lingers: 0,
        receipt_delay_max: Duration::from_secs(5),
    };
}

/// A message that reached the gateway, taken or not.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// When, by the wall clock.
    pub wall: Timestamp,
    /// Which process sent it.
    pub process: u64,
    /// As it was handed over.
    pub message: Message,
    /// When the gateway was done with it, on the monotonic clock; `None`: it never was.
    pub over_at: Option<Duration>,
}

/// A message that the gateway took.
#[derive(Clone, Debug)]
pub struct SentMessage {
    /// As it was handed over the first time.
    pub message: Message,
    /// The gateway's own id.
    pub gateway_id: CompactString,
    /// When it was taken, by the wall clock.
    pub taken_at: Timestamp,
    /// What the receipt says or will say.
    pub fate: ReceiptStatus,
    /// Whether nobody can learn of it.
    is_lost: bool,
}

#[derive(Default)]
struct State {
    by_reference: BTreeMap<CompactString, usize>,
    taken: Vec<SentMessage>,
    arrivals: Vec<Arrival>,
    due: Vec<(Duration, Receipt)>,
    most_in_flight: usize,
}

/// See the module. Clones share what they hold.
#[derive(Clone)]
pub struct FakeGateway {
    profile: LaneProfile,
    behaviour: GatewayBehaviour,
    state: Arc<Mutex<State>>,
    in_flight: Arc<AtomicUsize>,
    process: u64,
    faults: Faults,
    clock: Arc<dyn Clock>,
}

/// The longest that a message lingers before it is taken.
const LINGERS_MAX: Duration = Duration::from_secs(15);

/// A request on the wire: until it is answered, its process dies, or nobody waits for it any more.
struct OnTheWire {
    in_flight: Arc<AtomicUsize>,
    is_over: AtomicBool,
}

impl OnTheWire {
    fn end(&self) {
        if !self.is_over.swap(true, Ordering::SeqCst) {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Ends a request when the process that made it drops it.
struct Request(Arc<OnTheWire>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl FakeGateway {
    /// A gateway of `profile` that draws its behaviour from `faults`.
    pub fn new(
        profile: LaneProfile,
        behaviour: GatewayBehaviour,
        faults: Faults,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            profile,
            behaviour,
            state: Arc::default(),
            in_flight: Arc::default(),
            process: 0,
            faults,
            clock,
        }
    }

    /// The same gateway, seen by a process whose misfortunes are drawn from `faults`.
    pub fn connect(&self, process: u64, faults: Faults) -> Self {
        Self { process, faults, ..self.clone() }
    }

    /// Every message it took, in order.
    pub fn taken(&self) -> Vec<SentMessage> {
        locked(&self.state).taken.clone()
    }

    /// Every message that reached it, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        locked(&self.state).arrivals.clone()
    }

    /// The most requests that were on the wire at once.
    pub fn most_in_flight(&self) -> usize {
        locked(&self.state).most_in_flight
    }

    /// Sends the receipts that are due to `receipts`; says whether any is still to come.
    pub fn send_due_receipts(&self, receipts: &FakeReceiptLog) -> bool {
        let now = self.clock.monotonic();
        let mut state = locked(&self.state);
        let (due, later): (Vec<_>, Vec<_>) = state.due.drain(..).partition(|(at, _)| *at <= now);
        state.due = later;
        let more = !state.due.is_empty();
        drop(state);
        for (_, receipt) in due {
            self.faults
                .journal()
                .note(None, || format!("receipt for {}: {:?}", receipt.notice, receipt.status));
            receipts.arrive(Receipt { arrived: self.clock.now(), ..receipt });
        }
        more
    }

    /// Whether there are messages that nobody can learn of.
    pub fn has_lost_receipts(&self) -> bool {
        locked(&self.state).taken.iter().any(|taken| taken.is_lost)
    }

    /// Sends half of the receipts that were lost, days late; the others stay so.
    pub fn find_lost_receipts(&self, receipts: &FakeReceiptLog) {
        let taken = self.taken();
        for taken in taken.iter().filter(|taken| taken.is_lost).step_by(2) {
            self.faults.journal().reached("receipts that came after everybody had given up");
            receipts.arrive(self.receipt(&taken.message, &taken.gateway_id, taken.fate.clone()));
        }
    }

    fn receipt(&self, message: &Message, gateway_id: &CompactString, status: ReceiptStatus) -> Receipt {
        Receipt {
            lane: self.profile.name.clone(),
            notice: message.notice,
            position: message.position,
            gateway_id: gateway_id.clone(),
            status,
            arrived: self.clock.now(),
        }
    }

    fn reached(&self, what: &'static str) {
        self.faults.journal().reached(what);
    }

    /// Takes a message, or recognises its reference.
    fn take(&self, message: &Message) -> SubmitOutcome {
        let mut state = locked(&self.state);
        let recognises = self.profile.deduplicates_for.is_some();
        if recognises && let Some(place) = state.by_reference.get(message.reference.as_str()) {
            self.reached("references recognised");
            let gateway_id = state.taken[*place].gateway_id.clone();
            return SubmitOutcome::Accepted { gateway_id, duplicate: true };
        }
        let gateway_id = format_compact!("#{:08}", state.taken.len());
        let fate = if self.faults.happens(self.behaviour.fails) {
            ReceiptStatus::Failed { reason: CompactString::const_new("6") }
        } else {
            ReceiptStatus::Delivered
        };
        let receipt = self.receipt(message, &gateway_id, fate.clone());
        let is_lost = self.faults.happens(self.behaviour.loses) && self.profile.gives_receipts;
        let is_forgotten = self.faults.happens(self.behaviour.forgets);
        if is_forgotten && self.profile.gives_receipts {
            self.reached("receipts that do not come by themselves");
        }
        if self.profile.gives_receipts && !is_forgotten && !is_lost {
            let longest_ms = u64::try_from(self.behaviour.receipt_delay_max.as_millis()).unwrap_or(u64::MAX);
            let copies = if self.faults.happens(self.behaviour.repeats) { 2 } else { 1 };
            if copies > 1 {
                self.reached("receipts sent twice");
            }
            for _ in 0..copies {
                let overtakes = self.faults.happens(self.behaviour.overtakes);
                if overtakes {
                    self.reached("receipts ahead of the answer");
                }
                let delay_ms = if overtakes { 0 } else { self.faults.draw(0..longest_ms.max(1)) };
                state.due.push((self.clock.monotonic() + Duration::from_millis(delay_ms), receipt.clone()));
            }
        }
        if self.profile.gives_receipts
            && !is_lost
            && fate == ReceiptStatus::Delivered
            && self.faults.happens(self.behaviour.contradicts)
        {
            self.reached("receipts that contradict each other");
            let delay_ms = self.faults.draw(0..100_000);
            let status = ReceiptStatus::Failed { reason: CompactString::const_new("5") };
            state.due.push((
                self.clock.monotonic() + Duration::from_millis(delay_ms),
                Receipt { status, ..receipt },
            ));
        }
        let place = state.taken.len();
        state.by_reference.insert(CompactString::new(message.reference.as_str()), place);
        state.taken.push(SentMessage {
            message: message.clone(),
            gateway_id: gateway_id.clone(),
            taken_at: self.clock.now(),
            fate,
            is_lost,
        });
        SubmitOutcome::Accepted { gateway_id, duplicate: false }
    }

    fn answer(&self, message: &Message) -> SubmitOutcome {
        let behaviour = &self.behaviour;
        let code = CompactString::const_new;
        if self.faults.happens(behaviour.throttles) {
            self.reached("gateway throttles");
            let wait_s = self.faults.draw(0..30);
            // Every other one says how long to wait.
            let retry_after = wait_s.is_multiple_of(2).then_some(Duration::from_secs(wait_s));
            return SubmitOutcome::Throttled { retry_after };
        }
        if self.faults.happens(behaviour.troubled) {
            self.reached("gateway has a passing trouble");
            return SubmitOutcome::RetryLater { reason: code("a"), retry_after: None };
        }
        if self.faults.happens(behaviour.refuses) {
            self.reached("gateway refuses");
            return SubmitOutcome::Refused { reason: code("v") };
        }
        if self.faults.happens(behaviour.down) {
            self.reached("gateway takes nothing");
            return SubmitOutcome::GatewayDown { reason: code("k") };
        }
        if self.faults.happens(behaviour.unreachable) {
            self.reached("gateway cannot be reached");
            return SubmitOutcome::NotSent { reason: code("no_connection") };
        }
        if self.faults.happens(behaviour.babbles) {
            if self.faults.happens(500) {
                self.reached("gateway took it and answers rubbish");
                let _taken = self.take(message);
            } else {
                self.reached("gateway took nothing and answers rubbish");
            }
            return SubmitOutcome::Unknown { reason: code("unreadable") };
        }
        self.take(message)
    }
}

impl FakeGateway {
    /// A request reaches the gateway; the place of its first message.
    fn arrive(&self, messages: &[Message]) -> usize {
        let now_in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        let (at, wall) = (self.clock.monotonic(), self.clock.now());
        let mut state = locked(&self.state);
        state.most_in_flight = state.most_in_flight.max(now_in_flight);
        let first = state.arrivals.len();
        state.arrivals.extend(messages.iter().map(|message| Arrival {
            at,
            wall,
            process: self.process,
            message: message.clone(),
            over_at: None,
        }));
        first
    }

    /// What the gateway does with a request, whatever becomes of the process that made it.
    async fn handle(
        self,
        first: usize,
        messages: Vec<Message>,
        on_the_wire: Arc<OnTheWire>,
        answers: oneshot::Sender<Vec<SubmitOutcome>>,
    ) {
        let longest_ms = u64::try_from(LINGERS_MAX.as_millis()).unwrap_or(u64::MAX);
        let lingers = self.faults.happens(self.behaviour.lingers);
        let way_ms = if lingers { self.faults.draw(0..longest_ms) } else { self.faults.draw(0..20) };
        let timeout = self.profile.submit_timeout;
        let waits_no_longer = Arc::clone(&on_the_wire);
        tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            waits_no_longer.end();
        });
        tokio::time::sleep(Duration::from_millis(way_ms)).await;
        if lingers {
            self.reached("gateway takes its time");
        }
        if self.faults.happens(self.behaviour.hangs_before) {
            self.reached("gateway took nothing and hangs");
            return;
        }
        let mut outcomes: Vec<SubmitOutcome> = messages.iter().map(|message| self.answer(message)).collect();
        if self.faults.happens(self.behaviour.hangs_after) {
            self.reached("gateway took it and hangs");
            return;
        }
        if self.faults.happens(self.behaviour.cuts_short) && outcomes.len() > 1 {
            self.reached("gateway answers for some of a batch");
            outcomes.truncate(1);
        }
        tokio::time::sleep(Duration::from_millis(self.faults.draw(0..4))).await;
        let now = self.clock.monotonic();
        let mut state = locked(&self.state);
        state.arrivals[first..first + messages.len()]
            .iter_mut()
            .for_each(|arrival| arrival.over_at = Some(now));
        drop(state);
        on_the_wire.end();
        self.faults.note(|| format!("{} answers {outcomes:?}", self.profile.name));
        // Whoever asked may be dead.
        let _heard = answers.send(outcomes);
    }

    fn known_of(&self, submitted: &[LedgerEntry]) -> Vec<Receipt> {
        let state = locked(&self.state);
        let known = |entry: &&LedgerEntry| {
            state.taken.iter().find(|taken| Some(&taken.gateway_id) == entry.gateway_id.as_ref())
        };
        submitted
            .iter()
            .filter_map(|entry| known(&entry).map(|taken| (entry, taken)))
            .map(|(entry, taken)| Receipt {
                status: if taken.is_lost { ReceiptStatus::Underway } else { taken.fate.clone() },
                lane: self.profile.name.clone(),
                notice: entry.notice,
                position: entry.position,
                gateway_id: taken.gateway_id.clone(),
                arrived: self.clock.now(),
            })
            .collect()
    }
}

#[async_trait]
impl ChannelConnector for FakeGateway {
    fn profile(&self) -> &LaneProfile {
        &self.profile
    }

    async fn submit(&self, messages: &[Message]) -> Vec<SubmitOutcome> {
        let first = self.arrive(messages);
        let on_the_wire =
            Arc::new(OnTheWire { in_flight: Arc::clone(&self.in_flight), is_over: AtomicBool::new(false) });
        let _request = Request(Arc::clone(&on_the_wire));
        let (answers, answer) = oneshot::channel();
        tokio::spawn(self.clone().handle(first, messages.to_vec(), on_the_wire, answers));
        self.faults.note(|| {
            let sent: Vec<&str> = messages.iter().map(|message| message.reference.as_str()).collect();
            format!("sends {sent:?} through {}", self.profile.name)
        });
        self.faults.submit_leaves();
        self.faults.pass().await;
        match answer.await {
            Ok(outcomes) => outcomes,
            Err(_) => futures::future::pending().await,
        }
    }

    async fn query(&self, submitted: &[LedgerEntry]) -> Result<Vec<Receipt>, PortError> {
        let (gateway, submitted) = (self.clone(), submitted.to_vec());
        self.faults.call("gateway", move || gateway.known_of(&submitted)).await
    }
}
