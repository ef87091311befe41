//! The topics: made where they are missing, checked where they are there.
//!
//! A topic is never changed: whoever made it may have had reasons, and a setting that would lose or misplace something
//! stops the start with what to do about it.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{KafkaSettings, KafkaSetupError, Refusal, TracingContext};

/// The longest wait for an answer at the start.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long a first question waits before it is looked whether the brokers have refused.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// Events of the client that are looked at then; more than a second brings.
const EVENTS_PER_LOOK: usize = 1_000;
/// The registry is remembered as of any instant of today and yesterday.
const COMPACTION_LAG: Duration = Duration::from_secs(2 * 86_400);

const TIMESTAMPS: &str = "message.timestamp.type";
const APPEND_TIME: &str = "LogAppendTime";
const CREATE_TIME: &str = "CreateTime";
const CLEANUP: &str = "cleanup.policy";
const COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
/// No limit of size or age.
const UNLIMITED: &str = "-1";
const IN_SYNC_MIN: &str = "min.insync.replicas";
/// Copies from which on two of them must have a record before its sender is thanked: with fewer, one that is down would
/// stop everything.
const COPIES_FOR_TWO_IN_SYNC: u32 = 3;
/// Decisions look at today and yesterday, and a start reads their taps again; receipts prove deliveries of as many days.
const RETENTION_MIN: Duration = Duration::from_secs(3 * 86_400);

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's own id.
    pub id: String,
    /// Partitions of the taps, and of the receipts.
    pub partitions: u32,
}

impl Cluster {
    /// The name of the log of taps in `topic`, part of every notice id.
    pub fn log_name(&self, topic: &str) -> String {
        format!("kafka/{}/{topic}", self.id)
    }
}

/// Makes the topics that are missing, and checks all of them. Several processes may do so at once.
///
/// # Errors
/// When no broker answers, a topic cannot be made, or one is unfit.
pub async fn prepare_topics(settings: &KafkaSettings) -> Result<Cluster, KafkaSetupError> {
    make_missing(settings).await?;
    existing_topics(settings).await
}

/// Checks the topics, which must be there: for commands that only look.
///
/// # Errors
/// When no broker answers, or a topic is missing or unfit.
pub async fn existing_topics(settings: &KafkaSettings) -> Result<Cluster, KafkaSetupError> {
    let found = look(settings).await?;
    let admin: AdminClient<TracingContext> = client(&settings.client()?)?;
    if let Some((topic, _)) = found.topics.iter().find(|(_, shape)| shape.is_none()) {
        return Err(KafkaSetupError::Missing { topic: topic.clone() });
    }
    let resources: Vec<ResourceSpecifier<'_>> =
        found.topics.iter().map(|(topic, _)| ResourceSpecifier::Topic(topic)).collect();
    let described =
        admin.describe_configs(&resources, &options()).await.map_err(|cause| no_answer(settings, &cause))?;
    for ((topic, shape), config) in found.topics.iter().zip(described) {
        let config = config.map_err(|cause| no_answer(settings, &format_args!("{topic}: {cause}")))?;
        let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
        check_config(settings, topic, shape.map_or(0, |shape| shape.copies), value)?;
    }
    check_partitions(settings, &found)
}

/// What the brokers say of themselves and the topics.
struct Found {
    cluster: String,
    /// By name; `None`: it is not there.
    topics: Vec<(String, Option<Shape>)>,
}

/// A topic, as it lies on the brokers.
#[derive(Clone, Copy)]
struct Shape {
    partitions: u32,
    /// Of each partition; the fewest.
    copies: u32,
}

impl Found {
    fn partitions_of(&self, topic: &str) -> u32 {
        let found = self.topics.iter().find(|(name, _)| name == topic);
        found.and_then(|(_, shape)| *shape).map_or(0, |shape| shape.partitions)
    }
}

