//! Each predicate has a case that holds and one that breaks; what a watch counts is in the metrics; and the documents say
//! what the code says.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use proptest::prelude::*;

use super::predicates::*;
use super::{Invariant, Watch};
use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, PupilId};
use crate::ledger::{Claim, ClaimKey, ClaimState, ClientReference, Event, LedgerEntry, OwnerToken};
use crate::notice::{Channel, NoticeKind};
use crate::time::{Day, Timestamp};

const NOTICE: NoticeId = NoticeId::from_u128(7);
const OWNER: OwnerToken = OwnerToken(3);
const POSITION: LogPosition = LogPosition { partition: 2, offset: 40 };

const fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn t1_each_record_read_is_decided_once() {
    for (read, decided, holds) in [
        (&[4, 5, 6][..], &[4, 5, 6][..], true),
        (&[], &[], true),
        (&[4, 5, 6], &[4, 6], false),
        (&[4, 5], &[4, 5, 5], false),
        (&[4, 5], &[5, 4], false),
    ] {
        assert_eq!(
            one_outcome_each(read.iter().copied(), decided.iter().copied()),
            holds,
            "{read:?} {decided:?}"
        );
    }
    assert!(outcomes_add_up(6, [1, 2, 3]));
    assert!(!outcomes_add_up(6, [1, 2]));
}

#[test]
fn t2_no_offset_is_decided_again() {
    for (next, decided, holds) in [
        (4, &[4, 5, 9][..], true),
        (4, &[], true),
        (0, &[u64::MAX], true),
        (5, &[4, 5], false),
        (4, &[4, 4], false),
        (4, &[6, 5], false),
        (0, &[u64::MAX, 0], false),
    ] {
        assert_eq!(nothing_decided_again(next, decided.iter().copied()), holds, "{next} {decided:?}");
    }
}

#[test]
fn t3_nothing_below_a_commit_is_unsettled() {
    for (committed, unsettled, holds) in
        [(7, &[7, 9][..], true), (7, &[], true), (7, &[6, 9], false), (7, &[9, 0], false)]
    {
        assert_eq!(
            nothing_unsettled_below(committed, unsettled.iter().copied()),
            holds,
            "{committed} {unsettled:?}"
        );
    }
}

#[test]
fn t3_what_is_open_is_known_to_be_unsettled() {
    for (opened, settled, unsettled_offsets, holds) in [
        (5, 5, 0, true),
        (5, 3, 1, true),
        (5, 3, 2, true),
        (5, 4, 0, false),
        (5, 5, 1, false),
        (5, 4, 2, false),
        (5, 6, 0, false),
    ] {
        assert_eq!(
            accounts_agree(opened, settled, unsettled_offsets),
            holds,
            "{opened} {settled} {unsettled_offsets}"
        );
    }
}

#[test]
fn n1_only_proof_overturns_an_end() {
    use Event::{Accepted, Charged, Claimed, Delivered, Expired, Failed, Submitted, Suppressed};
    for (events, one, several) in [
        (&[Claimed, Submitted, Delivered, Charged][..], true, true),
        (&[Claimed, Accepted], true, true),
        (&[Suppressed], true, true),
        (&[Failed, Delivered], true, true),
        (&[Expired, Delivered], true, true),
        // A former owner's answer, recorded late.
        (&[Delivered, Failed], false, true),
        (&[Suppressed, Delivered], false, true),
        (&[Failed, Failed], false, true),
        (&[Suppressed, Expired], false, true),
        (&[Failed, Failed, Expired], false, false),
        (&[Delivered, Accepted], false, false),
        (&[Failed, Delivered, Delivered], false, false),
    ] {
        let events = events.iter().copied();
        assert_eq!(one_end(events.clone(), Owners::One), one, "{events:?}");
        assert_eq!(one_end(events.clone(), Owners::Several), several, "{events:?}");
    }
    assert!(at_most_one_end([Claimed, Submitted], Owners::One));
    assert!(!one_end([Claimed, Submitted], Owners::One));
}

#[test]
fn n2_one_message_whatever_is_sent_again() {
    for (taken, gateway_recognises, holds) in [
        (&[][..], true, true),
        (&["a"], true, true),
        (&["a", "a"], false, true),
        (&["a", "a"], true, false),
        (&["a", "b"], false, false),
    ] {
        assert_eq!(at_most_one_message(taken, gateway_recognises), holds, "{taken:?} {gateway_recognises}");
    }
}

