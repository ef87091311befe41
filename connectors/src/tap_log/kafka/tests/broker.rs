//! Brokers that fail, on librdkafka's own imitation: the only use of it, since it is no Kafka.

use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::IntakeError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

struct Imitation {
    brokers: MockCluster<'static, DefaultProducerContext>,
    settings: KafkaSettings,
    cluster: Cluster,
    clock: Arc<SystemClock>,
}

impl Imitation {
    fn new() -> Self {
        let brokers = MockCluster::new(1).unwrap();
        let settings = KafkaSettings {
            bootstrap: brokers.bootstrap_servers(),
            session_timeout: Duration::from_secs(6),
            ..KafkaSettings::default()
        };
        brokers.create_topic(&settings.taps_topic(), 4, 1).unwrap();
        let cluster = Cluster { id: "imitation".to_owned(), partitions: 4 };
        Self { brokers, settings, cluster, clock: Arc::new(SystemClock::new()) }
    }

    async fn join(&self) -> KafkaTapLog {
        let clock = Arc::<SystemClock>::clone(&self.clock);
        KafkaTapLog::open(&self.settings, &self.cluster, clock, None).await.unwrap()
    }

    fn intake(&self) -> KafkaTapIntake {
        let limits = IntakeLimits { delivery_max: Duration::from_secs(2), ..IntakeLimits::default() };
        KafkaTapIntake::new(&self.settings, limits, Arc::<SystemClock>::clone(&self.clock)).unwrap()
    }

    /// A confirmation that was asked for after now.
    async fn confirmation(&self, log: &mut KafkaTapLog) {
        let now = self.clock.monotonic();
        let is_new =
            |event| matches!(event, Ok(TapLogEvent::Confirmed { asked_at }) if asked_at > now).then_some(());
        until(log, is_new).await;
    }
}

#[tokio::test]
async fn a_broker_that_goes_away_is_trouble_and_when_it_is_back_all_goes_on() {
    let imitation = Imitation::new();
    let (mut log, intake) = (imitation.join().await, imitation.intake());
    from_the_start(&mut log, 4).await;
    append(&intake, 0..97).await;
    records(&mut log, 97).await;
    imitation.confirmation(&mut log).await;

    imitation.brokers.broker_down(1).unwrap();
    let gone_at = imitation.clock.monotonic();
    let (mut confirmed_since, mut trouble) = (false, None);
    while trouble.is_none() {
        trouble = until(&mut log, |event| {
            confirmed_since |= matches!(event, Ok(TapLogEvent::Confirmed { asked_at }) if asked_at > gone_at);
            Some(event.err())
        })
        .await;
    }
    assert!(!confirmed_since, "nobody is there to confirm anything");
    let refusal = intake.append(vec![tap(97)]).await.unwrap_err();
    assert!(matches!(refusal, IntakeError::Unavailable(_)), "{refusal}");

    imitation.brokers.broker_up(1).unwrap();
    imitation.confirmation(&mut log).await;
    append(&intake, 98..195).await;
    let read = records(&mut log, 97).await;
    assert!(read.iter().any(|(_, record)| record.value == tap(194).value));
}

#[tokio::test]
async fn commits_that_are_refused_confirm_nothing() {
    let imitation = Imitation::new();
    let mut log = imitation.join().await;
    from_the_start(&mut log, 4).await;
    imitation.confirmation(&mut log).await;
    let refusals = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 2];
    imitation.brokers.request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    let refusal = log.commit(&[(0, 1)]).await.unwrap_err().to_string();
    assert!(refusal.contains("took no commit"), "{refusal}");
    imitation.confirmation(&mut log).await;
    log.commit(&[(0, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_member_that_the_group_has_forgotten_loses_its_partitions_and_joins_again() {
    let imitation = Imitation::new();
    let mut log = imitation.join().await;
    from_the_start(&mut log, 4).await;
    let forgotten = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID];
    imitation.brokers.request_errors(RDKafkaApiKey::Heartbeat, &forgotten);
    let lost = until(&mut log, |event| match event {
        Ok(TapLogEvent::Lost { partitions }) => Some(partitions),
        _ => None,
    });
    let mut lost = lost.await;
    lost.sort_unstable();
    assert_eq!(lost, [0, 1, 2, 3]);
    from_the_start(&mut log, 4).await;
    append(&imitation.intake(), 0..97).await;
    records(&mut log, 97).await;
}

/// The client that asks hears of the outage once it is over, in the place of the record that it asked for.
#[tokio::test]
async fn the_time_of_a_record_is_told_at_the_first_asking_after_an_outage() {
    let imitation = Imitation::new();
    let (mut log, intake) = (imitation.join().await, imitation.intake());
    from_the_start(&mut log, 4).await;
    append(&intake, 0..97).await;
    let (partition, record) = records(&mut log, 1).await.swap_remove(0);
    imitation.brokers.broker_down(1).unwrap();
    let silence = log.received_at(partition, record.offset).await.unwrap_err().to_string();
    assert!(silence.contains("no answer"), "{silence}");
    imitation.brokers.broker_up(1).unwrap();
    imitation.confirmation(&mut log).await;
    let received = log.received_at(partition, record.offset).await.unwrap();
    assert_eq!(received, Some(record.received));
}
