//! The subscription index of a city of a million pupils: what it holds in memory, and what a look-up and
//! a change cost.
//!
//! The memory is counted by the allocator and printed first. The target is at most 200 bytes a pupil for
//! a card, one subscription with its binding, and the state of a day with an arrival and a departure;
//! the pupil's code, name and school are counted in here, a guardian's code and addresses apart.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use gatebell_engine::ids::{LogPosition, NoticeId};
use gatebell_engine::notice::{Channel, Notice, NoticeKind};
use gatebell_engine::registry::Entry;
use gatebell_engine::shard::{Decisions, Shard};
use gatebell_engine::time::Day;

mod city;
#[path = "city/counting_allocator.rs"]
mod counting_allocator;

use counting_allocator::{CountingAllocator, held_bytes};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PUPILS: usize = 1_000_000;

/// Prints what was allocated since the last time, by pupil.
struct Memory {
    before: usize,
}

impl Memory {
    fn grown_by(&mut self, what: &str) -> usize {
        let held = held_bytes();
        let bytes = held.saturating_sub(self.before).div_ceil(PUPILS);
        self.before = held;
        println!("memory: {bytes:4} bytes a pupil for {what}");
        bytes
    }
}

/// Fills an index step by step and prints what each step took.
fn measured_city() -> city::Feed {
    let mut memory = Memory { before: held_bytes() };
    let mut feed = city::Feed::new(PUPILS);
    city::places(&mut feed, PUPILS);
    let mut in_all = memory.grown_by("the tables, presized for names, cards and what is owed");
    (0..PUPILS).for_each(|number| feed.since_ever(city::guardian(number)));
    memory.grown_by("a guardian's code, phone and push token (apart)");
    (0..PUPILS).for_each(|number| feed.since_ever(city::pupil(number)));
    in_all += memory.grown_by("the roster, beyond the tables");
    (0..PUPILS).for_each(|number| feed.since_ever(city::card(number)));
    in_all += memory.grown_by("a card, beyond the tables");
    (0..PUPILS).for_each(|number| feed.since_ever(city::binding(number)));
    (0..PUPILS).for_each(|number| feed.since_ever(city::subscription(number)));
    in_all += memory.grown_by("a binding and a subscription, beyond the tables");
    let shard = busy_day(&feed);
    in_all += memory.grown_by("the state of a day with an arrival and a departure");
    println!("memory: {in_all:4} bytes a pupil in all");
    drop(shard);
    memory.before = held_bytes();
    (0..PUPILS).step_by(3).for_each(|number| feed.since_ever(city::order(number)));
    memory.grown_by("an SMS order of every third guardian (apart)");
    feed
}

/// A shard in which every pupil has arrived and left.
fn busy_day(feed: &city::Feed) -> Shard {
    let mut shard = Shard::new("bench", 0, city::term(), Arc::clone(&feed.index));
    let mut decisions = Decisions::default();
    let mut offset = 0;
    for from_ms in [0, 7 * 3_600_000] {
        for first in (0..PUPILS).step_by(4096) {
            let records = city::taps(offset, day(), from_ms, first..PUPILS.min(first + 4096), 1000);
            offset += records.len() as u64;
            decisions.clear();
            shard.decide(&records, &mut decisions);
            assert!(decisions.taps.iter().all(|tap| tap.outcome.name() == "passage"));
        }
    }
    shard
}

fn day() -> Day {
    "2025-09-09".parse().expect("a date")
}

fn notice(number: usize) -> Notice {
    let (guardian, position) = (city::guardian_id(number), LogPosition { partition: 0, offset: 0 });
    let at = city::morning(day(), 0);
    Notice {
        id: NoticeId::derive("bench", position, &guardian, Channel::App),
        position,
        kind: NoticeKind::Arrival,
        channel: Channel::App,
        pupil: city::pupil_id(number),
        guardian,
        order: None,
        place: city::school_id(0),
        at,
        day: day(),
        received: at,
        deadline: at,
    }
}

/// A kind of change: its name, and the n-th of it.
type Change = (&'static str, fn(usize) -> Entry);

fn index(criterion: &mut Criterion, mut feed: city::Feed) {
    let mut group = criterion.benchmark_group("index, 1 M pupils");
    group.throughput(Throughput::Elements(1));
    let now = city::morning(day(), 0);
    let notices: Vec<Notice> = (0..10_000).map(|position| notice(city::shuffled(position, PUPILS))).collect();
    group.bench_function("look up whom a notice goes to", |bencher| {
        let mut next = notices.iter().cycle();
        bencher.iter(|| black_box(next.next().map(|notice| feed.index.recipient(notice, now))));
    });
    let mut position = 0;
    let mut next_number = || {
        position += 1;
        city::shuffled(position, PUPILS)
    };
    let changes: [Change; 3] = [
        ("change a card", city::card),
        ("change a subscription", city::subscription),
        ("change a school", |_| city::school(0)),
    ];
    for (name, entry) in changes {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| entry(next_number()), |entry| feed.at(now, entry), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn main() {
    let feed = measured_city();
    let mut criterion = Criterion::default().configure_from_args();
    index(&mut criterion, feed);
    criterion.final_summary();
}
