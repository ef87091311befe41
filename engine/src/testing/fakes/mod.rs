//! The ports in memory, with faults from a seed.
//!
//! A fake is two things: what survives a crash (the records, entries, messages: shared, behind an `Arc`) and the connection
//! of one engine to it, made anew at each start. Each call of a port passes through [`Faults`], which takes time, fails
//! before or after the effect, and says when the process crashes or falls asleep: at any await of any port. What a process
//! asked for happens in the world outside it, whatever becomes of the process meanwhile.

mod clock;
mod doze;
mod gateway;
mod group;
mod journal;
mod ledger;
mod message_ids;
mod receipts;
mod registry;
mod rejected;
mod seats;
mod tap_log;

pub use clock::FakeClock;
pub use doze::Doze;
pub use gateway::{Arrival, FakeGateway, GatewayBehaviour, SentMessage};
pub use group::Tally;
pub use journal::{Journal, JournalLine};
pub use ledger::FakeLedger;
pub use message_ids::FakeMessageIds;
pub use receipts::FakeReceiptLog;
pub use registry::{FakeRegistry, FakeRegistryFeed};
pub use rejected::FakeRejectedLog;
pub use seats::{FakeSeat, FakeSeats};
pub use tap_log::{Commit, FakeTapLog, FakeTapLogReader, Handover};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ports::PortError;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often ports misbehave, in thousandths of all calls.
#[derive(Clone, Copy, Debug)]
pub struct FaultRates {
    /// The call fails and did nothing.
    pub error_before: u32,
    /// The call did what was asked, and says that it failed.
    pub error_after: u32,
    /// The call takes up to two seconds instead of milliseconds.
    pub slow: u32,
    /// Of a write to several rows only the first is made, and the call says that it failed.
    pub torn: u32,
}

impl FaultRates {
    /// Ports that do as they are told, in no time.
    pub const NONE: Self = Self { error_before: 0, error_after: 0, slow: 0, torn: 0 };
}

struct FaultState {
    random: ChaCha8Rng,
    calls_until_crash: Option<u64>,
    crash: CancellationToken,
    calls: u64,
    /// At which call the process falls asleep, and for how long; sorted.
    naps: Vec<(u64, Duration)>,
    submits: u64,
    /// At which submit it does.
    nap_at_submit: Option<(u64, Duration)>,
    /// Until when the process and a port do not hear of each other, on tokio's clock.
    cut_off_until: BTreeMap<&'static str, Instant>,
}

/// Ports that are away for every process of a world, until when. Clones share what they hold.
#[derive(Clone, Default)]
pub struct Outages {
    until: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

impl Outages {
    /// Every call of `port` fails for `lasting`.
    pub fn begin(&self, port: &'static str, lasting: Duration) {
        locked(&self.until).insert(port, Instant::now() + lasting);
    }

    fn is_away(&self, port: &'static str) -> bool {
        locked(&self.until).get(port).is_some_and(|until| Instant::now() < *until)
    }
}

/// The misfortunes of one simulated process, from a seed.
#[derive(Clone)]
pub struct Faults {
    rates: FaultRates,
    state: Arc<Mutex<FaultState>>,
    doze: Doze,
    process: Option<u64>,
    outages: Outages,
    journal: Journal,
}

impl Faults {
    /// Draws everything from `seed`.
    pub fn from_seed(seed: u64, rates: FaultRates) -> Self {
        let state = FaultState {
            random: ChaCha8Rng::seed_from_u64(seed),
            calls_until_crash: None,
            crash: CancellationToken::new(),
            calls: 0,
            naps: Vec::new(),
            submits: 0,
            nap_at_submit: None,
            cut_off_until: BTreeMap::new(),
        };
        Self {
            rates,
            state: Arc::new(Mutex::new(state)),
            doze: Doze::default(),
            process: None,
            outages: Outages::default(),
            journal: Journal::default(),
        }
    }

    /// Of the process of this number, in a world that keeps `journal` and has `outages`.
    #[must_use]
    pub fn in_world(self, process: Option<u64>, outages: &Outages, journal: &Journal) -> Self {
        Self { process, outages: outages.clone(), journal: journal.clone(), ..self }
    }

    /// What the process did goes there.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Adds a line about the process to the journal, where lines are kept.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.journal.note(self.process, what);
    }

    /// No faults at all.
    pub fn none() -> Self {
        Self::from_seed(0, FaultRates::NONE)
    }

    /// The process will crash at its `calls`-th await of a port from now on; the token is cancelled then, and the call
    /// never returns.
    pub fn crash_after(&self, calls: u64) -> CancellationToken {
        let mut state = locked(&self.state);
        state.calls_until_crash = Some(calls);
        state.crash.clone()
    }

