//! The embedded log against the port's contract, and against what a disk can do to it.

#![allow(clippy::unwrap_used)]

use std::fs;

use bytes::Bytes;
use gatebell_engine::ids::CardNumber;
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::ports::tap_log::{IncomingTap, IntakeError, TapIntake, TapLog, TapLogEvent, TapRecord};
use gatebell_engine::tap_log_contract;
use gatebell_engine::testing::contract::tap_log::{TapLogUnderTest, tap};
use gatebell_engine::time::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod damage;

struct OnDisk {
    directory: TempDir,
    settings: TapLogSettings,
}

impl OnDisk {
    fn new() -> Self {
        Self::with(TapLogSettings::default())
    }

    fn with(settings: TapLogSettings) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), settings }
    }

    fn data(&self) -> DataDir {
        DataDir::open(self.directory.path()).unwrap()
    }

    fn reopen(&self) -> Result<(EmbeddedTapLog, EmbeddedTapIntake), PortError> {
        open(&self.data(), &self.settings, Arc::new(SystemClock::new()))
    }
}

impl TapLogUnderTest for OnDisk {
    type Log = EmbeddedTapLog;
    type Intake = EmbeddedTapIntake;

    fn partitions(&self) -> u32 {
        self.settings.partitions.get()
    }

    async fn open(&mut self) -> (EmbeddedTapLog, EmbeddedTapIntake) {
        self.reopen().unwrap()
    }
}

tap_log_contract!(contract, async || OnDisk::new());
tap_log_contract!(contract_with_small_batches, async || {
    OnDisk::with(TapLogSettings { batch_taps_max: 3, batch_bytes_max: 150, ..TapLogSettings::default() })
});

fn one_partition() -> TapLogSettings {
    TapLogSettings { partitions: NonZeroU32::MIN, ..TapLogSettings::default() }
}

/// Everything that is in the log of one partition.
async fn records(log: &mut EmbeddedTapLog) -> Result<Vec<TapRecord>, PortError> {
    let mut read = Vec::new();
    if log.rewind(0, None).await? == log.rewind(0, Some(Timestamp::MAX)).await? {
        return Ok(read);
    }
    log.rewind(0, None).await?;
    loop {
        match log.next().await? {
            TapLogEvent::Batch { records, end, .. } => {
                read.extend(records);
                if read.last().is_some_and(|last| last.offset + 1 == end) {
                    return Ok(read);
                }
            }
            TapLogEvent::Damaged { cause, .. } => return Err(cause),
            _ => {}
        }
    }
}

fn values(records: &[TapRecord]) -> Vec<Bytes> {
    records.iter().map(|record| record.value.clone()).collect()
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    numbers.map(|number| tap(number).value).collect()
}

