//! Several members of one group, and what is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use tokio::sync::oneshot;

use super::super::member::{self, Rebalance};
use super::*;

/// What members have read: who, and where from.
type Read = Arc<Mutex<Vec<(&'static str, u32, u64)>>>;

/// Reads as the engine does: from the committed offset on, settles at once, commits what is settled when partitions go and
/// at the end.
async fn read_along(mut log: KafkaTapLog, who: &'static str, read: Read, mut stop: oneshot::Receiver<()>) {
    let mut settled = BTreeMap::<u32, u64>::new();
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stop => break,
            event = log.next() => event,
        };
        match event.unwrap() {
            TapLogEvent::Assigned { partition, committed } => {
                let first = log.rewind(partition, None).await.unwrap();
                settled.insert(partition, committed.unwrap_or(first));
            }
            TapLogEvent::Batch { partition, records, .. } => {
                let next = settled.get_mut(&partition).expect("only what is owned is read");
                for record in records.iter().filter(|record| record.offset >= *next) {
                    read.lock().unwrap().push((who, partition, record.offset));
                }
                *next = (*next).max(records.last().unwrap().offset + 1);
            }
            TapLogEvent::Revoked { partitions } => {
                let theirs: Vec<(u32, u64)> = partitions
                    .iter()
                    .filter_map(|partition| settled.remove(partition).map(|offset| (*partition, offset)))
                    .collect();
                log.commit(&theirs).await.unwrap();
            }
            TapLogEvent::Lost { .. } => panic!("nothing is lost in a clean handover"),
            TapLogEvent::Damaged { cause, .. } => panic!("{cause}"),
            TapLogEvent::Confirmed { .. } => {}
        }
    }
    let settled: Vec<(u32, u64)> = settled.into_iter().collect();
    log.commit(&settled).await.unwrap();
}

