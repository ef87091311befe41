//! Every text in both languages: what it says, that it fits one SMS, and what is shortened when it would not.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const ARRIVED_MS: i64 = 1_757_287_864_250;

fn term() -> Term {
    Term::parse(Term::built_in("114-1").unwrap()).unwrap()
}

fn written(
    templates: &Templates,
    (channel, kind, language): (Channel, NoticeKind, Language),
    name: &str,
    place: &str,
) -> String {
    let name = Personal::new(name);
    let told = Told { pupil_name: &name, place, at: Timestamp::from_millis(ARRIVED_MS) };
    templates.text(channel, kind, language, told, &term()).expose().to_owned()
}

fn mistakes(zh_tw: &str, en: &str) -> Vec<String> {
    Templates::parse(zh_tw, en).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn an_sms_names_the_pupil_masked_and_the_app_in_full() {
    let templates = Templates::built_in();
    for (channel, kind, language, expected) in [
        (Channel::Sms, NoticeKind::Arrival, Language::ZhTw, "王O明 07:31 到校 內湖國小"),
        (Channel::Sms, NoticeKind::Departure, Language::ZhTw, "王O明 07:31 離校 內湖國小"),
        (Channel::Sms, NoticeKind::Correction, Language::ZhTw, "更正:王O明 07:31 已到校 內湖國小"),
        (Channel::Sms, NoticeKind::Emergency, Language::ZhTw, "緊急通知:請立即查看學校公告 內湖國小"),
        (Channel::Sms, NoticeKind::Arrival, Language::En, "王O明 arrived 07:31 內湖國小"),
        (Channel::App, NoticeKind::Arrival, Language::ZhTw, "王小明 07:31 到校 內湖國小"),
        (Channel::App, NoticeKind::Departure, Language::En, "王小明 left at 07:31, 內湖國小"),
        (Channel::Line, NoticeKind::Arrival, Language::ZhTw, "王小明 07:31 到校 內湖國小"),
    ] {
        assert_eq!(written(&templates, (channel, kind, language), "王小明", "內湖國小"), expected);
    }
    let absence =
        written(&templates, (Channel::Sms, NoticeKind::Absence, Language::ZhTw), "林佑", "內湖國小");
    assert_eq!(absence, "林O 2025-09-08 未到校,請與學校聯絡 內湖國小");
}

#[test]
fn a_missing_name_or_place_has_a_word_of_its_own() {
    let templates = Templates::built_in();
    let arrival = (Channel::Sms, NoticeKind::Arrival, Language::ZhTw);
    assert_eq!(written(&templates, arrival, "", ""), "貴子弟 07:31 到校 學校");
    assert_eq!(written(&templates, arrival, "\n", "\t"), "貴子弟 07:31 到校 學校");
}

#[test]
fn names_and_places_cannot_break_a_message_apart() {
    let arrival = (Channel::Sms, NoticeKind::Arrival, Language::ZhTw);
    let text = written(&Templates::built_in(), arrival, "王\r\n小明", "內湖\u{0}國小\n到校");
    assert_eq!(text, "王O明 07:31 到校 內湖國小 到校");
}

#[test]
fn placeholders_inside_a_name_are_not_filled_in() {
    let arrival = (Channel::App, NoticeKind::Arrival, Language::ZhTw);
    assert_eq!(written(&Templates::built_in(), arrival, "{time}", "{place}"), "{time} 07:31 到校 {place}");
}

#[test]
fn a_place_that_is_too_long_is_shortened_and_time_and_kind_are_not() {
    let templates = Templates::built_in().fitted("臺北市立內湖國民小學", 10).unwrap();
    let arrival = (Channel::Sms, NoticeKind::Arrival, Language::ZhTw);
    let text = written(&templates, arrival, "王小明", &"臺北市立內湖國民小學".repeat(10));
    assert!(text.starts_with("王O明 07:31 到校 臺北市立內湖國民小學"), "{text}");
    assert!(text.ends_with('…'), "{text}");
    assert_eq!(units(&text), 60);
}

#[test]
fn what_the_gateway_adds_counts_and_every_text_without_room_is_told_at_once() {
    let errors = Templates::built_in().fitted("臺北市立內湖國民小學", 65).unwrap_err();
    assert_eq!(errors.len(), Language::ALL.len() * KINDS.len());
    assert!(errors.iter().all(|error| error.units_max == 5 && error.units_needed > 5));
    assert!(Templates::built_in().fitted("內湖國小", 12).is_ok());
}

const BUILT_IN: (&str, &str) = (BUILT_IN_ZH_TW, BUILT_IN_EN);

#[test]
fn every_mistake_of_both_languages_is_told_at_once() {
    let zh_tw = BUILT_IN
        .0
        .replace("到校 {place}\"\ndeparture", "到校 {school}\"\ndeparture")
        .replace("nameless_place = \"學校\"\n", "");
    let en = BUILT_IN.1.replace("[app]\narrival", "[app]\narrivals");
    let found = mistakes(&zh_tw, &en);
    for (part, times) in [
        ("zh-TW.toml:", 3),
        ("sms.arrival: found", 1),
        ("app.arrival: found", 2),
        ("nameless_place: found nothing", 1),
        ("en.toml:", 2),
        ("app.arrivals: found an unknown key", 1),
    ] {
        assert_eq!(found.iter().filter(|line| line.contains(part)).count(), times, "{part}: {found:#?}");
    }
}

#[test]
fn texts_that_cannot_be_right_are_mistakes() {
    let arrival = "arrival = \"{name} {time} 到校 {place}\"\ndeparture = \"{name} {time} 離校";
    assert!(BUILT_IN.0.contains(arrival));
    for (wrong, allowed) in [
        ("{time} 到校", "a text with {name}"),
        ("{name} 到校", "a text with {time}"),
        ("{name} {name} {time}", "each placeholder once"),
        ("{name} {full_name} {time}", "each placeholder once"),
        ("{name} {time", "no other braces"),
        ("{name} {time} }", "no other braces"),
        ("{name} {time} {{place}}", "no other braces"),
        ("{name} {time}\\n到校", "without line ends"),
        (&format!("{{name}} {{time}} {}", "到".repeat(60)), "at most 70 UTF-16 units"),
    ] {
        let wrong_arrival = arrival.replacen("{name} {time} 到校 {place}", wrong, 1);
        let found = mistakes(&BUILT_IN.0.replacen(arrival, &wrong_arrival, 1), BUILT_IN.1);
        assert_eq!(found.len(), 1, "{wrong}: {found:#?}");
        assert!(found[0].contains(allowed), "{wrong}: {found:#?}");
    }
}

#[test]
fn an_sms_may_name_the_pupil_in_full_where_a_city_wants_it() {
    let zh_tw = BUILT_IN.0.replacen("\"{name} {time} 到校", "\"{full_name} {time} 到校", 1);
    let templates = Templates::parse(&zh_tw, BUILT_IN.1).unwrap();
    let arrival = (Channel::Sms, NoticeKind::Arrival, Language::ZhTw);
    assert_eq!(written(&templates, arrival, "王小明", "內湖國小"), "王小明 07:31 到校 內湖國小");
}

proptest! {
    #[test]
    fn an_sms_is_always_one_segment_with_its_time(
        name in "\\PC{0,60}",
        place in "\\PC{0,90}",
        kind in prop::sample::select(KINDS.to_vec()),
        language in prop::sample::select(Language::ALL.to_vec()),
        affix_units in 0usize..=10,
    ) {
        let templates = Templates::built_in().fitted(&place, affix_units).unwrap();
        let text = written(&templates, (Channel::Sms, kind, language), &name, &place);
        prop_assert!(units(&text) + affix_units <= SMS_UNITS_MAX, "{}", text);
        prop_assert!(!text.chars().any(char::is_control));
        if !matches!(kind, NoticeKind::Emergency | NoticeKind::Absence) {
            prop_assert!(text.contains("07:31"), "{}", text);
        }
    }
}
