//! The engine's own counters while it is played, for what only it knows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Counts by name and labels; gauges and histograms are not kept.
#[derive(Default)]
pub(crate) struct Counters {
    counts: Mutex<BTreeMap<Key, Arc<AtomicU64>>>,
}

impl Counters {
    /// Every counter of this name that counted anything: the value of `label`, and the count.
    pub(crate) fn by_label(&self, name: &str, label: &str) -> Vec<(String, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_name = counts.iter().filter(|(key, _)| key.name() == name);
        let labelled = of_name.filter_map(|(key, count)| {
            let value = key.labels().find(|known| known.key() == label)?.value();
            Some((value.to_owned(), count.load(Ordering::Relaxed)))
        });
        labelled.filter(|(_, count)| *count > 0).collect()
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Counter::from_arc(Arc::clone(counts.entry(key.clone()).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
