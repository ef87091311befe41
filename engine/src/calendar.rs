//! The city's calendar: which civil day and minute an instant falls on, and which days of a term are school
//! days.
//!
//! Both are asked for every tap, so both are looked up in tables made once: the offsets of the time zone
//! around the term, and one bit a day of the term. Days that `days.csv` changes, for one school or for all,
//! are the registry's; they are asked before [`TermDays`].

use std::ops::RangeInclusive;

use compact_str::CompactString;
use jiff::tz::TimeZone;

use crate::time::{Day, Timestamp};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// Days before and after the term for which the zone's offsets are kept in a table; other instants take the
/// long way.
const OFFSETS_AROUND_DAYS: i32 = 400;

/// A time zone, with its offsets around a term at hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalTime {
    zone: TimeZone,
    /// `offsets` hold from this instant, in milliseconds since the epoch …
    known_from_ms: i64,
    /// … to before this one.
    known_until_ms: i64,
    /// (from, offset), both in milliseconds, sorted; the first one holds from `known_from_ms`.
    offsets: Vec<(i64, i64)>,
}

impl LocalTime {
    /// The local time of `zone`, fastest around `days`.
    pub fn new(zone: TimeZone, days: &RangeInclusive<Day>) -> Self {
        let known_from = first_instant(&zone, shifted(*days.start(), -OFFSETS_AROUND_DAYS));
        let known_until = first_instant(&zone, shifted(*days.end(), OFFSETS_AROUND_DAYS));
        let mut offsets = vec![(known_from.as_millisecond(), offset_ms(&zone, known_from))];
        for transition in zone.following(known_from) {
            if transition.timestamp() >= known_until {
                break;
            }
            let offset = i64::from(transition.offset().seconds()) * 1000;
            offsets.push((transition.timestamp().as_millisecond(), offset));
        }
        Self {
            zone,
            known_from_ms: known_from.as_millisecond(),
            known_until_ms: known_until.as_millisecond(),
            offsets,
        }
    }

    /// The time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The civil day of `at`.
    #[inline]
    pub fn day_of(&self, at: Timestamp) -> Day {
        day_of_local(self.local_ms(at))
    }

    /// The civil day of `at` and the minute of that day, 0 to 1439.
    #[inline]
    pub fn day_and_minute(&self, at: Timestamp) -> (Day, u16) {
        let local_ms = self.local_ms(at);
        let minute = local_ms.rem_euclid(DAY_MS) / MINUTE_MS;
        (day_of_local(local_ms), u16::try_from(minute).unwrap_or(0))
    }

    /// The first instant of `day`.
    pub fn midnight(&self, day: Day) -> Timestamp {
        Timestamp::from_millis(first_instant(&self.zone, day).as_millisecond())
    }

    /// Milliseconds since 1970-01-01T00:00 of the local clock.
    #[inline]
    fn local_ms(&self, at: Timestamp) -> i64 {
        let at_ms = at.as_millis();
        let offset = match self.offsets.as_slice() {
            [(_, only)] if self.known_from_ms <= at_ms && at_ms < self.known_until_ms => *only,
            _ => self.looked_up_offset_ms(at_ms),
        };
        at_ms.saturating_add(offset)
    }

    #[cold]
    fn looked_up_offset_ms(&self, at_ms: i64) -> i64 {
        if self.known_from_ms <= at_ms && at_ms < self.known_until_ms {
            let after = self.offsets.partition_point(|(from, _)| *from <= at_ms);
            return self.offsets.get(after.saturating_sub(1)).map_or(0, |(_, offset)| *offset);
        }
        offset_ms(&self.zone, jiff_instant(at_ms))
    }
}

/// The instant `at_ms`, or the nearest that a civil date can name.
fn jiff_instant(at_ms: i64) -> jiff::Timestamp {
    let nearest = if at_ms < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_millisecond(at_ms).unwrap_or(nearest)
}

fn offset_ms(zone: &TimeZone, instant: jiff::Timestamp) -> i64 {
    i64::from(zone.to_offset(instant).seconds()) * 1000
}

fn first_instant(zone: &TimeZone, day: Day) -> jiff::Timestamp {
    let nearest = if day.epoch_days() < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    // Where midnight was skipped (clocks set forward at it), this is the instant of the change.
    day.date().to_zoned(zone.clone()).map_or(nearest, |midnight| midnight.timestamp())
}

fn day_of_local(local_ms: i64) -> Day {
    let nearest = if local_ms < 0 { i32::MIN } else { i32::MAX };
    Day::from_epoch_days(i32::try_from(local_ms.div_euclid(DAY_MS)).unwrap_or(nearest))
}

fn shifted(day: Day, days: i32) -> Day {
    Day::from_epoch_days(day.epoch_days().saturating_add(days))
}

/// A date with a name of its own: a holiday or a makeup day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedDay {
    /// The date.
    pub date: Day,
    /// Its name, such as 中秋節.
    pub name: CompactString,
}

