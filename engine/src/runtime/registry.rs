//! Follows the registry: builds the index at the start, then applies each change within a moment.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::PORT_RETRY;
use super::status::Status;
use super::vitals::Vitals;
use crate::index::RegistryIndex;
use crate::ports::PortError;
use crate::ports::clock::Clock;
use crate::ports::registry_feed::RegistryFeed;
use crate::term::Term;
use crate::time::{Day, Timestamp};

/// How often the feed is read, in real time: a change counts within a second.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// How often this process says that it is alive, in real time.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct RegistryFollower {
    pub(crate) feed: Box<dyn RegistryFeed>,
    pub(crate) index: Arc<RegistryIndex>,
    pub(crate) term: Arc<Term>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) status: Arc<Status>,
}

impl RegistryFollower {
    /// Reads the whole registry and reports it, so that whoever looks sees a process before it is live; tries again until it
    /// has it.
    pub(crate) async fn load(&mut self) {
        loop {
            let loaded = match self.catch_up().await {
                Ok(_) => self.feed.report_applied(self.index.version()).await,
                Err(cause) => Err(cause),
            };
            match loaded {
                Ok(()) => break,
                Err(cause) => {
                    self.status.trouble("registry", &cause);
                    tokio::time::sleep(PORT_RETRY).await;
                }
            }
        }
        if self.index.version() == 0 {
            self.status.trouble("city", &"no city is imported, so that every card is unknown; import one");
        }
        tracing::info!(version = self.index.version(), "the registry is loaded");
    }

    /// Applies everything there is; says whether there was anything.
    async fn catch_up(&mut self) -> Result<bool, PortError> {
        let mut changed = false;
        let mut asked;
        loop {
            asked = (self.clock.monotonic(), self.clock.now());
            let changes = self.feed.read(self.index.version(), Timestamp::MIN).await?;
            if changes.is_empty() {
                break;
            }
            changes.iter().for_each(|change| self.index.apply(change));
            changed = true;
            // A first import has hundreds of thousands of changes: let others run in between.
            tokio::task::yield_now().await;
        }
        let (asked_at, asked_on) = asked;
        self.vitals.registry_confirmed(asked_at, asked_on);
        if self.index.version() > 0 {
            self.status.recovered("city");
        }
        self.status.recovered("registry");
        Ok(changed)
    }

    /// Follows until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut last_report: Option<Duration> = None;
        let mut forgotten_for: Option<Day> = None;
        loop {
            let caught_up = self.catch_up().await;
            let now = self.clock.monotonic();
            let report_due = last_report.is_none_or(|last| now.saturating_sub(last) >= REPORT_EVERY);
            let outcome = match caught_up {
                Ok(changed) if changed || report_due => {
                    last_report = Some(now);
                    self.feed.report_applied(self.index.version()).await
                }
                Ok(_) => Ok(()),
                Err(cause) => Err(cause),
            };
            if let Err(cause) = outcome {
                self.status.trouble("registry", &cause);
            }
            self.forget(&mut forgotten_for);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
        }
    }

    /// Once a day: values that were superseded before yesterday are needed by no tap that may still be decided.
    fn forget(&self, forgotten_for: &mut Option<Day>) {
        let today = self.term.day_of(self.clock.now());
        if forgotten_for.is_none_or(|day| day < today) {
            self.index.forget_before(self.term.midnight(today.previous()));
            *forgotten_for = Some(today);
        }
    }
}