#[test]
fn n2_the_next_request_waits_until_the_one_before_is_over() {
    assert!(one_sender_at_a_time([(ms(0), ms(5)), (ms(5), ms(8)), (ms(20), ms(21))]));
    assert!(!one_sender_at_a_time([(ms(0), ms(5)), (ms(4), ms(8))]));
}

fn claim() -> Claim {
    Claim {
        key: ClaimKey {
            term: "114-1".into(),
            day: Day::from_epoch_days(20_000),
            pupil: PupilId::new("P1").unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            kind: NoticeKind::Arrival,
        },
        notice: NOTICE,
        position: POSITION,
        owner: OWNER,
        attempt: 2,
        lane: LaneName::new("sms").unwrap(),
        claimed_at: at(0),
        deadline: at(1000),
        state: ClaimState::Open,
    }
}

#[test]
fn n2_an_sms_leaves_under_its_own_open_claim() {
    let reference = ClientReference::new(NOTICE, 2);
    let leaves = |claim: Option<Claim>| leaves_under_its_claim(claim.as_ref(), NOTICE, OWNER, &reference);
    assert!(leaves(Some(claim())));
    for (why, other) in [
        ("none", None),
        ("another notice's", Some(Claim { notice: NoticeId::from_u128(8), ..claim() })),
        ("another owner's", Some(Claim { owner: OwnerToken(4), ..claim() })),
        ("another attempt's", Some(Claim { attempt: 3, ..claim() })),
        ("refused", Some(Claim { state: ClaimState::Refused, ..claim() })),
    ] {
        assert!(!leaves(other), "{why}");
    }
}

#[test]
fn n3_nobody_is_told_who_may_not_be() {
    for (channel, kind, has_order, holds) in [
        (Channel::Sms, NoticeKind::Arrival, true, true),
        (Channel::App, NoticeKind::Arrival, false, true),
        (Channel::Sms, NoticeKind::Emergency, false, true),
        (Channel::Sms, NoticeKind::Departure, false, false),
    ] {
        assert_eq!(is_ordered(channel, kind, has_order), holds, "{channel} {kind} {has_order}");
    }
    assert!(is_known(ms(100), ms(100), ms(5000)));
    assert!(!is_known(ms(100), ms(5100), ms(5000)));
}

#[test]
fn n4_sent_and_given_up_by_the_deadline() {
    for (sent_at, valid_for, holds) in
        [(at(0), ms(100), true), (at(99), ms(1), true), (at(100), ms(0), false), (at(50), ms(51), false)]
    {
        assert_eq!(sent_in_time(sent_at, valid_for, at(100)), holds, "{sent_at} {valid_for:?}");
    }
}

#[test]
fn l1_no_stretch_holds_more_than_rate_and_burst() {
    for (sent_at_ms, holds) in [
        (&[0, 0, 0][..], true),
        (&[0, 0, 0, 10, 20], true),
        (&[0, 0, 0, 40, 40, 40], true),
        (&[0, 0, 0, 0], false),
        (&[0, 0, 0, 9], false),
        (&[0, 5, 10, 15, 19, 20, 21], false),
    ] {
        let sent_at = sent_at_ms.iter().copied().map(ms);
        assert_eq!(within_rate(sent_at, ms(10), 3), holds, "{sent_at_ms:?}");
    }
    assert!(within_window(4, 4));
    assert!(!within_window(5, 4));
}

/// Every stretch looked at by itself.
fn within_rate_by_stretches(sent_at_ms: &[u64], interval_ms: u64, burst: u32) -> bool {
    sent_at_ms.iter().enumerate().all(|(first, start)| {
        sent_at_ms[first..].iter().enumerate().all(|(more, end)| {
            let allowed = u64::from(burst) + (end - start) / interval_ms;
            (more as u64) < allowed
        })
    })
}

proptest! {
    #[test]
    fn l1_the_account_sees_what_a_look_at_every_stretch_sees(
        mut sent_at_ms in prop::collection::vec(0u64..120, 0..14),
        interval_ms in 1u64..30,
        burst in 1u32..6,
    ) {
        sent_at_ms.sort_unstable();
        let sent_at = sent_at_ms.iter().copied().map(ms);
        prop_assert_eq!(
            within_rate(sent_at, ms(interval_ms), burst),
            within_rate_by_stretches(&sent_at_ms, interval_ms, burst)
        );
    }
}