    /// Whether the process has crashed.
    pub fn has_crashed(&self) -> bool {
        locked(&self.state).crash.is_cancelled()
    }

    /// The process will fall asleep for `lasting` at its `calls`-th await of a port.
    pub fn nap_at(&self, calls: u64, lasting: Duration) {
        let mut state = locked(&self.state);
        state.naps.push((calls, lasting));
        state.naps.sort_unstable();
    }

    /// The process will fall asleep for `lasting` just when its `submits`-th submit has left.
    pub fn nap_at_submit(&self, submits: u64, lasting: Duration) {
        locked(&self.state).nap_at_submit = Some((submits, lasting));
    }

    /// The process and `port` do not hear of each other for `lasting`; everything else works.
    pub fn cut_off(&self, port: &'static str, lasting: Duration) {
        self.note(|| format!("hears nothing of the {port} for {} ms", lasting.as_millis()));
        locked(&self.state).cut_off_until.insert(port, Instant::now() + lasting);
    }

    /// What puts the process to sleep.
    pub fn doze(&self) -> Doze {
        self.doze.clone()
    }

    /// Whether a write to several rows is torn.
    pub(crate) fn tears(&self) -> bool {
        self.happens(self.rates.torn)
    }

    /// Awaits of ports so far.
    pub fn calls(&self) -> u64 {
        locked(&self.state).calls
    }

    /// A number in `range`.
    pub fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        locked(&self.state).random.random_range(range)
    }

    /// Whether something happens that happens in `thousandths` of all cases.
    pub fn happens(&self, thousandths: u32) -> bool {
        locked(&self.state).random.next_u32() % 1000 < thousandths
    }

    /// One await of a port begins, which is where a crash or a nap falls: how long it will take.
    async fn step(&self) -> Duration {
        let (crashes, nap, wait) = {
            let mut state = locked(&self.state);
            state.calls += 1;
            let crashes = match &mut state.calls_until_crash {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            };
            let calls = state.calls;
            let nap = state.naps.first().copied().filter(|(at, _)| *at <= calls);
            if nap.is_some() {
                state.naps.remove(0);
            }
            if crashes && !state.crash.is_cancelled() {
                state.crash.cancel();
                self.note(|| "crashes".to_owned());
            }
            let slow = state.random.next_u32() % 1000 < self.rates.slow;
            let wait_ms =
                if slow { state.random.random_range(100..2000) } else { state.random.random_range(0..4) };
            (crashes, nap, Duration::from_millis(wait_ms))
        };
        if crashes {
            futures::future::pending::<()>().await;
        }
        if let Some((_, lasting)) = nap {
            self.falls_asleep(lasting);
        }
        wait
    }

    /// One await that asks nobody for anything.
    async fn pass(&self) {
        let wait = self.step().await;
        tokio::time::sleep(wait).await;
    }

    /// A submit has left.
    fn submit_leaves(&self) {
        let mut state = locked(&self.state);
        state.submits += 1;
        let submits = state.submits;
        let nap = state.nap_at_submit.take_if(|(at, _)| *at <= submits);
        drop(state);
        if let Some((_, lasting)) = nap {
            self.journal.reached("asleep in mid-submit");
            self.falls_asleep(lasting);
        }
    }

    fn falls_asleep(&self, lasting: Duration) {
        self.note(|| format!("falls asleep for {} ms", lasting.as_millis()));
        self.doze.fall_asleep(lasting);
    }

    /// Waits until the process and `port` hear of each other again.
    async fn heard(&self, port: &'static str) {
        let until = locked(&self.state).cut_off_until.get(port).copied();
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// A call of `port`: `effect` happens or not, and the answer tells the truth or not. Once asked for it happens when it
    /// happens, be the process asleep or dead by then.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        port: &'static str,
        effect: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PortError> {
        let way = self.step().await;
        self.heard(port).await;
        let is_away = self.outages.is_away(port);
        let is_refused = self.happens(self.rates.error_before) || is_away;
        let (answers, answer) = oneshot::channel();
        tokio::spawn(async move {
            tokio::time::sleep(way).await;
            if !is_refused {
                // Whoever asked may be dead.
                let _heard = answers.send(effect());
            }
        });
        let answer = answer.await;
        self.pass().await;
        let answer = answer.map_err(|_| {
            self.journal.reached(format!("{port}: {}", if is_away { "away" } else { "refused" }));
            PortError::new(port, "simulated: refused")
        })?;
        if self.happens(self.rates.error_after) {
            self.journal.reached(format!("{port}: done, and answered a time-out"));
            return Err(PortError::new(port, "simulated: timed out after it was done"));
        }
        Ok(answer)
    }
}
