//! What every [`ReceiptLog`] promises, as tests.
//!
//! Each function takes an empty log and fails where one obligation is not met. An implementation runs them
//! all with [`receipt_log_contract`](crate::receipt_log_contract), each as a test of its own.

use compact_str::CompactString;
use futures::FutureExt;

use super::ledger::{lane, sms_notice};
use crate::ports::receipts::{LoggedReceipt, Receipt, ReceiptLog, ReceiptStatus};
use crate::time::Timestamp;

/// Runs the receipt log's contract: a module of tests, one an obligation, each on a log of its own.
///
/// The argument is an async function or closure that gives an empty receipt log, behind anything that
/// dereferences to it (an `Arc`, a `Box`, a fixture that also owns a directory).
#[macro_export]
macro_rules! receipt_log_contract {
    ($module:ident, $fresh:expr) => {
        $crate::receipt_log_contract!(@tests $module, $fresh,
            a_receipt_comes_back_as_it_was_written
            receipts_come_in_the_order_written_with_rising_sequences
            a_read_takes_no_more_than_its_limit
            a_read_waits_for_the_first_receipt
            a_read_that_is_given_up_loses_nothing
            a_commit_is_found_again_and_never_goes_back
            sequences_rise_also_after_everything_was_committed
            a_partitions_receipts_and_commit_are_its_own
            repeated_receipts_are_kept_as_often_as_they_came
            parked_receipts_wait_apart_until_they_are_forgotten
            parking_nothing_changes_nothing
        );
    };
    (@tests $module:ident, $fresh:expr, $($obligation:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test]
                async fn $obligation() {
                    let receipts = ($fresh)().await;
                    $crate::testing::contract::receipts::$obligation(&*receipts).await;
                }
            )+
        }
    };
}

/// The partition of the contract's notices.
pub const PARTITION: u32 = 3;

/// A receipt for the contract's notice of that number.
pub fn receipt(number: u64, status: ReceiptStatus) -> Receipt {
    let notice = sms_notice(number);
    Receipt {
        lane: lane(),
        notice: notice.id,
        position: notice.position,
        gateway_id: CompactString::new(format!("M{number}")),
        status,
        arrived: Timestamp::from_millis(notice.at.as_millis() + 4_000),
    }
}

fn delivered(number: u64) -> Receipt {
    receipt(number, ReceiptStatus::Delivered)
}

async fn append(log: &impl ReceiptLog, receipts: Vec<Receipt>) {
    log.append(receipts).await.expect("receipts are appended");
}

async fn read(log: &impl ReceiptLog, after: u64, limit: usize) -> Vec<LoggedReceipt> {
    log.read(PARTITION, after, limit).await.expect("receipts are read")
}

async fn parked(log: &impl ReceiptLog, limit: usize) -> Vec<LoggedReceipt> {
    log.parked(PARTITION, limit).await.expect("parked receipts are read")
}

fn bare(logged: &[LoggedReceipt]) -> Vec<Receipt> {
    logged.iter().map(|logged| logged.receipt.clone()).collect()
}

/// Every field survives, in every status.
pub async fn a_receipt_comes_back_as_it_was_written(log: &impl ReceiptLog) {
    let written = vec![
        delivered(1),
        receipt(2, ReceiptStatus::Failed { reason: CompactString::new("6") }),
        receipt(3, ReceiptStatus::Underway),
    ];
    append(log, written.clone()).await;
    assert_eq!(bare(&read(log, 0, 10).await), written);
}

/// Reading on after a sequence gives what came after it.
pub async fn receipts_come_in_the_order_written_with_rising_sequences(log: &impl ReceiptLog) {
    append(log, vec![delivered(5), delivered(1)]).await;
    append(log, vec![delivered(3)]).await;
    let all = read(log, 0, 10).await;
    assert_eq!(bare(&all), [delivered(5), delivered(1), delivered(3)]);
    assert!(all[0].sequence > 0 && all.is_sorted_by(|one, next| one.sequence < next.sequence), "{all:?}");
    assert_eq!(read(log, all[0].sequence, 10).await, all[1..]);
}

/// The rest comes next time.
pub async fn a_read_takes_no_more_than_its_limit(log: &impl ReceiptLog) {
    append(log, (1..6).map(delivered).collect()).await;
    let first = read(log, 0, 2).await;
    assert_eq!(bare(&first), [delivered(1), delivered(2)]);
    assert_eq!(bare(&read(log, first[1].sequence, 2).await), [delivered(3), delivered(4)]);
}

