//! Zombies, successors, second cards, and answers that never came.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use gatebell_engine::ledger::{ClaimState, OwnerToken};
use gatebell_engine::testing::contract::ledger::{TERM, entry, lane, sms_notice};

use super::*;

fn claim_of(number: u64, owner: u128) -> Claim {
    let notice = sms_notice(number);
    Claim {
        key: ClaimKey::of(TERM, &notice),
        notice: notice.id,
        position: notice.position,
        owner: OwnerToken(owner),
        attempt: 1,
        lane: lane(),
        claimed_at: notice.at,
        deadline: notice.deadline,
        state: ClaimState::Open,
    }
}

async fn try_claim(ledger: &ApartLedger, expected: Option<ClaimStamp>, claim: &Claim) -> ClaimVerdict {
    let claimed = entry(claim.position.offset, Event::Claimed, 0);
    ledger.claim(expected, claim.clone(), claimed).await.expect("a claim is decided")
}

fn is_won(verdict: &ClaimVerdict) -> bool {
    *verdict == ClaimVerdict::Won
}

async fn events_of(ledger: &ApartLedger, number: u64) -> Vec<Event> {
    let notice = sms_notice(number);
    let entries = ledger.entries_of(notice.position, notice.id).await.expect("entries are read");
    entries.iter().map(|entry| entry.event).collect()
}

#[tokio::test]
async fn of_many_tasks_in_three_processes_exactly_one_gets_a_claim() {
    let processes = ApartLedger::of_processes(3).await;
    let contenders = (1..=24_u128).map(|owner| {
        let ledger = &processes[usize::try_from(owner).expect("small") % 3];
        async move { (owner, try_claim(ledger, None, &claim_of(1, owner)).await) }
    });
    let verdicts = join_all(contenders).await;
    let winners: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| is_won(verdict)).map(|(owner, _)| *owner).collect();
    let [winner] = winners[..] else { panic!("{} won", winners.len()) };
    let held = ClaimVerdict::Held(Box::new(claim_of(1, winner)));
    assert!(
        verdicts.iter().all(|(owner, verdict)| *owner == winner || *verdict == held),
        "all learn who holds it"
    );
    assert_eq!(events_of(&processes[0], 1).await, [Event::Claimed]);
}

#[tokio::test]
async fn a_zombie_and_its_successors_take_a_claim_over_once() {
    let processes = ApartLedger::of_processes(3).await;
    let gone = claim_of(1, 99);
    assert!(is_won(&try_claim(&processes[0], None, &gone).await));
    // Twelve successors take it over while its former owner moves it on.
    let submitted =
        Claim { state: ClaimState::Submitted { gateway_id: CompactString::new("M1") }, ..gone.clone() };
    let zombie = processes[0].advance(gone.stamp(), submitted.clone(), vec![entry(1, Event::Submitted, 5)]);
    let successors = (1..=12_u128).map(|owner| {
        let (ledger, gone) = (&processes[usize::try_from(owner % 2).expect("small") + 1], &gone);
        async move { try_claim(ledger, Some(gone.stamp()), &claim_of(1, owner)).await }
    });
    let (zombie, successors) = futures::join!(zombie, join_all(successors));
    let zombie = zombie.expect("a claim is decided");
    let won = successors.iter().chain([&zombie]).filter(|verdict| is_won(verdict)).count();
    assert_eq!(won, 1);
    let events: BTreeSet<_> = events_of(&processes[0], 1).await.into_iter().collect();
    assert_eq!(
        events,
        BTreeSet::from([Event::Claimed, Event::Submitted]),
        "an outcome is a fact, whoever won"
    );
}