async fn look(settings: &KafkaSettings) -> Result<Found, KafkaSetupError> {
    let names = [
        settings.taps_topic(),
        settings.rejected_topic(),
        settings.registry_topic(),
        settings.receipts_topic(),
    ];
    // A consumer: a producer's question would make the topic, with the broker's defaults.
    let consumer: BaseConsumer<TracingContext> = client(&settings.consumer()?)?;
    let asked = settings.clone();
    let look = move || {
        let cluster = cluster_id(&asked, &consumer)?;
        let mut topics = Vec::new();
        for topic in names {
            let metadata = consumer
                .fetch_metadata(Some(&topic), ANSWER_MAX)
                .map_err(|cause| no_answer(&asked, &cause))?;
            let found =
                metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
            let count = |things: usize| u32::try_from(things).unwrap_or(u32::MAX);
            let shape = found.map(|found| Shape {
                partitions: count(found.partitions().len()),
                copies: count(found.partitions().iter().map(|it| it.replicas().len()).min().unwrap_or(0)),
            });
            topics.push((topic, shape));
        }
        Ok(Found { cluster, topics })
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(found) => found,
        Err(cause) => Err(no_answer(settings, &cause)),
    }
}

/// The first question, so the one that finds out whether the brokers can be talked to at all. A refusal ends the wait: it
/// would be the same the next time.
fn cluster_id(
    settings: &KafkaSettings,
    consumer: &BaseConsumer<TracingContext>,
) -> Result<String, KafkaSetupError> {
    let deadline = Instant::now() + ANSWER_MAX;
    while Instant::now() < deadline {
        if let Some(cluster) = consumer.client().fetch_cluster_id(LOOK_AFTER) {
            return Ok(cluster);
        }
        // An event that is no error (a log line) looks like an empty queue, and errors come behind them.
        for polled in (0..EVENTS_PER_LOOK).filter_map(|_| consumer.poll(Duration::ZERO)) {
            let cause = match polled {
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::Authentication)) => Refusal::Credentials,
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::SSL)) => Refusal::Tls,
                _ => continue,
            };
            return Err(KafkaSetupError::Refused { bootstrap: settings.bootstrap.clone(), cause });
        }
    }
    Err(no_answer(settings, &format_args!("nothing within {ANSWER_MAX:?}")))
}

async fn make_missing(settings: &KafkaSettings) -> Result<(), KafkaSetupError> {
    let found = look(settings).await?;
    let is_missing = |topic: &str| found.partitions_of(topic) == 0;
    let retention_ms =
        if settings.made_up_city { UNLIMITED.to_owned() } else { settings.retention.as_millis().to_string() };
    let compaction_lag_ms = COMPACTION_LAG.as_millis().to_string();
    let timestamps = if settings.made_up_city { CREATE_TIME } else { APPEND_TIME };
    let in_sync_min = if settings.replication.get() >= COPIES_FOR_TWO_IN_SYNC { "2" } else { "1" };
    // Receipts lie in the partition of the tap, whatever the taps were made with.
    let taps_partitions = match found.partitions_of(&settings.taps_topic()) {
        0 => settings.partitions.get(),
        there => there,
    };
    let (taps, rejected) = (settings.taps_topic(), settings.rejected_topic());
    let (registry, receipts) = (settings.registry_topic(), settings.receipts_topic());
    let topic = |name, partitions: u32| {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let copies = i32::try_from(settings.replication.get()).unwrap_or(i32::MAX);
        NewTopic::new(name, partitions, TopicReplication::Fixed(copies)).set(IN_SYNC_MIN, in_sync_min)
    };
    let wanted = [
        topic(&taps, taps_partitions)
            .set(TIMESTAMPS, timestamps)
            .set(RETENTION_MS, &retention_ms)
            .set(RETENTION_BYTES, UNLIMITED),
        topic(&rejected, 1).set(RETENTION_MS, &retention_ms),
        topic(&registry, 1)
            .set(TIMESTAMPS, timestamps)
            .set(CLEANUP, "compact")
            .set(COMPACTION_LAG_MS, &compaction_lag_ms)
            .set("delete.retention.ms", &compaction_lag_ms),
        topic(&receipts, taps_partitions).set(RETENTION_MS, &retention_ms).set(RETENTION_BYTES, UNLIMITED),
    ];
    let missing: Vec<NewTopic<'_>> = wanted.into_iter().filter(|topic| is_missing(topic.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<TracingContext> = client(&settings.client()?)?;
    let made =
        admin.create_topics(&missing, &options()).await.map_err(|cause| no_answer(settings, &cause))?;
    for result in made {
        match result {
            Ok(topic) => tracing::info!(topic, "made the topic"),
            // Another process was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, cause)) => return Err(KafkaSetupError::NotMade { topic, cause: cause.to_string() }),
        }
    }
    wait_until_known(settings, &missing).await
}

