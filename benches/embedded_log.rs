//! The embedded tap log and registry on a real disk: how fast taps become durable, and how fast a start reads them again.
//!
//! One element is one tap, or one change of the registry. Appends wait for the disk as a reader's request does; the
//! re-read and the fold are what a restart does with a million taps of today, the second with every rule on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::registry::EmbeddedRegistry;
use gatebell_connectors::store::embedded::registry_feed::EmbeddedRegistryFeed;
use gatebell_connectors::tap_log::embedded::{self, EmbeddedTapIntake, EmbeddedTapLog, TapLogSettings};
use gatebell_engine::ids::{CardNumber, GuardianId, Personal, PupilId, SchoolId};
use gatebell_engine::index::RegistryIndex;
use gatebell_engine::notice::{Channel, Language, Passages};
use gatebell_engine::ports::clock::ScaledClock;
use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::ports::tap_log::{IncomingTap, TapIntake, TapLog, TapLogEvent, TapRecord};
use gatebell_engine::registry::{
    Binding, Bond, Card, CardHolder, Entry, Guardian, Level, Pupil, RegistryChange, Relation, School,
    Subscription, SubscriptionLine,
};
use gatebell_engine::shard::{Decisions, Shard};
use gatebell_engine::term::Term;
use gatebell_engine::time::{Stretch, Timestamp};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const TAPS_OF_TODAY: u64 = 1_000_000;
const PUPILS: u64 = 500_000;
const PUPILS_FOLLOWED: u64 = 100_000;
/// 2025-09-08, 07:00 in Taipei: a school day.
const MORNING_MS: u64 = 1_757_286_000_000;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
}

/// A data directory on the disk that the build is on; a temporary file system would flatter.
fn data_directory() -> (TempDir, DataDir) {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory is made");
    let directory = DataDir::open(temporary.path()).expect("it can be used");
    (temporary, directory)
}

fn open(directory: &DataDir) -> (EmbeddedTapLog, EmbeddedTapIntake) {
    let morning = Timestamp::from_millis(MORNING_MS.cast_signed());
    let clock = Arc::new(ScaledClock::starting_at(morning, 1.0));
    embedded::open(directory, &TapLogSettings::default(), clock).expect("the log opens")
}

fn card_number(pupil: u64) -> CardNumber {
    CardNumber::new(&format!("{:016}", 417_391_826_000_000 + pupil * 7_919)).expect("of the allowed form")
}

