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