/// A new topic takes a moment until every broker knows it.
async fn wait_until_known(settings: &KafkaSettings, made: &[NewTopic<'_>]) -> Result<(), KafkaSetupError> {
    let deadline = tokio::time::Instant::now() + ANSWER_MAX;
    loop {
        let found = look(settings).await?;
        let Some(unknown) = made.iter().find(|topic| found.partitions_of(topic.name) == 0) else {
            return Ok(());
        };
        if tokio::time::Instant::now() > deadline {
            let cause = "the broker made it and does not know it".to_owned();
            return Err(KafkaSetupError::NotMade { topic: unknown.name.to_owned(), cause });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn check_config(
    settings: &KafkaSettings,
    topic: &str,
    copies: u32,
    value: impl Fn(&str) -> String,
) -> Result<(), KafkaSetupError> {
    let set_it = |setting: &str| {
        format!(
            "set it with kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {setting}"
        )
    };
    let unfit = |found: String, needed: &str, remedy: String| {
        Err(KafkaSetupError::Unfit { topic: topic.to_owned(), found, needed: needed.to_owned(), remedy })
    };
    let must_be_stamped = [settings.taps_topic(), settings.registry_topic()].iter().any(|name| name == topic);
    if must_be_stamped {
        let timestamps = value(TIMESTAMPS);
        if timestamps != APPEND_TIME && !settings.made_up_city {
            let remedy = format!(
                "what counts for a tap is decided by the times of receipt, and producers must not choose them; {}",
                set_it(&format!("{TIMESTAMPS}={APPEND_TIME}"))
            );
            return unfit(
                format!("{TIMESTAMPS}={timestamps}"),
                &format!("{TIMESTAMPS}={APPEND_TIME}"),
                remedy,
            );
        }
    }
    let cleanup = value(CLEANUP);
    let must_be_compacted = topic == settings.registry_topic();
    // Also `compact,delete` would keep only the last tap of a card.
    let is_fit = if must_be_compacted { cleanup == "compact" } else { !cleanup.contains("compact") };
    if !is_fit {
        let needed = if must_be_compacted { "cleanup.policy=compact" } else { "cleanup.policy=delete" };
        return unfit(format!("{CLEANUP}={cleanup}"), needed, set_it(needed));
    }
    if must_be_compacted {
        let lag_ms = value(COMPACTION_LAG_MS);
        if !lag_ms.parse::<u128>().is_ok_and(|lag| lag >= COMPACTION_LAG.as_millis()) {
            let needed = format!("{COMPACTION_LAG_MS}={}", COMPACTION_LAG.as_millis());
            return unfit(format!("{COMPACTION_LAG_MS}={lag_ms}"), &needed, set_it(&needed));
        }
    }
    let must_be_kept = [settings.taps_topic(), settings.receipts_topic()].iter().any(|name| name == topic);
    if must_be_kept {
        let retention_ms = value(RETENTION_MS);
        let is_long = retention_ms == UNLIMITED
            || retention_ms.parse::<u128>().is_ok_and(|ms| ms >= RETENTION_MIN.as_millis());
        if !is_long {
            let needed = format!("{RETENTION_MS}={}", settings.retention.as_millis());
            return unfit(format!("{RETENTION_MS}={retention_ms}"), &needed, set_it(&needed));
        }
        let retention_bytes = value(RETENTION_BYTES);
        if retention_bytes != UNLIMITED {
            let needed = format!("{RETENTION_BYTES}={UNLIMITED}");
            let remedy = format!("a busy day must not push out what was not read yet; {}", set_it(&needed));
            return unfit(format!("{RETENTION_BYTES}={retention_bytes}"), &needed, remedy);
        }
    }
    let in_sync_min = value(IN_SYNC_MIN);
    if copies >= COPIES_FOR_TWO_IN_SYNC && !in_sync_min.parse::<u32>().is_ok_and(|copies| copies >= 2) {
        let replication = settings.replication.get();
        if replication < COPIES_FOR_TWO_IN_SYNC {
            // While a topic moves to other brokers, both its old and its new copies are counted.
            tracing::warn!(
                topic,
                copies,
                replication,
                "more copies than configured, and one is enough to acknowledge a record: it is lost with that broker; \
                 set min.insync.replicas=2"
            );
            return Ok(());
        }
        let needed = format!("{IN_SYNC_MIN}=2");
        let remedy = format!("a record that one broker alone has is lost with it; {}", set_it(&needed));
        return unfit(format!("{IN_SYNC_MIN}={in_sync_min}"), &needed, remedy);
    }
    Ok(())
}

fn check_partitions(settings: &KafkaSettings, found: &Found) -> Result<Cluster, KafkaSetupError> {
    let (taps, registry, receipts) =
        (settings.taps_topic(), settings.registry_topic(), settings.receipts_topic());
    let partitions = found.partitions_of(&taps);
    let unfit = |topic: String, found: u32, needed: u32, remedy: String| {
        let (found, needed) = (format!("{found} partitions"), format!("{needed}"));
        Err(KafkaSetupError::Unfit { topic, found, needed, remedy })
    };
    let of_registry = found.partitions_of(&registry);
    if of_registry != 1 {
        let remedy = "its order is the order of the changes; make it anew with one partition".to_owned();
        return unfit(registry, of_registry, 1, remedy);
    }
    let of_receipts = found.partitions_of(&receipts);
    if of_receipts != partitions {
        let remedy = format!(
            "as many as {taps}: a receipt lies in the partition of its tap; raise the smaller one with \
             kafka-topics.sh --alter --partitions"
        );
        return unfit(receipts, of_receipts, partitions, remedy);
    }
    Ok(Cluster { id: found.cluster.clone(), partitions })
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}

fn client<T>(config: &ClientConfig) -> Result<T, KafkaSetupError>
where
    T: rdkafka::config::FromClientConfigAndContext<TracingContext>,
{
    config
        .create_with_context(TracingContext)
        .map_err(|cause| KafkaSetupError::Client { cause: cause.to_string() })
}

fn no_answer(settings: &KafkaSettings, cause: &dyn std::fmt::Display) -> KafkaSetupError {
    KafkaSetupError::NoAnswer { bootstrap: settings.bootstrap.clone(), cause: cause.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    type Topic = fn(&KafkaSettings) -> String;

    const TAPS: Topic = KafkaSettings::taps_topic;
    const REJECTED: Topic = KafkaSettings::rejected_topic;
    const REGISTRY: Topic = KafkaSettings::registry_topic;
    const RECEIPTS: Topic = KafkaSettings::receipts_topic;

    fn in_copies(copies: u32) -> KafkaSettings {
        KafkaSettings { replication: NonZeroU32::new(copies).unwrap(), ..KafkaSettings::default() }
    }

    /// Checks a topic that is as Gatebell makes it in three copies, but for `option`.
    fn check(
        settings: &KafkaSettings,
        topic: Topic,
        copies: u32,
        option: &str,
        found: &str,
    ) -> Result<(), KafkaSetupError> {
        let name = topic(settings);
        let cleanup = if name == settings.registry_topic() { "compact" } else { "delete" };
        let options = [
            (option, found),
            (TIMESTAMPS, APPEND_TIME),
            (CLEANUP, cleanup),
            (COMPACTION_LAG_MS, "172800000"),
            (RETENTION_MS, "2592000000"),
            (RETENTION_BYTES, "-1"),
            (IN_SYNC_MIN, "2"),
        ];
        check_config(settings, &name, copies, |asked| {
            options
                .iter()
                .find(|(option, _)| *option == asked)
                .map(|(_, value)| (*value).to_owned())
                .unwrap_or_default()
        })
    }

    #[test]
    fn what_would_lose_or_misdecide_is_refused_with_the_command_that_mends_it() {
        let settings = in_copies(3);
        let unfit = [
            (TAPS, 3, TIMESTAMPS, CREATE_TIME, APPEND_TIME),
            (REGISTRY, 3, TIMESTAMPS, CREATE_TIME, APPEND_TIME),
            (TAPS, 1, RETENTION_MS, "259199999", "3456000000"),
            (TAPS, 1, RETENTION_MS, "-2", "3456000000"),
            (TAPS, 1, RETENTION_MS, "", "3456000000"),
            (RECEIPTS, 1, RETENTION_MS, "3600000", "3456000000"),
            (TAPS, 1, RETENTION_BYTES, "1073741824", "-1"),
            (RECEIPTS, 1, RETENTION_BYTES, "1073741824", "-1"),
            (TAPS, 1, CLEANUP, "compact,delete", "delete"),
            (REGISTRY, 1, CLEANUP, "compact,delete", "compact"),
            (TAPS, 3, IN_SYNC_MIN, "1", "2"),
            (REJECTED, 3, IN_SYNC_MIN, "1", "2"),
            (REGISTRY, 3, IN_SYNC_MIN, "1", "2"),
            (RECEIPTS, 5, IN_SYNC_MIN, "1", "2"),
            (RECEIPTS, 3, IN_SYNC_MIN, "", "2"),
        ];
        for (topic, copies, option, found, needed) in unfit {
            let refusal = check(&settings, topic, copies, option, found).unwrap_err().to_string();
            let name = topic(&settings);
            for part in [
                format!("the topic {name} has {option}={found}, and must have {option}={needed}: "),
                format!("--entity-name {name} --add-config {option}={needed}"),
            ] {
                assert!(refusal.contains(&part), "{part}: {refusal}");
            }
        }
    }

    #[test]
    fn what_loses_nothing_is_left_as_it_was_made() {
        let settings = in_copies(3);
        let fit = [
            (TAPS, 1, RETENTION_MS, "259200000"),
            (TAPS, 1, RETENTION_MS, "-1"),
            (REJECTED, 1, RETENTION_MS, "3600000"),
            (REJECTED, 1, RETENTION_BYTES, "1073741824"),
            (REJECTED, 1, TIMESTAMPS, CREATE_TIME),
            (RECEIPTS, 1, TIMESTAMPS, CREATE_TIME),
            (TAPS, 1, IN_SYNC_MIN, "1"),
            (TAPS, 2, IN_SYNC_MIN, "1"),
            (RECEIPTS, 5, IN_SYNC_MIN, "3"),
        ];
        for (topic, copies, option, found) in fit {
            let checked = check(&settings, topic, copies, option, found);
            assert!(checked.is_ok(), "{copies} copies, {option}={found}: {checked:?}");
        }
    }

    /// Two copies that move are four meanwhile.
    #[test]
    fn a_topic_whose_copies_move_stays_fit() {
        let settings = KafkaSettings { replication: NonZeroU32::new(2).unwrap(), ..KafkaSettings::default() };
        let checked = check(&settings, TAPS, 4, IN_SYNC_MIN, "1");
        assert!(checked.is_ok(), "{checked:?}");
    }

    #[test]
    fn producers_may_stamp_the_topics_of_a_made_up_city() {
        let settings = KafkaSettings { made_up_city: true, ..KafkaSettings::default() };
        for topic in [TAPS, REGISTRY] {
            let checked = check(&settings, topic, 3, TIMESTAMPS, CREATE_TIME);
            assert!(checked.is_ok(), "{checked:?}");
        }
    }
}
