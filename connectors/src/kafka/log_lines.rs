//! librdkafka's own log lines and errors, passed on to `tracing`.
//!
//! Promises that no host or address is passed on: a broker is known by its number there. Which broker that is, its operator
//! knows.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::statistics::Statistics;

/// A client's context that logs and does nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingContext;

impl ClientContext for TracingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        pass_on_error(&error, reason);
    }

    fn stats(&self, _: Statistics) {}
}

impl ConsumerContext for TracingContext {}

/// Of a transaction, the commit says whether its records were delivered.
impl ProducerContext for TracingContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Logs a line of librdkafka's at its level.
pub(crate) fn pass_on(level: RDKafkaLogLevel, facility: &str, line: &str) {
    let line = without_addresses(line);
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(facility, line, "kafka client"),
        RDKafkaLogLevel::Warning => tracing::warn!(facility, line, "kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, line, "kafka client");
        }
    }
}

/// Logs an error that concerns the client as a whole. A lost broker is one: the port says what follows from it.
pub(crate) fn pass_on_error(error: &KafkaError, reason: &str) {
    let reason = without_addresses(reason);
    tracing::debug!(%error, reason, "kafka client");
}

/// The line with every `host:port`, bare or in a URL, as `broker`.
pub(crate) fn without_addresses(line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(without_address).collect();
    words.join(" ")
}

/// A word such as `sasl_ssl://host:9092/1:` becomes `broker/1:`.
fn without_address(word: &str) -> String {
    let has_port = |text: &str| {
        text.rmatch_indices(':').find_map(|(place, _)| {
            let digits = text.get(place + 1..)?.bytes().take_while(u8::is_ascii_digit).count();
            (place > 0 && digits > 0).then_some(place + 1 + digits)
        })
    };
    let scheme = word.find("://").map_or(0, |place| place + 3);
    let Some((head, address)) = word.split_at_checked(scheme) else { return word.to_owned() };
    match has_port(address) {
        Some(end) => format!("broker{}", address.get(end..).unwrap_or_default()),
        None if head.is_empty() => word.to_owned(),
        None => "broker".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_passed_on() {
        for (line, passed_on) in [
            (
                "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
                "broker/1: Connect to broker failed: Connection refused",
            ),
            (
                "sasl_ssl://kafka.city.example:9093/bootstrap: authentication failed",
                "broker/bootstrap: authentication failed",
            ),
            ("ssl://kafka.city.example/2: down", "broker down"),
            ("[2001:db8::1]:9092/3: timed out", "broker/3: timed out"),
            ("1/1 brokers are down", "1/1 brokers are down"),
            ("took 12ms: retrying", "took 12ms: retrying"),
        ] {
            assert_eq!(without_addresses(line), passed_on);
        }
    }
}
