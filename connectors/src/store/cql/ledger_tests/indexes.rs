//! What finds entries: buckets, days, pupils, and the hours that await a receipt.

use gatebell_engine::ids::PupilId;
use gatebell_engine::notice::Channel;
use gatebell_engine::testing::contract::ledger::{entry, lane};
use gatebell_engine::time::Timestamp;

use super::super::super::ledger_entries::{BUCKET_OFFSETS, group_of};
use super::super::super::ledger_rows::{Written, date};
use super::*;

/// An entry at `offset`, of the contract's first notices else.
fn entry_at(offset: u64, event: Event) -> LedgerEntry {
    let mut entry = entry(1, event, 0);
    entry.position.offset = offset;
    entry.notice = NoticeId::from_u128(u128::from(offset) + 1);
    entry
}

#[tokio::test]
async fn a_partition_is_loaded_across_buckets_and_over_gaps() {
    let ledger = ApartLedger::fresh().await;
    let offsets = [0, 1, BUCKET_OFFSETS - 1, BUCKET_OFFSETS, 5 * BUCKET_OFFSETS + 7, 40 * BUCKET_OFFSETS];
    // The highest first: the head only rises.
    for offset in offsets.into_iter().rev() {
        ledger.append(vec![entry_at(offset, Event::Accepted)]).await.expect("entries are appended");
    }
    for from in [0, 1, BUCKET_OFFSETS, BUCKET_OFFSETS + 1, 5 * BUCKET_OFFSETS + 7, 41 * BUCKET_OFFSETS] {
        let loaded = ledger.load_from(3, from).await.expect("a partition is loaded");
        let loaded: Vec<_> = loaded.iter().map(|entry| entry.position.offset).collect();
        let expected: Vec<_> = offsets.into_iter().filter(|offset| *offset >= from).collect();
        assert_eq!(loaded, expected, "from {from}");
    }
}

#[tokio::test]
async fn many_entries_of_one_bucket_are_written_in_bounded_batches() {
    let ledger = ApartLedger::fresh().await;
    let entries: Vec<_> = (0..730).map(|offset| entry_at(offset, Event::Accepted)).collect();
    ledger.append(entries.clone()).await.expect("entries are appended");
    assert_eq!(ledger.load_from(3, 0).await.expect("a partition is loaded"), entries);
}

/// They cost a request each once, which was most of what a tap cost.
#[tokio::test]
async fn notices_of_a_thousand_pupils_share_some_dozen_requests() {
    let ledger = ApartLedger::fresh().await;
    let of_pupil = |offset: u64| {
        let mut entry = entry_at(offset, Event::Accepted);
        entry.channel = Channel::App;
        entry.pupil = PupilId::new(&format!("P{offset}")).expect("an identifier");
        entry
    };
    let before = ledger.ledger.session.requests();
    ledger.append((0..1_000).map(of_pupil).collect()).await.expect("entries are appended");
    let requests = ledger.ledger.session.requests() - before;
    // Ten batches of entries, one of each group's notices, and what finds them.
    assert!((12..=44).contains(&requests), "{requests} requests");
}

#[tokio::test]
async fn a_day_knows_its_buckets_and_a_pupil_its_notices() {
    let ledger = ApartLedger::fresh().await;
    let accepted = entry_at(BUCKET_OFFSETS, Event::Accepted);
    ledger.append(vec![accepted.clone(), entry_at(9, Event::Failed)]).await.expect("entries are appended");
    let session = &ledger.ledger.session;

    let buckets = session
        .prepare_read("SELECT log_partition, bucket FROM keyspace.entry_buckets WHERE day = ? AND log = ?")
        .await
        .expect("the statement is accepted");
    let of_day: Vec<(i64, i64)> =
        session.rows(&buckets, (date(accepted.day), &ledger.suffix)).await.expect("buckets are read");
    assert_eq!(of_day, [(3, 0), (3, 1)]);

    let notices = session
        .prepare_read("SELECT log_offset FROM keyspace.notices_by_day WHERE day = ? AND pupil_group = ? AND pupil = 'P1' AND log = ?")
        .await
        .expect("the statement is accepted");
    let group = group_of(&accepted.pupil);
    let of_pupil: Vec<(i64,)> =
        session.rows(&notices, (date(accepted.day), group, &ledger.suffix)).await.expect("notices are read");
    let offsets: Vec<_> = of_pupil.iter().map(|(offset,)| *offset).collect();
    assert_eq!(offsets, [9, 4096]);
}

