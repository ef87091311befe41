//! What librdkafka counts, as metrics.

use rdkafka::statistics::Statistics;

/// Passes on what an operator watches: brokers that answer, and by partition what is fetched ahead and not committed yet.
pub(super) fn report(topic: &str, statistics: &Statistics) {
    let brokers = statistics.brokers.values().filter(|broker| broker.nodeid >= 0);
    let up = brokers.clone().filter(|broker| broker.state == "UP").count();
    set("gatebell_kafka_brokers_up", None, up);
    set("gatebell_kafka_brokers", None, brokers.count());
    let Some(topic) = statistics.topics.get(topic) else { return };
    for (partition, found) in topic.partitions.iter().filter(|(partition, _)| **partition >= 0) {
        // What another process has to read by now is not ours to show.
        let (ahead, uncommitted) =
            if found.desired { (found.fetchq_cnt, found.consumer_lag) } else { (0, 0) };
        set("gatebell_kafka_fetched_ahead_taps", Some(*partition), usize::try_from(ahead).unwrap_or(0));
        // Minus one until something was committed.
        if let Ok(uncommitted) = usize::try_from(uncommitted) {
            set("gatebell_kafka_uncommitted_taps", Some(*partition), uncommitted);
        }
    }
}

#[allow(clippy::cast_precision_loss)] // A gauge that is off by one in 2^53 taps is still right.
fn set(name: &'static str, partition: Option<i32>, value: usize) {
    match partition {
        Some(partition) => metrics::gauge!(name, "partition" => partition.to_string()).set(value as f64),
        None => metrics::gauge!(name).set(value as f64),
    }
}
