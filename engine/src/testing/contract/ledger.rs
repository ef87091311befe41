//! What every [`Ledger`] promises, as tests.
//!
//! Each function takes an empty ledger and fails where one obligation is not met. An implementation runs them
//! all with [`ledger_contract`](crate::ledger_contract), each as a test of its own.

use std::collections::BTreeSet;

use compact_str::CompactString;

use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, OrderId, PupilId, SchoolId};
use crate::ledger::{Charge, Claim, ClaimKey, ClaimState, Event, LedgerEntry, OwnerToken};
use crate::notice::{Channel, Notice, NoticeKind};
use crate::ports::ledger::{ChargeVerdict, ClaimVerdict, Ledger};
use crate::time::{Day, Timestamp};

/// The term that the contract's claims and charges are of.
pub const TERM: &str = "114-1";

const OURS: OwnerToken = OwnerToken(u128::MAX - 7);
const THEIRS: OwnerToken = OwnerToken(8);

/// Runs the ledger's contract: a module of tests, one an obligation, each on a ledger of its own.
///
/// The argument is an async function or closure that gives an empty ledger, behind anything that dereferences
/// to it (an `Arc`, a `Box`, a fixture that also owns a directory).
#[macro_export]
macro_rules! ledger_contract {
    ($module:ident, $fresh:expr) => {
        $crate::ledger_contract!(@tests $module, $fresh,
            an_entry_comes_back_as_it_was_written
            entries_named_alike_are_kept_once_the_first_as_it_was
            a_partition_is_loaded_from_an_offset_on
            entries_of_a_notice_come_in_the_order_written
            the_first_claim_wins_and_the_second_is_told_who_holds_it
            of_two_owners_at_once_exactly_one_wins
            a_claim_applied_but_timed_out_is_won_when_repeated
            a_successor_takes_a_claim_over_by_its_stamp
            a_claim_is_not_replaced_under_an_old_stamp
            a_refused_attempt_is_followed_by_the_next
            a_claim_moves_on_with_its_entries
            a_claim_remembers_how_its_notice_ended
            an_outcome_is_kept_also_when_the_claim_is_lost
            keys_that_differ_anywhere_are_claims_of_their_own
            a_charge_twice_counts_once
            the_same_delivery_of_another_notice_is_not_charged_again
            many_charges_at_once_all_count
            an_absence_is_never_charged
            what_is_submitted_waits_for_its_receipt_until_the_end
            a_late_submitted_entry_does_not_wait_again
            awaiting_receipts_are_read_on_in_pages
            awaiting_receipts_are_those_of_the_lane_and_the_days_asked_for
            an_empty_ledger_answers
        );
    };
    (@tests $module:ident, $fresh:expr, $($obligation:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test]
                async fn $obligation() {
                    let ledger = ($fresh)().await;
                    $crate::testing::contract::ledger::$obligation(&*ledger).await;
                }
            )+
        }
    };
}

/// An SMS notice of an arrival under order `O1`; `number` is its offset and makes it differ from others.
pub fn sms_notice(number: u64) -> Notice {
    let position = LogPosition { partition: 3, offset: number };
    let guardian = GuardianId::new("G1").expect("of the allowed form");
    let first_day = Day::from_epoch_days(20_339);
    let day = Day::from_epoch_days(first_day.epoch_days() + i32::try_from(number % 90).expect("below 90"));
    let at = Timestamp::from_millis(i64::from(day.epoch_days()) * 86_400_000 - 1_743_250);
    Notice {
        id: NoticeId::derive("contract", position, &guardian, Channel::Sms),
        position,
        kind: NoticeKind::Arrival,
        channel: Channel::Sms,
        pupil: PupilId::new("P1").expect("of the allowed form"),
        guardian,
        order: Some(OrderId::new("O1").expect("of the allowed form")),
        place: SchoolId::new("353604").expect("of the allowed form"),
        at,
        day,
        received: at,
        deadline: Timestamp::from_millis(at.as_millis() + 3_600_000),
    }
}

