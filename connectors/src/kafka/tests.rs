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
    const STAMPED: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
    const COMPACTED: (&str, &str) = ("cleanup.policy", "compact");
    const TWO_DAYS: (&str, &str) = ("min.compaction.lag.ms", "172800000");
    let unfit: [(Topic, i32, Config, &str); 7] = [
        (KafkaSettings::receipts_topic, 3, &[], "kafka-topics.sh --alter --partitions"),
        (KafkaSettings::receipts_topic, 4, &[COMPACTED], "cleanup.policy=delete"),
        (KafkaSettings::rejected_topic, 1, &[COMPACTED], "cleanup.policy=delete"),
        (KafkaSettings::registry_topic, 2, &[STAMPED, COMPACTED, TWO_DAYS], "one partition"),
        (KafkaSettings::registry_topic, 1, &[STAMPED, COMPACTED], "min.compaction.lag.ms=172800000"),
        (KafkaSettings::registry_topic, 1, &[COMPACTED, TWO_DAYS], "message.timestamp.type=LogAppendTime"),
        (
            KafkaSettings::taps_topic,
            4,
            &[STAMPED, ("retention.ms", "86400000")],
            "--add-config retention.ms=",
        ),
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

#[cfg(feature = "kafka-tls")]
mod secured {
    //! On the listener of `dev/services` that asks for TLS, a user and a password.

    use bytes::Bytes;
    use gatebell_engine::ids::CardNumber;
    use gatebell_engine::ports::clock::SystemClock;
    use gatebell_engine::ports::tap_log::{IncomingTap, TapIntake, TapLog, TapLogEvent};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::tap_log::kafka::{IntakeLimits, KafkaTapIntake, KafkaTapLog};

    const PASSWORD: &str = "only-for-tests";

    fn secured(own: &OwnTopics, user: &str, password: &str, tls: Option<Tls>) -> KafkaSettings {
        let bootstrap = std::env::var("GATEBELL_TEST_KAFKA_SECURED").unwrap_or("127.0.0.1:19094".to_owned());
        let security = Security::Scram {
            user: user.to_owned(),
            password: secrecy::SecretString::from(password),
            mechanism: ScramMechanism::Sha512,
            tls,
        };
        KafkaSettings { bootstrap, security, ..own.settings.clone() }
    }

    /// Trusts the listener's certificate.
    fn trusting() -> Option<Tls> {
        let authorities = std::env::var_os("GATEBELL_TEST_KAFKA_CA")
            .expect("no GATEBELL_TEST_KAFKA_CA: see dev/services up");
        Some(Tls { authorities: Some(authorities.into()), ..Tls::default() })
    }

    #[tokio::test]
    async fn taps_go_in_and_come_out_by_tls_and_scram() {
        let own = OwnTopics::new();
        let settings = secured(&own, "gatebell", PASSWORD, trusting());
        let cluster = prepare_topics(&settings).await.unwrap();
        assert_eq!(cluster, existing_topics(&own.settings).await.unwrap(), "the same one as in the clear");

        let clock = Arc::new(SystemClock::new());
        let intake =
            KafkaTapIntake::new(&settings, IntakeLimits::default(), Arc::<SystemClock>::clone(&clock))
                .unwrap();
        let tap = IncomingTap {
            card: CardNumber::new("0000000000000001").unwrap(),
            value: Bytes::from_static(b"a secret"),
        };
        intake.append(vec![tap.clone()]).await.unwrap();
        let mut log = KafkaTapLog::open(&settings, &cluster, clock, None).await.unwrap();
        let read = async {
            loop {
                match log.next().await.unwrap() {
                    TapLogEvent::Assigned { partition, .. } => {
                        log.rewind(partition, None).await.unwrap();
                    }
                    TapLogEvent::Batch { partition, records, .. } => {
                        log.commit(&[(partition, records[0].offset + 1)]).await.unwrap();
                        return records;
                    }
                    _ => {}
                }
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(60), read).await.expect("within a minute");
        assert_eq!(read[0].value, tap.value);
    }

    #[tokio::test]
    async fn who_is_refused_is_told_why_at_once_and_no_secret_is_told() {
        let own = OwnTopics::new();
        let cases = [
            ("a wrong password", "gatebell", "open sesame", trusting(), Refusal::Credentials),
            ("nobody's name", "alibaba", PASSWORD, trusting(), Refusal::Credentials),
            (
                "a broker that the system does not know",
                "gatebell",
                PASSWORD,
                Some(Tls::default()),
                Refusal::Tls,
            ),
        ];
        for (what, user, password, tls, expected) in cases {
            let since = std::time::Instant::now();
            let refusal = prepare_topics(&secured(&own, user, password, tls)).await.unwrap_err();
            assert!(
                matches!(&refusal, KafkaSetupError::Refused { cause, .. } if *cause == expected),
                "{what}: {refusal}"
            );
            assert!(since.elapsed() < Duration::from_secs(10), "{what}: {:?}", since.elapsed());
            let text = format!("{refusal} {refusal:?}");
            assert!(!text.contains(password) && !text.contains(user), "{what}: {text}");
        }
    }
}
