//! The engine's own counters while it is played, for what only it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Counts by name and labels; of gauges and histograms only how they are labelled.
#[derive(Default)]
pub(crate) struct Counters {
    counts: Mutex<BTreeMap<Key, Arc<AtomicU64>>>,
    others: Mutex<BTreeSet<Key>>,
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

    /// Every counter of this name, by the values of its labels, as they were given, and the count.
    pub(crate) fn by_labels(&self, name: &str) -> BTreeMap<Vec<String>, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_name = counts.iter().filter(|(key, _)| key.name() == name);
        let values = |key: &Key| key.labels().map(|label| label.value().to_owned()).collect();
        of_name.map(|(key, count)| (values(key), count.load(Ordering::Relaxed))).collect()
    }

    /// Every value of every label of every figure.
    pub(crate) fn label_values(&self) -> BTreeSet<String> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = counts.keys().chain(others.iter()).flat_map(Key::labels);
        labels.map(|label| label.value().to_owned()).collect()
    }

    fn keep(&self, key: &Key) {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
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

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.keep(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.keep(key);
        Histogram::noop()
    }
}