/// The lane that the contract sends through.
pub fn lane() -> LaneName {
    LaneName::new("sms-main").expect("of the allowed form")
}

/// What happened to the notice of that number, `step_ms` after its tap, in attempt 1.
pub fn entry(number: u64, event: Event, step_ms: i64) -> LedgerEntry {
    let notice = sms_notice(number);
    let time = Timestamp::from_millis(notice.at.as_millis() + step_ms);
    LedgerEntry::of(&notice, event, time).through(&lane(), 1)
}

/// A charge for the notice of that number.
pub fn charge(number: u64) -> Charge {
    let proof = entry(number, Event::Delivered, 5_000).known_as(&format!("M{number}"));
    Charge {
        term: CompactString::new(TERM),
        pupil: proof.pupil.clone(),
        guardian: proof.guardian.clone(),
        order: proof.order.clone().expect("an SMS notice has an order"),
        day: proof.day,
        kind: proof.kind,
        proof,
    }
}

fn claim(number: u64, owner: OwnerToken) -> Claim {
    let notice = sms_notice(number);
    Claim {
        key: ClaimKey::of(TERM, &notice),
        notice: notice.id,
        position: notice.position,
        owner,
        attempt: 1,
        lane: lane(),
        claimed_at: notice.at,
        deadline: notice.deadline,
        state: ClaimState::Open,
    }
}

fn submitted(claim: &Claim) -> Claim {
    Claim { state: ClaimState::Submitted { gateway_id: CompactString::new("M1") }, ..claim.clone() }
}

async fn entries_of(ledger: &impl Ledger, number: u64) -> Vec<LedgerEntry> {
    let notice = sms_notice(number);
    ledger.entries_of(notice.position, notice.id).await.expect("entries are read")
}

async fn events_of(ledger: &impl Ledger, number: u64) -> Vec<Event> {
    entries_of(ledger, number).await.iter().map(|entry| entry.event).collect()
}

async fn won(ledger: &impl Ledger, claim: &Claim) {
    let verdict = ledger
        .claim(None, claim.clone(), entry(claim.position.offset, Event::Claimed, 0))
        .await
        .expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Won);
}

/// Every field survives, also the empty ones and the largest values.
pub async fn an_entry_comes_back_as_it_was_written(ledger: &impl Ledger) {
    let full = entry(1, Event::Failed, 7).known_as("0000A1").because("#r103");
    let mut bare = LedgerEntry::of(&sms_notice(2), Event::Suppressed, Timestamp::from_millis(-5));
    bare.order = None;
    bare.channel = Channel::App;
    let mut extreme = entry(3, Event::Submitted, 0);
    extreme.notice = NoticeId::from_u128(u128::MAX);
    extreme.attempt = u32::MAX;
    extreme.kind = NoticeKind::Emergency;
    ledger.append(vec![full.clone(), bare.clone(), extreme.clone()]).await.expect("entries are appended");
    let loaded = ledger.load_from(3, 0).await.expect("a partition is loaded");
    for written in [full, bare, extreme] {
        assert!(loaded.contains(&written), "{written:?} is not among {loaded:?}");
    }
}

/// (notice, event, attempt) names an entry; what else differs is not looked at.
pub async fn entries_named_alike_are_kept_once_the_first_as_it_was(ledger: &impl Ledger) {
    let first = entry(1, Event::Failed, 0).because("first");
    let again = entry(1, Event::Failed, 999).because("second");
    let mut other_attempt = first.clone();
    other_attempt.attempt = 2;
    ledger.append(vec![first.clone(), again.clone()]).await.expect("entries are appended");
    ledger.append(vec![again, other_attempt.clone()]).await.expect("entries are appended");
    assert_eq!(entries_of(ledger, 1).await, [first, other_attempt]);
}

