//! The ledger on a CQL store: how many entries a second become durable, and how long a claim takes before the wire.
//!
//! Needs the store that `dev/services up` starts (`GATEBELL_TEST_CQL`, 127.0.0.1:19042 otherwise). Prints figures of one
//! run, since what they measure is the store more than the program: compare them only within a machine.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use futures::StreamExt;
use futures::stream;
use gatebell_connectors::store::cql::ledger::CqlLedger;
use gatebell_connectors::store::cql::schema::migrate;
use gatebell_connectors::store::cql::session::CqlSession;
use gatebell_connectors::store::cql::settings::{CqlSettings, CqlTimeouts};
use gatebell_engine::ids::{GuardianId, LaneName, LogPosition, NoticeId, OrderId, PupilId};
use gatebell_engine::ledger::{Charge, Claim, ClaimKey, ClaimState, Event, LedgerEntry, OwnerToken};
use gatebell_engine::notice::{Channel, NoticeKind};
use gatebell_engine::ports::ledger::{ClaimVerdict, Ledger};
use gatebell_engine::time::{Day, Timestamp};
use hdrhistogram::Histogram;

const TERM: &str = "114-1";
/// Entries of free channels, in the batches that lanes record them in.
const FREE_ENTRIES: u64 = 40_000;
const FREE_BATCH: u64 = 256;
const FREE_BATCHES_AT_ONCE: usize = 16;
/// Whole lives of an SMS: claim, submission, delivery, charge.
const MESSAGES: u64 = 2_000;
const MESSAGES_AT_ONCE: usize = 32;
/// Claims one after another: what a message waits for when nothing else goes on.
const LONE_CLAIMS: u64 = 300;
const LOADED_OFFSETS: u64 = FREE_ENTRIES;
/// Longest step that is told from longer ones, in microseconds.
const LONGEST_US: u64 = 60_000_000;

fn settings() -> CqlSettings {
    CqlSettings {
        contact_points: vec![env::var("GATEBELL_TEST_CQL").unwrap_or_else(|_| "127.0.0.1:19042".to_owned())],
        keyspace: "gatebell_bench".to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication: BTreeMap::from([("datacenter1".to_owned(), 1)]),
        credentials: None,
        timeouts: CqlTimeouts { swap: Duration::from_secs(20), ..CqlTimeouts::default() },
    }
}

fn entry(offset: u64, channel: Channel, event: Event) -> LedgerEntry {
    let position = LogPosition { partition: 0, offset };
    let guardian = GuardianId::new(&format!("G{}", offset % 100_000)).expect("an identifier");
    let at = Timestamp::from_millis(1_757_286_000_000);
    LedgerEntry {
        notice: NoticeId::derive("bench", position, &guardian, channel),
        position,
        pupil: PupilId::new(&format!("P{}", offset % 100_000)).expect("an identifier"),
        guardian,
        channel,
        kind: NoticeKind::Arrival,
        day: Day::from_epoch_days(20_339),
        at,
        event,
        time: at,
        attempt: 1,
        order: (channel == Channel::Sms).then(|| OrderId::new("O1").expect("an identifier")),
        gateway: Some(LaneName::new("sms-main").expect("a name")),
        gateway_id: None,
        reason: None,
    }
}

fn claim(claimed: &LedgerEntry, term: &str) -> Claim {
    Claim {
        key: ClaimKey {
            term: CompactString::new(term),
            day: claimed.day,
            pupil: claimed.pupil.clone(),
            guardian: claimed.guardian.clone(),
            kind: claimed.kind,
        },
        notice: claimed.notice,
        position: claimed.position,
        owner: OwnerToken(1),
        attempt: 1,
        lane: claimed.gateway.clone().expect("a lane"),
        claimed_at: claimed.time,
        deadline: claimed.time,
        state: ClaimState::Open,
    }
}

/// Runs `step` for every number below `count`, `at_once` at a time; how long each took.
async fn run<F>(count: u64, at_once: usize, step: impl Fn(u64) -> F) -> (Duration, Histogram<u64>)
where
    F: Future<Output = Duration>,
{
    let started = Instant::now();
    let mut took = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that fit");
    let mut steps = stream::iter(0..count).map(step).buffer_unordered(at_once);
    while let Some(step_took) = steps.next().await {
        took.saturating_record(u64::try_from(step_took.as_micros()).unwrap_or(u64::MAX));
    }
    (started.elapsed(), took)
}

