//! The ports in memory, with faults from a seed.
//!
//! A fake is two things: what survives a crash (the records, entries, messages: shared, behind an `Arc`) and the connection
//! of one engine to it, made anew at each start. Each call of a port passes through [`Faults`], which takes time, fails
//! before or after the effect, and says when the process crashes: at any await of any port.

mod gateway;
mod ledger;
mod receipts;
mod registry;
mod rejected;
mod tap_log;

pub use gateway::{FakeGateway, GatewayBehaviour, SentMessage};
pub use ledger::FakeLedger;
pub use receipts::FakeReceiptLog;
pub use registry::{FakeRegistry, FakeRegistryFeed};
pub use rejected::FakeRejectedLog;
pub use tap_log::{Commit, FakeTapLog, FakeTapLogReader};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
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
}

impl FaultRates {
    /// Ports that do as they are told, in no time.
    pub const NONE: Self = Self { error_before: 0, error_after: 0, slow: 0 };
}

struct FaultState {
    random: ChaCha8Rng,
    calls_until_crash: Option<u64>,
    crash: CancellationToken,
    calls: u64,
}

/// The misfortunes of one simulated process, from a seed.
#[derive(Clone)]
pub struct Faults {
    rates: FaultRates,
    state: Arc<Mutex<FaultState>>,
}

impl Faults {
    /// Draws everything from `seed`.
    pub fn from_seed(seed: u64, rates: FaultRates) -> Self {
        let state = FaultState {
            random: ChaCha8Rng::seed_from_u64(seed),
            calls_until_crash: None,
            crash: CancellationToken::new(),
            calls: 0,
        };
        Self { rates, state: Arc::new(Mutex::new(state)) }
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
        state.crash = CancellationToken::new();
        state.crash.clone()
    }

    /// The process will not crash.
    pub fn never_crash(&self) -> CancellationToken {
        let mut state = locked(&self.state);
        state.calls_until_crash = None;
        state.crash = CancellationToken::new();
        state.crash.clone()
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

    /// One await of a port: takes time, and is where a crash falls.
    async fn pass(&self) {
        let (crashes, wait) = {
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
            if crashes {
                state.crash.cancel();
            }
            let slow = state.random.next_u32() % 1000 < self.rates.slow;
            let wait_ms =
                if slow { state.random.random_range(100..2000) } else { state.random.random_range(0..4) };
            (crashes, Duration::from_millis(wait_ms))
        };
        if crashes {
            futures::future::pending::<()>().await;
        }
        tokio::time::sleep(wait).await;
    }

    /// A call of `port`: `effect` happens or not, and the answer tells the truth or not.
    pub(crate) async fn call<T>(
        &self,
        port: &'static str,
        effect: impl FnOnce() -> T,
    ) -> Result<T, PortError> {
        self.pass().await;
        if self.happens(self.rates.error_before) {
            return Err(PortError::new(port, "simulated: refused"));
        }
        let answer = effect();
        self.pass().await;
        if self.happens(self.rates.error_after) {
            return Err(PortError::new(port, "simulated: timed out after it was done"));
        }
        Ok(answer)
    }
}
