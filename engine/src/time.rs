//! Instants and days as the rules see them.
//!
//! The rules never ask a clock: a [`Timestamp`] always comes in as an argument. Resolution is the millisecond, which is
//! what a reader's report is cut to.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every instant: an empty `from`, "since ever".
    pub const MIN: Self = Self(i64::MIN);
    /// After every instant: an empty `until`, "for ever".
    pub const MAX: Self = Self(i64::MAX);

    /// The instant `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant moved later; stays at [`Timestamp::MAX`] rather than wrapping.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant moved earlier; stays at [`Timestamp::MIN`] rather than wrapping.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this instant is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds; the two ends of time are `-` and `+` infinity.
    fn rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => format!("{instant:.3}"),
            Err(_) if self.0 < 0 => "-infinity".to_owned(),
            Err(_) => "+infinity".to_owned(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// A civil day of the city, as days since 1970-01-01 of the city's own calendar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// The day `days` days after 1970-01-01.
    pub const fn from_epoch_days(days: i32) -> Self {
        Self(days)
    }

    /// Days since 1970-01-01.
    pub const fn epoch_days(self) -> i32 {
        self.0
    }

    /// The civil date `date`.
    pub fn from_date(date: jiff::civil::Date) -> Self {
        let since_epoch = date - jiff::civil::date(1970, 1, 1);
        Self(since_epoch.get_days())
    }

    /// As a civil date; beyond the years that have one, the nearest.
    pub fn date(self) -> jiff::civil::Date {
        let nearest = if self.0 < 0 { jiff::civil::Date::MIN } else { jiff::civil::Date::MAX };
        let since_epoch = jiff::Span::new().try_days(self.0);
        since_epoch.and_then(|days| jiff::civil::date(1970, 1, 1).checked_add(days)).unwrap_or(nearest)
    }

    /// The day after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The day before.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.date())
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.date())
    }
}

impl std::str::FromStr for Day {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::civil::Date>().map(Self::from_date)
    }
}

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = compact_str::CompactString::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A half-open stretch of time `[from, until)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stretch {
    /// The first instant in it; [`Timestamp::MIN`] is "since ever".
    #[serde(default = "since_ever", skip_serializing_if = "is_since_ever")]
    pub from: Timestamp,
    /// The first instant after it; [`Timestamp::MAX`] is "for ever".
    #[serde(default = "for_ever", skip_serializing_if = "is_for_ever")]
    pub until: Timestamp,
}

fn since_ever() -> Timestamp {
    Timestamp::MIN
}

fn for_ever() -> Timestamp {
    Timestamp::MAX
}

fn is_since_ever(from: &Timestamp) -> bool {
    *from == Timestamp::MIN
}

fn is_for_ever(until: &Timestamp) -> bool {
    *until == Timestamp::MAX
}

impl Stretch {
    /// Since ever and for ever.
    pub const ALWAYS: Self = Self { from: Timestamp::MIN, until: Timestamp::MAX };

    /// Whether `at` lies in it.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether the two have an instant in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.until && other.from < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store's column holds more days than a calendar: a damaged row must not panic where it is shown.
    #[test]
    fn a_day_beyond_the_calendar_is_shown_as_the_nearest() {
        for (days, date) in [
            (i32::MIN, "-009999-01-01"),
            (-8_000_000, "-009999-01-01"),
            (20_339, "2025-09-08"),
            (8_000_000, "9999-12-31"),
            (i32::MAX, "9999-12-31"),
        ] {
            assert_eq!(Day::from_epoch_days(days).to_string(), date);
        }
    }
}