/// Neither lower offsets nor other partitions.
pub async fn a_partition_is_loaded_from_an_offset_on(ledger: &impl Ledger) {
    let mut elsewhere = entry(9, Event::Accepted, 0);
    elsewhere.position.partition = 4;
    let entries = (5..9).map(|number| entry(number, Event::Accepted, 0)).chain([elsewhere]).collect();
    ledger.append(entries).await.expect("entries are appended");
    let loaded = ledger.load_from(3, 7).await.expect("a partition is loaded");
    let offsets: BTreeSet<_> = loaded.iter().map(|entry| entry.position.offset).collect();
    assert_eq!((loaded.len(), offsets), (2, BTreeSet::from([7, 8])));
    assert_eq!(ledger.load_from(3, 9).await.expect("a partition is loaded"), []);
}

/// The order of writing, whatever the entries' own times say; other notices of the same tap are left out.
pub async fn entries_of_a_notice_come_in_the_order_written(ledger: &impl Ledger) {
    let mut same_tap = entry(1, Event::Accepted, 0);
    same_tap.notice = NoticeId::from_u128(1);
    ledger.append(vec![entry(1, Event::Expired, 9_000), same_tap]).await.expect("entries are appended");
    ledger.append(vec![entry(2, Event::Expired, 0)]).await.expect("entries are appended");
    ledger.append(vec![entry(1, Event::Delivered, 100)]).await.expect("entries are appended");
    assert_eq!(events_of(ledger, 1).await, [Event::Expired, Event::Delivered]);
}

/// The loser learns the row as it is, and its entry is not written.
pub async fn the_first_claim_wins_and_the_second_is_told_who_holds_it(ledger: &impl Ledger) {
    let ours = claim(1, OURS);
    won(ledger, &ours).await;
    let theirs = Claim { notice: NoticeId::from_u128(5), ..claim(1, THEIRS) };
    let mut their_entry = entry(1, Event::Claimed, 1);
    their_entry.notice = theirs.notice;
    let verdict = ledger.claim(None, theirs, their_entry).await.expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Held(Box::new(ours.clone())));
    assert_eq!(ledger.claim_of(&ours.key).await.expect("a claim is read"), Some(ours));
    let loaded = ledger.load_from(3, 0).await.expect("a partition is loaded");
    assert_eq!(loaded, [entry(1, Event::Claimed, 0)]);
}

/// Also when many keys are raced for at the same time.
pub async fn of_two_owners_at_once_exactly_one_wins(ledger: &impl Ledger) {
    let races = (0..40).map(|number| async move {
        let attempt = |owner| ledger.claim(None, claim(number, owner), entry(number, Event::Claimed, 0));
        let (ours, theirs) = futures::join!(attempt(OURS), attempt(THEIRS));
        let verdicts = [ours.expect("a claim is decided"), theirs.expect("a claim is decided")];
        let wins = verdicts.iter().filter(|verdict| **verdict == ClaimVerdict::Won).count();
        assert_eq!(wins, 1, "claim {number}: {verdicts:?}");
    });
    futures::future::join_all(races).await;
}

/// The answer to the first call was lost; the row says that it had been applied.
pub async fn a_claim_applied_but_timed_out_is_won_when_repeated(ledger: &impl Ledger) {
    let ours = claim(1, OURS);
    won(ledger, &ours).await;
    won(ledger, &ours).await;
    assert_eq!(events_of(ledger, 1).await, [Event::Claimed]);

    let moved_on = submitted(&ours);
    for _ in 0..2 {
        let verdict = ledger
            .advance(ours.stamp(), moved_on.clone(), vec![entry(1, Event::Submitted, 5)])
            .await
            .expect("a claim is decided");
        assert_eq!(verdict, ClaimVerdict::Won);
    }
    let verdict = ledger.claim(None, ours, entry(1, Event::Claimed, 0)).await.expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Held(Box::new(moved_on)), "a claim that has moved on is not won again");
}

