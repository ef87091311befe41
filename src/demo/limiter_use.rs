//! How much of its agreed rate a lane used while work waited for it: measured by looking at the lane a few times a second.
//! A few notices that wait for a second try are no work: a stretch counts when more waits at both of its ends than could
//! be sent in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use gatebell_engine::notice::Channel;
use gatebell_engine::runtime::status::Status;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What was seen of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LimiterUse {
    /// How long notices waited in the lane's queue, from look to look.
    pub(crate) waiting: Duration,
    /// What the limiter let through meanwhile.
    pub(crate) permits: u64,
    /// Most notices in the queue at a look.
    pub(crate) queued_max: usize,
}

impl LimiterUse {
    /// Adds the stretch between two looks, in which `sendable` notices could have been sent.
    fn add(&mut self, took: Duration, permits: u64, queued: (usize, usize), sendable: usize) {
        self.queued_max = self.queued_max.max(queued.1);
        if queued.0.min(queued.1) > sendable {
            self.waiting += took;
            self.permits += permits;
        }
    }

    /// Messages a second while work waited; `None` when nothing ever had to wait for as much as a second.
    pub(crate) fn rate_per_s(&self) -> Option<f64> {
        if self.waiting < Duration::from_secs(1) {
            return None;
        }
        // Far below where a float loses a unit.
        #[allow(clippy::cast_precision_loss)]
        let permits = self.permits as f64;
        Some(permits / self.waiting.as_secs_f64())
    }
}

/// Looks at the lane of `channel`, which may send `rate_per_s`, until `stop`.
pub(crate) async fn measure(
    status: Arc<Status>,
    channel: Channel,
    rate_per_s: u32,
    stop: CancellationToken,
) -> LimiterUse {
    let look = || {
        let snapshot = status.snapshot();
        let lane = snapshot.lanes.into_iter().find(|lane| lane.channel == channel);
        lane.map_or((0, 0), |lane| (lane.queued, lane.permits))
    };
    let mut seen = LimiterUse::default();
    let mut before = (Instant::now(), look());
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return seen,
            _ = looks.tick() => {}
        }
        let now = (Instant::now(), look());
        let ((queued_before, permits_before), (queued, permits)) = (before.1, now.1);
        let took = now.0 - before.0;
        let sendable_ms = u128::from(rate_per_s) * took.as_millis();
        let sendable = usize::try_from(sendable_ms / 1_000).unwrap_or(usize::MAX);
        seen.add(took, permits - permits_before, (queued_before, queued), sendable);
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stretches_in_which_work_waited_count() {
        let mut seen = LimiterUse::default();
        seen.add(Duration::from_secs(1), 10, (0, 500), 50);
        seen.add(Duration::from_secs(2), 100, (500, 700), 100);
        seen.add(Duration::from_secs(1), 30, (700, 40), 50);
        assert_eq!(seen, LimiterUse { waiting: Duration::from_secs(2), permits: 100, queued_max: 700 });
        assert_eq!(seen.rate_per_s(), Some(50.0));
    }

    #[test]
    fn a_lane_that_never_waited_has_no_rate() {
        assert_eq!(LimiterUse::default().rate_per_s(), None);
    }
}
