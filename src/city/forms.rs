//! The forms that values of a city directory have: each function reads one cell, or says what is allowed instead.
//!
//! Cells are not trimmed. Where a cell may be empty, the form says what that means.

use std::str::FromStr;

use compact_str::CompactString;
use gatebell_engine::ids::{CardNumber, IdError, Personal};
use gatebell_engine::notice::{Channel, Language, Passages};
use gatebell_engine::registry::{DayKind, Level, OrderState, ReaderDirection, Relation};
use gatebell_engine::time::{Day, Timestamp};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// What a form says of a value that is not of it: what would be.
pub(super) type Allowed = &'static str;

const TIME_ALLOWED: Allowed =
    "empty, YYYY-MM-DD, YYYY-MM-DDTHH:MM[:SS] (or a space for the T), or RFC 3339 with an offset";
const MS_PER_DAY: i64 = 86_400_000;
/// From which minute on the first tap without a direction is a departure, where a school does not say: 11:30.
const DEPARTURE_OPENS_MIN_DEFAULT: u16 = 11 * 60 + 30;
/// Digits of the largest sum that an order may hold; more is a slip of the hand.
const PREPAID_DIGITS_MAX: usize = 9;

/// An identifier: 1 to 32 of `[0-9A-Za-z._-]`.
pub(super) fn identifier<T: FromStr<Err = IdError>>(text: &str) -> Result<T, Allowed> {
    text.parse().map_err(|_| "1 to 32 of [0-9A-Za-z._-]")
}

/// An identifier, or nothing.
pub(super) fn identifier_or_empty<T: FromStr<Err = IdError>>(text: &str) -> Result<Option<T>, Allowed> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "empty, or 1 to 32 of [0-9A-Za-z._-]")
}

/// A card number.
pub(super) fn card(text: &str) -> Result<CardNumber, Allowed> {
    CardNumber::new(text).map_err(|_| "1 to 32 of [0-9A-Za-z]")
}

/// Any text, on one line: a line break in a name would break the text to the parents.
pub(super) fn text(value: &str) -> Result<CompactString, Allowed> {
    if !value.contains(char::is_control) {
        return Ok(CompactString::new(value));
    }
    Ok(value.chars().map(|character| if character.is_control() { ' ' } else { character }).collect())
}

/// A person's name, which may be empty.
pub(super) fn name(value: &str) -> Result<Personal, Allowed> {
    text(value).map(|name| Personal::new(&name))
}

