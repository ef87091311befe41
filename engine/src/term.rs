//! A term (學期): service days, rules, channels on offer, prices. Read from TOML; nothing of it is a constant
//! in code.
//!
//! [`Term::parse`] reports every mistake at once, with line and column. The form is the public one of the
//! term file: name, time zone, first and last service day, weekdays of school, days off and makeup days, the
//! windows of the rules, channels, SMS price, plans, cap, order deadline. What the calendar makes of it is in
//! [`crate::calendar`].

use std::ops::RangeInclusive;
use std::time::Duration;

use compact_str::CompactString;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::calendar::{LocalTime, NamedDay, TermDays};
use crate::ids::check_identifier;
use crate::money::Cents;
use crate::notice::Channel;
use crate::time::{Day, Timestamp};
use crate::toml_document::{Document, Mistakes, Table, Value};

/// The terms that travel inside the program: (name, text of the term file).
pub const BUILT_IN: [(&str, &str); 1] = [("114-1", include_str!("../../config/terms/114-1.toml"))];

/// Longest window of a rule, in hours: all of them are about one day.
const WINDOW_HOURS_MAX: u64 = 24;

/// A term, checked. Two are equal when they say the same, whatever their comments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Term {
    /// Its name, such as `114-1`.
    pub name: CompactString,
    /// The city's local time.
    pub local_time: LocalTime,
    /// First day of service.
    pub first_day: Day,
    /// Last day of service.
    pub last_day: Day,
    /// Within this of a passage, a tap of the same or unknown direction is a duplicate.
    pub repeat_window: Duration,
    /// So soon after arriving, a tap without a direction is a duplicate, not a departure.
    pub min_stay: Duration,
    /// How long after the tap a notice is of use.
    pub useful_for: Duration,
    /// The channels on offer, sorted by name.
    pub channels: Vec<Channel>,
    /// The price of one delivered SMS.
    pub sms_price: Cents,
    /// The plans' prices for the whole term.
    pub plans: PlanPrices,
    /// Whether a parent never owes more than was prepaid.
    pub cap_at_prepaid: bool,
    /// Last day to order.
    pub order_deadline: Option<Day>,
    /// Which days are school days by the term alone (weekdays, days off, makeup days).
    pub days: TermDays,
}

/// Plan prices, per term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanPrices {
    /// 僅到校
    pub arrival: Cents,
    /// 僅離校
    pub departure: Cents,
    /// 到、離校
    pub both: Cents,
}

impl Term {
    /// Reads a term file.
    ///
    /// # Errors
    /// Every mistake at once: what is no TOML, missing or unknown keys, values not of their form, a date both
    /// off and makeup, a makeup day outside the term.
    pub fn parse(toml: &str) -> Result<Self, Mistakes> {
        let document = Document::parse(toml);
        let term = Self::read(&document);
        document.finish()?;
        Ok(term.expect("what keeps a term from being read is noted as a mistake"))
    }

    /// The text of the term file called `name`, if it travels inside the program.
    pub fn built_in(name: &str) -> Option<&'static str> {
        BUILT_IN.into_iter().find(|(built_in, _)| *built_in == name).map(|(_, text)| text)
    }

    /// The civil day of `at`.
    #[inline]
    pub fn day_of(&self, at: Timestamp) -> Day {
        self.local_time.day_of(at)
    }

    /// The civil day of `at` and the minute of that day, 0 to 1439.
    #[inline]
    pub fn local(&self, at: Timestamp) -> (Day, u16) {
        self.local_time.day_and_minute(at)
    }

    /// The first instant of `day`.
    pub fn midnight(&self, day: Day) -> Timestamp {
        self.local_time.midnight(day)
    }

    /// The city's time zone.
    pub fn time_zone(&self) -> &TimeZone {
        self.local_time.zone()
    }

    /// Whether the term offers `channel`.
    pub fn offers(&self, channel: Channel) -> bool {
        self.channels.contains(&channel)
    }

    fn read(document: &Document<'_>) -> Option<Self> {
        let table = document.root();
        // All parts are read before the first `?`: a mistake in one must not hide others.
        let name = table.required("name", NAME_FORM).and_then(|value| read_name(&value));
        let zone = table.required("time_zone", ZONE_FORM).and_then(|value| read_zone(&value));
        let days = read_service_days(&table);
        let weekdays = table.required("weekdays", WEEKDAYS_FORM).and_then(|value| read_weekdays(&value));
        let channels = table.required("channels", CHANNELS_FORM).and_then(|value| read_channels(&value));
        let order_deadline =
            table.optional("order_deadline").and_then(|value| value.date()).map(Day::from_date);
        let sms_price = table.required("sms_price", MONEY_FORM).and_then(|value| read_money(&value));
        let cap_at_prepaid = table.optional("cap_at_prepaid").map_or(Some(true), |value| value.boolean());
        let repeat_window = read_window(&table, "repeat_window", 10);
        let min_stay = read_window(&table, "min_stay", 30);
        let useful_for = read_window(&table, "useful_for", 60);
        let plans = table.required("plans", PLANS_FORM).and_then(|value| read_plans(&value));
        let off = read_named_days(&table, "days_off");
        let makeup = read_named_days(&table, "makeup_days");
        table.end();
        check_named_days(days.as_ref(), &off, &makeup);

        let days = days?;
        Some(Self {
            name: name?,
            local_time: LocalTime::new(zone?, &days),
            first_day: *days.start(),
            last_day: *days.end(),
            repeat_window: repeat_window?,
            min_stay: min_stay?,
            useful_for: useful_for?,
            channels: channels?,
            sms_price: sms_price?,
            plans: plans?,
            cap_at_prepaid: cap_at_prepaid?,
            order_deadline,
            days: TermDays::new(&days, &weekdays?, sorted(off), sorted(makeup)),
        })
    }
}

