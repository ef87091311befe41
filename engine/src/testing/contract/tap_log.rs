//! What every [`TapLog`] with its [`TapIntake`] promises, as tests.
//!
//! Each function takes an empty log of at least two partitions that can be closed and opened again, and fails where one
//! obligation is not met. An implementation runs them all with [`tap_log_contract`](crate::tap_log_contract), each as a
//! test of its own. Time is real here: every wait is bounded by [`PATIENCE_S`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;

use crate::ids::CardNumber;
use crate::ports::tap_log::{IncomingTap, TapIntake, TapLog, TapLogEvent, TapRecord, partition_of};
use crate::time::Timestamp;

/// Longest wait for something that must come.
const PATIENCE_S: u64 = 60;

/// A log that outlives those who open it.
#[allow(async_fn_in_trait)]
pub trait TapLogUnderTest {
    /// Its reading side.
    type Log: TapLog;
    /// Its writing side.
    type Intake: TapIntake;

    /// How many partitions it has; at least two.
    fn partitions(&self) -> u32;

    /// Opens it, the one opened before being dropped: the new owner of all its partitions, and a way in.
    async fn open(&mut self) -> (Self::Log, Self::Intake);
}

/// Runs the tap log's contract: a module of tests, one an obligation, each on a log of its own.
///
/// The argument is an expression of an async function or closure that gives an empty [`TapLogUnderTest`].
#[macro_export]
macro_rules! tap_log_contract {
    ($module:ident, $fresh:expr) => {
        $crate::tap_log_contract!(@tests $module, $fresh,
            what_was_appended_is_read_as_it_was_in_its_cards_partition
            offsets_are_contiguous_and_receipt_never_goes_back
            every_partition_is_assigned_and_silent_until_it_is_rewound
            rewinding_to_a_time_starts_at_the_first_record_received_then_or_later
            rewinding_to_the_earliest_reads_everything_again
            rewinding_beyond_the_last_record_waits_for_the_next_one
            a_commit_is_found_by_the_next_owner
            who_leaves_is_assigned_anew_when_it_comes_back
            records_and_name_outlive_their_owner
            offsets_go_on_where_they_were_for_the_next_owner
            the_time_of_receipt_of_an_offset_is_that_of_the_record_there_or_next
            an_append_wakes_a_waiting_reader
            a_paused_partition_is_silent_and_goes_on_where_it_stopped
            the_assignment_is_confirmed_again_and_again
            nothing_is_lost_when_next_is_dropped_over_and_over
            many_writers_at_once_lose_nothing
            the_end_tells_how_far_the_reader_is_behind
            two_logs_never_share_a_name
        );
    };
    (@tests $module:ident, $fresh:expr, $($obligation:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test]
                async fn $obligation() {
                    let log = ($fresh)().await;
                    $crate::testing::contract::tap_log::$obligation(log, $fresh).await;
                }
            )+
        }
    };
}

/// The `number`th tap; taps spread over the cards, so over the partitions.
pub fn tap(number: u64) -> IncomingTap {
    let card = card(number);
    IncomingTap { card, value: value(number) }
}

fn card(number: u64) -> CardNumber {
    CardNumber::new(&format!("{:016}", number % 97)).expect("of the allowed form")
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!(r#"{{"card":"{:016}","reader":"R1","at":{number},"number":{number}}}"#, number % 97))
}

fn taps(numbers: std::ops::Range<u64>) -> Vec<IncomingTap> {
    numbers.map(tap).collect()
}

async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(PATIENCE_S), wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE_S} s"),
    }
}

/// Records by partition, in the order in which they came.
type Records = BTreeMap<u32, Vec<TapRecord>>;

/// Takes over every partition; the committed offset of each.
async fn assignments(log: &mut impl TapLog, partitions: u32) -> BTreeMap<u32, Option<u64>> {
    let mut assigned = BTreeMap::new();
    while assigned.len() < partitions as usize {
        match in_time("an assignment", log.next()).await.expect("the log works") {
            TapLogEvent::Assigned { partition, committed } => {
                assert!(assigned.insert(partition, committed).is_none(), "partition {partition} came twice");
            }
            TapLogEvent::Confirmed { .. } => {}
            other => panic!("only assignments were due, not {other:?}"),
        }
    }
    assert!(assigned.keys().copied().eq(0..partitions), "{assigned:?}");
    assigned
}

/// Takes over every partition and rewinds it to its earliest record.
async fn from_the_start(log: &mut impl TapLog, partitions: u32) {
    assignments(log, partitions).await;
    for partition in 0..partitions {
        log.rewind(partition, None).await.expect("the log works");
    }
}