/// The `number`th tap of the morning in the usual layout, 81 bytes; each pupil taps twice.
fn tap(number: u64) -> IncomingTap {
    let card = card_number(number % PUPILS);
    let ms = MORNING_MS + number / 1_000;
    let value = format!(r#"{{"card":"{}","reader":"353604-G1-2","at":{ms},"dir":"in"}}"#, card.expose());
    IncomingTap { card, value: Bytes::from(value) }
}

fn taps(first: u64, count: u64) -> Vec<IncomingTap> {
    (first..first + count).map(tap).collect()
}

/// Appends by `writers` at once, each one batch after the other.
fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("tap log: append until durable");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (writers, batch) in [(1, 1), (64, 1), (1, 500), (4, 500), (16, 500)] {
        let (_temporary, directory) = data_directory();
        let (_log, intake) = open(&directory);
        group.throughput(Throughput::Elements(writers * batch));
        let name = BenchmarkId::from_parameter(format!("batches of {batch}, {writers} at once"));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let prepared: Vec<Vec<Vec<IncomingTap>>> = (0..rounds)
                    .map(|_| (0..writers).map(|writer| taps(writer * batch, batch)).collect())
                    .collect();
                runtime.block_on(async {
                    let started = Instant::now();
                    for round in prepared {
                        for appended in join_all(round.into_iter().map(|batch| intake.append(batch))).await {
                            appended.expect("the log has room");
                        }
                    }
                    started.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// Hands every batch of a million taps to `take`.
async fn read_today(log: &mut EmbeddedTapLog, mut take: impl FnMut(u32, &[TapRecord])) {
    for partition in 0..TapLogSettings::default().partitions.get() {
        log.rewind(partition, None).await.expect("the log works");
    }
    let mut missing = TAPS_OF_TODAY;
    while missing > 0 {
        if let TapLogEvent::Batch { partition, records, .. } = log.next().await.expect("the log works") {
            missing -= records.len() as u64;
            take(partition, &records);
        }
    }
}

fn read_again(criterion: &mut Criterion) {
    let runtime = runtime();
    let (_temporary, directory) = data_directory();
    let (mut log, intake) = open(&directory);
    runtime.block_on(async {
        for first in (0..TAPS_OF_TODAY).step_by(500) {
            intake.append(taps(first, 500)).await.expect("the log has room");
        }
    });
    let term =
        Arc::new(Term::parse(Term::built_in("114-1").expect("it is built in")).expect("it has no mistakes"));
    let index = Arc::new(RegistryIndex::new(Arc::clone(&term), 500_000));
    let entries = std::iter::once(school()).chain((0..PUPILS).flat_map(of_pupil));
    for (version, entry) in (1..).zip(entries) {
        index.apply(&RegistryChange { version, applied: Timestamp::MIN, entry });
    }

    let mut group = criterion.benchmark_group("tap log: a million taps of today");
    group.sample_size(10).throughput(Throughput::Elements(TAPS_OF_TODAY));
    group.bench_function("read again", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            let count =
                |_, records: &[TapRecord]| bytes += records.iter().map(|it| it.value.len()).sum::<usize>();
            runtime.block_on(read_today(&mut log, count));
            bytes
        });
    });
    group.bench_function("read again and folded", |bencher| {
        bencher.iter(|| {
            let mut shards: Vec<Shard> = (0..TapLogSettings::default().partitions.get())
                .map(|partition| Shard::new("bench", partition, Arc::clone(&term), Arc::clone(&index)))
                .collect();
            let mut decisions = Decisions::default();
            let fold = |partition, records: &[TapRecord]| {
                decisions.clear();
                if let Some(shard) = shards.get_mut(partition as usize) {
                    shard.decide(records, &mut decisions);
                }
            };
            runtime.block_on(read_today(&mut log, fold));
        });
    });
    group.finish();
}

fn school() -> Entry {
    Entry::School(School {
        school: SchoolId::new("353604").expect("of the allowed form"),
        name: "大安國小".into(),
        level: Level::Elementary,
        departure_opens_min: 690,
        removed: None,
    })
}

/// A pupil with card, guardian, binding and app subscription: five entries.
fn of_pupil(number: u64) -> [Entry; 5] {
    let pupil = PupilId::new(&format!("P{number:06}")).expect("of the allowed form");
    let guardian = GuardianId::new(&format!("G{number:06}")).expect("of the allowed form");
    let school = SchoolId::new("353604").expect("of the allowed form");
    let (class, seat) = ("302".into(), "07".into());
    let phone = Personal::new(&format!("09{number:08}"));
    [
        Entry::Pupil(Pupil {
            pupil: pupil.clone(),
            school,
            class,
            seat,
            name: Personal::new("王小明"),
            removed: None,
        }),
        Entry::Card(Card {
            card: card_number(number),
            holders: vec![CardHolder { pupil: pupil.clone(), stretch: Stretch::ALWAYS }],
        }),
        Entry::Guardian(Guardian {
            guardian: guardian.clone(),
            name: Personal::new("王大明"),
            phone,
            email: Personal::default(),
            app_token: Personal::new("a1b2c3d4e5f6a7b8c9d0"),
            line_user: Personal::default(),
            language: Language::ZhTw,
            removed: None,
        }),
        Entry::Binding(Binding {
            guardian: guardian.clone(),
            pupil: pupil.clone(),
            bonds: vec![Bond { relation: Relation::Mother, stretch: Stretch::ALWAYS }],
        }),
        Entry::Subscription(Subscription {
            guardian,
            pupil,
            channel: Channel::App,
            lines: vec![SubscriptionLine { passages: Passages::Both, stretch: Stretch::ALWAYS }],
        }),
    ]
}

fn follow_the_registry(criterion: &mut Criterion) {
    let runtime = runtime();
    let (_temporary, directory) = data_directory();
    let registry = EmbeddedRegistry::open(&directory).expect("the registry opens");
    let entries: Vec<Entry> =
        std::iter::once(school()).chain((0..PUPILS_FOLLOWED).flat_map(of_pupil)).collect();
    let changes = entries.len() as u64;
    registry.apply(entries, Timestamp::MIN, "bench").expect("the disk has room");
    let term =
        Arc::new(Term::parse(Term::built_in("114-1").expect("it is built in")).expect("it has no mistakes"));

    let mut group = criterion.benchmark_group("registry: 100 000 pupils, five changes each");
    group.sample_size(10).throughput(Throughput::Elements(changes));
    group.bench_function("followed into the index", |bencher| {
        bencher.iter(|| {
            let mut feed = EmbeddedRegistryFeed::open(&directory).expect("the registry opens");
            let index = RegistryIndex::new(Arc::clone(&term), 100_000);
            runtime.block_on(async {
                let horizon = Timestamp::from_millis(MORNING_MS.cast_signed());
                while index.version() < changes {
                    let page = feed.read(index.version(), horizon).await.expect("the registry works");
                    page.iter().for_each(|change| index.apply(change));
                }
            });
        });
    });
    group.bench_function("all that stands, for a command", |bencher| {
        bencher.iter(|| registry.current().expect("the registry works").len());
    });
    group.finish();
}

criterion_group!(benches, append, read_again, follow_the_registry);
criterion_main!(benches);
