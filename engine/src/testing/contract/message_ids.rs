//! What every [`MessageIds`] promises, as tests.
//!
//! Each function takes an empty table of one lane and fails where one obligation is not met. An implementation runs them all
//! with [`message_ids_contract`](crate::message_ids_contract), each as a test of its own.

use compact_str::CompactString;

use super::ledger::sms_notice;
use crate::ports::clock::{Clock as _, SystemClock};
use crate::ports::message_ids::{IDS_KEPT_DAYS, MessageIds, NoticePlace, ParkedReceipt, UnplacedReceipt};
use crate::ports::receipts::ReceiptStatus;
use crate::time::Timestamp;

/// Runs the contract of the table of message ids: a module of tests, one an obligation, each on a table of its own.
///
/// The argument is an async function or closure that gives an empty table, behind anything that dereferences to it (an
/// `Arc`, a `Box`, a fixture that also owns a directory).
#[macro_export]
macro_rules! message_ids_contract {
    ($module:ident, $fresh:expr) => {
        $crate::message_ids_contract!(@tests $module, $fresh,
            an_id_is_found_as_it_was_remembered
            an_id_that_nobody_gave_is_not_found
            an_id_given_again_stands_for_the_last_notice
            an_id_is_known_for_as_long_as_receipts_may_come
            parked_receipts_come_back_as_they_were_in_their_order
            parked_receipts_are_looked_at_page_by_page
            parked_receipts_wait_until_they_are_forgotten
        );
    };
    (@tests $module:ident, $fresh:expr, $($obligation:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test]
                async fn $obligation() {
                    let ids = ($fresh)().await;
                    $crate::testing::contract::message_ids::$obligation(&*ids).await;
                }
            )+
        }
    };
}

/// The machine's own time: a store may clear away by it.
fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Where the contract's notice of that number is.
pub fn place(number: u64) -> NoticePlace {
    let notice = sms_notice(number);
    NoticePlace { position: notice.position, notice: notice.id }
}

/// A receipt under the id of that number.
pub fn unplaced(number: u64) -> UnplacedReceipt {
    let status = match number % 2 {
        0 => ReceiptStatus::Delivered,
        _ => ReceiptStatus::Failed { reason: CompactString::const_new("6") },
    };
    UnplacedReceipt { gateway_id: CompactString::new(format!("M{number}")), status, arrived: now() }
}

async fn remember(ids: &impl MessageIds, gateway_id: &str, number: u64, at: Timestamp) {
    ids.remember(gateway_id, place(number), at).await.expect("the id is remembered");
}

async fn found(ids: &impl MessageIds, gateway_id: &str) -> Option<NoticePlace> {
    ids.find(gateway_id).await.expect("the id is looked up")
}

async fn park(ids: &impl MessageIds, receipts: &[UnplacedReceipt]) {
    for receipt in receipts {
        ids.park(receipt.clone()).await.expect("the receipt is parked");
    }
}

async fn parked(ids: &impl MessageIds, after: u64, limit: usize) -> Vec<ParkedReceipt> {
    let parked = ids.parked(after, limit).await.expect("parked receipts are read");
    assert!(parked.is_sorted_by(|one, next| one.sequence < next.sequence), "{parked:?}");
    assert!(parked.iter().all(|parked| parked.sequence > after), "{parked:?}");
    parked
}

fn bare(parked: &[ParkedReceipt]) -> Vec<UnplacedReceipt> {
    parked.iter().map(|parked| parked.receipt.clone()).collect()
}

/// Position and notice survive.
pub async fn an_id_is_found_as_it_was_remembered(ids: &impl MessageIds) {
    remember(ids, "M1", 1, now()).await;
    remember(ids, "M2", 2, now()).await;
    assert_eq!(found(ids, "M1").await, Some(place(1)));
    assert_eq!(found(ids, "M2").await, Some(place(2)));
}

/// Ids are compared as they are.
pub async fn an_id_that_nobody_gave_is_not_found(ids: &impl MessageIds) {
    remember(ids, "M1", 1, now()).await;
    for other in ["", "M", "m1", "M1 ", "M11"] {
        assert_eq!(found(ids, other).await, None, "{other:?}");
    }
}

/// An answer that is repeated changes nothing; a gateway that begins to count anew is believed.
pub async fn an_id_given_again_stands_for_the_last_notice(ids: &impl MessageIds) {
    remember(ids, "M1", 1, now()).await;
    remember(ids, "M1", 1, now()).await;
    assert_eq!(found(ids, "M1").await, Some(place(1)));
    remember(ids, "M1", 2, now()).await;
    assert_eq!(found(ids, "M1").await, Some(place(2)));
}

/// Also when the table clears away what is older.
pub async fn an_id_is_known_for_as_long_as_receipts_may_come(ids: &impl MessageIds) {
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    let ago = |days: i32| Timestamp::from_millis(now().as_millis() - i64::from(days) * DAY_MS);
    for (number, days) in (1..).zip((0..IDS_KEPT_DAYS).rev()) {
        remember(ids, &format!("M{number}"), number, ago(days)).await;
    }
    for number in (1..).take_while(|number| *number <= IDS_KEPT_DAYS) {
        let number = number.unsigned_abs();
        assert_eq!(found(ids, &format!("M{number}")).await, Some(place(number.into())), "M{number}");
    }
}

/// Every field survives.
pub async fn parked_receipts_come_back_as_they_were_in_their_order(ids: &impl MessageIds) {
    let receipts = [unplaced(3), unplaced(1), unplaced(2), unplaced(2)];
    park(ids, &receipts).await;
    assert_eq!(bare(&parked(ids, 0, 10).await), receipts);
}

/// A page begins after the last one of the page before.
pub async fn parked_receipts_are_looked_at_page_by_page(ids: &impl MessageIds) {
    let receipts: Vec<UnplacedReceipt> = (0..5).map(unplaced).collect();
    park(ids, &receipts).await;
    let first = parked(ids, 0, 2).await;
    assert_eq!(bare(&first), receipts[..2]);
    assert_eq!(bare(&parked(ids, first[1].sequence, 10).await), receipts[2..]);
    assert_eq!(parked(ids, 0, 0).await, []);
}

/// They go one by one, and what is parked later comes after them.
pub async fn parked_receipts_wait_until_they_are_forgotten(ids: &impl MessageIds) {
    let receipts: Vec<UnplacedReceipt> = (0..3).map(unplaced).collect();
    park(ids, &receipts).await;
    let all = parked(ids, 0, 10).await;
    ids.unpark(vec![all[1].sequence, all[2].sequence]).await.expect("receipts are forgotten");
    ids.unpark(vec![all[1].sequence]).await.expect("forgetting again changes nothing");
    ids.unpark(vec![]).await.expect("nothing is forgotten");
    assert_eq!(parked(ids, 0, 10).await, all[..1]);
    let late = unplaced(7);
    park(ids, std::slice::from_ref(&late)).await;
    assert_eq!(bare(&parked(ids, all[2].sequence, 10).await), [late]);
}
