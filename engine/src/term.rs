//! A term (學期): service days, rules, channels on offer, prices. Read from TOML; nothing of it is a constant in code.

use std::time::Duration;

use compact_str::CompactString;

use crate::money::{Cents, Dollars};
use crate::notice::Channel;
use crate::time::Day;

/// A term, checked.
#[derive(Clone, Debug)]
pub struct Term {
    /// Its name, such as `114-1`.
    pub name: CompactString,
    /// The city's time zone.
    pub time_zone: jiff::tz::TimeZone,
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
    /// The plans' prices: arrival, departure, both.
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
    pub arrival: Dollars,
    /// 僅離校
    pub departure: Dollars,
    /// 到、離校
    pub both: Dollars,
}

/// The term's own calendar.
#[derive(Clone, Debug)]
pub struct TermDays {}