const NAME_FORM: &str = "1 to 32 of [0-9A-Za-z._-], such as \"114-1\"";
const ZONE_FORM: &str = "a name of the IANA time zone database, such as \"Asia/Taipei\"";
const WEEKDAYS_FORM: &str = "a list of \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"";
const CHANNELS_FORM: &str = "a list of \"app\", \"email\", \"line\", \"sms\"";
const MONEY_FORM: &str = "hundredths of NT$, a whole number of 0 or more (75 is NT$0.75)";
const PLANS_FORM: &str = "a table with arrival, departure and both";
const WINDOW_FORM: &str = "a stretch such as \"10 min\", at most 24 hours";
const NAMED_DAYS_FORM: &str = "tables, each with a date and a name";

/// Largest amount of money that a term file may name, in hundredths of NT$: a million dollars.
const MONEY_MAX: i64 = 100_000_000;

fn read_name(value: &Value<'_>) -> Option<CompactString> {
    let text = value.text(NAME_FORM)?;
    // A term's name is part of keys and file names, so it has the form of all identifiers.
    if check_identifier(text).is_err() {
        value.wrong(NAME_FORM);
        return None;
    }
    Some(CompactString::new(text))
}

fn read_zone(value: &Value<'_>) -> Option<TimeZone> {
    let zone = TimeZone::get(value.text(ZONE_FORM)?);
    if zone.is_err() {
        value.wrong(ZONE_FORM);
    }
    zone.ok()
}

fn read_service_days(table: &Table<'_>) -> Option<RangeInclusive<Day>> {
    const DATE_FORM: &str = "a date such as 2025-09-08";
    let first = table.required("first_day", DATE_FORM).and_then(|value| value.date());
    let last_value = table.required("last_day", DATE_FORM);
    let last = last_value.as_ref().and_then(Value::date);
    let (first, last) = (first?, last?);
    if last < first {
        last_value?.wrong(format!("first_day ({first}) or a later date"));
        return None;
    }
    Some(Day::from_date(first)..=Day::from_date(last))
}

fn read_weekdays(value: &Value<'_>) -> Option<Vec<Weekday>> {
    let words = [
        ("mon", Weekday::Monday),
        ("tue", Weekday::Tuesday),
        ("wed", Weekday::Wednesday),
        ("thu", Weekday::Thursday),
        ("fri", Weekday::Friday),
        ("sat", Weekday::Saturday),
        ("sun", Weekday::Sunday),
    ];
    read_words(value, WEEKDAYS_FORM, |word| words.iter().find(|(name, _)| *name == word).map(|(_, day)| *day))
}

fn read_channels(value: &Value<'_>) -> Option<Vec<Channel>> {
    let mut channels = read_words(value, CHANNELS_FORM, |word| word.parse().ok())?;
    channels.sort_unstable();
    Some(channels)
}

/// A list of words, each at most once.
fn read_words<T: PartialEq>(
    value: &Value<'_>,
    form: &str,
    meaning: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let mut meanings = Vec::new();
    for item in value.items(form)? {
        match item.as_text().and_then(&meaning) {
            None => item.wrong(form),
            Some(again) if meanings.contains(&again) => item.wrong("each word once"),
            Some(new) => meanings.push(new),
        }
    }
    Some(meanings)
}