fn print(what: &str, count: u64, elapsed: Duration, took: &Histogram<u64>) {
    println!(
        "{what:<44} {:>9.0}/s   p50 {:>7.2} ms   p99 {:>7.2} ms",
        count as f64 / elapsed.as_secs_f64(),
        took.value_at_quantile(0.5) as f64 / 1_000.0,
        took.value_at_quantile(0.99) as f64 / 1_000.0,
    );
}

async fn time<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let done = work.await;
    (done, started.elapsed())
}

/// From the claim to the charge; how long the claim took, which is what the request waits for.
async fn live_through(ledger: &CqlLedger, term: &str, offset: u64) -> Duration {
    let claimed = entry(offset, Channel::Sms, Event::Claimed);
    let open = claim(&claimed, term);
    let (verdict, took) = time(ledger.claim(None, open.clone(), claimed.clone())).await;
    assert_eq!(verdict.expect("a claim is decided"), ClaimVerdict::Won);
    let submitted =
        Claim { state: ClaimState::Submitted { gateway_id: CompactString::new("M") }, ..open.clone() };
    let advanced = ledger
        .advance(
            open.stamp(),
            submitted,
            vec![claimed.followed_by(Event::Submitted, claimed.time).known_as("M")],
        )
        .await;
    assert_eq!(advanced.expect("a claim is decided"), ClaimVerdict::Won);
    let delivered = claimed.followed_by(Event::Delivered, claimed.time).known_as("M");
    ledger.append(vec![delivered.clone()]).await.expect("entries are appended");
    let charge = Charge {
        term: CompactString::new(term),
        pupil: delivered.pupil.clone(),
        guardian: delivered.guardian.clone(),
        order: delivered.order.clone().expect("an order"),
        day: delivered.day,
        kind: delivered.kind,
        proof: delivered,
    };
    ledger.charge(charge).await.expect("a charge is decided");
    took
}

async fn measure() {
    let settings = settings();
    migrate(&settings).await.expect("the schema is applied");
    let session = CqlSession::open(&settings).await.expect("the store answers: was dev/services up run?");
    let run_id = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()).as_millis();
    let (log, term) = (format!("bench/{run_id}"), format!("{TERM}/{run_id}"));
    let ledger = Arc::new(CqlLedger::new(session, &log).await.expect("the ledger opens"));

    let (elapsed, took) = run(FREE_ENTRIES / FREE_BATCH, FREE_BATCHES_AT_ONCE, |batch| {
        let ledger = Arc::clone(&ledger);
        async move {
            let offsets = batch * FREE_BATCH..(batch + 1) * FREE_BATCH;
            let entries = offsets.map(|offset| entry(offset, Channel::App, Event::Accepted)).collect();
            let (appended, took) = time(ledger.append(entries)).await;
            appended.expect("entries are appended");
            took
        }
    })
    .await;
    print("entries of free channels, 256 together", FREE_ENTRIES, elapsed, &took);

    let (loaded, elapsed) = time(ledger.load_from(0, 0)).await;
    let loaded = loaded.expect("a partition is loaded").len();
    println!("{:<44} {:>9.0}/s", "entries loaded by a new owner", loaded as f64 / elapsed.as_secs_f64());

    let (elapsed, took) = run(LONE_CLAIMS, 1, |number| {
        let (ledger, term) = (Arc::clone(&ledger), term.clone());
        async move {
            let claimed = entry(LOADED_OFFSETS + number, Channel::Sms, Event::Claimed);
            let (verdict, took) = time(ledger.claim(None, claim(&claimed, &term), claimed)).await;
            assert_eq!(verdict.expect("a claim is decided"), ClaimVerdict::Won);
            took
        }
    })
    .await;
    print("claims, one at a time", LONE_CLAIMS, elapsed, &took);

    let (elapsed, took) = run(MESSAGES, MESSAGES_AT_ONCE, |number| {
        let (ledger, term) = (Arc::clone(&ledger), term.clone());
        async move { live_through(&ledger, &term, LOADED_OFFSETS + LONE_CLAIMS + number).await }
    })
    .await;
    print("whole SMS (times: the claim), 32 at once", MESSAGES, elapsed, &took);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(measure());
}
