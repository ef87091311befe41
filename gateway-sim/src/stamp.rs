//! Times as the gateway writes and reads them: Taiwan's, `yyyyMMddHHmmss`.

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, offset};
use jiff::{Span, Timestamp};

/// Taiwan has had one offset, without daylight saving, for decades.
fn taiwan() -> TimeZone {
    TimeZone::fixed(offset(8))
}

/// `at` as the gateway writes it.
pub(crate) fn write(at: Timestamp) -> String {
    at.to_zoned(taiwan()).strftime("%Y%m%d%H%M%S").to_string()
}

/// How many seconds after `now` a time field lies: fourteen digits are a time, fewer are seconds from now. `None` when it
/// is neither; negative when the time is over.
pub(crate) fn seconds_from(now: Timestamp, field: &str) -> Option<i64> {
    if field.is_empty() || !field.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if field.len() == 14 {
        let at = DateTime::strptime("%Y%m%d%H%M%S", field).ok()?.to_zoned(taiwan()).ok()?;
        return Some(at.timestamp().as_second() - now.as_second());
    }
    let seconds: i64 = field.parse().ok()?;
    now.checked_add(Span::new().try_seconds(seconds).ok()?).ok()?;
    Some(seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_taiwans() {
        let now: Timestamp = "2025-09-07T23:31:04Z".parse().unwrap();
        assert_eq!(write(now), "20250908073104");
        assert_eq!(seconds_from(now, "20250908073204"), Some(60));
        assert_eq!(seconds_from(now, "20250908073004"), Some(-60));
        assert_eq!(seconds_from(now, "3600"), Some(3600));
        for field in ["", "1h", "-5", "20250931073204", "99999999999999999999"] {
            assert_eq!(seconds_from(now, field), None, "{field}");
        }
    }
}
