//! A shard over a city of a million pupils: decode, day state and route with all rules on. One element
//! is one tap.
//!
//! Taps come in batches of 4096 records, as a log hands them over: made outside the time that is taken,
//! just before it. Everybody has the app and every third guardian an SMS order, so a new tap makes one
//! or two notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gatebell_engine::shard::{Decision, Decisions, Shard};
use gatebell_engine::time::Day;

mod city;

const PUPILS: usize = 1_000_000;
/// Pupils of the hot taps: two large schools.
const HOT_PUPILS: usize = 4_096;
const BATCH_RECORDS: usize = 4_096;
/// Half an hour, over which the taps of an iteration are spread.
const SPREAD_MS: usize = 1_800_000;
/// A minute later than the taps before: within the repeat window.
const AGAIN_MS: i64 = 60_000;

/// A shard that reads on and on, a fresh school day whenever one is asked for.
struct Reading {
    shard: Shard,
    offset: u64,
    day: Day,
    decisions: Decisions,
}

impl Reading {
    fn new(feed: &city::Feed) -> Self {
        let shard = Shard::new("bench", 0, city::term(), Arc::clone(&feed.index));
        let day = "2025-09-08".parse().expect("a date");
        Self { shard, offset: 0, day, decisions: Decisions::default() }
    }

    /// Goes on to the next school day; after the last one of the term a new shard begins again.
    fn next_day(&mut self, feed: &city::Feed) {
        let term = city::term();
        loop {
            self.day = self.day.next();
            if self.day > term.last_day {
                *self = Self::new(feed);
            } else if term.days.is_school_day(self.day) && self.day.to_string() != city::TYPHOON {
                return;
            }
        }
    }

    /// How long it takes to decide one tap each of the pupils that `number_of` names, `many` in all,
    /// over the half hour from `from_ms` after 07:00. All of them must have `outcome`.
    fn decide(
        &mut self,
        from_ms: i64,
        many: usize,
        number_of: fn(usize) -> usize,
        outcome: &str,
    ) -> Duration {
        let mut took = Duration::ZERO;
        for first in (0..many).step_by(BATCH_RECORDS) {
            let numbers = (first..many.min(first + BATCH_RECORDS)).map(number_of);
            let ms = |taps: usize| i64::try_from(taps * SPREAD_MS / many).expect("at most half an hour");
            let (later_ms, over_ms) = (ms(first), ms(numbers.len()));
            let records = city::taps(self.offset, self.day, from_ms + later_ms, numbers, over_ms);
            self.offset += records.len() as u64;
            self.decisions.clear();
            let start = Instant::now();
            self.shard.decide(&records, &mut self.decisions);
            took += start.elapsed();
            let is_other = |tap: &&Decision| tap.outcome.name() != outcome;
            let other = self.decisions.taps.iter().find(is_other);
            assert!(other.is_none(), "{outcome} expected, not {other:?}");
        }
        took
    }
}

fn cold(position: usize) -> usize {
    city::shuffled(position, PUPILS)
}

fn hot(position: usize) -> usize {
    city::shuffled(position, HOT_PUPILS)
}

fn unknown(position: usize) -> usize {
    PUPILS + city::shuffled(position, PUPILS)
}

fn shard(criterion: &mut Criterion) {
    let feed = city::build(PUPILS);
    let mut reading = Reading::new(&feed);
    let mut group = criterion.benchmark_group("shard, 1 M pupils");
    group.sample_size(10);
    for (name, many, number_of) in [
        ("cold: every pupil once", PUPILS, cold as fn(usize) -> usize),
        ("hot: every pupil of two large schools once", HOT_PUPILS, hot),
    ] {
        group.throughput(Throughput::Elements(many as u64));
        group.bench_function(format!("new taps, {name}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut one_day = || {
                    reading.next_day(&feed);
                    reading.decide(0, many, number_of, "passage")
                };
                (0..iterations).map(|_| one_day()).sum()
            });
        });
        group.bench_function(format!("duplicates, {name}"), |bencher| {
            bencher.iter_custom(|iterations| {
                reading.next_day(&feed);
                reading.decide(0, many, number_of, "passage");
                (0..iterations).map(|_| reading.decide(AGAIN_MS, many, number_of, "duplicate")).sum()
            });
        });
    }
    group.throughput(Throughput::Elements(PUPILS as u64));
    group.bench_function("unknown cards", |bencher| {
        reading.next_day(&feed);
        bencher.iter_custom(|iterations| {
            (0..iterations).map(|_| reading.decide(0, PUPILS, unknown, "unknown_card")).sum()
        });
    });
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);
