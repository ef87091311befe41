//! The partitions that this process owns just now, for whoever works through them one by one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::tenure::Tenure;

/// See the module. Written by the dispatcher alone.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    tenures: Mutex<BTreeMap<u32, Arc<Tenure>>>,
    endings: Arc<EndingsSoFar>,
}

/// How many times tenures have ended. (A watch channel would wake its waiters in random order, and a simulated day would not
/// play the same again.)
#[derive(Debug, Default)]
struct EndingsSoFar {
    count: AtomicU64,
    news: Notify,
}

/// Says to one lane when tenures have ended: then it lets go of what it holds for those.
#[derive(Debug)]
pub(crate) struct Endings {
    so_far: Arc<EndingsSoFar>,
    seen: u64,
}

impl Endings {
    /// Waits until tenures have ended since the last time. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        loop {
            let news = self.so_far.news.notified();
            let count = self.so_far.count.load(Ordering::SeqCst);
            if count != self.seen {
                self.seen = count;
                return;
            }
            news.await;
        }
    }
}

impl Holdings {
    fn tenures(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Tenure>>> {
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenure begins.
    pub(crate) fn add(&self, tenure: &Arc<Tenure>) {
        self.tenures().insert(tenure.partition(), Arc::clone(tenure));
    }

    /// Ends the tenures of `partitions`, as far as there are any.
    pub(crate) fn end(&self, partitions: &[u32]) {
        let mut tenures = self.tenures();
        for partition in partitions {
            if let Some(tenure) = tenures.remove(partition) {
                tenure.end();
            }
        }
        drop(tenures);
        self.endings.count.fetch_add(1, Ordering::SeqCst);
        self.endings.news.notify_waiters();
    }

    /// Every tenure of now, by partition.
    pub(crate) fn all(&self) -> Vec<Arc<Tenure>> {
        self.tenures().values().cloned().collect()
    }

    /// What says when tenures end, from now on.
    pub(crate) fn endings(&self) -> Endings {
        let seen = self.endings.count.load(Ordering::SeqCst);
        Endings { so_far: Arc::clone(&self.endings), seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::Watch;
    use crate::ledger::OwnerToken;
    use std::time::Duration;

    fn tenure(partition: u32) -> Arc<Tenure> {
        let watch = Arc::new(Watch::new());
        Arc::new(Tenure::beginning_with(0, partition, OwnerToken(1), Duration::ZERO, watch))
    }

    #[tokio::test]
    async fn only_the_tenures_named_end_and_every_lane_hears_of_it_once() {
        let holdings = Holdings::default();
        let (first, second) = (tenure(0), tenure(1));
        holdings.add(&first);
        holdings.add(&second);
        let mut endings = [holdings.endings(), holdings.endings()];
        holdings.end(&[1, 7]);
        assert!(!first.has_ended() && second.has_ended());
        assert_eq!(holdings.all().iter().map(|tenure| tenure.partition()).collect::<Vec<_>>(), [0]);
        for lane in &mut endings {
            lane.next().await;
            assert!(futures::poll!(std::pin::pin!(lane.next())).is_pending());
        }
    }

    #[test]
    fn a_partition_that_comes_back_has_a_tenure_of_its_own() {
        let holdings = Holdings::default();
        let (before, after) = (tenure(0), tenure(0));
        holdings.add(&before);
        holdings.end(&[0]);
        holdings.add(&after);
        assert!(before.has_ended() && !after.has_ended());
        assert!(Arc::ptr_eq(&holdings.all()[0], &after));
    }
}