/// Waits for `count` records.
async fn read(log: &mut impl TapLog, count: usize) -> Records {
    let mut records = Records::new();
    let mut missing = count;
    while missing > 0 {
        if let TapLogEvent::Batch { partition, records: batch, end } =
            in_time("a record", log.next()).await.expect("the log works")
        {
            let last = batch.last().expect("a batch has a record");
            assert!(end > last.offset, "the end lies behind every record");
            missing = missing.checked_sub(batch.len()).expect("no more records than were written");
            records.entry(partition).or_default().extend(batch);
        }
    }
    records
}

/// Nothing comes but confirmations, of which it waits for two.
async fn silence(log: &mut impl TapLog) {
    let mut confirmations = 0;
    while confirmations < 2 {
        match in_time("a confirmation", log.next()).await.expect("the log works") {
            TapLogEvent::Confirmed { .. } => confirmations += 1,
            other => panic!("nothing was due, but there came {other:?}"),
        }
    }
}

/// Appends taps from `number` on, one by one, until the log's clock has moved on between two of one partition.
async fn append_until_time_has_passed(intake: &impl TapIntake, log: &mut impl TapLog, partition: u32) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    let mut number = 0;
    loop {
        intake.append(taps(number..number + 97)).await.expect("the log works");
        number += 97;
        let first = log.received_at(partition, 0).await.expect("the log works").expect("there are records");
        let per_card_round = number / 97;
        let late = log.received_at(partition, per_card_round).await.expect("the log works");
        if late.is_some_and(|late| late > first) {
            return number;
        }
        assert!(Instant::now() < deadline, "the log's clock stands still");
    }
}

/// Every record comes back with its bytes, in the partition where Kafka's clients would place its card.
pub async fn what_was_appended_is_read_as_it_was_in_its_cards_partition<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    let mut expected = BTreeMap::<u32, Vec<Bytes>>::new();
    for number in 0..500 {
        expected.entry(partition_of(&card(number), partitions)).or_default().push(value(number));
    }
    intake.append(taps(0..300)).await.expect("the log works");
    intake.append(taps(300..500)).await.expect("the log works");
    let read = read(&mut log, 500).await;
    let values: BTreeMap<u32, Vec<Bytes>> = read
        .into_iter()
        .map(|(partition, records)| (partition, records.into_iter().map(|record| record.value).collect()))
        .collect();
    assert_eq!(values, expected);
}

/// Within a partition.
pub async fn offsets_are_contiguous_and_receipt_never_goes_back<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    for start in (0..400).step_by(40) {
        intake.append(taps(start..start + 40)).await.expect("the log works");
    }
    for (partition, records) in read(&mut log, 400).await {
        for (one, next) in records.iter().zip(records.iter().skip(1)) {
            assert_eq!(one.offset + 1, next.offset, "partition {partition}");
            assert!(one.received <= next.received, "partition {partition} at {}", one.offset);
        }
    }
}

/// Records come only once it is said from where.
pub async fn every_partition_is_assigned_and_silent_until_it_is_rewound<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    intake.append(taps(0..97)).await.expect("the log works");
    let assigned = assignments(&mut log, partitions).await;
    assert!(assigned.values().all(Option::is_none), "nothing was ever committed");
    silence(&mut log).await;
    log.rewind(1, None).await.expect("the log works");
    let of_one = (0..97).filter(|number| partition_of(&card(*number), partitions) == 1).count();
    assert_eq!(read(&mut log, of_one).await.into_keys().collect::<Vec<_>>(), [1]);
}

/// Checked against all records, for every time that occurs, and a millisecond around each.
pub async fn rewinding_to_a_time_starts_at_the_first_record_received_then_or_later<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    assignments(&mut log, partitions).await;
    let written = append_until_time_has_passed(&intake, &mut log, 1).await;
    log.rewind(1, None).await.expect("the log works");
    let of_one = (0..written).filter(|number| partition_of(&card(*number), partitions) == 1).count();
    let records = read(&mut log, of_one).await.remove(&1).expect("records of partition 1");
    let mut times: Vec<i64> = records.iter().map(|record| record.received.as_millis()).collect();
    times.dedup();
    assert!(times.len() > 1, "records of different times");
    for time in times.iter().flat_map(|time| [time - 1, *time]) {
        let from = Timestamp::from_millis(time);
        let first = records.iter().find(|record| record.received >= from).expect("one of that time");
        let position = log.rewind(1, Some(from)).await.expect("the log works");
        assert_eq!(position, first.offset, "from {from}");
        let expected =
            records.iter().filter(|record| record.offset >= first.offset).cloned().collect::<Vec<_>>();
        assert_eq!(read(&mut log, expected.len()).await.remove(&1), Some(expected), "from {from}");
    }
}

