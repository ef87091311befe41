//! "Which notices a passage makes".

use std::sync::Arc;

use super::gate::{ALWAYS, Gate, between, instant, since, term, until};
use crate::ids::NoticeId;
use crate::notice::{Channel, NoticeKind, Passages};
use crate::ports::tap_log::TapRecord;
use crate::registry::{Entry, ReaderDirection};
use crate::shard::Decisions;
use crate::testing::registry::{binding, card, order, pupil, reader, school, subscription};
use crate::time::Stretch;

/// P1 of S1 with C1, and readers of S1 and S2; nobody is bound.
fn city_and(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut city = vec![
        school("S1", 690),
        school("S2", 690),
        reader("R-both", "S1", ReaderDirection::Both),
        reader("R-elsewhere", "S2", ReaderDirection::Both),
        pupil("P1", "S1"),
        card("C1", &[("P1", Stretch::ALWAYS)]),
    ];
    city.extend(entries);
    city
}

fn bound(guardian: &str) -> Entry {
    binding(guardian, "P1", ALWAYS)
}

fn app(guardian: &str, passages: Passages) -> Entry {
    subscription(guardian, "P1", Channel::App, &[(passages, Stretch::ALWAYS)])
}

fn sms(code: &str, guardian: &str, plan: Passages) -> Entry {
    order(code, guardian, "P1", plan, Some(Stretch::ALWAYS))
}

#[test]
fn nothing_goes_to_a_guardian_who_is_not_bound() {
    Gate::new(city_and([app("G1", Passages::Both), sms("O1", "G1", Passages::Both)]))
        .decides(&[("07:30", "arrival")]);
}

#[test]
fn a_binding_counts_at_the_time_of_the_tap() {
    let city = city_and([
        binding("G1", "P1", &[between("07:00", "08:00"), since("12:00")]),
        app("G1", Passages::Both),
    ]);
    Gate::new(city).decides(&[
        ("06:30 in", "arrival"),
        ("07:00 in", "arrival G1/app"),
        ("08:00 in", "arrival"),
        ("12:00 in", "arrival G1/app"),
    ]);
}

#[test]
fn a_subscription_includes_its_passages_only() {
    for (passages, arrival, departure) in [
        (Passages::Arrival, "arrival G1/app", "departure"),
        (Passages::Departure, "arrival", "departure G1/app"),
        (Passages::Both, "arrival G1/app", "departure G1/app"),
    ] {
        Gate::new(city_and([bound("G1"), app("G1", passages)]))
            .decides(&[("07:30", arrival), ("16:00", departure)]);
    }
}

#[test]
fn several_lines_add_up_and_a_passage_makes_one_notice() {
    let lines = [
        (Passages::Arrival, until("12:00")),
        (Passages::Departure, Stretch::ALWAYS),
        (Passages::Both, since("10:00")),
    ];
    Gate::new(city_and([bound("G1"), subscription("G1", "P1", Channel::App, &lines)])).decides(&[
        ("07:30", "arrival G1/app"),
        ("11:00", "departure G1/app"),
        ("13:00", "arrival G1/app"),
    ]);
}

#[test]
fn a_channel_that_the_term_does_not_offer_carries_nothing() {
    let entries = || {
        let line = |channel| subscription("G1", "P1", channel, &[(Passages::Both, Stretch::ALWAYS)]);
        let lines = [Channel::App, Channel::Email, Channel::Line].map(line);
        city_and([bound("G1"), sms("O1", "G1", Passages::Both)].into_iter().chain(lines))
    };
    for (channels, expected) in [
        (vec![Channel::App, Channel::Sms], "arrival G1/app G1/sms/O1"),
        (vec![Channel::App, Channel::Email, Channel::Line], "arrival G1/app G1/email G1/line"),
        (Channel::ALL.to_vec(), "arrival G1/app G1/email G1/line G1/sms/O1"),
        (vec![], "arrival"),
    ] {
        let term = crate::term::Term { channels, ..term() };
        Gate::in_term(term, entries()).decides(&[("07:30", expected)]);
    }
}

#[test]
fn a_guardian_has_one_sms_of_each_kind_a_day() {
    let city = city_and([bound("G1"), app("G1", Passages::Both), sms("O1", "G1", Passages::Both)]);
    Gate::new(city).decides(&[
        ("07:30", "arrival G1/app G1/sms/O1"),
        ("10:00", "departure G1/app G1/sms/O1"),
        ("11:00", "arrival G1/app"),
        ("16:00", "departure G1/app"),
        ("2025-09-09T07:30", "arrival G1/app G1/sms/O1"),
    ]);
}

#[test]
fn each_of_several_guardians_has_their_own_sms() {
    let guardians = ["G1", "G2", "G3"];
    let entries = guardians
        .iter()
        .flat_map(|guardian| [bound(guardian), sms(&format!("O-{guardian}"), guardian, Passages::Both)]);
    Gate::new(city_and(entries)).decides(&[
        ("07:30 in", "arrival G1/sms/O-G1 G2/sms/O-G2 G3/sms/O-G3"),
        ("08:30 in", "arrival"),
        ("09:30 out", "departure G1/sms/O-G1 G2/sms/O-G2 G3/sms/O-G3"),
        ("10:30 out", "departure"),
    ]);
}

