//! For tests: the real Kafka of `dev/services`, with topics of one test's own.

#![allow(clippy::expect_used)]

use std::net::TcpStream;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use super::{KafkaSettings, TracingContext};

/// Topics that nobody else uses, deleted when dropped.
#[derive(Debug)]
pub(crate) struct OwnTopics {
    pub(crate) settings: KafkaSettings,
}

impl OwnTopics {
    /// Nothing is there yet. Fails when no Kafka answers.
    pub(crate) fn new() -> Self {
        let bootstrap = std::env::var("GATEBELL_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned());
        assert!(TcpStream::connect(&bootstrap).is_ok(), "no Kafka at {bootstrap}: run dev/services up");
        let mut random = [0; 6];
        getrandom::fill(&mut random).expect("the system has random bytes");
        let prefix = format!("test-{}", hex::encode(random));
        let settings = KafkaSettings {
            bootstrap,
            group: prefix.clone(),
            topic_prefix: prefix,
            partitions: std::num::NonZeroU32::new(4).expect("four is not zero"),
            session_timeout: Duration::from_secs(6),
            ..KafkaSettings::default()
        };
        Self { settings }
    }
}

impl Drop for OwnTopics {
    fn drop(&mut self) {
        let settings = self.settings.clone();
        let delete = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let client = settings.client().ok()?;
            let admin: AdminClient<TracingContext> = client.create_with_context(TracingContext).ok()?;
            let topics = [
                settings.taps_topic(),
                settings.rejected_topic(),
                settings.registry_topic(),
                settings.receipts_topic(),
            ];
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
            // What is left behind bothers nobody: its name is random.
            runtime.block_on(admin.delete_topics(&names, &options)).ok()
        };
        let _ = std::thread::spawn(delete).join();
    }
}

/// An admin client, for a test that makes topics of its own.
pub(crate) fn admin(settings: &KafkaSettings) -> AdminClient<DefaultClientContext> {
    settings.client().expect("no security").create().expect("an admin client")
}
