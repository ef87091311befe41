//! The topics on a real Kafka.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use super::fixture::{OwnTopics, admin};
use super::*;

async fn make(settings: &KafkaSettings, topic: &str, partitions: i32, config: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in config {
        new = new.set(name, value);
    }
    let made = admin(settings).create_topics([&new], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|topic| drop(topic.unwrap()));
}

#[tokio::test]
async fn topics_are_made_once_and_found_again() {
    let own = OwnTopics::new();
    let refusal = existing_topics(&own.settings).await.unwrap_err();
    assert!(matches!(&refusal, KafkaSetupError::Missing { .. }), "{refusal}");

    let (one, other) = tokio::join!(prepare_topics(&own.settings), prepare_topics(&own.settings));
    let cluster = one.unwrap();
    assert_eq!(cluster, other.unwrap());
    assert_eq!(cluster.partitions, 4);
    assert!(!cluster.id.is_empty());

    let wider = KafkaSettings { partitions: NonZeroU32::new(9).unwrap(), ..own.settings.clone() };
    assert_eq!(prepare_topics(&wider).await.unwrap(), cluster, "a topic that is there keeps its partitions");
    assert_eq!(existing_topics(&own.settings).await.unwrap(), cluster);
}

#[tokio::test]
async fn taps_stamped_by_their_producers_are_only_for_made_up_cities() {
    let own = OwnTopics::new();
    make(&own.settings, &own.settings.taps_topic(), 3, &[("message.timestamp.type", "CreateTime")]).await;
    let refusal = prepare_topics(&own.settings).await.unwrap_err().to_string();
    for part in [".taps ", "message.timestamp.type=CreateTime", "kafka-configs.sh --alter"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    let made_up = KafkaSettings { made_up_city: true, ..own.settings.clone() };
    assert_eq!(prepare_topics(&made_up).await.unwrap().partitions, 3, "and so have the receipts");
}

#[tokio::test]
async fn unfit_topics_are_refused_with_what_to_do() {
    type Topic = fn(&KafkaSettings) -> String;
    type Config = &'static [(&'static str, &'static str)];
    const TWO_DAYS: Config = &[("cleanup.policy", "compact"), ("min.compaction.lag.ms", "172800000")];
    const COMPACTED: Config = &[("cleanup.policy", "compact")];
    let unfit: [(Topic, i32, Config, &str); 4] = [
        (KafkaSettings::receipts_topic, 3, &[], "kafka-topics.sh --alter --partitions"),
        (KafkaSettings::receipts_topic, 4, COMPACTED, "cleanup.policy=delete"),
        (KafkaSettings::registry_topic, 2, TWO_DAYS, "one partition"),
        (KafkaSettings::registry_topic, 1, COMPACTED, "min.compaction.lag.ms=172800000"),
    ];
    for (topic, partitions, config, remedy) in unfit {
        let own = OwnTopics::new();
        make(&own.settings, &topic(&own.settings), partitions, config).await;
        let refusal = prepare_topics(&own.settings).await.unwrap_err().to_string();
        assert!(refusal.contains(remedy), "{remedy}: {refusal}");
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    let settings = KafkaSettings { bootstrap: "127.0.0.1:1".to_owned(), ..KafkaSettings::default() };
    let refusal = prepare_topics(&settings).await.unwrap_err().to_string();
    assert!(refusal.contains("no answer from Kafka at 127.0.0.1:1"), "{refusal}");
}
