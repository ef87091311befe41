//! Instants as a tap spells them: RFC 3339 by its grammar exactly, or an integer of epoch milliseconds.
//!
//! A date library would take more than the public format allows (a space for the `T`, `+0800`, a zone's name)
//! and would be the most expensive part of decoding. Both forms name instants of the years 1 to 9999 (UTC)
//! only.

use crate::time::Timestamp;

/// 0001-01-01T00:00:00Z.
const FIRST_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;

/// Most digits of an instant of those years in milliseconds.
const EPOCH_DIGITS_MAX: usize = 15;

/// Most digits of a second's fraction.
const FRACTION_DIGITS_MAX: usize = 9;

/// An RFC 3339 `date-time`: upper or lower case `T` and `Z`, an offset, up to nine digits of a second, which
/// are cut to milliseconds. Second 60 (a leap second) is read as 59.
#[inline]
pub fn rfc3339(text: &[u8]) -> Option<Timestamp> {
    let (instant, rest) = split_rfc3339(text)?;
    rest.is_empty().then_some(instant)
}

/// The `date-time` that `text` begins with, as [`rfc3339`], and what follows it.
#[inline]
pub(super) fn split_rfc3339(text: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (date_and_time, rest) = text.split_first_chunk::<19>()?;
    let [y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T' | b't', time @ ..] = date_and_time else {
        return None;
    };
    let [h0, h1, b':', mi0, mi1, b':', s0, s1] = time else {
        return None;
    };
    // All digits are judged at once: one branch that a good tap never takes, in place of fourteen.
    let mut digits = Digits::default();
    let year = digits.two(*y0, *y1) * 100 + digits.two(*y2, *y3);
    let (month, day) = (digits.two(*mo0, *mo1), digits.two(*d0, *d1));
    let (hour, minute, second) = (digits.two(*h0, *h1), digits.two(*mi0, *mi1), digits.two(*s0, *s1));
    if !digits.are_good() || hour > 23 || minute > 59 || second > 60 || !is_date(year, month, day) {
        return None;
    }
    let (fraction_ms, rest) = split_fraction(rest)?;
    let (offset_minutes, rest) = split_offset(rest)?;

    let local_minutes = days_since_epoch(year, month, day) * 1440 + hour * 60 + minute;
    let instant_ms = (local_minutes - offset_minutes) * 60_000 + second.min(59) * 1000 + fraction_ms;
    Some((within_years(instant_ms)?, rest))
}

/// A JSON integer: no fraction, no exponent, no leading zero, no plus sign.
#[inline]
pub fn epoch_millis(text: &[u8]) -> Option<Timestamp> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let has_leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if !(1..=EPOCH_DIGITS_MAX).contains(&digits.len()) || has_leading_zero {
        return None;
    }
    let mut magnitude = 0;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + i64::from(byte - b'0');
    }
    within_years(sign * magnitude)
}

#[inline]
fn within_years(instant_ms: i64) -> Option<Timestamp> {
    (FIRST_MS..=LAST_MS).contains(&instant_ms).then_some(Timestamp::from_millis(instant_ms))
}

/// Reads digits, and remembers whether all of them were.
#[derive(Default)]
struct Digits {
    has_other: bool,
}

impl Digits {
    #[inline]
    fn two(&mut self, tens: u8, ones: u8) -> i64 {
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        self.has_other |= tens > 9 || ones > 9;
        i64::from(tens) * 10 + i64::from(ones)
    }

    #[inline]
    fn are_good(&self) -> bool {
        !self.has_other
    }
}

/// Milliseconds of the fraction, if there is one, and what follows it.
#[inline]
fn split_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=FRACTION_DIGITS_MAX).contains(&count) {
        return None;
    }
    let (fraction, rest) = digits.split_at_checked(count)?;
    let digit = |position: usize| fraction.get(position).map_or(0, |byte| i64::from(byte - b'0'));
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), rest))
}

/// Minutes east of UTC, and what follows them.
#[inline]
fn split_offset(text: &[u8]) -> Option<(i64, &[u8])> {
    let (sign, h0, h1, m0, m1, rest) = match text {
        [b'Z' | b'z', rest @ ..] => return Some((0, rest)),
        [b'+', h0, h1, b':', m0, m1, rest @ ..] => (1, h0, h1, m0, m1, rest),
        [b'-', h0, h1, b':', m0, m1, rest @ ..] => (-1, h0, h1, m0, m1, rest),
        _ => return None,
    };
    let mut digits = Digits::default();
    let (hours, minutes) = (digits.two(*h0, *h1), digits.two(*m0, *m1));
    let is_good = digits.are_good() && hours <= 23 && minutes <= 59;
    is_good.then_some((sign * (hours * 60 + minutes), rest))
}

#[inline]
fn is_date(year: i64, month: i64, day: i64) -> bool {
    // Every month has 28 days, and most taps need not ask further.
    (1..=12).contains(&month) && day >= 1 && (day <= 28 || day <= days_in_month(year, month))
}