/// A claim in doubt, whose owner is gone; the notice and the reference stay.
pub async fn a_successor_takes_a_claim_over_by_its_stamp(ledger: &impl Ledger) {
    let gone = claim(1, THEIRS);
    won(ledger, &gone).await;
    let ours = Claim { owner: OURS, ..gone.clone() };
    let verdict = ledger
        .claim(Some(gone.stamp()), ours.clone(), entry(1, Event::Claimed, 1))
        .await
        .expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Won);

    let zombie = ledger
        .advance(gone.stamp(), submitted(&gone), vec![entry(1, Event::Submitted, 2)])
        .await
        .expect("a claim is decided");
    assert_eq!(zombie, ClaimVerdict::Held(Box::new(ours)));
}

/// Each part of the stamp counts: owner, attempt, state.
pub async fn a_claim_is_not_replaced_under_an_old_stamp(ledger: &impl Ledger) {
    let held = submitted(&claim(1, THEIRS));
    won(ledger, &held).await;
    let good = held.stamp();
    let mut other_owner = good.clone();
    other_owner.owner = OURS;
    let mut other_attempt = good.clone();
    other_attempt.attempt = 2;
    let mut other_state = good.clone();
    other_state.state = ClaimState::Open;
    let mut other_gateway_id = good.clone();
    other_gateway_id.state = ClaimState::Submitted { gateway_id: CompactString::new("M2") };
    for stamp in [other_owner, other_attempt, other_state, other_gateway_id] {
        let verdict = ledger
            .claim(Some(stamp.clone()), Claim { owner: OURS, ..held.clone() }, entry(1, Event::Claimed, 1))
            .await
            .expect("a claim is decided");
        assert_eq!(verdict, ClaimVerdict::Held(Box::new(held.clone())), "{stamp:?}");
    }
}

/// The attempt rises only then; its `claimed` entry is one of its own.
pub async fn a_refused_attempt_is_followed_by_the_next(ledger: &impl Ledger) {
    let first = claim(1, OURS);
    won(ledger, &first).await;
    let refused = Claim { state: ClaimState::Refused, ..first.clone() };
    ledger.advance(first.stamp(), refused.clone(), vec![]).await.expect("a claim is decided");
    let second = Claim { attempt: 2, ..claim(1, OURS) };
    let mut second_entry = entry(1, Event::Claimed, 9);
    second_entry.attempt = 2;
    let verdict = ledger
        .claim(Some(refused.stamp()), second.clone(), second_entry.clone())
        .await
        .expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Won);
    assert_eq!(ledger.claim_of(&second.key).await.expect("a claim is read"), Some(second));
    assert_eq!(entries_of(ledger, 1).await, [entry(1, Event::Claimed, 0), second_entry]);
}

/// The row and the entries become visible together.
pub async fn a_claim_moves_on_with_its_entries(ledger: &impl Ledger) {
    let open = claim(1, OURS);
    won(ledger, &open).await;
    let moved_on = submitted(&open);
    let verdict = ledger
        .advance(open.stamp(), moved_on.clone(), vec![entry(1, Event::Submitted, 5).known_as("M1")])
        .await
        .expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Won);
    let state = ClaimState::Ended { event: Event::Delivered, reason: None };
    let ended = Claim { state, ..moved_on.clone() };
    let verdict = ledger
        .advance(moved_on.stamp(), ended.clone(), vec![entry(1, Event::Delivered, 9).known_as("M1")])
        .await
        .expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Won);
    assert_eq!(ledger.claim_of(&ended.key).await.expect("a claim is read"), Some(ended));
    assert_eq!(events_of(ledger, 1).await, [Event::Claimed, Event::Submitted, Event::Delivered]);
}

