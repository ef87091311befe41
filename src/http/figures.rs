//! What `/metrics` says, in words: the help text of every figure, whichever part of the program counts it.
//!
//! One table, so that an operator who builds a dashboard finds them all in one place. No label of any of them
//! is personal (P1): they are fixed words, names of lanes and numbers of partitions.

use metrics::{describe_counter, describe_gauge, describe_histogram};

const COUNTERS: [(&str, &str); 20] = [
    ("gatebell_reported_taps_total", "Taps reported over HTTP, by what was answered"),
    ("gatebell_refused_reports_total", "Reports refused whole, by HTTP status"),
    (
        "gatebell_taps_total",
        "Records read from the tap log, by what became of them; adds up to the records read",
    ),
    ("gatebell_unregistered_reader_taps_total", "Taps of readers that nobody registered; taken all the same"),
    ("gatebell_notices_total", "Ledger entries of notices, by channel and event"),
    ("gatebell_submits_total", "Messages handed to a gateway or push backend, by what it said"),
    ("gatebell_lane_permits_total", "Messages that the lane's limiter has let go"),
    ("gatebell_callbacks_total", "Callbacks of gateways, by what came of them"),
    ("gatebell_receipts_total", "Receipts read, by lane and status"),
    ("gatebell_receipts_unreadable_total", "Records among the receipts that are none"),
    ("gatebell_receipts_given_up_total", "Receipts that matched no notice for a day"),
    (
        "gatebell_unplaced_receipts_total",
        "Receipts whose message id was not known when they came, by what came of them: parked, placed or given up",
    ),
    ("gatebell_parked_receipts_given_up_total", "Receipts given up because too many matched no notice"),
    (
        "gatebell_charges_total",
        "Delivered SMS put on an order's account, or adjusted after its bill was final",
    ),
    ("gatebell_commits_failed_total", "Commits that the disk refused, by port"),
    ("gatebell_port_errors_total", "Times that a port could not do what the engine asked"),
    (
        "gatebell_registry_late_changes_total",
        "Changes of the registry seen after taps that they count for may have been decided",
    ),
    ("gatebell_store_retries_total", "Requests to the CQL store that were made again, by kind of request"),
    (
        "gatebell_misplaced_records_total",
        "Records that lie in another partition of the topic than their card's",
    ),
    ("gatebell_invariant_violations_total", "Broken invariants, by number: each is a defect"),
];

const GAUGES: [(&str, &str); 15] = [
    ("gatebell_intake_waiting_taps", "Taps that wait for the disk"),
    (
        "gatebell_tap_lag",
        "Records of a partition that are written and not yet decided, of those that are known of: none more while it is held",
    ),
    (
        "gatebell_held_seconds",
        "For how long the first tap of a partition waits that is held, since its shard is full, in seconds",
    ),
    (
        "gatebell_unsettled_taps",
        "Records of a partition, of those that have come, from the last committed one on",
    ),
    ("gatebell_partitions_owned", "Partitions of the taps that this process decides"),
    ("gatebell_kafka_brokers", "Brokers of Kafka that this process knows"),
    ("gatebell_kafka_brokers_up", "Brokers of Kafka that this process is connected to"),
    ("gatebell_kafka_fetched_ahead_taps", "Records of a partition that are here and not yet read"),
    ("gatebell_kafka_uncommitted_taps", "Records of a partition from the last committed one on"),
    ("gatebell_lane_queue_depth", "Notices that wait in a lane"),
    ("gatebell_lane_in_flight", "Submits of a lane without an answer yet"),
    ("gatebell_lane_rate_per_second", "Messages a second that a lane may send"),
    ("gatebell_lane_state", "1 for the state that a lane is in"),
    ("gatebell_unplaced_receipts", "Receipts of a lane that wait for their message id"),
    ("gatebell_gateway_points", "Points left on the account of a gateway, as it last said"),
];

const HISTOGRAMS: [(&str, &str); 5] = [
    ("gatebell_tap_append_seconds", "Time until a report's taps were durable"),
    ("gatebell_commit_seconds", "Time of one commit to disk, by port"),
    ("gatebell_submit_seconds", "Time to the answer of a gateway or push backend"),
    (
        "gatebell_store_request_seconds",
        "Time of one request to the CQL store from when it leaves, by kind of request",
    ),
    (
        "gatebell_tap_to_answer_seconds",
        "Time from a tap's receipt by the log to the answer for its notice, by channel",
    ),
];

/// Tells the recorder.
pub(super) fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(name, help);
    }
}

#[cfg(test)]
mod tests;