async fn awaiting(ledger: &ApartLedger) -> Vec<LedgerEntry> {
    let since = Day::from_epoch_days(0);
    ledger.awaiting_receipt(3, &lane(), since, None, 100).await.expect("waiting ones are read")
}

/// Writes `entry` as if in another hour.
async fn write_long_ago(ledger: &ApartLedger, entry: LedgerEntry, hours_ago: i64) {
    let us = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond() - hours_ago * 3_600_000);
    let written = [NewlyWritten { written: Written { us: us.as_millis() * 1_000 }, entry: &entry }];
    ledger.ledger.announce(&written).await.expect("places are written");
    ledger.ledger.record(&written).await.expect("entries are written");
}

async fn hours(ledger: &ApartLedger) -> usize {
    let session = &ledger.ledger.session;
    let select = session
        .prepare_read(
            "SELECT hour FROM keyspace.awaiting_hours WHERE log = ? AND log_partition = 3 AND lane = ?",
        )
        .await
        .expect("the statement is accepted");
    let rows: Vec<(i64,)> =
        session.rows(&select, (&ledger.suffix, lane().as_str())).await.expect("hours are read");
    rows.len()
}

#[tokio::test]
async fn hours_come_oldest_first_and_are_forgotten_when_nothing_waits() {
    let ledger = ApartLedger::fresh().await;
    for (number, hours_ago) in [(1, 70), (2, 30), (3, 30), (4, 0)] {
        write_long_ago(&ledger, entry(number, Event::Submitted, 0), hours_ago).await;
    }
    let numbers =
        |entries: Vec<LedgerEntry>| -> Vec<_> { entries.iter().map(|entry| entry.position.offset).collect() };
    assert_eq!(numbers(awaiting(&ledger).await), [1, 2, 3, 4]);
    assert_eq!(hours(&ledger).await, 3);

    ledger.append(vec![entry(1, Event::Delivered, 9), entry(2, Event::Failed, 9)]).await.expect("appended");
    assert_eq!(numbers(awaiting(&ledger).await), [3, 4]);
    assert_eq!(hours(&ledger).await, 2, "the oldest is past and empty");

    ledger.append(vec![entry(3, Event::Failed, 9), entry(4, Event::Failed, 9)]).await.expect("appended");
    assert_eq!(awaiting(&ledger).await, []);
    assert_eq!(hours(&ledger).await, 1, "this hour may still get some");
}

/// Its index has a row for each recording; a reader that went on from the first used to find the second for ever.
#[tokio::test]
async fn a_submission_recorded_twice_waits_once_on_all_pages() {
    let ledger = ApartLedger::fresh().await;
    for number in [1, 1, 2, 1] {
        ledger.append(vec![entry(number, Event::Submitted, 0)]).await.expect("entries are appended");
    }
    let since = Day::from_epoch_days(0);
    let page_after = async |after: Option<&LedgerEntry>| {
        ledger.awaiting_receipt(3, &lane(), since, after, 1).await.expect("waiting ones are read")
    };
    let first = page_after(None).await;
    assert_eq!(first, [entry(1, Event::Submitted, 0)]);
    let second = page_after(first.last()).await;
    assert_eq!(second, [entry(2, Event::Submitted, 0)]);
    assert_eq!(page_after(second.last()).await, []);
}

/// A crash between the index and the entry, and one between the end and the index.
#[tokio::test]
async fn an_index_that_a_crash_left_wrong_is_not_believed() {
    let ledger = ApartLedger::fresh().await;
    let submitted = [entry(1, Event::Submitted, 0)];
    let never_written = ledger.ledger.entries.stamp(&submitted);
    ledger.ledger.announce(&never_written).await.expect("places are written");
    assert_eq!(awaiting(&ledger).await, []);
    // Its writer was only slow: the row must still be there.
    ledger.ledger.record(&never_written).await.expect("entries are written");
    assert_eq!(awaiting(&ledger).await, [entry(1, Event::Submitted, 0)]);

    let delivered = [entry(1, Event::Delivered, 5)];
    let ended = ledger.ledger.entries.stamp(&delivered);
    ledger.ledger.entries.write(&ended).await.expect("entries are written");
    for _ in 0..2 {
        assert_eq!(awaiting(&ledger).await, []);
    }
}
