//! Each thing that must hold of a message as it leaves, made wrong.

use std::sync::Arc;

use super::*;
use crate::lane::attempt::NextStep;
use crate::ledger::ClientReference;
use crate::runtime::lane_fixture::LaneFixture;
use crate::runtime::sending;

#[tokio::test(start_paused = true)]
async fn what_must_not_leave_comes_back_to_its_lane_and_is_counted() {
    type Spoil = fn(&mut Outgoing);
    let cases: [(&str, Option<Invariant>, Spoil); 7] = [
        ("as it should be", None, |_| {}),
        ("without a claim", Some(Invariant::N2), |outgoing| outgoing.item.claim = None),
        ("under another attempt's reference", Some(Invariant::N2), |outgoing| {
            outgoing.message.reference = ClientReference::new(outgoing.item.notice.id, 2);
        }),
        ("without an order", Some(Invariant::N3), |outgoing| outgoing.item.notice.order = None),
        ("looked up long ago", Some(Invariant::N3), |outgoing| outgoing.looked_up_at = Duration::ZERO),
        ("at its deadline", Some(Invariant::N4), |outgoing| {
            outgoing.item.notice.deadline = outgoing.looked_up_on;
            outgoing.message.valid_for = Duration::ZERO;
        }),
        ("valid for longer than its deadline", Some(Invariant::N4), |outgoing| {
            outgoing.message.valid_for += Duration::from_millis(1);
        }),
    ];
    for (case, broken, spoil) in cases {
        let fixture = LaneFixture::new();
        tokio::time::advance(CONFIRMED_FOR).await;
        let mut outgoing = fixture.outgoing().await;
        spoil(&mut outgoing);
        let answered = sending::submit(Arc::clone(&fixture.context), vec![outgoing], 0).await;
        let [answer] = &answered[..] else { panic!("{case}: {answered:?}") };
        let left = fixture.gateway.arrivals().len();
        assert_eq!(
            (left, fixture.broken()),
            (usize::from(broken.is_none()), Vec::from_iter(broken)),
            "{case}"
        );
        let is_withheld = matches!(answer.step, NextStep::RetrySame { .. });
        assert_eq!(is_withheld, broken.is_some(), "{case}: {:?}", answer.step);
    }
}