/// A phone number, kept without what people put between the digits; or nothing.
pub(super) fn phone(text: &str) -> Result<Personal, Allowed> {
    let number: CompactString = text.chars().filter(|it| !matches!(it, ' ' | '-' | '(' | ')')).collect();
    let digits = number.strip_prefix('+').unwrap_or(&number);
    let is_phone = (3..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || is_phone {
        return Ok(Personal::new(&number));
    }
    Err("empty, or one phone number of 3 to 15 digits")
}

/// An e-mail address, or nothing.
pub(super) fn email(text: &str) -> Result<Personal, Allowed> {
    let is_address = match text.split_once('@') {
        Some((mailbox, domain)) => {
            !mailbox.is_empty() && !domain.is_empty() && !domain.contains('@') && is_word(text)
        }
        None => false,
    };
    if text.is_empty() || is_address { Ok(Personal::new(text)) } else { Err("empty, or one e-mail address") }
}

/// A token or a foreign user id, or nothing.
pub(super) fn token(text: &str) -> Result<Personal, Allowed> {
    if is_word(text) {
        Ok(Personal::new(text))
    } else {
        Err("empty, or characters without spaces between them")
    }
}

fn is_word(text: &str) -> bool {
    !text.contains(|character: char| character.is_whitespace() || character.is_control())
}

/// A minute of the day as `HH:MM`, or the default.
pub(super) fn departure_opens(text: &str) -> Result<u16, Allowed> {
    if text.is_empty() {
        return Ok(DEPARTURE_OPENS_MIN_DEFAULT);
    }
    let minutes = || {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute) = (number(hour, 2)?, number(minute, 2)?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    minutes().and_then(|minute| u16::try_from(minute).ok()).ok_or("empty, or HH:MM from 00:00 to 23:59")
}

/// Whole NT$, or nothing, which is 0.
pub(super) fn prepaid(text: &str) -> Result<i64, Allowed> {
    if text.is_empty() {
        return Ok(0);
    }
    let is_number = text.len() <= PREPAID_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    let dollars = if is_number { text.parse().ok() } else { None };
    dollars.ok_or("empty, or whole NT$ from 0 to 999999999, digits only")
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident -> $type:ty, $allowed:literal, { $($word:literal => $value:expr),+ $(,)? })+) => {
        $($(#[$doc])*
        pub(super) fn $name(text: &str) -> Result<$type, Allowed> {
            match text {
                $($word => Ok($value),)+
                _ => Err($allowed),
            }
        })+
    };
}

words! {
    /// A school's level.
    level -> Level, "elementary, junior, senior or vocational", {
        "elementary" => Level::Elementary,
        "junior" => Level::Junior,
        "senior" => Level::Senior,
        "vocational" => Level::Vocational,
    }
    /// What a reader says of direction.
    direction -> ReaderDirection, "in, out or both", {
        "in" => ReaderDirection::In,
        "out" => ReaderDirection::Out,
        "both" => ReaderDirection::Both,
    }
    /// What a guardian is to a pupil.
    relation -> Relation, "father, mother, paternal_grandparent, maternal_grandparent or other", {
        "father" => Relation::Father,
        "mother" => Relation::Mother,
        "paternal_grandparent" => Relation::PaternalGrandparent,
        "maternal_grandparent" => Relation::MaternalGrandparent,
        "other" => Relation::Other,
    }
    /// A free channel; SMS comes from orders.
    free_channel -> Channel, "app, line or email (SMS comes from orders)", {
        "app" => Channel::App,
        "line" => Channel::Line,
        "email" => Channel::Email,
    }
    /// Which passages.
    passages -> Passages, "arrival, departure or both", {
        "arrival" => Passages::Arrival,
        "departure" => Passages::Departure,
        "both" => Passages::Both,
    }
    /// How far an order has come.
    order_state -> OrderState, "ordered, paid, approved or cancelled", {
        "ordered" => OrderState::Ordered,
        "paid" => OrderState::Paid,
        "approved" => OrderState::Approved,
        "cancelled" => OrderState::Cancelled,
    }
    /// What a date is made.
    day_kind -> DayKind, "off or school", {
        "off" => DayKind::Off,
        "school" => DayKind::School,
    }
    /// A guardian's language; Traditional Chinese unless said otherwise.
    language -> Language, "empty, zh-TW or en", {
        "" => Language::ZhTw,
        "zh-TW" => Language::ZhTw,
        "en" => Language::En,
    }
}

/// A date, `YYYY-MM-DD`.
pub(super) fn day(text: &str) -> Result<Day, Allowed> {
    date(text).map(Day::from_date).ok_or("a date, YYYY-MM-DD")
}

/// An instant, or nothing. Without an offset it is local time of `zone`; a bare date is its first instant.
pub(super) fn time(text: &str, zone: &TimeZone) -> Result<Option<Timestamp>, Allowed> {
    if text.is_empty() {
        return Ok(None);
    }
    instant(text, zone).map(Some).ok_or(TIME_ALLOWED)
}

fn instant(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let date = date(text.get(..10)?)?;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
        return Some(first_instant(date, zone));
    };
    let separator = rest.chars().next()?;
    let clock = rest.get(1..)?;
    match clock.len() {
        // HH:MM and HH:MM:SS without an offset.
        5 | 8 if matches!(separator, 'T' | ' ') => {
            Some(local(DateTime::from_parts(date, time_of_day(clock)?), zone))
        }
        _ => gatebell_engine::decode::instant::rfc3339(text.as_bytes()),
    }
}

fn date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = i16::try_from(number(text.get(..4)?, 4)?).ok()?;
    let month = i8::try_from(number(text.get(5..7)?, 2)?).ok()?;
    let day = i8::try_from(number(text.get(8..)?, 2)?).ok()?;
    if year == 0 {
        return None;
    }
    Date::new(year, month, day).ok()
}

/// HH:MM or HH:MM:SS.
fn time_of_day(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| number(part, 2).and_then(|part| i8::try_from(part).ok()));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        Some(second) => second?,
        None => 0,
    };
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