/// It is woken by an append, not by a clock.
pub async fn a_read_waits_for_the_first_receipt(log: &impl ReceiptLog) {
    let mut waiting = std::pin::pin!(log.read(PARTITION, 0, 10));
    assert!(waiting.as_mut().now_or_never().is_none(), "there is nothing to read yet");
    let (found, ()) = futures::join!(waiting, append(log, vec![delivered(1)]));
    assert_eq!(bare(&found.expect("receipts are read")), [delivered(1)]);
}

/// Dropping the future takes no receipt with it.
pub async fn a_read_that_is_given_up_loses_nothing(log: &impl ReceiptLog) {
    assert!(log.read(PARTITION, 0, 10).now_or_never().is_none(), "there is nothing to read yet");
    append(log, vec![delivered(1)]).await;
    drop(log.read(PARTITION, 0, 10).now_or_never());
    assert_eq!(bare(&read(log, 0, 10).await), [delivered(1)]);
}

/// A late, smaller commit changes nothing.
pub async fn a_commit_is_found_again_and_never_goes_back(log: &impl ReceiptLog) {
    assert_eq!(log.committed(PARTITION).await.expect("the commit is read"), 0);
    append(log, (1..4).map(delivered).collect()).await;
    let all = read(log, 0, 10).await;
    log.commit(PARTITION, all[1].sequence).await.expect("the commit is written");
    assert_eq!(log.committed(PARTITION).await.expect("the commit is read"), all[1].sequence);
    log.commit(PARTITION, all[0].sequence).await.expect("the commit is written");
    assert_eq!(log.committed(PARTITION).await.expect("the commit is read"), all[1].sequence);
    assert_eq!(read(log, all[1].sequence, 10).await, all[2..]);
}

/// A sequence is never given twice, or a receipt would hide below the commit.
pub async fn sequences_rise_also_after_everything_was_committed(log: &impl ReceiptLog) {
    append(log, vec![delivered(1), delivered(2)]).await;
    let last = read(log, 0, 10).await.last().expect("two were written").sequence;
    log.commit(PARTITION, last).await.expect("the commit is written");
    append(log, vec![delivered(3)]).await;
    assert_eq!(bare(&read(log, last, 10).await), [delivered(3)]);
}

/// Its owner reads it, and no other.
pub async fn a_partitions_receipts_and_commit_are_its_own(log: &impl ReceiptLog) {
    const OTHER: u32 = PARTITION + 1;
    let elsewhere = |number| {
        let mut receipt = delivered(number);
        receipt.position.partition = OTHER;
        receipt
    };
    append(log, vec![delivered(1), elsewhere(2), delivered(3), elsewhere(4)]).await;
    let other = log.read(OTHER, 0, 10).await.expect("receipts are read");
    assert_eq!(bare(&other), [elsewhere(2), elsewhere(4)]);
    log.commit(OTHER, other[1].sequence).await.expect("the commit is written");
    assert_eq!(log.committed(PARTITION).await.expect("the commit is read"), 0);
    assert_eq!(bare(&read(log, 0, 10).await), [delivered(1), delivered(3)]);
    log.park(vec![elsewhere(2)]).await.expect("receipts are parked");
    assert_eq!(parked(log, 10).await, []);
    assert_eq!(bare(&log.parked(OTHER, 10).await.expect("parked receipts are read")), [elsewhere(2)]);
}

/// A gateway that repeats itself is settled by the ledger, not here.
pub async fn repeated_receipts_are_kept_as_often_as_they_came(log: &impl ReceiptLog) {
    append(log, vec![delivered(1), delivered(1)]).await;
    append(log, vec![delivered(1)]).await;
    assert_eq!(read(log, 0, 10).await.len(), 3);
}

/// They do not come back with `read`, survive a commit, and go one by one.
pub async fn parked_receipts_wait_apart_until_they_are_forgotten(log: &impl ReceiptLog) {
    append(log, (1..4).map(delivered).collect()).await;
    let all = read(log, 0, 10).await;
    log.park(bare(&all)).await.expect("receipts are parked");
    log.commit(PARTITION, all[2].sequence).await.expect("the commit is written");
    let first = parked(log, 2).await;
    assert_eq!(bare(&first), [delivered(1), delivered(2)]);
    log.unpark(PARTITION, vec![first[0].sequence]).await.expect("receipts are forgotten");
    log.unpark(PARTITION, vec![first[0].sequence]).await.expect("forgetting again changes nothing");
    assert_eq!(bare(&parked(log, 10).await), [delivered(2), delivered(3)]);
}

/// Empty calls are allowed.
pub async fn parking_nothing_changes_nothing(log: &impl ReceiptLog) {
    append(log, vec![]).await;
    log.park(vec![]).await.expect("nothing is parked");
    log.unpark(PARTITION, vec![]).await.expect("nothing is forgotten");
    assert_eq!(parked(log, 10).await, []);
}
