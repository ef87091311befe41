//! The registry's topic as the running engine follows it, and that this process is alive and how far it has come.
//!
//! A process is waited for by commands from before it reads the first change: it reports itself before each question, and
//! gets no answer while it cannot. So whoever sends on the strength of an answer is known to whoever changes the registry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::registry::RegistryChange;
use gatebell_engine::time::Timestamp;

use super::super::{PORT, ProcessReports};
use super::follower::{Asked, Follower};
use super::topic::TopicReader;
use crate::kafka::KafkaSettings;
use crate::sealing::ContactKey;

/// A question is only asked when this process was reported within this time. An answer is acted upon for 5 s, and both
/// together must be less than a report lives ([`REPORT_LIVES`](super::super::REPORT_LIVES)).
const REPORTED_WITHIN: Duration = Duration::from_secs(1);
/// The same report need not be written more often.
const REPORT_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Follows the registry for the engine of this process.
pub struct KafkaRegistryFeed {
    follower: Arc<Mutex<Follower>>,
    reports: Arc<dyn ProcessReports>,
    owner: String,
    clock: Arc<dyn Clock>,
    reported: Option<Report>,
}

/// The last report that the store took.
#[derive(Clone, Copy)]
struct Report {
    version: u64,
    /// When it was begun, by the monotonic clock.
    begun: Duration,
}

impl KafkaRegistryFeed {
    /// Follows the topic of `settings` as the process `owner`, a name that no other process has. Contact data is opened with
    /// `contact_key`. Nothing is asked of a broker yet.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub fn new(
        settings: &KafkaSettings,
        contact_key: ContactKey,
        reports: Arc<dyn ProcessReports>,
        owner: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PortError> {
        let follower = Follower::new(TopicReader::new(settings)?, contact_key);
        Ok(Self {
            follower: Arc::new(Mutex::new(follower)),
            reports,
            owner: owner.to_owned(),
            clock,
            reported: None,
        })
    }

    fn is_reported_within(&self, time: Duration) -> bool {
        let now = self.clock.monotonic();
        self.reported.is_some_and(|report| now.saturating_sub(report.begun) < time)
    }

    async fn report(&mut self, version: u64) -> Result<(), PortError> {
        let begun = self.clock.monotonic();
        self.reports.report(&self.owner, version).await?;
        self.reported = Some(Report { version, begun });
        Ok(())
    }
}

#[async_trait]
impl RegistryFeed for KafkaRegistryFeed {
    async fn read(&mut self, version: u64, _horizon: Timestamp) -> Result<Vec<RegistryChange>, PortError> {
        if !self.is_reported_within(REPORTED_WITHIN) {
            self.report(version).await?;
        }
        let follower = Arc::clone(&self.follower);
        let asked = Asked { now: self.clock.now(), speed: self.clock.speed() };
        tokio::task::spawn_blocking(move || {
            follower.lock().unwrap_or_else(PoisonError::into_inner).read(version, asked)
        })
        .await
        .map_err(|error| PortError::new(PORT, error))?
    }

    async fn report_applied(&mut self, version: u64) -> Result<(), PortError> {
        let is_known = self.reported.is_some_and(|report| report.version == version);
        if is_known && self.is_reported_within(REPORT_AGAIN_AFTER) {
            return Ok(());
        }
        self.report(version).await
    }
}
