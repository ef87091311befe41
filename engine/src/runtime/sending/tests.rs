//! A claim whose former owner did not come to write its entry.

use super::*;
use crate::ledger::OwnerToken;
use crate::notice::NoticeKind;
use crate::runtime::lane_fixture::LaneFixture;

#[tokio::test(start_paused = true)]
async fn a_notice_whose_claim_ended_without_its_entry_is_ended_and_never_sent() {
    let fixture = LaneFixture::new();
    let context = Arc::clone(&fixture.context);
    let item = fixture.pending(0, NoticeKind::Arrival);
    let open = Claim { owner: OwnerToken(9), ..wanted_claim(&context, &item) };
    let claimed = LedgerEntry::of(&item.notice, Event::Claimed, open.claimed_at).through(&open.lane, 1);
    // A former owner ended the claim after this one had read the ledger, and crashed before it wrote the entry.
    context.ledger.claim(None, open.clone(), claimed).await.expect("a ledger without faults");
    let state = ClaimState::Ended { event: Event::Suppressed, reason: Some("protected".into()) };
    let ended = Claim { state, ..open.clone() };
    context.ledger.advance(open.stamp(), ended, Vec::new()).await.expect("a ledger without faults");

    let (position, notice) = (item.notice.position, item.notice.id);
    let (_, step) = claim(Arc::clone(&context), item).await;

    assert!(matches!(step, ClaimStep::AlreadySettled), "{step:?}");
    let entries = context.ledger.entries_of(position, notice).await.expect("a ledger without faults");
    let events: Vec<(Event, Option<&str>)> =
        entries.iter().map(|entry| (entry.event, entry.reason.as_deref())).collect();
    assert_eq!(events, [(Event::Claimed, None), (Event::Suppressed, Some("protected"))]);
    assert!(fixture.gateway.arrivals().is_empty());
}

/// A process slept over its gateway's answer, and its successor gave the notice up as *unknown*. The acceptance was booked, and its
/// entry left out, so that the recount found a charge without proof. A simulated morning found it (seed 8752).
#[tokio::test(start_paused = true)]
async fn acceptance_is_proof_also_after_another_process_gave_the_notice_up() {
    let fixture = LaneFixture::with_receipts(false);
    let context = Arc::clone(&fixture.context);
    let mut outgoing = fixture.outgoing().await;
    outgoing.item.in_doubt = true;
    let notice = outgoing.item.notice.clone();
    let given_up = LedgerEntry::of(&notice, Event::Failed, context.clock.now()).because("unknown");
    context.ledger.append(vec![given_up]).await.expect("a ledger without faults");

    for answered in submit(Arc::clone(&context), vec![outgoing], 0).await {
        record(Arc::clone(&context), answered).await;
    }

    let entries =
        context.ledger.entries_of(notice.position, notice.id).await.expect("a ledger without faults");
    let events: Vec<Event> = entries.iter().map(|entry| entry.event).collect();
    assert_eq!(events, [Event::Claimed, Event::Failed, Event::Accepted, Event::Charged]);
    assert!(fixture.broken().is_empty());
}

/// A process woke up and wrote down that the gateway had taken the message, just before its successor gave the notice up.
#[tokio::test(start_paused = true)]
async fn what_a_former_owner_has_submitted_meanwhile_is_not_given_up() {
    let fixture = LaneFixture::new();
    let context = Arc::clone(&fixture.context);
    let mut item = fixture.pending(0, NoticeKind::Arrival);
    item.in_doubt = true;
    let open = Claim { owner: OwnerToken(9), ..wanted_claim(&context, &item) };
    let claimed = LedgerEntry::of(&item.notice, Event::Claimed, open.claimed_at).through(&open.lane, 1);
    context.ledger.claim(None, open.clone(), claimed).await.expect("a ledger without faults");
    let state = ClaimState::Submitted { gateway_id: "#1".into() };
    let submitted = Claim { state, ..open.clone() };
    context.ledger.advance(open.stamp(), submitted, Vec::new()).await.expect("a ledger without faults");

    let (position, notice) = (item.notice.position, item.notice.id);
    let given_up = LedgerEntry::of(&item.notice, Event::Failed, context.clock.now()).because("unknown");
    end_claim(Arc::clone(&context), item, given_up).await.expect("it is settled");

    let entries = context.ledger.entries_of(position, notice).await.expect("a ledger without faults");
    let events: Vec<Event> = entries.iter().map(|entry| entry.event).collect();
    assert_eq!(events, [Event::Claimed, Event::Submitted]);
}

/// A process slept over a refusal. Its successor had given the notice up as *unknown*, so that it was failed twice (a simulated
/// day found it, seed 7133); or the gateway had taken it from the successor, and nobody would have asked for its receipt.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_after_another_process_has_settled_the_notice_is_no_end() {
    for settled in [Event::Failed, Event::Submitted] {
        let fixture = LaneFixture::new();
        let context = Arc::clone(&fixture.context);
        let item = fixture.outgoing().await.item;
        let (position, notice) = (item.notice.position, item.notice.id);
        let theirs = LedgerEntry::of(&item.notice, settled, context.clock.now());
        context.ledger.append(vec![theirs]).await.expect("a ledger without faults");

        record(Arc::clone(&context), Answered { item, step: NextStep::Fail { reason: "v".into() } }).await;

        let entries = context.ledger.entries_of(position, notice).await.expect("a ledger without faults");
        let events: Vec<Event> = entries.iter().map(|entry| entry.event).collect();
        assert_eq!(events, [Event::Claimed, settled]);
        assert!(entries.iter().all(|entry| entry.reason.is_none()));
    }
}

/// A process gave its claim back unused while the next owner held the notice for doubtful: it was called *unknown*, though nothing
/// had left.
#[tokio::test(start_paused = true)]
async fn what_a_former_owner_has_given_back_meanwhile_is_in_doubt_no_more() {
    let fixture = LaneFixture::new();
    let context = Arc::clone(&fixture.context);
    let mut item = fixture.pending(0, NoticeKind::Arrival);
    item.in_doubt = true;
    let open = Claim { owner: OwnerToken(9), ..wanted_claim(&context, &item) };
    let claimed = LedgerEntry::of(&item.notice, Event::Claimed, open.claimed_at).through(&open.lane, 1);
    context.ledger.claim(None, open.clone(), claimed).await.expect("a ledger without faults");
    let refused = Claim { state: ClaimState::Refused, ..open.clone() };
    context.ledger.advance(open.stamp(), refused, Vec::new()).await.expect("a ledger without faults");

    let (position, notice) = (item.notice.position, item.notice.id);
    let given_up = LedgerEntry::of(&item.notice, Event::Failed, context.clock.now()).because("unknown");
    let again = end_claim(Arc::clone(&context), item, given_up).await.expect_err("to be ended anew");

    assert!(!again.in_doubt);
    let entries = context.ledger.entries_of(position, notice).await.expect("a ledger without faults");
    assert!(entries.iter().all(|entry| entry.event == Event::Claimed), "{entries:?}");
}
