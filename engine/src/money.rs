//! Money: integers only, in hundredths of a New Taiwan dollar or in whole ones, never mixed.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Hundredths of NT$: a price (NT$0.75 is 75).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cents(pub i64);

/// Whole NT$: what is paid, owed and refunded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dollars(pub i64);

impl Cents {
    /// The price of `messages` messages at this price each, before rounding; stops at the largest amount there is.
    #[must_use]
    pub fn times(self, messages: u64) -> Self {
        Self(self.0.saturating_mul(i64::try_from(messages).unwrap_or(i64::MAX)))
    }

    /// Whole dollars, a fraction rounded up: the city's rule for settlement (無條件進位至整數).
    pub fn rounded_up(self) -> Dollars {
        Dollars(self.0.div_euclid(100) + i64::from(self.0.rem_euclid(100) != 0))
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}NT${}.{:02}", self.0.unsigned_abs() / 100, self.0.unsigned_abs() % 100)
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}NT${}", self.0.unsigned_abs())
    }
}

impl Add for Dollars {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Dollars {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_one_messages_settle_at_sixty_nine_dollars() {
        assert_eq!(Cents(75).times(91), Cents(6825));
        assert_eq!(Cents(75).times(91).rounded_up(), Dollars(69));
    }

    #[test]
    fn whole_dollars_are_not_rounded() {
        assert_eq!(Cents(75).times(4).rounded_up(), Dollars(3));
        assert_eq!(Cents(0).rounded_up(), Dollars(0));
    }

    #[test]
    fn amounts_print_with_their_currency() {
        assert_eq!(Cents(75).to_string(), "NT$0.75");
        assert_eq!((Dollars(68) - Dollars(69)).to_string(), "-NT$1");
    }
}
