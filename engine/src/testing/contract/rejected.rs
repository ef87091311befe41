//! What every [`RejectedLog`] promises, as tests.
//!
//! Each function takes an empty log and fails where one obligation is not met. An implementation runs them all with
//! [`rejected_log_contract`](crate::rejected_log_contract), each as a test of its own.

use bytes::Bytes;

use crate::ids::LogPosition;
use crate::ports::rejected::{RejectedLog, RejectedRecord};
use crate::tap::RejectReason;
use crate::time::Timestamp;

/// Runs the rejected log's contract: a module of tests, one an obligation, each on a log of its own.
///
/// The argument is an async function or closure that gives an empty rejected log, behind anything that dereferences to it
/// (an `Arc`, a `Box`, a fixture that also owns a directory).
#[macro_export]
macro_rules! rejected_log_contract {
    ($module:ident, $fresh:expr) => {
        $crate::rejected_log_contract!(@tests $module, $fresh,
            an_empty_log_has_nothing_to_show
            a_record_is_kept_as_it_is_whatever_it_holds
            a_record_that_is_appended_again_is_shown_once
            the_last_ones_are_listed_the_oldest_first
            a_position_that_was_not_rejected_is_not_found
        );
    };
    (@tests $module:ident, $fresh:expr, $($obligation:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test]
                async fn $obligation() {
                    let rejected = ($fresh)().await;
                    $crate::testing::contract::rejected::$obligation(&*rejected).await;
                }
            )+
        }
    };
}

/// The `number`th record: reasons and partitions take turns.
pub fn record(number: u64) -> RejectedRecord {
    let reasons = RejectReason::ALL;
    let turn = usize::try_from(number).unwrap_or(0) % reasons.len();
    RejectedRecord {
        position: LogPosition { partition: u32::try_from(number % 3).unwrap_or(0), offset: 10 + number },
        received: Timestamp::from_millis(1_757_300_000_000 + i64::try_from(number).unwrap_or(0)),
        reason: reasons[turn],
        value: Bytes::from(format!("no tap {number}")),
    }
}

async fn append(log: &impl RejectedLog, records: Vec<RejectedRecord>) {
    log.append(records).await.expect("records are appended");
}

async fn listed(log: &impl RejectedLog, limit: usize) -> Vec<LogPosition> {
    let listed = log.list(limit).await.expect("records are listed");
    listed.into_iter().map(|summary| summary.position).collect()
}

/// Neither a list nor a record, and nothing to wait for.
pub async fn an_empty_log_has_nothing_to_show(log: &impl RejectedLog) {
    assert_eq!(log.list(10).await.expect("records are listed"), []);
    assert_eq!(log.read(record(0).position).await.expect("the log answers"), None);
    append(log, Vec::new()).await;
    assert_eq!(listed(log, 10).await, []);
}

/// No value is a text to the log: not an empty one, nor one with noughts.
pub async fn a_record_is_kept_as_it_is_whatever_it_holds(log: &impl RejectedLog) {
    let values = [
        Bytes::new(),
        Bytes::from_static(b"\0\xff\xfe{\"card\":"),
        Bytes::from(vec![b'x'; 100_000]),
        Bytes::from_static("刷卡".as_bytes()),
    ];
    for (number, value) in (0..).zip(values) {
        let rejected = RejectedRecord { value, ..record(number) };
        append(log, vec![rejected.clone()]).await;
        let read = log.read(rejected.position).await.expect("the log answers").expect("it is kept");
        assert_eq!(read, rejected);
        let summaries = log.list(10).await.expect("records are listed");
        assert_eq!(summaries.last(), Some(&rejected.summary()));
    }
}

/// As it is after a crash between the append and the commit.
pub async fn a_record_that_is_appended_again_is_shown_once(log: &impl RejectedLog) {
    append(log, vec![record(1), record(2)]).await;
    append(log, vec![record(2), record(3)]).await;
    append(log, vec![record(1)]).await;
    assert_eq!(listed(log, 10).await, [1, 2, 3].map(|number| record(number).position));
}

/// A list is for somebody to read.
pub async fn the_last_ones_are_listed_the_oldest_first(log: &impl RejectedLog) {
    append(log, (0..20).map(record).collect()).await;
    assert_eq!(listed(log, 3).await, [17, 18, 19].map(|number| record(number).position));
    assert_eq!(listed(log, 100).await, (0..20).map(|number| record(number).position).collect::<Vec<_>>());
}

/// The same offset of another partition is another record.
pub async fn a_position_that_was_not_rejected_is_not_found(log: &impl RejectedLog) {
    append(log, vec![record(4)]).await;
    let LogPosition { partition, offset } = record(4).position;
    for other in
        [LogPosition { partition, offset: offset + 1 }, LogPosition { partition: partition + 1, offset }]
    {
        assert_eq!(log.read(other).await.expect("the log answers"), None);
    }
}