#[tokio::test]
async fn two_cards_of_one_pupil_in_two_partitions_send_one_message() {
    let processes = ApartLedger::of_processes(2).await;
    for number in 0..8 {
        let first = claim_of(number, 1);
        let mut second = claim_of(number, 2);
        second.notice = NoticeId::from_u128(u128::from(number) + 1);
        second.position = LogPosition { partition: 9, offset: number };
        let mut second_entry = entry(number, Event::Claimed, 0);
        (second_entry.notice, second_entry.position) = (second.notice, second.position);

        let (one, other) = futures::join!(
            try_claim(&processes[0], None, &first),
            processes[1].claim(None, second.clone(), second_entry),
        );
        let other = other.expect("a claim is decided");
        assert!(is_won(&one) != is_won(&other), "notice {number}: {one:?} {other:?}");
        let (winner, loser) = if is_won(&one) { (&first, &second) } else { (&second, &first) };
        let of = |claim: &Claim| processes[0].entries_of(claim.position, claim.notice);
        assert_eq!(of(winner).await.expect("entries are read").len(), 1);
        assert_eq!(of(loser).await.expect("entries are read"), []);
    }
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_won_by_asking() {
    let ledger = ApartLedger::fresh().await;
    let lost = &ledger.ledger.session.swap_answers_lost;
    let open = claim_of(1, 1);

    lost.store(1, Ordering::SeqCst);
    assert!(is_won(&try_claim(&ledger, None, &open).await), "applied, and the answer lost");
    assert_eq!(lost.load(Ordering::SeqCst), 0, "the loss took place");

    lost.store(1, Ordering::SeqCst);
    let verdict = try_claim(&ledger, None, &claim_of(1, 2)).await;
    assert_eq!(verdict, ClaimVerdict::Held(Box::new(open.clone())), "not applied, and the answer lost");

    lost.store(1, Ordering::SeqCst);
    let state = ClaimState::Ended { event: Event::Failed, reason: Some("unknown".into()) };
    let ended = Claim { state, ..open.clone() };
    let verdict = ledger.advance(open.stamp(), ended.clone(), vec![]).await.expect("a claim is decided");
    assert!(is_won(&verdict));
    assert_eq!(ledger.claim_of(&open.key).await.expect("a claim is read"), Some(ended));
    assert_eq!(lost.load(Ordering::SeqCst), 0, "the loss took place");
}

/// A crash between the row and its entry: the successor is told who holds it, and takes it over.
#[tokio::test]
async fn an_open_claim_without_its_entry_is_found_and_taken_over() {
    let processes = ApartLedger::of_processes(2).await;
    let gone = claim_of(1, 1);
    let row_only = processes[0].claim_apart(gone.clone());
    processes[0].ledger.claims.swap(None, &row_only).await.expect("a claim is decided");
    assert_eq!(
        processes[1].load_from(3, 0).await.expect("a partition is loaded"),
        [],
        "recovery sees nothing"
    );

    let ours = claim_of(1, 2);
    let verdict = try_claim(&processes[1], None, &ours).await;
    assert_eq!(verdict, ClaimVerdict::Held(Box::new(gone.clone())), "but the claim is not free");
    assert!(is_won(&try_claim(&processes[1], Some(gone.stamp()), &ours).await));
    assert_eq!(events_of(&processes[1], 1).await, [Event::Claimed]);
}

#[tokio::test]
async fn an_entry_that_two_processes_write_is_whole_and_the_first() {
    let processes = ApartLedger::of_processes(2).await;
    let first = entry(1, Event::Submitted, 900).known_as("first");
    let second = entry(1, Event::Submitted, 0).because("second");
    processes[0].append(vec![first.clone()]).await.expect("entries are appended");
    processes[1].append(vec![second]).await.expect("entries are appended");
    let notice = sms_notice(1);
    for process in &processes {
        let read = process.entries_of(notice.position, notice.id).await.expect("entries are read");
        assert_eq!(read, std::slice::from_ref(&first));
    }

    // At the same moment either may be first, but never a mixture of both.
    for number in 2..12 {
        let one = entry(number, Event::Failed, 1).known_as("one");
        let other = entry(number, Event::Failed, 2).because("other");
        let (written, also_written) =
            futures::join!(processes[0].append(vec![one.clone()]), processes[1].append(vec![other.clone()]));
        written.and(also_written).expect("entries are appended");
        let notice = sms_notice(number);
        let read = processes[0].entries_of(notice.position, notice.id).await.expect("entries are read");
        assert!(read == [one] || read == [other], "{read:?}");
    }
}