#[test]
fn l1_an_account_that_was_spent_allows_one_after_an_interval() {
    let account = SentAccount::new(ms(10), 3).spent_at(ms(100));
    for (now, due, due_in) in [(100, 0, 10), (109, 0, 1), (110, 1, 0), (121, 2, 0), (1000, 3, 0)] {
        assert_eq!((account.due_at(ms(now)), account.due_in(ms(now))), (due, ms(due_in)), "at {now} ms");
    }
}

#[test]
fn l2_what_leaves_is_the_most_urgent() {
    assert!(most_urgent_first(1, Some(2)));
    assert!(most_urgent_first(1, Some(1)));
    assert!(most_urgent_first(1, None));
    assert!(!most_urgent_first(2, Some(1)));
}

#[test]
fn b1_one_charge_on_final_proof() {
    use Event::{Accepted, Adjusted, Charged, Claimed, Delivered, Failed, Submitted};
    for (events, holds) in [
        (&[Claimed, Submitted, Delivered, Charged][..], true),
        (&[Claimed, Accepted, Charged], true),
        (&[Delivered, Adjusted], true),
        (&[Claimed, Submitted], true),
        (&[Submitted, Charged], false),
        (&[Failed, Charged], false),
        (&[Delivered, Charged, Charged], false),
        (&[Delivered, Charged, Adjusted], false),
    ] {
        assert_eq!(charged_once_on_proof(events.iter().copied()), holds, "{events:?}");
    }
    for (charges, is_proven, holds) in
        [(0, false, true), (1, true, true), (1, false, false), (2, true, false)]
    {
        assert_eq!(is_due(charges, is_proven), holds, "{charges} {is_proven}");
    }
    assert!(proves_success(Delivered) && proves_success(Accepted));
    assert!(!proves_success(Submitted) && !proves_success(Failed));
}

#[test]
fn b2_a_counter_is_its_recount() {
    assert!(counter_is_recount(3, 3));
    assert!(!counter_is_recount(4, 3));
}

#[test]
fn b3_totals_follow_proof_however_it_came() {
    let set = |notices: &[u32]| notices.iter().copied().collect::<BTreeSet<_>>();
    for (charged, proven, doubtful, holds) in [
        (&[1, 2][..], &[1, 2][..], &[][..], true),
        (&[1, 2], &[1], &[2, 3], true),
        (&[1], &[1, 2], &[], false),
        (&[1, 2], &[1], &[], false),
    ] {
        assert_eq!(
            totals_follow_proof(&set(charged), &set(proven), &set(doubtful)),
            holds,
            "{charged:?} {proven:?} {doubtful:?}"
        );
    }
    assert!(delivered_once([Event::Failed, Event::Delivered]));
    assert!(!delivered_once([Event::Delivered, Event::Charged, Event::Delivered]));
}

#[test]
fn b4_a_parent_pays_for_passages_only() {
    for (kind, holds) in [
        (NoticeKind::Arrival, true),
        (NoticeKind::Departure, true),
        (NoticeKind::Absence, false),
        (NoticeKind::Correction, false),
        (NoticeKind::Emergency, false),
    ] {
        assert_eq!(is_payable(kind), holds, "{kind}");
    }
}

fn entry(notice: u128, event: Event, reason: Option<&str>) -> LedgerEntry {
    LedgerEntry {
        notice: NoticeId::from_u128(notice),
        position: POSITION,
        pupil: PupilId::new("P1").unwrap(),
        guardian: GuardianId::new("G1").unwrap(),
        channel: Channel::Sms,
        kind: NoticeKind::Arrival,
        day: Day::from_epoch_days(20_000),
        at: at(0),
        event,
        time: at(0),
        attempt: 1,
        order: None,
        gateway: None,
        gateway_id: None,
        reason: reason.map(Into::into),
    }
}