/// What a power cut leaves: the files as they were, the write-ahead log cut at any byte.
#[tokio::test]
async fn a_torn_tail_takes_no_acknowledged_tap_and_leaves_no_half_batch() {
    let on_disk = OnDisk::with(one_partition());
    let (_log, intake) = on_disk.reopen().unwrap();
    let wal = on_disk.data().taps().with_extension("db-wal");
    intake.append((0..50).map(tap).collect()).await.unwrap();
    let acknowledged_len = fs::metadata(&wal).unwrap().len();
    intake.append((50..150).map(tap).collect()).await.unwrap();
    let whole = fs::read(&wal).unwrap();
    let whole_len = whole.len() as u64;
    assert!(whole_len > acknowledged_len);

    let cuts = (acknowledged_len..whole_len).step_by(1_019).chain([whole_len - 1, whole_len]);
    for cut in cuts {
        let after = OnDisk::with(one_partition());
        let data = after.data();
        fs::copy(on_disk.data().taps(), data.taps()).unwrap();
        fs::write(data.taps().with_extension("db-wal"), &whole[..usize::try_from(cut).unwrap()]).unwrap();
        let (mut log, intake) = after.reopen().unwrap();
        let acknowledged = if cut == whole_len { 150 } else { 50 };
        assert_eq!(values(&records(&mut log).await.unwrap()), expected(0..acknowledged), "cut at {cut}");
        intake.append(vec![tap(acknowledged)]).await.unwrap();
        assert_eq!(values(&records(&mut log).await.unwrap()), expected(0..acknowledged + 1), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_writer_dropped_in_mid_stream_leaves_exactly_what_it_acknowledged_or_more() {
    let on_disk = OnDisk::with(one_partition());
    let (log, intake) = on_disk.reopen().unwrap();
    let mut appends = tokio::task::JoinSet::new();
    for start in (0..2_000).step_by(100) {
        let intake = intake.clone();
        appends.spawn(
            async move { intake.append((start..start + 100).map(tap).collect()).await.map(|()| start) },
        );
    }
    let first = appends.join_next().await.unwrap().unwrap().unwrap();
    appends.abort_all();
    let mut acknowledged = vec![first];
    while let Some(append) = appends.join_next().await {
        acknowledged.extend(append.ok().and_then(Result::ok));
    }
    drop((log, intake));

    let (mut log, _intake) = on_disk.reopen().unwrap();
    let there = values(&records(&mut log).await.unwrap());
    let batches: Vec<&[Bytes]> = there.chunks(100).collect();
    for start in acknowledged {
        assert!(batches.contains(&expected(start..start + 100).as_slice()), "the batch from {start} on");
    }
    assert!(batches.iter().all(|batch| batch.len() == 100), "no half batch");
}

async fn limit_pages(intake: &EmbeddedTapIntake, pages_max: i64) {
    let limit = move |connection: &Connection| connection.pragma_update(None, "max_page_count", pages_max);
    intake.shared.writer.write(limit).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_goes_on_once_there_is_room() {
    let on_disk = OnDisk::with(one_partition());
    let (mut log, intake) = on_disk.reopen().unwrap();
    intake.append((0..10).map(tap).collect()).await.unwrap();
    limit_pages(&intake, 16).await;
    let mut acknowledged = 10;
    let refusal = loop {
        match intake.append((acknowledged..acknowledged + 50).map(tap).collect()).await {
            Ok(()) => acknowledged += 50,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(&refusal, IntakeError::Unavailable(error) if error.cause.contains("full")), "{refusal}");
    assert_eq!(values(&records(&mut log).await.unwrap()), expected(0..acknowledged));

    limit_pages(&intake, 100_000).await;
    intake.append((acknowledged..acknowledged + 50).map(tap).collect()).await.unwrap();
    assert_eq!(values(&records(&mut log).await.unwrap()), expected(0..acknowledged + 50));
}

/// Keeps the writer busy until the returned sender is used or dropped.
fn hold_writer(intake: &EmbeddedTapIntake) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, running) = std::sync::mpsc::channel::<()>();
    let hold = move |_: &Connection| {
        let _ = started.send(());
        let _ = held.recv();
        Ok(())
    };
    drop(intake.shared.writer.try_write(hold).ok().unwrap());
    running.recv().unwrap();
    release
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_by_taps_and_by_bytes() {
    let bytes_of = |taps: std::ops::Range<u64>| taps.map(|number| tap(number).value.len()).sum::<usize>();
    let limits = [
        ("taps", TapLogSettings { queue_taps_max: 20, ..one_partition() }),
        ("bytes", TapLogSettings { queue_bytes_max: bytes_of(0..20), ..one_partition() }),
    ];
    for (limit, settings) in limits {
        let on_disk = OnDisk::with(settings);
        let (mut log, intake) = on_disk.reopen().unwrap();
        let release = hold_writer(&intake);
        let queued = tokio::spawn({
            let intake = intake.clone();
            async move { intake.append((0..20).map(tap).collect()).await }
        });
        while intake.waiting_taps() < 20 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(intake.append(vec![tap(20)]).await, Err(IntakeError::Full)), "{limit}");
        drop(release);
        queued.await.unwrap().unwrap();
        intake.append(vec![tap(20)]).await.unwrap();
        assert_eq!(values(&records(&mut log).await.unwrap()), expected(0..21), "{limit}");
    }
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_is_taken_when_nothing_waits() {
    let on_disk = OnDisk::with(TapLogSettings { queue_taps_max: 20, ..one_partition() });
    let (_log, intake) = on_disk.reopen().unwrap();
    intake.append((0..21).map(tap).collect()).await.unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_a_clear_error() {
    let mut on_disk = OnDisk::new();
    drop(on_disk.reopen().unwrap());
    on_disk.settings.partitions = NonZeroU32::new(8).unwrap();
    let error = on_disk.reopen().unwrap_err().to_string();
    assert!(error.contains("4 partitions") && error.contains("configured for 8"), "{error}");
}

#[tokio::test]
async fn a_given_name_is_kept_and_cannot_be_changed_later() {
    let mut on_disk =
        OnDisk::with(TapLogSettings { name: Some("demo".to_owned()), ..TapLogSettings::default() });
    assert_eq!(on_disk.reopen().unwrap().0.name(), "demo");
    on_disk.settings.name = Some("other".to_owned());
    assert_eq!(on_disk.reopen().unwrap().0.name(), "demo");
}

#[derive(Debug)]
struct SettableClock(std::sync::atomic::AtomicI64);

impl SettableClock {
    fn set(&self, ms: i64) {
        self.0.store(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for SettableClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn receipt_is_stamped_by_the_clock_handed_in_and_never_goes_back() {
    let on_disk = OnDisk::with(one_partition());
    let clock = Arc::new(SettableClock(0.into()));
    let (mut log, intake) =
        open(&on_disk.data(), &on_disk.settings, Arc::<SettableClock>::clone(&clock)).unwrap();
    for (number, ms) in (0..).zip([1_000, 5_000, 3_000, 6_000]) {
        clock.set(ms);
        intake.append(vec![tap(number)]).await.unwrap();
    }
    let received: Vec<i64> =
        records(&mut log).await.unwrap().iter().map(|record| record.received.as_millis()).collect();
    assert_eq!(received, [1_000, 5_000, 5_000, 6_000]);
}

#[tokio::test]
async fn a_clock_far_behind_the_last_tap_keeps_taps_out_until_it_has_caught_up() {
    const MINUTE_MS: i64 = 60_000;
    // Of several partitions: the clock is wrong for every card, whichever the last tap was of.
    let on_disk = OnDisk::new();
    let clock = Arc::new(SettableClock((60 * MINUTE_MS).into()));
    let reopen = || open(&on_disk.data(), &on_disk.settings, Arc::<SettableClock>::clone(&clock)).unwrap();
    let (log, intake) = reopen();
    intake.append(vec![tap(0)]).await.unwrap();

    clock.set(50 * MINUTE_MS);
    for number in 1..20 {
        let refused = intake.append(vec![tap(number)]).await.unwrap_err();
        let IntakeError::Unavailable(error) = refused else { panic!("{refused}") };
        assert!(error.cause.contains("600 s behind") && error.cause.contains("set the clock"), "{error}");
    }
    drop((log, intake));
    let (_log, intake) = reopen();
    assert!(intake.append(vec![tap(1)]).await.is_err(), "a restart makes the clock no better");

    clock.set(55 * MINUTE_MS - 1);
    assert!(intake.append(vec![tap(1)]).await.is_err());
    clock.set(55 * MINUTE_MS);
    intake.append(vec![tap(1)]).await.unwrap();
    clock.set(61 * MINUTE_MS);
    intake.append(vec![tap(2)]).await.unwrap();

    let connection = Connection::open(on_disk.data().taps()).unwrap();
    let mut received: Vec<i64> = Vec::new();
    for partition in 0..on_disk.settings.partitions.get() {
        let mut rows = connection.prepare(&format!("SELECT received FROM tap_{partition}")).unwrap();
        received.extend(rows.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(Result::unwrap));
    }
    assert_eq!(received.len(), 3, "nothing that was refused was written");
}

#[tokio::test]
async fn settled_taps_are_forgotten_once_they_are_old_enough_and_no_others() {
    const DAY_MS: i64 = 86_400_000;
    let on_disk = OnDisk::with(TapLogSettings { keep: None, ..one_partition() });
    let clock = Arc::new(SettableClock(0.into()));
    let (mut log, intake) =
        open(&on_disk.data(), &on_disk.settings, Arc::<SettableClock>::clone(&clock)).unwrap();
    for day in 0..5 {
        clock.set(i64::try_from(day).unwrap() * DAY_MS);
        intake.append((day * 10..day * 10 + 10).map(tap).collect()).await.unwrap();
    }
    let forget = async |log: &EmbeddedTapLog, taps_max| {
        let before = clock.now().minus(Duration::from_secs(2 * 86_400));
        let forget = move |connection: &Connection| rows::forget_before(connection, 0, before, taps_max);
        log.shared.writer.write(forget).await.unwrap()
    };
    assert_eq!(forget(&log, 100).await, 0, "nothing is settled yet");
    log.commit(&[(0, 15)]).await.unwrap();
    assert_eq!(forget(&log, 6).await, 6, "in small steps");
    assert_eq!(forget(&log, 100).await, 9, "only what is settled");
    log.commit(&[(0, 50)]).await.unwrap();
    assert_eq!(forget(&log, 100).await, 5, "only what is older than two days");
    assert_eq!(log.rewind(0, None).await.unwrap(), 20);
    assert_eq!(values(&records(&mut log).await.unwrap()), expected(20..50));

    clock.set(100 * DAY_MS);
    assert_eq!(forget(&log, 100).await, 29, "the last one stays");
    intake.append(vec![tap(50)]).await.unwrap();
    assert_eq!(records(&mut log).await.unwrap().last().unwrap().offset, 50, "no offset is given twice");
}

#[tokio::test]
async fn errors_hold_nothing_of_the_taps() {
    let on_disk = OnDisk::with(one_partition());
    let (mut log, intake) = on_disk.reopen().unwrap();
    let card = CardNumber::new("0417391826541234").unwrap();
    let value = Bytes::from_static(br#"{"card":"0417391826541234"}"#);
    intake.append(vec![IncomingTap { card, value }, tap(1)]).await.unwrap();
    let damage = "UPDATE tap_0 SET checksum = 1 WHERE offset = 0";
    Connection::open(on_disk.data().taps()).unwrap().execute(damage, []).unwrap();
    let printed = format!("{:?} {intake:?} {log:?}", records(&mut log).await.unwrap_err());
    assert!(!printed.contains("0417391826541234"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against a naive model: any sizes of appends, batches and rewinds give the records of a plain list.
    #[test]
    fn rewinding_and_reading_agree_with_a_plain_list(
        appends in prop::collection::vec((0_i64..5, 1_u64..20), 1..12),
        rewinds in prop::collection::vec(-1_i64..40, 1..8),
        batch_taps_max in 1_usize..30,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let on_disk = OnDisk::with(TapLogSettings { batch_taps_max, ..one_partition() });
            let clock = Arc::new(SettableClock(0.into()));
            let handed_in = Arc::<SettableClock>::clone(&clock);
            let (mut log, intake) = open(&on_disk.data(), &on_disk.settings, handed_in).unwrap();
            let (mut now, mut model) = (0, Vec::new());
            for (passed, count) in appends {
                now += passed;
                clock.set(now);
                let first = model.len() as u64;
                intake.append((first..first + count).map(tap).collect()).await.unwrap();
                model.extend((first..first + count).map(|number| (now, tap(number).value)));
            }
            for from in rewinds {
                let start = model.iter().position(|(received, _)| *received >= from).unwrap_or(model.len());
                let position = log.rewind(0, Some(Timestamp::from_millis(from))).await.unwrap();
                assert_eq!(position, start as u64);
                let mut read = Vec::new();
                while read.len() < model.len() - start {
                    if let TapLogEvent::Batch { records, .. } = log.next().await.unwrap() {
                        assert!(records.len() <= batch_taps_max);
                        read.extend(records.into_iter().map(|record| (record.received.as_millis(), record.value)));
                    }
                }
                assert_eq!(read, model[start..]);
            }
        });
    }
}
