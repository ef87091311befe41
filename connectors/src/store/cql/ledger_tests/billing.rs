//! Charges and counters, and a bill line that is frozen while they come.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use gatebell_engine::testing::contract::ledger::{TERM, charge};

use super::super::super::ledger_freezes::{ChargeName, OrderKey};
use super::*;

/// The counter of the contract's order, as a reader of the bill finds it.
async fn counter(ledger: &ApartLedger) -> i64 {
    let term = ledger.apart(TERM);
    let session = &ledger.ledger.session;
    let select = session
        .prepare_read(
            "SELECT delivered FROM keyspace.counters WHERE term = ? AND pupil = 'P1' AND guardian = 'G1' AND order_code = 'O1'",
        )
        .await
        .expect("the statement is accepted");
    let row: Option<(i64,)> = session.row(&select, (term.as_str(),)).await.expect("a counter is read");
    row.map_or(0, |(delivered,)| delivered)
}

/// The contract's order in the ledger's own term, as `work` wants it.
async fn with_order<T>(ledger: &ApartLedger, work: impl AsyncFnOnce(OrderKey<'_>) -> T) -> T {
    let mut of_order = charge(0);
    of_order.term = ledger.apart(TERM);
    work(OrderKey::of(&of_order)).await
}

async fn freeze(ledger: &ApartLedger) -> BTreeSet<ChargeName> {
    with_order(ledger, async |key| ledger.ledger.charges.freeze(key).await.expect("an order is frozen")).await
}

async fn deliver(ledger: &ApartLedger, number: u64) -> ChargeVerdict {
    ledger.charge(charge(number)).await.expect("a charge is decided")
}

async fn events(ledger: &ApartLedger, wanted: Event) -> usize {
    let loaded = ledger.load_from(3, 0).await.expect("a partition is loaded");
    loaded.iter().filter(|entry| entry.event == wanted).count()
}

#[tokio::test]
async fn a_charge_repeated_by_two_processes_counts_once() {
    let processes = ApartLedger::of_processes(2).await;
    let repeats = (0..20).map(|repeat| deliver(&processes[repeat % 2], 1));
    let verdicts = join_all(repeats).await;
    assert!(verdicts.iter().all(|verdict| *verdict == ChargeVerdict::Charged));
    assert_eq!(counter(&processes[0]).await, 1);
    assert_eq!(events(&processes[1], Event::Charged).await, 1);
}

#[tokio::test]
async fn two_processes_at_once_count_every_charge() {
    let processes = ApartLedger::of_processes(2).await;
    let charges =
        (0..40_u64).map(|number| deliver(&processes[usize::try_from(number % 2).expect("small")], number));
    join_all(charges).await;
    assert_eq!(counter(&processes[0]).await, 40);
}

#[tokio::test]
async fn a_stale_total_changes_nothing() {
    let ledger = ApartLedger::fresh().await;
    with_order(&ledger, async |key| {
        for (total, expected) in [(3, 3), (2, 3), (5, 5), (5, 5), (1, 5)] {
            ledger.ledger.charges.count(key, total).await.expect("a counter is written");
            assert_eq!(counter(&ledger).await, expected, "after {total}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_delivered_after_a_line_is_frozen_is_adjusted_and_counted_nowhere() {
    let processes = ApartLedger::of_processes(2).await;
    let ledger = &processes[0];
    assert_eq!(deliver(ledger, 1).await, ChargeVerdict::Charged);
    assert_eq!(freeze(&processes[1]).await.len(), 1);
    assert_eq!(deliver(ledger, 2).await, ChargeVerdict::Adjusted);
    for process in &processes {
        assert_eq!(deliver(process, 1).await, ChargeVerdict::Charged, "the first verdict again");
        assert_eq!(deliver(process, 2).await, ChargeVerdict::Adjusted, "the first verdict again");
    }
    assert_eq!(counter(ledger).await, 1);
    assert_eq!((events(ledger, Event::Charged).await, events(ledger, Event::Adjusted).await), (1, 1));
    assert_eq!(freeze(ledger).await.len(), 1, "a freeze is repeated without effect");
}

/// Whichever way each single race goes, line, counter and verdicts agree.
#[tokio::test]
async fn a_line_frozen_while_charges_come_counts_those_that_were_charged() {
    let processes = ApartLedger::of_processes(3).await;
    processes[2].ledger.session.swap_answers_lost.store(1, Ordering::SeqCst);
    let charges = (0..60_u64).map(|number| {
        let ledger = &processes[usize::try_from(number % 2).expect("small")];
        async move { (number, deliver(ledger, number).await) }
    });
    let (verdicts, counted) = futures::join!(join_all(charges), freeze(&processes[2]));
    let charged: BTreeSet<_> = verdicts
        .into_iter()
        .filter(|(_, verdict)| *verdict == ChargeVerdict::Charged)
        .map(|(number, _)| ChargeName { day: charge(number).day, kind: charge(number).kind })
        .collect();
    assert_eq!(charged, counted);
    assert_eq!(counter(&processes[0]).await, i64::try_from(counted.len()).expect("small"));
    assert_eq!(events(&processes[0], Event::Charged).await, counted.len());
    assert_eq!(events(&processes[0], Event::Adjusted).await, 60 - counted.len());
}

#[tokio::test]
async fn a_freeze_that_broke_off_holds_up_no_charge() {
    let ledger = ApartLedger::fresh().await;
    assert_eq!(deliver(&ledger, 1).await, ChargeVerdict::Charged);
    with_order(&ledger, async |key| {
        ledger.ledger.charges.freezes().mark(key).await.expect("an order is marked");
    })
    .await;
    assert_eq!(deliver(&ledger, 2).await, ChargeVerdict::Charged, "the charge itself settled what counts");
    assert_eq!(deliver(&ledger, 3).await, ChargeVerdict::Adjusted);
    assert_eq!(freeze(&ledger).await.len(), 2);
}

#[tokio::test]
async fn a_closed_term_adjusts_every_order() {
    let ledger = ApartLedger::fresh().await;
    let term = ledger.apart(TERM);
    let session = &ledger.ledger.session;
    let insert = session
        .prepare_swap("INSERT INTO keyspace.closed_terms (term, state) VALUES (?, 'closed') IF NOT EXISTS")
        .await
        .expect("the statement is accepted");
    assert!(session.swap(&insert, (term.as_str(),)).await.expect("a term is closed"));
    for _ in 0..2 {
        assert_eq!(deliver(&ledger, 1).await, ChargeVerdict::Adjusted);
    }
    assert_eq!(counter(&ledger).await, 0);
}