/// The term's own calendar: weekdays of school, days off, makeup days.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TermDays {
    first: Day,
    last: Day,
    /// One bit a day from `first` on; set: school.
    school: Vec<u64>,
    off: Vec<NamedDay>,
    makeup: Vec<NamedDay>,
}

impl TermDays {
    /// School is on `weekdays` from the first to the last of `days`, not on days `off`, and on `makeup` days.
    pub(crate) fn new(
        days: &RangeInclusive<Day>,
        weekdays: &[jiff::civil::Weekday],
        off: Vec<NamedDay>,
        makeup: Vec<NamedDay>,
    ) -> Self {
        let (first, last) = (*days.start(), *days.end());
        let is_school = |day: Day| {
            let named = |list: &[NamedDay]| list.iter().any(|named| named.date == day);
            named(&makeup) || (weekdays.contains(&day.date().weekday()) && !named(&off))
        };
        let mut school = Vec::new();
        let mut word_start = first;
        while word_start <= last {
            let mut word = 0u64;
            for bit in 0..64 {
                let day = shifted(word_start, bit);
                if day <= last && is_school(day) {
                    word |= 1 << bit;
                }
            }
            school.push(word);
            word_start = shifted(word_start, 64);
        }
        Self { first, last, school, off, makeup }
    }

    /// Whether there is school on `day`, by the term alone.
    #[inline]
    pub fn is_school_day(&self, day: Day) -> bool {
        if !self.contains(day) {
            return false;
        }
        let since_first = day.epoch_days().abs_diff(self.first.epoch_days());
        let word = usize::try_from(since_first / 64).ok().and_then(|index| self.school.get(index));
        word.is_some_and(|word| (word >> (since_first % 64)) & 1 == 1)
    }

    /// Whether `day` is a day of service at all: outside the term, nothing makes a school day.
    #[inline]
    pub fn contains(&self, day: Day) -> bool {
        self.first <= day && day <= self.last
    }

    /// The school days, in order.
    pub fn school_days(&self) -> impl Iterator<Item = Day> + '_ {
        let days = self.first.epoch_days()..=self.last.epoch_days();
        days.map(Day::from_epoch_days).filter(|day| self.is_school_day(*day))
    }

    /// The days off, sorted by date.
    pub fn days_off(&self) -> &[NamedDay] {
        &self.off
    }

    /// The makeup days, sorted by date.
    pub fn makeup_days(&self) -> &[NamedDay] {
        &self.makeup
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn local_time(zone: &str) -> LocalTime {
        let days = "2025-09-08".parse().unwrap()..="2026-01-23".parse().unwrap();
        LocalTime::new(TimeZone::get(zone).unwrap(), &days)
    }

    fn instant(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn a_morning_in_taipei_has_its_day_and_minute() {
        let taipei = local_time("Asia/Taipei");
        let day = "2025-09-08".parse().unwrap();
        assert_eq!(taipei.day_and_minute(instant("2025-09-07T23:31:04.250Z")), (day, 7 * 60 + 31));
        assert_eq!(taipei.day_and_minute(instant("2025-09-07T16:00:00Z")), (day, 0));
        assert_eq!(taipei.day_and_minute(instant("2025-09-08T15:59:59.999Z")), (day, 1439));
        assert_eq!(taipei.day_of(instant("2025-09-07T15:59:59.999Z")), day.previous());
        assert_eq!(taipei.midnight(day), instant("2025-09-07T16:00:00Z"));
    }

    #[test]
    fn a_day_whose_midnight_was_skipped_begins_at_the_change() {
        let cairo = local_time("Africa/Cairo");
        let day = "2025-04-25".parse().unwrap();
        assert_eq!(cairo.midnight(day), instant("2025-04-24T22:00:00Z"));
        assert_eq!(cairo.day_and_minute(instant("2025-04-24T22:00:00Z")), (day, 60));
    }

    const ZONES: [&str; 5] = ["Asia/Taipei", "America/New_York", "Africa/Cairo", "Asia/Kolkata", "UTC"];

    proptest! {
        #[test]
        fn day_and_minute_are_what_the_time_zone_says(
            zone in prop::sample::select(ZONES.to_vec()),
            at_ms in prop_oneof![
                -62_135_596_800_000i64..=253_402_300_799_999,
                1_725_000_000_000i64..1_800_000_000_000,
            ],
        ) {
            let instant = jiff::Timestamp::from_millisecond(at_ms).unwrap();
            let civil = instant.to_zoned(TimeZone::get(zone).unwrap());
            prop_assume!(civil.date().year() > -9999);
            let minute = u16::try_from(i32::from(civil.hour()) * 60 + i32::from(civil.minute())).unwrap();
            let (day, minute_found) = local_time(zone).day_and_minute(Timestamp::from_millis(at_ms));
            // The last hours of the year 9999 lie in a year that civil dates cannot name.
            if at_ms < 253_402_200_000_000 {
                prop_assert_eq!((day, minute_found), (Day::from_date(civil.date()), minute));
            }
        }
    }
}