#[test]
fn an_order_counts_while_it_is_in_force_at_the_time_of_the_tap() {
    let city = city_and([
        bound("G1"),
        order("O1", "G1", "P1", Passages::Arrival, Some(between("07:00", "08:00"))),
        order("O2", "G1", "P1", Passages::Departure, None),
    ]);
    Gate::new(city).decides(&[
        ("06:30 in", "arrival"),
        ("08:00 in", "arrival"),
        ("07:00 in", "arrival G1/sms/O1"),
        ("16:00 out", "departure"),
    ]);
}

#[test]
fn of_several_orders_in_force_the_lowest_pays() {
    let city = city_and([
        bound("G1"),
        sms("O3", "G1", Passages::Both),
        sms("O2", "G1", Passages::Both),
        sms("O1", "G1", Passages::Departure),
    ]);
    Gate::new(city).decides(&[("07:30", "arrival G1/sms/O2"), ("16:00", "departure G1/sms/O1")]);
}

#[test]
fn a_notice_whose_deadline_is_not_after_the_receipt_is_expired_and_counts_as_had() {
    let city = || city_and([bound("G1"), app("G1", Passages::Both), sms("O1", "G1", Passages::Both)]);
    Gate::new(city()).decides(&[
        ("07:30 in received=08:30", "arrival G1/app/expired G1/sms/O1/expired"),
        ("08:30 in", "arrival G1/app"),
    ]);
    Gate::new(city()).decides(&[("07:30 in received=08:29:59.999", "arrival G1/app G1/sms/O1")]);
}

#[test]
fn notices_are_sorted_by_guardian_then_channel_by_name() {
    let entries = ["G2", "G10", "g1", "G1"].iter().flat_map(|guardian| {
        [
            sms(&format!("O-{guardian}"), guardian, Passages::Both),
            app(guardian, Passages::Both),
            bound(guardian),
        ]
    });
    Gate::new(city_and(entries)).decides(&[(
        "07:30",
        "arrival G1/app G1/sms/O-G1 G10/app G10/sms/O-G10 G2/app G2/sms/O-G2 g1/app g1/sms/O-g1",
    )]);
}

#[test]
fn an_order_that_moves_to_another_guardian_or_pupil_leaves_the_first() {
    let mut gate = Gate::new(city_and([
        pupil("P2", "S1"),
        card("C2", &[("P2", Stretch::ALWAYS)]),
        bound("G1"),
        binding("G1", "P2", ALWAYS),
        sms("O1", "G1", Passages::Both),
    ]));
    gate.apply(instant("07:00"), vec![order("O1", "G1", "P2", Passages::Both, Some(Stretch::ALWAYS))]);
    gate.decides(&[
        ("06:59 in", "arrival G1/sms/O1"),
        ("07:30 out", "departure"),
        ("07:30 C2 in", "arrival G1/sms/O1"),
    ]);
}

#[test]
fn a_notice_names_its_tap_its_place_and_its_deadline() {
    let term = Arc::new(term());
    let mut gate = Gate::new(city_and([bound("G1"), sms("O1", "G1", Passages::Both)]));
    for (offset, reader, time, place) in [
        (7, "R-elsewhere", "07:30", "S2"),
        (8, "R-both", "2025-09-09T07:30", "S1"),
        (9, "R-new", "2025-09-10T07:30", "S1"),
    ] {
        let (at, received) = (instant(time), instant(time).plus(std::time::Duration::from_secs(3)));
        let value = format!(r#"{{"card":"C1","reader":"{reader}","at":{}}}"#, at.as_millis());
        let mut decisions = Decisions::default();
        gate.shard.decide(&[TapRecord { offset, received, value: value.into() }], &mut decisions);
        let decision = &decisions.taps[0];
        let notice = gate.shard.notice(decision, &decisions.notices_of(decision)[0]);
        assert_eq!(notice.place.as_str(), place);
        assert_eq!((notice.at, notice.received), (at, received));
        assert_eq!(notice.deadline, at.plus(term.useful_for));
        assert_eq!(notice.day, term.day_of(at));
        assert_eq!(notice.kind, NoticeKind::Arrival);
        assert_eq!((notice.position.partition, notice.position.offset), (0, offset));
        assert_eq!(notice.id, NoticeId::derive("test", notice.position, &notice.guardian, Channel::Sms));
    }
}

#[test]
fn a_reader_is_of_the_school_at_whose_gate_it_was_last_registered() {
    let gate = Gate::new(vec![
        reader("R-moved", "S1", ReaderDirection::Both),
        reader("R-gone", "S1", ReaderDirection::In),
    ]);
    let mut gone = reader("R-gone", "S1", ReaderDirection::In);
    if let Entry::Reader(reader) = &mut gone {
        reader.removed = Some(instant("07:00"));
    }
    gate.apply(instant("07:00"), vec![reader("R-moved", "S2", ReaderDirection::Both), gone]);
    let school_of = |reader| gate.index.school_of_reader(reader).map(|school| school.to_string());
    assert_eq!(school_of("R-moved").as_deref(), Some("S2"));
    assert_eq!(school_of("R-gone"), None);
    assert_eq!(school_of("R-never"), None);
}