#[test]
fn r1_a_crash_leaves_the_same_ledger_but_for_doubt() {
    let one = |event| entry(1, event, None);
    let unknown = entry(1, Event::Failed, Some("unknown"));
    let uninterrupted = [one(Event::Delivered), one(Event::Charged)];
    let crashed_later = LedgerEntry { time: at(9), attempt: 2, ..one(Event::Delivered) };
    for (case, crashed, holds) in [
        ("later and by another attempt", vec![crashed_later, one(Event::Charged)], true),
        ("overturned", vec![one(Event::Failed), one(Event::Delivered), one(Event::Charged)], true),
        ("in doubt", vec![unknown], true),
        ("lost", vec![], false),
        ("another one", vec![entry(2, Event::Delivered, None), entry(2, Event::Charged, None)], false),
        ("failed", vec![one(Event::Failed)], false),
        ("not charged", vec![one(Event::Delivered)], false),
        ("charged twice", vec![one(Event::Delivered), one(Event::Charged), one(Event::Charged)], false),
    ] {
        assert_eq!(same_ledger(&uninterrupted, &crashed), holds, "{case}");
    }
}

#[test]
fn p1_a_line_says_nothing_of_what_must_stay_secret() {
    let secrets = ["0912345678", "王小明"];
    assert!(says_none_of(r#"{"notice":"7f","status":"delivered"}"#, secrets));
    assert!(!says_none_of("sent to 0912345678 at last", secrets));
    assert!(!says_none_of("王小明 07:31 到校", secrets));
}

#[test]
fn every_invariant_is_shown_from_the_start_and_each_breach_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let watch = metrics::with_local_recorder(&recorder, Watch::new);
    let shown = |invariant: Invariant, count: u64| {
        let line =
            format!("gatebell_invariant_violations_total{{invariant=\"{}\"}} {count}\n", invariant.number());
        recorder.handle().render().contains(&line)
    };
    assert!(Invariant::ALL.into_iter().all(|invariant| shown(invariant, 0)));

    assert!(watch.check(Invariant::N1, true, POSITION));
    assert!(shown(Invariant::N1, 0) && watch.violations().is_empty());
    assert!(!watch.check(Invariant::N1, false, POSITION));
    assert!(!watch.check(Invariant::N1, false, LogPosition { offset: 41, ..POSITION }));
    assert!(!watch.check_lane(Invariant::L1, false, &LaneName::new("sms").unwrap(), POSITION));
    assert!(shown(Invariant::N1, 2) && shown(Invariant::L1, 1) && shown(Invariant::T1, 0));
    let told: Vec<String> = watch.violations().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "N1: does not hold in partition 2, first at 2/40, times seen: 2",
            "L1: does not hold in lane sms, first at 2/40, times seen: 1",
        ]
    );
}

#[test]
fn what_the_entries_of_a_notice_break_is_counted() {
    use Event::{Charged, Delivered, Failed, Submitted};
    for (events, broken) in [
        (&[Submitted, Failed, Delivered, Charged][..], &[][..]),
        (&[Failed, Failed, Failed], &[Invariant::N1]),
        (&[Submitted, Charged], &[Invariant::B1]),
        (&[Delivered, Charged, Delivered], &[Invariant::N1, Invariant::B3]),
    ] {
        let watch = Watch::new();
        watch.check_history(POSITION, events.iter().copied());
        let seen: Vec<Invariant> = watch.violations().iter().map(|seen| seen.invariant).collect();
        assert_eq!(seen, broken, "{events:?}");
    }
}

/// What is logged while `act` runs.
fn logged(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let into = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || into.clone()).finish();
    tracing::subscriber::with_default(subscriber, act);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_breach_is_logged_with_its_position_and_what_breaks_always_does_not_fill_the_log() {
    let watch = Watch::new();
    let text = logged(|| {
        for offset in 0..1000 {
            watch.check(Invariant::T2, false, LogPosition { partition: 2, offset });
        }
    });
    assert!(text.contains("position=2/0") && text.contains("position=2/1 "), "{text}");
    assert_eq!(text.matches("an invariant does not hold").count(), 16);
    assert_eq!(text.matches("only counted").count(), 1);
    assert_eq!(watch.violations()[0].count, 1000);
    let elsewhere = LogPosition { partition: 3, offset: 0 };
    let text = logged(|| assert!(!watch.check(Invariant::T2, false, elsewhere)));
    assert!(text.contains("position=3/0"), "another partition has lines of its own: {text}");
}

#[test]
fn the_architecture_document_says_what_is_said_here() {
    let document = include_str!("../../../docs/architecture.md");
    for invariant in Invariant::ALL {
        let row =
            format!("| **{}** | {} | {} |", invariant.number(), invariant.sentence(), invariant.on_breach());
        assert!(document.contains(&row), "docs/architecture.md has no row {row}");
    }
}
