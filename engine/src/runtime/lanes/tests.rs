//! What a lane does where its limiter, its window or its queue does not do what it should.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::invariants::Invariant;
use crate::lane::attempt::{LanePause, NextStep};
use crate::ledger::Event;
use crate::notice::{Channel, NoticeKind};
use crate::runtime::holdings::Holdings;
use crate::runtime::lane_fixture::{BURST, INTERVAL, LaneFixture};
use crate::runtime::pending;

/// A lane with so many arrivals that are ready to leave.
fn lane(fixture: &LaneFixture, ready: u64) -> Lane {
    let (_, intake) = pending::intake();
    let mut lane = Lane::new(Arc::clone(&fixture.context), intake, Holdings::default().endings());
    for offset in 0..ready {
        let item = fixture.pending(offset, NoticeKind::Arrival);
        lane.ready.push(item.rank(), item);
    }
    lane
}

#[tokio::test(start_paused = true)]
async fn a_lane_sends_as_its_limiter_allows_without_a_breach() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 9);
    assert_eq!(lane.start_submits(), Some(INTERVAL), "a fresh limiter is empty");
    tokio::time::advance(INTERVAL * 10).await;
    assert!(lane.start_submits().is_some());
    assert_eq!((lane.messages_on_wire, fixture.broken()), (BURST as usize, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_limiter_lets_too_much_go_holds_and_the_breach_is_counted() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 9);
    lane.limiter = Limiter::new(Duration::from_nanos(1), 100, Duration::ZERO);
    tokio::time::advance(INTERVAL).await;
    // Nine are let go, one is due.
    assert_eq!(lane.start_submits(), Some(INTERVAL));
    assert_eq!((lane.messages_on_wire, lane.ready.len()), (1, 8));
    assert_eq!(fixture.broken(), [Invariant::L1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_beyond_the_window() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 0);
    tokio::time::advance(INTERVAL * 10).await;
    for _ in 0..fixture.context.connector.profile().window_share() {
        lane.on_wire.push(Box::pin(futures::future::pending()));
    }
    let mut batch = vec![fixture.outgoing().await];
    lane.hold_back(&mut batch, fixture.context.clock.monotonic());
    assert_eq!((batch.len(), lane.ready.len()), (0, 1));
    assert_eq!(fixture.broken(), [Invariant::L1]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_frees_the_window_before_the_ledger_has_it() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 0);
    let answered = Answered {
        item: fixture.outgoing().await.item,
        step: NextStep::Submitted { gateway_id: "M1".into() },
    };
    lane.messages_on_wire = 1;
    lane.take_answers(vec![answered]);
    assert_eq!((lane.messages_on_wire, lane.on_wire.len(), lane.recording.len()), (0, 0, 1));
    assert!(!lane.is_idle(), "it ends only once the answer is durable");
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_while_as_much_is_unrecorded_as_the_window_holds() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 9);
    let profile = fixture.context.connector.profile();
    let unrecorded_max = profile.window_share() * profile.batch_max;
    tokio::time::advance(INTERVAL * 10).await;
    for _ in 0..unrecorded_max {
        lane.recording.push(Box::pin(futures::future::pending()));
    }
    assert_eq!((lane.start_submits(), lane.on_wire.len()), (None, 0));
    lane.recording.clear();
    for _ in 1..unrecorded_max {
        lane.recording.push(Box::pin(futures::future::pending()));
    }
    lane.start_submits();
    assert_eq!(lane.on_wire.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_too_fast_stops_before_the_ledger_knows() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 9);
    tokio::time::advance(INTERVAL * 10).await;
    let wait = Duration::from_secs(5);
    let step = NextStep::RetryAnew { delay: wait, lane: LanePause::Throttled(wait), reason: "l".into() };
    lane.take_answers(vec![Answered { item: fixture.outgoing().await.item, step }]);
    lane.start_submits();
    assert_eq!((lane.recording.len(), lane.on_wire.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_emergency_that_is_overtaken_is_counted() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 0);
    let passage = fixture.pending(0, NoticeKind::Arrival);
    lane.watch_order(&passage);
    assert_eq!(fixture.broken(), []);
    let emergency = fixture.pending(1, NoticeKind::Emergency);
    lane.ready.push(emergency.rank(), emergency);
    lane.watch_order(&passage);
    assert_eq!(fixture.broken(), [Invariant::L2]);
}

#[tokio::test(start_paused = true)]
async fn a_tap_that_waited_before_it_was_decided_took_that_long_as_well() {
    let fixture = LaneFixture::at_speed(10.0);
    let mut lane = lane(&fixture, 0);
    let received = fixture.context.clock.now();
    // Its log was behind, or its former owner died.
    tokio::time::advance(Duration::from_secs(90)).await;
    let mut item = fixture.pending(0, NoticeKind::Arrival);
    item.notice.received = received;
    let step = NextStep::Submitted { gateway_id: "M1".into() };
    lane.take_answers(vec![Answered { item, step }]);
    let took_us = fixture.context.status.snapshot().tap_to_answer_us[&Channel::Sms].max();
    assert_eq!(took_us / 1_000_000, 90, "{took_us} µs of real time");
}

/// A process that did not hear of its tap log wrote *suppressed* while the next owner's message was on its way (a simulated day
/// found it, seed 109558).
#[tokio::test(start_paused = true)]
async fn what_was_decided_here_is_written_while_the_partition_is_ours_and_no_longer() {
    for (goes, written) in [(false, vec![Event::Suppressed]), (true, vec![])] {
        let fixture = LaneFixture::new();
        let mut lane = lane(&fixture, 0);
        let item = fixture.pending(0, NoticeKind::Arrival);
        let (notice, tenure) = (item.notice.clone(), Arc::clone(&item.tenure));
        tokio::time::advance(Duration::from_secs(60)).await;
        lane.end(item, Event::Suppressed, Some("protected"));
        lane.start_flushes();
        let waits = tokio::time::timeout(Duration::from_secs(60), lane.decisions.under_way.next()).await;
        assert!(waits.is_err(), "nobody has confirmed the assignment for a minute");

        if goes {
            tenure.end();
        } else {
            fixture.context.vitals.assignment_confirmed(fixture.context.clock.monotonic());
        }
        Lane::take_flushed(&lane.decisions.under_way.next().await.unwrap());
        let ledger = &fixture.context.ledger;
        let entries = ledger.entries_of(notice.position, notice.id).await.unwrap();
        assert_eq!(Vec::from_iter(entries.iter().map(|entry| entry.event)), written);
        assert!(tenure.is_drained());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_has_taken_is_written_whoever_owns_the_partition() {
    let fixture = LaneFixture::new();
    let mut lane = lane(&fixture, 0);
    let item = fixture.pending(0, NoticeKind::Arrival);
    let notice = item.notice.clone();
    tokio::time::advance(Duration::from_secs(60)).await;
    item.tenure.end();
    lane.end_accepted(item, "M1".into());
    lane.start_flushes();
    Lane::take_flushed(&lane.facts.under_way.next().await.unwrap());
    let entries = fixture.context.ledger.entries_of(notice.position, notice.id).await.unwrap();
    assert_eq!(Vec::from_iter(entries.iter().map(|entry| entry.event)), [Event::Accepted]);
}