#[inline]
fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[inline]
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar. Years begin in March here, so that a leap day ends its
/// year.
#[inline]
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_0000_03_01_TO_EPOCH: i64 = 719_468;
    let (year, month_from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - DAYS_FROM_0000_03_01_TO_EPOCH
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn millis(text: &str) -> Option<i64> {
        rfc3339(text.as_bytes()).map(Timestamp::as_millis)
    }

    #[test]
    fn one_instant_has_many_spellings() {
        let instant = millis("2025-09-08T07:31:04.250+08:00");
        assert_eq!(instant, Some(1_757_287_864_250));
        for same in [
            "2025-09-07T23:31:04.250Z",
            "2025-09-07t23:31:04.25z",
            "2025-09-07T23:31:04.250999999-00:00",
            "2025-09-08T23:30:04.250+23:59",
            "2025-09-07T13:31:04.250-10:00",
        ] {
            assert_eq!(millis(same), instant, "{same}");
        }
    }

    #[test]
    fn a_fraction_is_cut_not_rounded() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.1Z", 100),
            ("1970-01-01T00:00:00.01Z", 10),
            ("1970-01-01T00:00:00.0019Z", 1),
            ("1970-01-01T00:00:00.999999999Z", 999),
            ("1969-12-31T23:59:59.9999Z", -1),
        ] {
            assert_eq!(millis(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn second_60_is_read_as_59() {
        assert_eq!(millis("2025-09-08T07:31:60+08:00"), millis("2025-09-08T07:31:59+08:00"));
        assert_eq!(millis("2016-12-31T23:59:60.5Z"), millis("2016-12-31T23:59:59.5Z"));
        assert_eq!(millis("2016-12-31T23:59:61Z"), None);
    }

    #[test]
    fn what_rfc_3339_does_not_allow_is_no_instant() {
        for bad in [
            "",
            "2025-09-08",
            "2025-09-08T07:31:04",
            "2025-09-08T07:31:04.250",
            "2025-09-08 07:31:04Z",
            "2025-09-08_07:31:04Z",
            "2025-09-08T07:31:04+0800",
            "2025-09-08T07:31:04+08",
            "2025-09-08T07:31:04+8:00",
            "2025-09-08T07:31:04+24:00",
            "2025-09-08T07:31:04+08:60",
            "2025-09-08T07:31:04 Z",
            "2025-09-08T07:31:04,250Z",
            "2025-09-08T07:31:04.Z",
            "2025-09-08T07:31:04.1234567890Z",
            "2025-09-08T07:31:04+08:00[Asia/Taipei]",
            "2025-09-08T07:31:04Asia/Taipei",
            "2025-09-08T07:31Z",
            "2025-09-08T7:31:04Z",
            "2025-09-08T24:00:00Z",
            "2025-09-08T07:60:00Z",
            "2025-9-08T07:31:04Z",
            "2025-00-08T07:31:04Z",
            "2025-13-08T07:31:04Z",
            "2025-09-00T07:31:04Z",
            "2025-09-31T07:31:04Z",
            "2025-02-29T07:31:04Z",
            "1900-02-29T07:31:04Z",
            "+2025-09-08T07:31:04Z",
            "-025-09-08T07:31:04Z",
            "20250908T073104Z",
            " 2025-09-08T07:31:04Z",
            "2025-09-08T07:31:04Z ",
            "２０２５-09-08T07:31:04Z",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
        assert!(millis("2024-02-29T07:31:04Z").is_some());
        assert!(millis("2000-02-29T07:31:04Z").is_some());
    }

    #[test]
    fn instants_lie_within_the_years_1_to_9999() {
        assert_eq!(millis("0001-01-01T00:00:00Z"), Some(FIRST_MS));
        assert_eq!(millis("9999-12-31T23:59:59.999Z"), Some(LAST_MS));
        assert_eq!(millis("0000-12-31T23:59:59Z"), None);
        assert_eq!(millis("0001-01-01T00:00:00+00:01"), None);
        assert_eq!(millis("9999-12-31T23:59:59-00:01"), None);
        assert_eq!(epoch_millis(b"-62135596800000"), Some(Timestamp::from_millis(FIRST_MS)));
        assert_eq!(epoch_millis(b"-62135596800001"), None);
        assert_eq!(epoch_millis(b"253402300799999"), Some(Timestamp::from_millis(LAST_MS)));
        assert_eq!(epoch_millis(b"253402300800000"), None);
    }

    #[test]
    fn epoch_milliseconds_are_a_json_integer() {
        assert_eq!(
            epoch_millis(b"1757287864250"),
            millis("2025-09-08T07:31:04.250+08:00").map(Timestamp::from_millis)
        );
        assert_eq!(epoch_millis(b"-0"), Some(Timestamp::from_millis(0)));
        let too_long = "9".repeat(40);
        for bad in ["", "-", "+1", "01", "-01", "1.0", "1e3", "1E3", " 1", "1 ", "0x1", "1_000", &too_long] {
            assert_eq!(epoch_millis(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_instant_is_what_a_date_library_says(
            at_ms in FIRST_MS + 86_400_000..=LAST_MS - 86_400_000,
            offset_minutes in -1439i32..=1439,
            digits in 0usize..=9,
            letters in prop::sample::select(vec![("T", "Z"), ("t", "z"), ("T", "z")]),
        ) {
            let instant = jiff::Timestamp::from_millisecond(at_ms).unwrap();
            let zone = jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(offset_minutes * 60).unwrap());
            let civil = instant.to_zoned(zone).datetime();
            let nanoseconds = format!("{:09}", civil.subsec_nanosecond());
            let fraction = if digits == 0 { String::new() } else { format!(".{}", &nanoseconds[..digits]) };
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset_minutes.abs() / 60, offset_minutes.abs() % 60);
            let (t, z) = letters;
            let offset = match offset_minutes {
                0 => z.to_owned(),
                _ => format!("{sign}{hours:02}:{minutes:02}"),
            };
            let text = format!("{}{t}{}{fraction}{offset}", civil.date(), civil.strftime("%H:%M:%S"));
            let expected = text.to_uppercase().parse::<jiff::Timestamp>().unwrap().as_millisecond();
            prop_assert_eq!(millis(&text), Some(expected), "{}", text);
        }
    }
}
