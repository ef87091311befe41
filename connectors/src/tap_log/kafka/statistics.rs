//! What librdkafka counts, as metrics.

use rdkafka::statistics::Statistics;

/// Passes on what an operator watches: brokers that answer, and by partition what is fetched ahead and not committed yet.
pub(super) fn report(topic: &str, statistics: &Statistics) {
    let brokers = statistics.brokers.values().filter(|broker| broker.nodeid >= 0);
    let up = brokers.clone().filter(|broker| broker.state == "UP").count();
    set("gatebell_kafka_brokers_up", None, up);
    set("gatebell_kafka_brokers", None, brokers.count());
    let Some(topic) = statistics.topics.get(topic) else { return };
    for (partition, found) in topic.partitions.iter().filter(|(_, found)| found.desired) {
        set(
            "gatebell_kafka_fetched_ahead_taps",
            Some(*partition),
            usize::try_from(found.fetchq_cnt).unwrap_or(0),
        );
        // Minus one until something was committed.
        if let Ok(lag) = usize::try_from(found.consumer_lag) {
            set("gatebell_kafka_uncommitted_taps", Some(*partition), lag);
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