fn read_money(value: &Value<'_>) -> Option<Cents> {
    let amount = value.integer(MONEY_FORM)?;
    if !(0..=MONEY_MAX).contains(&amount) {
        value.wrong(format!("{MONEY_FORM}, at most {MONEY_MAX}"));
        return None;
    }
    Some(Cents(amount))
}

fn read_window(table: &Table<'_>, key: &'static str, default_min: u64) -> Option<Duration> {
    let Some(value) = table.optional(key) else {
        return Some(Duration::from_secs(default_min * 60));
    };
    let window = value
        .text(WINDOW_FORM)?
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|window| Duration::try_from(window).ok())
        .filter(|window| *window <= Duration::from_secs(WINDOW_HOURS_MAX * 3600))
        .filter(|window| window.subsec_nanos() % 1_000_000 == 0);
    if window.is_none() {
        value.wrong(WINDOW_FORM);
    }
    window
}

fn read_plans(value: &Value<'_>) -> Option<PlanPrices> {
    let table = value.table(PLANS_FORM)?;
    let price = |key| table.required(key, MONEY_FORM).and_then(|value| read_money(&value));
    let (arrival, departure, both) = (price("arrival"), price("departure"), price("both"));
    table.end();
    Some(PlanPrices { arrival: arrival?, departure: departure?, both: both? })
}

/// A named day with the place of its date.
struct NamedDayAt<'d> {
    day: NamedDay,
    date: Value<'d>,
}

fn read_named_days<'d>(table: &Table<'d>, key: &'static str) -> Vec<NamedDayAt<'d>> {
    let Some(items) = table.optional(key).and_then(|value| value.items(NAMED_DAYS_FORM)) else {
        return Vec::new();
    };
    let mut days: Vec<NamedDayAt<'d>> = Vec::with_capacity(items.len());
    for item in items {
        let Some(entry) = item.table(NAMED_DAYS_FORM) else { continue };
        let date_value = entry.required("date", "a date such as 2025-10-10");
        let name = entry.required("name", "a name such as \"國慶日\"").and_then(|value| value.text("a text"));
        entry.end();
        let Some(date_value) = date_value else { continue };
        let Some(date) = date_value.date().map(Day::from_date) else { continue };
        if days.iter().any(|earlier| earlier.day.date == date) {
            date_value.wrong("each date once");
            continue;
        }
        let day = NamedDay { date, name: CompactString::new(name.unwrap_or_default()) };
        days.push(NamedDayAt { day, date: date_value });
    }
    days
}

fn check_named_days(days: Option<&RangeInclusive<Day>>, off: &[NamedDayAt<'_>], makeup: &[NamedDayAt<'_>]) {
    for NamedDayAt { day, date } in makeup {
        if off.iter().any(|off| off.day.date == day.date) {
            date.wrong("a date that is not in days_off too");
        }
        if let Some(days) = days.filter(|days| !days.contains(&day.date)) {
            date.wrong(format!("a day of the term ({} to {})", days.start(), days.end()));
        }
    }
}

