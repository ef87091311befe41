//! Lane scheduling: a notice into the queue and out again by priority and deadline, with a city's morning waiting, and a
//! permit of the limiter.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gatebell_engine::lane::limiter::Limiter;
use gatebell_engine::lane::queue::{LaneQueue, Rank};
use gatebell_engine::notice::Priority;
use gatebell_engine::ports::clock::{Clock, SystemClock};
use gatebell_engine::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// SMS that wait in the worst morning of a large city.
const WAITING: usize = 300_000;
/// Deadlines lie within the half hour in which everybody arrives, in milliseconds.
const SPREAD_MS: i64 = 30 * 60 * 1000;

fn filled(random: &mut ChaCha8Rng) -> LaneQueue<u64> {
    let mut queue = LaneQueue::default();
    for item in 0..WAITING {
        queue.push(passage(random), item as u64);
    }
    queue
}

fn passage(random: &mut ChaCha8Rng) -> Rank {
    Rank { priority: Priority::Passage, deadline: Timestamp::from_millis(random.random_range(0..SPREAD_MS)) }
}

fn lane(criterion: &mut Criterion) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut queue = filled(&mut random);
    criterion.bench_function("queue: one in and the first out, 300 000 waiting", |bencher| {
        bencher.iter_batched(
            || passage(&mut random),
            |rank| {
                queue.push(rank, 0);
                black_box(queue.pop())
            },
            BatchSize::SmallInput,
        );
    });
    let clock = SystemClock::new();
    let limiter = Limiter::new(Duration::from_nanos(1), u32::MAX, clock.monotonic());
    criterion.bench_function("limiter: one permit", |bencher| {
        bencher.iter(|| black_box(limiter.take(1, clock.monotonic())));
    });
}

criterion_group!(benches, lane);
criterion_main!(benches);
