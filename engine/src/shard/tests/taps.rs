//! "What becomes of a tap", in the order of its tests.

use super::gate::{ALWAYS, Gate, between, date, instant, since, until};
use crate::notice::{Channel, Passages};
use crate::registry::{DayKind, Entry, ReaderDirection};
use crate::tap::Outcome;
use crate::testing::registry::{binding, card, day, pupil, reader, school, subscription};
use crate::time::Stretch;

/// P1 with C1 and P2 with C2, both of S1; S2 is another school; each school has a reader of each kind.
fn city() -> Vec<Entry> {
    vec![
        school("S1", 11 * 60 + 30),
        school("S2", 13 * 60),
        reader("R-in", "S1", ReaderDirection::In),
        reader("R-out", "S1", ReaderDirection::Out),
        reader("R-both", "S1", ReaderDirection::Both),
        reader("R-elsewhere", "S2", ReaderDirection::In),
        pupil("P1", "S1"),
        pupil("P2", "S2"),
        card("C1", &[("P1", Stretch::ALWAYS)]),
        card("C2", &[("P2", Stretch::ALWAYS)]),
    ]
}

#[test]
fn what_cannot_be_decoded_is_rejected_with_its_reason() {
    let mut gate = Gate::new(city());
    let padding = " ".repeat(5000);
    for (value, reason) in [
        ("", "malformed"),
        ("{", "malformed"),
        ("\u{0}\u{7f}", "malformed"),
        (r#"{"card":"C1","reader":"R-in"}"#, "malformed"),
        (padding.as_str(), "oversize"),
    ] {
        assert_eq!(gate.value_at(value, instant("07:00")), reason);
    }
    assert_eq!(gate.shard.day(), None, "what cannot be decoded does not make a day");
}

#[test]
fn a_clock_more_than_five_minutes_ahead_is_rejected() {
    Gate::new(city())
        .decides(&[("07:35:00.001 received=07:30", "clock_ahead"), ("07:35 received=07:30", "arrival")]);
}

#[test]
fn a_tap_on_a_later_day_than_its_receipt_is_rejected() {
    Gate::new(city()).decides(&[("2025-09-09T00:01 received=2025-09-08T23:59", "clock_ahead")]);
}

#[test]
fn a_tap_of_a_day_before_the_shards_is_stale() {
    Gate::new(city()).decides(&[
        ("2025-09-08T23:50 received=2025-09-09T00:05", "stale"),
        ("2025-09-09T07:30", "arrival"),
        ("2025-09-08T07:30 received=2025-09-08T07:30", "stale"),
    ]);
}

#[test]
fn a_tap_whose_clock_is_ahead_turns_the_shards_day_by_its_receipt() {
    Gate::new(city()).decides(&[
        ("2025-09-10T07:30 received=2025-09-09T07:00", "clock_ahead"),
        ("2025-09-08T07:30 received=2025-09-08T07:30", "stale"),
        ("2025-09-09T07:30", "arrival"),
    ]);
}

#[test]
fn when_the_day_turns_its_state_is_dropped() {
    Gate::new(city()).decides(&[
        ("2025-09-08T07:30", "arrival"),
        ("2025-09-09T07:30", "arrival"),
        ("2025-09-09T07:31", "duplicate"),
    ]);
}

#[test]
fn a_card_that_nobody_registered_is_unknown() {
    Gate::new(city()).decides(&[("07:30 C9", "unknown_card")]);
}

#[test]
fn a_card_is_compared_without_regard_to_case() {
    let mut gate = Gate::new(city());
    let value = format!(r#"{{"card":"c1","reader":"R-in","at":{}}}"#, instant("07:30").as_millis());
    assert_eq!(gate.value_at(&value, instant("07:30")), "arrival");
}

#[test]
fn a_card_counts_within_its_half_open_stretches() {
    let mut city = city();
    city.push(card("C3", &[("P1", between("07:00", "08:00")), ("P2", since("08:00"))]));
    Gate::new(city).decides(&[
        ("06:59:59.999 C3 in", "unknown_card"),
        ("07:00 C3 in", "arrival"),
        ("07:59:59.999 C3 out", "departure"),
        ("08:00 C3 in", "arrival"),
        // P1's state, by P1's own card.
        ("08:00:01 C1 out", "duplicate"),
    ]);
}

#[test]
fn a_card_of_somebody_whom_the_roster_does_not_have_is_unknown() {
    let mut city = city();
    city.push(card("C3", &[("P-nobody", Stretch::ALWAYS)]));
    Gate::new(city).decides(&[("07:30 C3", "unknown_card")]);
}

#[test]
fn a_day_without_school_is_no_school() {
    Gate::new(city()).decides(&[
        ("2025-09-07T07:30", "no_school"),
        ("2025-09-13T07:30", "no_school"),
        ("2025-09-29T07:30", "no_school"),
        ("2026-01-21T07:30", "arrival"),
        ("2026-01-26T07:30", "no_school"),
    ]);
}

#[test]
fn a_day_rule_of_a_school_goes_before_one_for_all_and_both_before_the_term() {
    let monday = date("2025-09-08");
    for (for_all, for_school, expected) in [
        (None, None, "arrival"),
        (Some(DayKind::Off), None, "no_school"),
        (None, Some(DayKind::Off), "no_school"),
        (Some(DayKind::Off), Some(DayKind::School), "arrival"),
        (Some(DayKind::School), Some(DayKind::Off), "no_school"),
    ] {
        let mut city = city();
        city.extend([day(monday, None, for_all), day(monday, Some("S1"), for_school)]);
        let mut gate = Gate::new(city);
        gate.decides(&[("07:30", expected)]);
        let elsewhere = if for_all == Some(DayKind::Off) { "no_school" } else { "arrival" };
        gate.decides(&[("07:31 C2", elsewhere)]);
    }
}

#[test]
fn a_school_line_makes_a_school_day_inside_the_term_only() {
    let mut city = city();
    for (of_school, days) in
        [(None, ["2025-09-07", "2025-09-13"]), (Some("S1"), ["2025-09-06", "2026-01-24"])]
    {
        city.extend(days.map(|text| day(date(text), of_school, Some(DayKind::School))));
    }
    Gate::new(city).decides(&[
        ("2025-09-06T07:30", "no_school"),
        ("2025-09-07T07:30", "no_school"),
        ("2025-09-13T07:30", "arrival"),
        ("2026-01-24T07:30", "no_school"),
    ]);
}

#[test]
fn the_same_direction_within_the_repeat_window_is_a_duplicate_whichever_was_first() {
    Gate::new(city()).decides(&[
        ("07:30 in", "arrival"),
        ("07:39:59.999 in", "duplicate"),
        ("07:20:00.001 in", "duplicate"),
        ("07:40 in", "arrival"),
        ("07:20 in", "arrival"),
    ]);
}

#[test]
fn the_opposite_direction_within_the_repeat_window_is_a_passage() {
    Gate::new(city()).decides(&[
        ("07:30 in", "arrival"),
        ("07:31 out", "departure"),
        ("07:32 in", "duplicate"),
        ("07:33 out", "duplicate"),
        ("07:34", "duplicate"),
    ]);
}

#[test]
fn an_unknown_direction_within_the_repeat_window_of_any_passage_is_a_duplicate() {
    Gate::new(city()).decides(&[
        ("16:00 out", "departure"),
        ("15:50:00.001", "duplicate"),
        ("16:09:59.999", "duplicate"),
        ("16:10", "arrival"),
    ]);
}

#[test]
fn second_tap_within_min_stay_is_a_duplicate() {
    Gate::new(city()).decides(&[
        ("07:30", "arrival"),
        ("07:45", "duplicate"),
        ("07:59:59.999", "duplicate"),
        ("08:00", "departure"),
    ]);
}

#[test]
fn min_stay_does_not_hold_back_a_known_direction() {
    Gate::new(city()).decides(&[("07:30", "arrival"), ("07:45 out", "departure")]);
}

#[test]
fn min_stay_counts_from_the_passage_before_not_from_one_that_came_later() {
    Gate::new(city()).decides(&[
        ("12:00 in", "arrival"),
        ("11:45", "departure"),
        // Before it comes the departure of 11:45, not the arrival of 12:00.
        ("11:58 R-in", "duplicate"),
        ("11:55", "duplicate"),
    ]);
}

#[test]
fn the_state_is_the_pupils_whichever_card_is_used() {
    let mut city = city();
    city.push(card("C3", &[("P1", Stretch::ALWAYS)]));
    Gate::new(city).decides(&[("07:30 C1", "arrival"), ("07:31 C3", "duplicate")]);
}

#[test]
fn the_thirty_third_passage_of_a_day_is_rejected() {
    let mut gate = Gate::new(city());
    for number in 0..32 {
        let direction = if number % 2 == 0 { "in" } else { "out" };
        let expected = if number % 2 == 0 { "arrival" } else { "departure" };
        assert_eq!(gate.tap(&format!("{:02}:{:02} {direction}", 6 + number / 4, number % 4 * 15)), expected);
    }
    gate.decides(&[
        ("14:30 in", "too_many"),
        ("13:45 out", "duplicate"),
        ("14:30 C2 in", "arrival"),
        ("2025-09-09T07:30 in", "arrival"),
    ]);
}

#[test]
fn the_taps_own_direction_overrides_the_readers() {
    Gate::new(city()).decides(&[("07:30 R-in out", "departure"), ("08:30 R-out in", "arrival")]);
}

#[test]
fn a_readers_direction_decides_where_the_tap_names_none() {
    Gate::new(city()).decides(&[("07:30 R-out", "departure"), ("07:31 R-in", "arrival")]);
}

#[test]
fn without_direction_a_tap_is_the_opposite_of_the_last_passage_before_it() {
    Gate::new(city()).decides(&[
        ("07:30", "arrival"),
        ("12:00", "departure"),
        ("13:00", "arrival"),
        // Uploaded late: before it comes the arrival of 07:30.
        ("10:00", "departure"),
        // Before everything else: nothing comes before it.
        ("06:30", "arrival"),
    ]);
}

#[test]
fn of_passages_at_the_same_instant_the_later_admitted_comes_last() {
    Gate::new(city()).decides(&[("07:30 in", "arrival"), ("07:30 out", "departure"), ("08:10", "arrival")]);
    Gate::new(city()).decides(&[("07:30 out", "departure"), ("07:30 in", "arrival"), ("08:10", "departure")]);
}

#[test]
fn the_first_tap_after_the_schools_departure_opens_is_a_departure() {
    for (tap, expected) in [
        ("11:29:59.999 C1", "arrival"),
        ("11:30 C1", "departure"),
        ("12:59:59.999 C2", "arrival"),
        ("13:00 C2", "departure"),
    ] {
        Gate::new(city()).decides(&[(tap, expected)]);
    }
}

#[test]
fn a_reader_that_nobody_registered_is_told_apart_and_its_taps_are_taken() {
    let mut gate = Gate::new(city());
    gate.decides(&[("07:30 R-new", "arrival")]);
    let mut decisions = crate::shard::Decisions::default();
    for (offset, reader, unregistered) in [(10, "R-new", true), (11, "R-in", false)] {
        let at = instant("07:30");
        let value = format!(r#"{{"card":"C2","reader":"{reader}","at":{}}}"#, at.as_millis());
        let record = crate::ports::tap_log::TapRecord { offset, received: at, value: value.into() };
        decisions.clear();
        gate.shard.decide(&[record], &mut decisions);
        assert_eq!(decisions.taps[0].unregistered_reader, unregistered, "{reader}");
    }
}

#[test]
fn reading_a_record_again_changes_nothing() {
    let mut gate = Gate::new(city());
    let record = |offset: u64, time: &str| {
        let at = instant(time);
        let value = format!(r#"{{"card":"C1","reader":"R-both","at":{}}}"#, at.as_millis());
        crate::ports::tap_log::TapRecord { offset, received: at, value: value.into() }
    };
    let records = [record(4, "07:30"), record(9, "12:00")];
    let mut decisions = crate::shard::Decisions::default();
    assert_eq!(gate.shard.next_offset(), None);
    gate.shard.decide(&records, &mut decisions);
    gate.shard.decide(&records, &mut decisions);
    gate.shard.decide(&[record(3, "16:00")], &mut decisions);
    let outcomes: Vec<Outcome> = decisions.taps.iter().map(|decision| decision.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Passage(crate::notice::Passage::Arrival),
            Outcome::Passage(crate::notice::Passage::Departure)
        ]
    );
    assert_eq!(gate.shard.next_offset(), Some(10));
}

#[test]
fn the_pupil_is_named_from_the_test_for_school_days_on() {
    for (tap, named) in [("07:30 C9", false), ("2025-09-13T07:30", true), ("07:30", true)] {
        let mut gate = Gate::new(city());
        let at = instant(tap.split(' ').next().unwrap());
        let card = if tap.contains("C9") { "C9" } else { "C1" };
        let value = format!(r#"{{"card":"{card}","reader":"R-in","at":{}}}"#, at.as_millis());
        let record = crate::ports::tap_log::TapRecord { offset: 0, received: at, value: value.into() };
        let mut decisions = crate::shard::Decisions::default();
        gate.shard.decide(&[record], &mut decisions);
        let pupil = gate.shard.pupil(&decisions.taps[0]);
        assert_eq!(pupil.as_ref().map(crate::ids::PupilId::as_str), named.then_some("P1"), "{tap}");
    }
}

#[test]
fn a_tap_is_decided_by_what_had_been_applied_when_it_was_received() {
    let mut gate = Gate::new(city());
    let app = |stretch| subscription("G1", "P1", Channel::App, &[(Passages::Both, stretch)]);
    gate.apply(crate::time::Timestamp::MIN, vec![binding("G1", "P1", ALWAYS), app(Stretch::ALWAYS)]);
    gate.apply(
        instant("10:00"),
        vec![
            card("C1", &[("P1", until("10:00"))]),
            card("C3", &[("P1", since("10:00"))]),
            reader("R-in", "S2", ReaderDirection::Out),
            school("S1", 8 * 60),
            app(until("10:00")),
            day(date("2025-09-09"), None, Some(DayKind::Off)),
        ],
    );
    gate.decides(&[
        // Received before the change: the card still was C1, whatever stands in the registry by now.
        ("10:00 C1 received=09:59", "arrival G1/app"),
        ("10:00 C1 received=10:00", "unknown_card"),
        ("10:00 C3 received=09:59", "unknown_card"),
        // Read before the card was replaced, received after.
        ("06:00 C1 out received=10:01", "departure G1/app/expired"),
        ("10:30 C3 R-in received=10:30", "departure"),
        ("2025-09-09T10:00 C3", "no_school"),
    ]);
}