/// A crash between the row and the entry: whoever finds the row writes the entry.
pub async fn a_claim_remembers_how_its_notice_ended(ledger: &impl Ledger) {
    let open = claim(1, OURS);
    won(ledger, &open).await;
    for reason in [None, Some(CompactString::const_new("protected"))] {
        let held = ledger.claim_of(&open.key).await.expect("a claim is read").expect("a claim is there");
        let state = ClaimState::Ended { event: Event::Suppressed, reason };
        let ended = Claim { state, ..open.clone() };
        let verdict = ledger.advance(held.stamp(), ended.clone(), vec![]).await.expect("a claim is decided");
        assert_eq!(verdict, ClaimVerdict::Won);
        assert_eq!(ledger.claim_of(&open.key).await.expect("a claim is read"), Some(ended));
    }
}

/// An outcome is a fact, whoever holds the claim by now.
pub async fn an_outcome_is_kept_also_when_the_claim_is_lost(ledger: &impl Ledger) {
    let theirs = claim(1, THEIRS);
    won(ledger, &theirs).await;
    let ours = claim(1, OURS);
    let verdict = ledger
        .advance(ours.stamp(), submitted(&ours), vec![entry(1, Event::Submitted, 5)])
        .await
        .expect("a claim is decided");
    assert_eq!(verdict, ClaimVerdict::Held(Box::new(theirs)));
    assert_eq!(events_of(ledger, 1).await, [Event::Claimed, Event::Submitted]);
}

/// Term, day, pupil, guardian and kind.
pub async fn keys_that_differ_anywhere_are_claims_of_their_own(ledger: &impl Ledger) {
    let first = claim(1, OURS);
    let mut keys = vec![first.key.clone(); 6];
    keys[1].term = CompactString::new("114-2");
    keys[2].day = first.key.day.next();
    keys[3].pupil = PupilId::new("P2").expect("of the allowed form");
    keys[4].guardian = GuardianId::new("G2").expect("of the allowed form");
    keys[5].kind = NoticeKind::Departure;
    for key in keys {
        assert_eq!(ledger.claim_of(&key).await.expect("a claim is read"), None);
        won(ledger, &Claim { key, ..first.clone() }).await;
    }
}

/// The first verdict again, one entry.
pub async fn a_charge_twice_counts_once(ledger: &impl Ledger) {
    ledger.append(vec![charge(1).proof]).await.expect("entries are appended");
    for _ in 0..3 {
        let verdict = ledger.charge(charge(1)).await.expect("a charge is decided");
        assert_eq!(verdict, ChargeVerdict::Charged);
    }
    let entries = entries_of(ledger, 1).await;
    let events: Vec<_> = entries.iter().map(|entry| entry.event).collect();
    assert_eq!(events, [Event::Delivered, Event::Charged]);
    assert_eq!(entries[1].order, Some(charge(1).order), "the charge names its order");
}

/// One charge an order, day and kind: two senders that both got through cost the parent one message.
pub async fn the_same_delivery_of_another_notice_is_not_charged_again(ledger: &impl Ledger) {
    ledger.charge(charge(1)).await.expect("a charge is decided");
    let mut twin = charge(1);
    twin.proof.notice = NoticeId::from_u128(2);
    let verdict = ledger.charge(twin).await.expect("a charge is decided");
    assert_eq!(verdict, ChargeVerdict::Charged);
    let loaded = ledger.load_from(3, 0).await.expect("a partition is loaded");
    assert_eq!(loaded.iter().filter(|entry| entry.event == Event::Charged).count(), 1);
}

/// Different days under one order, all at the same time.
pub async fn many_charges_at_once_all_count(ledger: &impl Ledger) {
    let charges = (0..60).map(|number| ledger.charge(charge(number)));
    for verdict in futures::future::join_all(charges).await {
        assert_eq!(verdict.expect("a charge is decided"), ChargeVerdict::Charged);
    }
    let loaded = ledger.load_from(3, 0).await.expect("a partition is loaded");
    assert_eq!(loaded.iter().filter(|entry| entry.event == Event::Charged).count(), 60);
}