/// As often as asked, whatever was read or committed before.
pub async fn rewinding_to_the_earliest_reads_everything_again<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    intake.append(taps(0..200)).await.expect("the log works");
    let first = read(&mut log, 200).await;
    log.commit(&[(0, 3)]).await.expect("the log works");
    for partition in 0..partitions {
        assert_eq!(log.rewind(partition, None).await.expect("the log works"), 0);
    }
    assert_eq!(read(&mut log, 200).await, first);
}

/// The offset returned is that of the record to be written next.
pub async fn rewinding_beyond_the_last_record_waits_for_the_next_one<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    assignments(&mut log, partitions).await;
    intake.append(taps(0..97)).await.expect("the log works");
    let position = log.rewind(0, Some(Timestamp::MAX)).await.expect("the log works");
    silence(&mut log).await;
    let of_zero = (0..97).filter(|number| partition_of(&card(*number), partitions) == 0).count();
    assert_eq!(position, of_zero as u64);
    intake.append(taps(97..194)).await.expect("the log works");
    let records = read(&mut log, of_zero).await.remove(&0).expect("records of partition 0");
    assert_eq!(records.first().map(|record| record.offset), Some(position));
}

/// A commit that returned is durable; the last one counts.
pub async fn a_commit_is_found_by_the_next_owner<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    intake.append(taps(0..194)).await.expect("the log works");
    read(&mut log, 194).await;
    log.commit(&[(0, 5)]).await.expect("the log works");
    log.commit(&[(0, 9)]).await.expect("the log works");
    drop((log, intake));
    let (mut log, _intake) = under_test.open().await;
    let assigned = assignments(&mut log, partitions).await;
    assert_eq!(assigned.get(&0), Some(&Some(9)));
    assert_eq!(assigned.get(&1), Some(&None), "each partition has its own");
}

/// What it was about to be handed does not come, nor is anything paused any more; what it committed stands.
pub async fn who_leaves_is_assigned_anew_when_it_comes_back<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    intake.append(taps(0..97)).await.expect("the log works");
    read(&mut log, 97).await;
    log.commit(&[(0, 5)]).await.expect("the log works");
    log.pause(1);
    intake.append(taps(97..194)).await.expect("the log works");
    log.leave().await;

    let assigned = assignments(&mut log, partitions).await;
    assert_eq!((assigned.get(&0), assigned.get(&1)), (Some(&Some(5)), Some(&None)));
    silence(&mut log).await;
    for partition in 0..partitions {
        log.rewind(partition, None).await.expect("the log works");
    }
    read(&mut log, 194).await;
}

/// What was acknowledged is there after a restart, under the same name.
pub async fn records_and_name_outlive_their_owner<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    let name = log.name().to_owned();
    from_the_start(&mut log, partitions).await;
    intake.append(taps(0..150)).await.expect("the log works");
    let before = read(&mut log, 150).await;
    drop((log, intake));
    let (mut log, _intake) = under_test.open().await;
    assert_eq!(log.name(), name);
    from_the_start(&mut log, partitions).await;
    assert_eq!(read(&mut log, 150).await, before);
}

/// An offset is never given to a second record.
pub async fn offsets_go_on_where_they_were_for_the_next_owner<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (log, intake) = under_test.open().await;
    intake.append(taps(0..97)).await.expect("the log works");
    drop((log, intake));
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    intake.append(taps(97..194)).await.expect("the log works");
    for (partition, records) in read(&mut log, 194).await {
        let offsets: Vec<u64> = records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (0..records.len() as u64).collect::<Vec<_>>(), "partition {partition}");
    }
}

/// And `None` where there is none yet.
pub async fn the_time_of_receipt_of_an_offset_is_that_of_the_record_there_or_next<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    assert_eq!(log.received_at(0, 0).await.expect("the log works"), None);
    intake.append(taps(0..97)).await.expect("the log works");
    intake.append(taps(97..194)).await.expect("the log works");
    for (partition, records) in read(&mut log, 194).await {
        for record in &records {
            let received = log.received_at(partition, record.offset).await.expect("the log works");
            assert_eq!(received, Some(record.received), "{partition}/{}", record.offset);
        }
        let end = records.len() as u64;
        assert_eq!(log.received_at(partition, end).await.expect("the log works"), None);
    }
}

