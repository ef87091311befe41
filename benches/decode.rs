//! Decoding of taps, both ways: the scanner for the usual layout beside serde_json, the truth.
//!
//! One element is one tap; a batch holds 512 different ones, as a shard reads them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gatebell_engine::decode::{ReceivedField, decode, json, scan};

const BATCH_LEN: usize = 512;

/// A layout: its name, and the record of the n-th tap of a batch.
type Layout = (&'static str, fn(usize) -> String);

const LAYOUTS: [Layout; 4] = [
    ("usual, 97 bytes", |n| {
        let (card, ms) = (417_391_826_540_000 + n * 7919, n % 1000);
        let at = format!("2025-09-08T07:31:{:02}.{ms:03}+08:00", n % 60);
        format!(r#"{{"card":"{card:016}","reader":"353604-G1-2","at":"{at}","dir":"in"}}"#)
    }),
    ("usual, epoch milliseconds, 81 bytes", |n| {
        let (card, at) = (417_391_826_540_000 + n * 7919, 1_757_287_864_250 + n);
        format!(r#"{{"card":"{card:016}","reader":"353604-G1-2","at":{at},"dir":"in"}}"#)
    }),
    ("longest of the usual, 143 bytes", |n| {
        let at = format!("2025-09-08T07:31:{:02}.123456789+08:00", n % 60);
        format!(r#"{{"card":"{n:032}","reader":"353604-G1-2.north-gate_lane-0007","at":"{at}","dir":"out"}}"#)
    }),
    ("with an unknown field, 118 bytes", |n| {
        let (card, ms) = (417_391_826_540_000 + n * 7919, n % 1000);
        let at = format!("2025-09-08T07:31:{:02}.{ms:03}+08:00", n % 60);
        format!(r#"{{"card":"{card:016}","reader":"353604-G1-2","at":"{at}","dir":"in","firmware":"2.4.1"}}"#)
    }),
];

fn both_ways(criterion: &mut Criterion) {
    for (layout, record) in LAYOUTS {
        let records: Vec<Vec<u8>> = (0..BATCH_LEN).map(|n| record(n).into_bytes()).collect();
        let mut group = criterion.benchmark_group(format!("decode: {layout}"));
        group.throughput(Throughput::Elements(u64::try_from(BATCH_LEN).expect("512 fits")));
        group.bench_function("decode (scanner, else the truth)", |bencher| {
            bencher.iter(|| records.iter().filter(|record| black_box(decode(record)).is_ok()).count());
        });
        group.bench_function("the truth alone (serde_json)", |bencher| {
            let truth = |record: &Vec<u8>| black_box(json::decode(record, ReceivedField::Unknown)).is_some();
            bencher.iter(|| records.iter().filter(|record| truth(record)).count());
        });
        if records.iter().all(|record| scan::scan(record, ReceivedField::Unknown).is_some()) {
            group.bench_function("the scanner alone", |bencher| {
                let scanned =
                    |record: &Vec<u8>| black_box(scan::scan(record, ReceivedField::Unknown)).is_some();
                bencher.iter(|| records.iter().filter(|record| scanned(record)).count());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, both_ways);
criterion_main!(benches);