/// Absence, correction and emergency are the city's (B4).
pub async fn an_absence_is_never_charged(ledger: &impl Ledger) {
    for kind in [NoticeKind::Absence, NoticeKind::Correction, NoticeKind::Emergency] {
        let mut absence = charge(1);
        (absence.kind, absence.proof.kind) = (kind, kind);
        assert!(ledger.charge(absence).await.is_err(), "{kind} was charged");
    }
    assert_eq!(ledger.load_from(3, 0).await.expect("a partition is loaded"), []);
}

async fn awaiting(ledger: &impl Ledger, after: Option<&LedgerEntry>, limit: usize) -> Vec<LedgerEntry> {
    let since = Day::from_epoch_days(0);
    ledger.awaiting_receipt(3, &lane(), since, after, limit).await.expect("waiting ones are read")
}

/// Oldest first, each notice once with its last `submitted` entry.
pub async fn what_is_submitted_waits_for_its_receipt_until_the_end(ledger: &impl Ledger) {
    for number in 1..5 {
        ledger.append(vec![entry(number, Event::Submitted, 0)]).await.expect("entries are appended");
    }
    let mut resent = entry(1, Event::Submitted, 900);
    resent.attempt = 2;
    ledger.append(vec![resent.clone()]).await.expect("entries are appended");
    ledger
        .append(vec![entry(2, Event::Delivered, 10), entry(3, Event::Failed, 10)])
        .await
        .expect("entries are appended");
    assert_eq!(awaiting(ledger, None, 10).await, [entry(4, Event::Submitted, 0), resent]);
}

/// The receipt overtook the gateway's answer.
pub async fn a_late_submitted_entry_does_not_wait_again(ledger: &impl Ledger) {
    ledger.append(vec![entry(1, Event::Delivered, 10)]).await.expect("entries are appended");
    ledger.append(vec![entry(1, Event::Submitted, 5)]).await.expect("entries are appended");
    assert_eq!(awaiting(ledger, None, 10).await, []);
}

/// Reading on works also after an entry that has met its end meanwhile.
pub async fn awaiting_receipts_are_read_on_in_pages(ledger: &impl Ledger) {
    for number in 1..6 {
        ledger.append(vec![entry(number, Event::Submitted, 0)]).await.expect("entries are appended");
    }
    let first = awaiting(ledger, None, 2).await;
    assert_eq!(first, [entry(1, Event::Submitted, 0), entry(2, Event::Submitted, 0)]);
    ledger.append(vec![entry(2, Event::Delivered, 10)]).await.expect("entries are appended");
    let second = awaiting(ledger, first.last(), 2).await;
    assert_eq!(second, [entry(3, Event::Submitted, 0), entry(4, Event::Submitted, 0)]);
    let third = awaiting(ledger, second.last(), 2).await;
    assert_eq!(third, [entry(5, Event::Submitted, 0)]);
    assert_eq!(awaiting(ledger, third.last(), 2).await, []);
}

/// Other gateways know nothing of them, and old days are given up.
pub async fn awaiting_receipts_are_those_of_the_lane_and_the_days_asked_for(ledger: &impl Ledger) {
    let mut elsewhere = entry(1, Event::Submitted, 0);
    elsewhere.gateway = Some(LaneName::new("sms-second").expect("of the allowed form"));
    let (old, today) = (entry(2, Event::Submitted, 0), entry(3, Event::Submitted, 0));
    ledger.append(vec![elsewhere, old.clone(), today.clone()]).await.expect("entries are appended");
    let found =
        ledger.awaiting_receipt(3, &lane(), today.day, None, 10).await.expect("waiting ones are read");
    assert_eq!(found, [today]);
    assert!(old.day < found[0].day);
}

/// Readiness asks this.
pub async fn an_empty_ledger_answers(ledger: &impl Ledger) {
    ledger.ping().await.expect("the store answers");
    assert_eq!(ledger.load_from(0, 0).await.expect("a partition is loaded"), []);
    assert_eq!(entries_of(ledger, 1).await, []);
    ledger.append(vec![]).await.expect("nothing is appended");
}
