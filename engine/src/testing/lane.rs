//! A lane as tests want it where the lane itself is not what they test.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::LaneName;
use crate::notice::Channel;
use crate::ports::channel::LaneProfile;

/// A lane of a process alone that hardly limits anything, one message a submit. Its gateway recognises references, gives no
/// receipts and cannot be asked.
///
/// # Panics
///
/// Where `name` is no identifier.
#[must_use]
pub fn profile(name: &str, channel: Channel) -> LaneProfile {
    LaneProfile {
        name: LaneName::new(name).expect("an identifier"),
        channel,
        rate_per_s: 100,
        burst: 1,
        window: 2,
        shared_by: NonZeroU32::MIN,
        batch_max: 1,
        queue_max: 100,
        submit_timeout: Duration::from_secs(10),
        gives_receipts: false,
        deduplicates_for: Some(Duration::from_secs(12 * 3600)),
        poll_after: None,
    }
}