fn sorted(days: Vec<NamedDayAt<'_>>) -> Vec<NamedDay> {
    let mut days: Vec<NamedDay> = days.into_iter().map(|at| at.day).collect();
    days.sort_by_key(|named| named.date);
    days
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TERM_114_1: &str = BUILT_IN[0].1;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    fn mistakes(toml: &str) -> Vec<String> {
        Term::parse(toml).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn term_114_1_has_the_published_91_school_days_and_94_with_the_makeup_days() {
        let term = Term::parse(TERM_114_1).unwrap();
        let to_the_last_day_of_classes = term.days.school_days().filter(|day_| *day_ <= day("2026-01-20"));
        assert_eq!(to_the_last_day_of_classes.count(), 91);
        assert_eq!(term.days.school_days().count(), 94);
    }

    #[test]
    fn term_114_1_is_as_the_letter_says() {
        let term = Term::parse(TERM_114_1).unwrap();
        assert_eq!(term.name, "114-1");
        assert_eq!((term.first_day, term.last_day), (day("2025-09-08"), day("2026-01-23")));
        assert_eq!(term.order_deadline, Some(day("2025-09-05")));
        assert_eq!(term.channels, [Channel::App, Channel::Sms]);
        assert_eq!(term.sms_price, Cents(75));
        let plans = PlanPrices { arrival: Cents(6800), departure: Cents(6800), both: Cents(13600) };
        assert_eq!(term.plans, plans);
        assert!(term.cap_at_prepaid);
        let minutes =
            [term.repeat_window, term.min_stay, term.useful_for].map(|window| window.as_secs() / 60);
        assert_eq!(minutes, [10, 30, 60]);
        for holiday in ["2025-09-29", "2025-10-06", "2025-10-10", "2025-10-24", "2025-12-25", "2026-01-01"] {
            assert!(!term.days.is_school_day(day(holiday)), "{holiday}");
        }
        for school in ["2025-09-08", "2025-10-09", "2025-12-26", "2026-01-20", "2026-01-21", "2026-01-23"] {
            assert!(term.days.is_school_day(day(school)), "{school}");
        }
        for none in ["2025-09-05", "2025-09-13", "2025-09-14", "2026-01-24", "2026-01-26"] {
            assert!(!term.days.is_school_day(day(none)), "{none}");
        }
    }

    const SHORT: &str = r#"
        name = "t"
        time_zone = "Asia/Taipei"
        first_day = "2025-09-08"
        last_day = 2025-09-14
        weekdays = ["mon"]
        channels = []
        sms_price = 0
        plans = { arrival = 0, departure = 0, both = 0 }
    "#;

    #[test]
    fn windows_cap_days_and_deadline_have_defaults() {
        let term = Term::parse(SHORT).unwrap();
        let minutes =
            [term.repeat_window, term.min_stay, term.useful_for].map(|window| window.as_secs() / 60);
        assert_eq!(minutes, [10, 30, 60]);
        assert!(term.cap_at_prepaid);
        assert_eq!(term.order_deadline, None);
        assert_eq!(term.days.school_days().collect::<Vec<_>>(), [day("2025-09-08")]);
    }

    #[test]
    fn a_makeup_day_is_a_school_day_whatever_its_weekday() {
        let toml = format!("{SHORT}[[makeup_days]]\ndate = 2025-09-13\nname = \"補課\"\n");
        assert!(Term::parse(&toml).unwrap().days.is_school_day(day("2025-09-13")));
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_place() {
        let toml = "\
name = \"學期\"
time_zone = \"Asia/Taipeh\"
first_day = 2025-09-08
last_day = 2025-09-01
weekdays = [\"mon\", \"montag\", \"mon\"]
channels = [\"app\", 7]
sms_price = 0.75
min_stay = 30
useful_for = \"25 h\"
\"kanäle\" = []
[plans]
arrival = -1
both = 13600
extra = 1
[[days_off]]
date = \"2025-02-30\"
name = \"x\"
";
        let found = mistakes(toml);
        let places: Vec<&str> =
            found.iter().map(|mistake| mistake.split(": found").next().unwrap()).collect();
        let expected = [
            "1:8: name",
            "2:13: time_zone",
            "4:12: last_day",
            "5:20: weekdays[1]",
            "5:30: weekdays[2]",
            "6:20: channels[1]",
            "7:13: sms_price",
            "8:12: min_stay",
            "9:14: useful_for",
            "10:1: kanäle",
            "11:1: plans.departure",
            "12:11: plans.arrival",
            "14:1: plans.extra",
            "16:8: days_off[0].date",
        ];
        assert_eq!(places.len(), expected.len(), "{found:#?}");
        for (place, expected) in places.iter().zip(expected) {
            assert!(place.starts_with(expected), "{place} is not {expected}: {found:#?}");
        }
    }

    #[test]
    fn a_date_both_off_and_makeup_is_a_mistake() {
        let both =
            ["days_off", "makeup_days"].map(|list| format!("[[{list}]]\ndate = 2025-09-10\nname = \"x\"\n"));
        let toml = format!("{SHORT}{}", both.concat());
        let found = mistakes(&toml);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("makeup_days[0].date: found 2025-09-10"), "{found:?}");
    }

    #[test]
    fn a_makeup_day_outside_the_term_is_a_mistake() {
        for outside in ["2025-09-07", "2025-09-15"] {
            let toml = format!("{SHORT}[[makeup_days]]\ndate = {outside}\nname = \"b\"\n");
            assert!(mistakes(&toml)[0].contains("2025-09-08 to 2025-09-14"));
        }
    }

    #[test]
    fn a_date_listed_twice_is_a_mistake() {
        let twice = "[[days_off]]\ndate = 2025-09-10\nname = \"a\"\n".repeat(2);
        assert!(mistakes(&format!("{SHORT}{twice}"))[0].contains("each date once"));
    }

    #[test]
    fn what_is_no_toml_is_a_mistake_beside_the_others() {
        let found = mistakes("name = \nfirst_day = 2025-09-08\n");
        assert!(found[0].starts_with("1:"), "{found:#?}");
        assert!(found.iter().any(|mistake| mistake.contains("last_day: found nothing")), "{found:#?}");
    }
}