/// Without waiting for a timer.
pub async fn an_append_wakes_a_waiting_reader<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    silence(&mut log).await;
    for number in 0..20 {
        let (records, appended) = tokio::join!(read(&mut log, 1), intake.append(vec![tap(number)]));
        appended.expect("the log works");
        let record = records.into_values().flatten().next().expect("one record");
        assert_eq!(record.value, value(number));
    }
}

/// The others go on meanwhile.
pub async fn a_paused_partition_is_silent_and_goes_on_where_it_stopped<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    let of_zero = (0..97).filter(|number| partition_of(&card(*number), partitions) == 0).count();
    intake.append(taps(0..97)).await.expect("the log works");
    let before = read(&mut log, 97).await;
    let stopped_at = before.get(&0).map_or(0, Vec::len) as u64;
    log.pause(0);
    intake.append(taps(97..194)).await.expect("the log works");
    let of_others = read(&mut log, 97 - of_zero).await;
    assert!(!of_others.contains_key(&0), "partition 0 is paused");
    silence(&mut log).await;
    log.resume(0);
    let resumed = read(&mut log, of_zero).await.remove(&0).expect("records of partition 0");
    assert_eq!(resumed.first().map(|record| record.offset), Some(stopped_at));
}

/// At least every second; a busy machine is given as long again.
pub async fn the_assignment_is_confirmed_again_and_again<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, _intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    silence(&mut log).await;
    let since = Instant::now();
    silence(&mut log).await;
    assert!(since.elapsed() < Duration::from_secs(4), "two confirmations took {:?}", since.elapsed());
}

/// `next` is cancel-safe: here it is dropped at every first wait.
pub async fn nothing_is_lost_when_next_is_dropped_over_and_over<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    let mut next_offsets = BTreeMap::<u32, u64>::new();
    let mut missing = 970;
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    for start in (0..970).step_by(97) {
        intake.append(taps(start..start + 97)).await.expect("the log works");
    }
    while missing > 0 {
        assert!(Instant::now() < deadline, "{missing} records did not come");
        if let Some(event) = log.next().now_or_never()
            && let TapLogEvent::Batch { partition, records, .. } = event.expect("the log works")
        {
            let expected = next_offsets.entry(partition).or_default();
            for record in &records {
                assert_eq!(record.offset, *expected, "partition {partition}");
                *expected += 1;
            }
            missing -= records.len();
        }
        tokio::task::yield_now().await;
    }
}

/// Each batch is there as a whole and in its own order within a partition.
pub async fn many_writers_at_once_lose_nothing<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    from_the_start(&mut log, partitions).await;
    let appends = (0..30).map(|writer| intake.append(taps(writer * 100..writer * 100 + 100)));
    let (records, appended) = tokio::join!(read(&mut log, 3_000), futures::future::join_all(appends));
    assert!(appended.iter().all(Result::is_ok));
    let mut read_values: Vec<Bytes> = records.into_values().flatten().map(|record| record.value).collect();
    let mut expected: Vec<Bytes> = (0..3_000).map(value).collect();
    read_values.sort();
    expected.sort();
    assert_eq!(read_values, expected);
}

/// The last batch of what is there ends at the end.
pub async fn the_end_tells_how_far_the_reader_is_behind<U: TapLogUnderTest>(
    mut under_test: U,
    _fresh: impl AsyncFn() -> U,
) {
    let partitions = under_test.partitions();
    let (mut log, intake) = under_test.open().await;
    intake.append(taps(0..970)).await.expect("the log works");
    let of_one = (0..970).filter(|number| partition_of(&card(*number), partitions) == 1).count() as u64;
    assignments(&mut log, partitions).await;
    log.rewind(1, None).await.expect("the log works");
    loop {
        if let TapLogEvent::Batch { records, end, .. } =
            in_time("a record", log.next()).await.expect("the log works")
        {
            assert_eq!(end, of_one);
            if records.last().is_some_and(|record| record.offset + 1 == end) {
                return;
            }
        }
    }
}

/// Notice ids are made of the name.
pub async fn two_logs_never_share_a_name<U: TapLogUnderTest>(mut under_test: U, fresh: impl AsyncFn() -> U) {
    let (log, _intake) = under_test.open().await;
    let mut other = fresh().await;
    let (other_log, _other_intake) = other.open().await;
    assert_ne!(log.name(), other_log.name());
}