/// Exactly `len` decimal digits.
fn number(text: &str, len: usize) -> Option<u32> {
    if text.len() != len || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The first instant of `date` in `zone`, also where a clock change skips midnight.
fn first_instant(date: Date, zone: &TimeZone) -> Timestamp {
    let midnight = date.to_datetime(Time::midnight());
    match zone.to_ambiguous_timestamp(midnight).compatible() {
        Ok(instant) => Timestamp::from_millis(instant.as_millisecond()),
        Err(_) => beyond_the_calendar(midnight, zone),
    }
}

/// `civil` in `zone`; of an hour that a clock change repeats, the first.
fn local(civil: DateTime, zone: &TimeZone) -> Timestamp {
    match zone.to_ambiguous_timestamp(civil).compatible() {
        Ok(instant) => Timestamp::from_millis(instant.as_millisecond()),
        Err(_) => beyond_the_calendar(civil, zone),
    }
}

/// The last hours of the year 9999, which people write for "for ever", lie beyond the instants that jiff knows.
fn beyond_the_calendar(civil: DateTime, zone: &TimeZone) -> Timestamp {
    let edge = if civil.year() > 0 { jiff::Timestamp::MAX } else { jiff::Timestamp::MIN };
    let offset_s = zone.to_offset(edge).seconds();
    Timestamp::from_millis(civil_ms(civil) - i64::from(offset_s) * 1000)
}

/// Milliseconds from 1970-01-01T00:00 to `civil`, both without a zone.
fn civil_ms(civil: DateTime) -> i64 {
    let days = i64::from(Day::from_date(civil.date()).epoch_days());
    let time = civil.time();
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    days * MS_PER_DAY + seconds * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taipei() -> TimeZone {
        TimeZone::get("Asia/Taipei").expect("the tz database is in the binary")
    }

    fn instant_of(text: &str) -> Option<String> {
        match time(text, &taipei()) {
            Ok(instant) => Some(instant.map_or_else(String::new, |instant| instant.to_string())),
            Err(_) => None,
        }
    }

    #[test]
    fn times_are_read_in_every_form_of_the_format() {
        for (text, instant) in [
            ("", ""),
            ("2025-09-08", "2025-09-07T16:00:00.000Z"),
            ("2025-09-08T07:31", "2025-09-07T23:31:00.000Z"),
            ("2025-09-08 07:31", "2025-09-07T23:31:00.000Z"),
            ("2025-09-08T07:31:05", "2025-09-07T23:31:05.000Z"),
            ("2025-09-08 07:31:05", "2025-09-07T23:31:05.000Z"),
            ("2025-09-08T07:31:05Z", "2025-09-08T07:31:05.000Z"),
            ("2025-09-08t07:31:05z", "2025-09-08T07:31:05.000Z"),
            ("2025-09-08T07:31:05+08:00", "2025-09-07T23:31:05.000Z"),
            ("2025-09-08T07:31:05.1-01:30", "2025-09-08T09:01:05.100Z"),
            ("2025-09-08T07:31:05.123999999Z", "2025-09-08T07:31:05.123Z"),
            ("2025-06-30T23:59:60Z", "2025-06-30T23:59:59.000Z"),
            ("9999-12-30", "9999-12-29T16:00:00.000Z"),
        ] {
            assert_eq!(instant_of(text).as_deref(), Some(instant), "{text}");
        }
    }

    #[test]
    fn for_ever_as_people_write_it_is_later_than_every_other_time() {
        let times = ["9999-12-30", "9999-12-31", "9999-12-31T23:59:59"]
            .map(|text| time(text, &taipei()).expect(text));
        assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
        assert_eq!(times[2].map(Timestamp::as_millis), Some(253_402_300_799_000 - 8 * 3_600_000));
    }

    #[test]
    fn times_of_other_forms_are_refused() {
        for text in [
            "2025-9-8",
            "2025/09/08",
            "20250908",
            "2025-02-29",
            "2025-09-08T",
            "2025-09-08T7:31",
            "2025-09-08T24:00",
            "2025-09-08T07:60",
            "2025-09-08T07:31:60",
            "2025-09-08t07:31",
            "2025-09-08T07:31Z",
            "2025-09-08 07:31:05Z",
            "2025-09-08T07:31:05+0800",
            "2025-09-08T07:31:05+24:00",
            "2025-09-08T07:31:05,1Z",
            "2025-09-08T07:31:05.Z",
            "2025-09-08T07:31:05.1234567890Z",
            "2025-09-08T07:31:05.1",
            "0000-01-01",
            " 2025-09-08",
            "2025-09-08 ",
            "一二三四五六七",
            "now",
        ] {
            assert_eq!(instant_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_bare_date_is_its_first_instant_also_where_midnight_is_skipped() {
        let zone = TimeZone::get("America/Sao_Paulo").expect("the tz database is in the binary");
        let instant = time("2018-11-04", &zone).expect("a date").expect("not empty");
        assert_eq!(instant.to_string(), "2018-11-04T03:00:00.000Z");
    }

    #[test]
    fn departure_opens_and_prepaid_have_defaults_and_limits() {
        for (text, minute) in
            [("", Some(690)), ("00:00", Some(0)), ("23:59", Some(1439)), ("16:00", Some(960))]
        {
            assert_eq!(departure_opens(text).ok(), minute, "{text}");
        }
        for text in ["24:00", "9:00", "11:60", "11:30:00", "1130", " 11:30"] {
            assert!(departure_opens(text).is_err(), "{text}");
        }
        for (text, dollars) in
            [("", Some(0)), ("68", Some(68)), ("0", Some(0)), ("-1", None), ("+1", None), ("68.0", None)]
        {
            assert_eq!(prepaid(text).ok(), dollars, "{text}");
        }
        assert!(prepaid("9999999999").is_err());
    }

    #[test]
    fn phones_and_addresses_are_one_each_or_nothing() {
        for (text, kept) in
            [("", ""), ("0912345678", "0912345678"), ("0912-345-678", "0912345678"), ("+886 912", "+886912")]
        {
            assert_eq!(phone(text).as_ref().map(Personal::expose), Ok(kept), "{text}");
        }
        for text in ["0912345678/0987654321", "none", "09", "-", "1234567890123456"] {
            assert!(phone(text).is_err(), "{text}");
        }
        for text in ["a@b", ""] {
            assert!(email(text).is_ok(), "{text}");
        }
        for text in ["a", "@b", "a@", "a@b@c", "a @b"] {
            assert!(email(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_break_in_a_name_becomes_a_space() {
        assert_eq!(text("東門\n國小").as_deref(), Ok("東門 國小"));
    }
}