async fn wait_for(read: &Read, what: &str, mut is_there: impl FnMut(&[(&'static str, u32, u64)]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there(&read.lock().unwrap()) {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_every_tap_is_read_once() {
    let on_kafka = OnKafka::new().await;
    let intake = on_kafka.intake();
    let read = Read::default();
    let mut written = 0;
    let mut more = async || {
        append(&intake, written..written + 500).await;
        written += 500;
        written
    };
    let (stop_first, stopped) = oneshot::channel();
    let first = tokio::spawn(read_along(on_kafka.join().await, "first", Arc::clone(&read), stopped));
    let so_far = more().await;
    wait_for(&read, "the first taps", |read| read.len() as u64 == so_far).await;

    let (stop_second, stopped) = oneshot::channel();
    let second = tokio::spawn(read_along(on_kafka.join().await, "second", Arc::clone(&read), stopped));
    let deadline = Instant::now() + PATIENCE;
    while !read.lock().unwrap().iter().any(|(who, ..)| *who == "second") {
        assert!(Instant::now() < deadline, "the second member got nothing");
        more().await;
    }

    stop_first.send(()).unwrap();
    first.await.unwrap();
    let left_at = Instant::now();
    let by_first = read.lock().unwrap().iter().filter(|(who, ..)| *who == "first").count();
    let so_far = more().await;
    wait_for(&read, "the last taps", |read| read.len() as u64 >= so_far).await;
    assert!(left_at.elapsed() < Duration::from_secs(4), "a member that left is not waited for");
    stop_second.send(()).unwrap();
    second.await.unwrap();

    let read = read.lock().unwrap();
    assert_eq!(read.iter().filter(|(who, ..)| *who == "first").count(), by_first);
    let places: BTreeSet<(u32, u64)> =
        read.iter().map(|(_, partition, offset)| (*partition, *offset)).collect();
    assert_eq!(places.len(), read.len(), "no tap was read twice");
    assert_eq!(read.len() as u64, so_far, "none was left out");
}

#[tokio::test]
async fn a_member_that_never_comes_back_from_a_revocation_holds_nothing_up_for_long() {
    let on_kafka = OnKafka::new().await;
    let mut first = on_kafka.join().await;
    from_the_start(&mut first, 4).await;
    let mut second = on_kafka.join().await;
    asks(&mut second);
    let revoked = revoked_of(&mut first).await;
    assert!(!revoked.is_empty());
    let since = Instant::now();
    let assigned = from_the_start(&mut second, revoked.len()).await;
    assert!(assigned.iter().all(|(partition, _)| revoked.contains(partition)));
    assert!(since.elapsed() >= Duration::from_secs(2), "the engine was given time");
    assert!(since.elapsed() < Duration::from_secs(15), "but not for ever: {:?}", since.elapsed());
    let (partition, _) = assigned[0];
    let refusal = first.commit(&[(partition, 1)]).await.unwrap_err().to_string();
    assert!(refusal.contains("not this process's"), "{refusal}");
}

#[tokio::test]
async fn a_member_whose_thread_is_stuck_is_waited_for_little_longer_than_a_dead_one() {
    let on_kafka = OnKafka::new().await;
    let settings = &on_kafka.own.settings;
    let stuck = member::client(settings, &settings.taps_topic()).unwrap();
    stuck.subscribe(&[&settings.taps_topic()]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let assigned = loop {
        assert!(Instant::now() < deadline, "it got no partitions");
        drop(stuck.poll(Duration::from_millis(20)));
        if let Some(Rebalance::Assign(partitions)) = stuck.context().next_rebalance() {
            break partitions;
        }
    };
    stuck.incremental_assign(&member::list(&settings.taps_topic(), &assigned)).unwrap();
    // From here on it never polls again, not even to end; its heartbeats go on.
    std::mem::forget(stuck);
    let since = Instant::now();
    let mut second = on_kafka.join().await;
    from_the_start(&mut second, assigned.len()).await;
    let waited = since.elapsed();
    assert!(waited < settings.session_timeout * 3, "waited for it for {waited:?}");
}

#[tokio::test]
async fn partitions_with_nothing_new_are_taken_over_one_after_the_other_without_waiting() {
    let on_kafka = OnKafka::with_partitions(12).await;
    let mut log = on_kafka.join().await;
    let deadline = Instant::now() + PATIENCE;
    let (mut taken, mut spent) = (0, Duration::ZERO);
    while taken < 12 {
        assert!(Instant::now() < deadline, "only {taken} were assigned");
        if let Ok(TapLogEvent::Assigned { partition, .. }) = log.next().await {
            let begun = Instant::now();
            log.rewind(partition, None).await.unwrap();
            spent += begun.elapsed();
            taken += 1;
        }
    }
    assert!(spent < Duration::from_secs(2), "rewinding them took {spent:?}");
    append(&on_kafka.intake(), 0..97).await;
    records(&mut log, 97).await;
}

/// When a member leaves.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Joining,
    OwningAll,
    AtARevocation,
}

#[tokio::test]
async fn who_leaves_hands_over_at_once_and_comes_back_when_it_asks_again() {
    for moment in [Moment::Joining, Moment::OwningAll, Moment::AtARevocation] {
        let on_kafka = OnKafka::new().await;
        let (mut first, mut second) = (on_kafka.join().await, on_kafka.join().await);
        match moment {
            Moment::Joining => asks(&mut first),
            Moment::OwningAll => {
                from_the_start(&mut first, 4).await;
                append(&on_kafka.intake(), 0..97).await;
                first.commit(&[(3, 1)]).await.unwrap();
            }
            Moment::AtARevocation => {
                from_the_start(&mut first, 4).await;
                asks(&mut second);
                revoked_of(&mut first).await;
            }
        }
        first.leave().await;
        let left_at = Instant::now();
        let assigned = from_the_start(&mut second, 4).await;
        let took = left_at.elapsed();
        assert!(took < Duration::from_secs(4), "{moment:?}: nobody waits for who has left: {took:?}");
        let committed = matches!(moment, Moment::OwningAll).then_some(1);
        assert_eq!(assigned[3], (3, committed), "{moment:?}");
        let refusal = first.commit(&[(0, 1)]).await.unwrap_err().to_string();
        assert!(refusal.contains("not this process's"), "{moment:?}: {refusal}");

        asks(&mut first);
        let revoked = revoked_of(&mut second).await;
        let lets_go =
            until(&mut second, |event| matches!(event, Ok(TapLogEvent::Confirmed { .. })).then_some(()));
        let (assigned, ()) = tokio::join!(from_the_start(&mut first, revoked.len()), lets_go);
        assert!(
            assigned.iter().all(|(partition, _)| revoked.contains(partition)),
            "{moment:?}: {assigned:?}"
        );
    }
}

/// Asks for an event without waiting for one, and so joins the group.
fn asks(log: &mut KafkaTapLog) {
    let _event = futures::FutureExt::now_or_never(log.next());
}

async fn revoked_of(log: &mut KafkaTapLog) -> Vec<u32> {
    until(log, |event| match event {
        Ok(TapLogEvent::Revoked { partitions }) => Some(partitions),
        _ => None,
    })
    .await
}

/// It would keep its share from those that work: a process that waits for a seat has its log open.
#[tokio::test]
async fn a_member_that_nobody_asks_for_events_gets_no_partitions() {
    let on_kafka = OnKafka::new().await;
    let _waiting = on_kafka.join().await;
    from_the_start(&mut on_kafka.join().await, 4).await;
}

#[tokio::test]
async fn what_is_settled_is_committed_again_and_nothing_settled_is_no_commit() {
    let on_kafka = OnKafka::new().await;
    let mut log = on_kafka.join().await;
    let assigned = from_the_start(&mut log, 4).await;
    assert_eq!(assigned, [(0, None), (1, None), (2, None), (3, None)]);
    append(&on_kafka.intake(), 0..970).await;
    log.commit(&[(2, 7)]).await.unwrap();
    for _ in 0..3 {
        until(&mut log, |event| matches!(event, Ok(TapLogEvent::Confirmed { .. })).then_some(())).await;
    }
    drop(log);
    let assigned = from_the_start(&mut on_kafka.join().await, 4).await;
    assert_eq!(assigned, [(0, None), (1, None), (2, Some(7)), (3, None)]);
}

/// A store that remembers.
#[derive(Default)]
struct CopyInMemory {
    offsets: Mutex<BTreeMap<u32, u64>>,
}

#[async_trait::async_trait]
impl OffsetCopy for CopyInMemory {
    async fn committed(&self, partition: u32) -> Result<Option<u64>, PortError> {
        Ok(self.offsets.lock().unwrap().get(&partition).copied())
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<(), PortError> {
        self.offsets.lock().unwrap().insert(partition, offset);
        Ok(())
    }
}

/// A store that is down.
struct NoCopy;

#[async_trait::async_trait]
impl OffsetCopy for NoCopy {
    async fn committed(&self, _: u32) -> Result<Option<u64>, PortError> {
        Ok(None)
    }

    async fn commit(&self, _: u32, _: u64) -> Result<(), PortError> {
        Err(PortError::new("store", "down"))
    }
}

#[tokio::test]
async fn a_group_that_has_lost_its_offsets_goes_on_from_the_copy() {
    let mut on_kafka = OnKafka::new().await;
    let copy = Arc::new(CopyInMemory::default());
    let mut log = on_kafka.try_join(Some(Arc::<CopyInMemory>::clone(&copy))).await.unwrap();
    from_the_start(&mut log, 4).await;
    append(&on_kafka.intake(), 0..970).await;
    log.commit(&[(1, 9), (3, 4)]).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while copy.offsets.lock().unwrap().len() < 2 {
        assert!(Instant::now() < deadline, "the copy did not come");
        tokio::task::yield_now().await;
    }
    drop(log);

    on_kafka.own.settings.group.push_str("-after-a-week");
    let mut log = on_kafka.try_join(Some(copy)).await.unwrap();
    let assigned = from_the_start(&mut log, 4).await;
    assert_eq!(assigned, [(0, None), (1, Some(9)), (2, None), (3, Some(4))]);
}

#[tokio::test]
async fn a_copy_that_fails_is_no_failed_commit() {
    let on_kafka = OnKafka::new().await;
    let mut log = on_kafka.try_join(Some(Arc::new(NoCopy))).await.unwrap();
    from_the_start(&mut log, 4).await;
    append(&on_kafka.intake(), 0..97).await;
    log.commit(&[(1, 3)]).await.unwrap();
    drop(log);
    let assigned = from_the_start(&mut on_kafka.join().await, 4).await;
    assert_eq!(assigned[1], (1, Some(3)));
}

#[tokio::test]
async fn a_topic_made_anew_is_refused_and_not_taken_for_settled() {
    let on_kafka = OnKafka::new().await;
    append(&on_kafka.intake(), 0..97).await;
    let copy = CopyInMemory::default();
    copy.commit(2, 5_000).await.unwrap();
    let refusal = on_kafka.try_join(Some(Arc::new(copy))).await.unwrap_err().to_string();
    assert!(refusal.contains("partition 2") && refusal.contains("another topic prefix"), "{refusal}");
}

#[tokio::test]
async fn a_reader_that_falls_behind_loses_nothing() {
    const TAPS: u64 = 60_000;
    let on_kafka = OnKafka::new().await;
    let mut log = on_kafka.join().await;
    from_the_start(&mut log, 4).await;
    log.pause(1);
    let intake = on_kafka.intake();
    for start in (0..TAPS).step_by(10_000) {
        append(&intake, start..start + 10_000).await;
    }
    let of_one = (0..TAPS)
        .filter(|number| gatebell_engine::ports::tap_log::partition_of(&tap(*number).card, 4) == 1)
        .count();
    let mut next = BTreeMap::<u32, u64>::new();
    let mut check = |read: Vec<(u32, TapRecord)>| {
        for (partition, record) in read {
            let expected = next.entry(partition).or_default();
            assert_eq!(record.offset, *expected, "partition {partition}");
            *expected += 1;
        }
    };
    check(records(&mut log, usize::try_from(TAPS).unwrap() - of_one).await);
    log.resume(1);
    check(records(&mut log, of_one).await);
    assert_eq!(next.values().sum::<u64>(), TAPS);
}

/// What becomes of a transaction.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Aborted,
    Committed,
}

/// Writes one record a transaction to partition 0.
async fn transactions(on_kafka: &OnKafka, records: &'static [(&'static str, Fate)]) {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    let mut config = on_kafka.own.settings.producer().unwrap();
    config.set("transactional.id", &on_kafka.own.settings.group);
    let producer: BaseProducer = config.create().unwrap();
    let topic = on_kafka.own.settings.taps_topic();
    let send = move || {
        producer.init_transactions(PATIENCE).unwrap();
        for (value, fate) in records {
            producer.begin_transaction().unwrap();
            let record = BaseRecord::to(&topic).partition(0).key("0000000000000001").payload(*value);
            producer.send(record).map_err(|(cause, _)| cause).unwrap();
            producer.flush(PATIENCE).unwrap();
            match fate {
                Fate::Committed => producer.commit_transaction(PATIENCE).unwrap(),
                Fate::Aborted => producer.abort_transaction(PATIENCE).unwrap(),
            }
        }
    };
    tokio::task::spawn_blocking(send).await.unwrap();
}

#[tokio::test]
async fn taps_of_an_aborted_transaction_are_never_read() {
    let on_kafka = OnKafka::new().await;
    transactions(&on_kafka, &[("aborted", Fate::Aborted), ("committed", Fate::Committed)]).await;
    let mut log = on_kafka.join().await;
    from_the_start(&mut log, 4).await;
    let read = records(&mut log, 1).await;
    assert_eq!(read[0].1.value, "committed");
}

/// Such a log ends in offsets that no record has, and whoever asked for the next record's time waited for it in vain.
#[tokio::test]
async fn behind_the_last_record_there_is_none_though_marks_of_transactions_follow() {
    let on_kafka = OnKafka::new().await;
    transactions(&on_kafka, &[("committed", Fate::Committed), ("aborted", Fate::Aborted)]).await;
    let mut log = on_kafka.join().await;
    from_the_start(&mut log, 4).await;
    let (_, record) = records(&mut log, 1).await.swap_remove(0);
    assert_eq!(log.received_at(0, record.offset).await.unwrap(), Some(record.received));
    assert_eq!(log.received_at(0, record.offset + 1).await.unwrap(), None);
}

/// librdkafka looks once a second whether a partition was resumed, and that second was lost at every takeover.
#[tokio::test]
async fn a_new_owner_waits_no_second_for_its_first_record() {
    let on_kafka = OnKafka::new().await;
    append(&on_kafka.intake(), 0..97).await;
    let mut waited = Vec::new();
    for _ in 0..3 {
        let mut log = on_kafka.join().await;
        let assigned = until(&mut log, |event| match event {
            Ok(TapLogEvent::Assigned { partition, .. }) => Some(partition),
            _ => None,
        });
        let partition = assigned.await;
        let since = Instant::now();
        log.rewind(partition, None).await.unwrap();
        records(&mut log, 1).await;
        waited.push(since.elapsed());
    }
    // The best of three, since the machine may be busy.
    assert!(waited.iter().min().unwrap() < &Duration::from_millis(700), "{waited:?}");
}
