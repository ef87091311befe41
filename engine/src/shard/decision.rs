//! What a shard hands over: a decision a record, and the notices that are due, in compact form.

use std::ops::Range;

use crate::index::{GuardianRef, OrderRef, PupilRef, SchoolRef};
use crate::notice::Channel;
use crate::tap::Outcome;
use crate::time::Timestamp;

/// Decisions in the order of their records, and the notices of all of them.
#[derive(Clone, Default, Debug)]
pub struct Decisions {
    /// One a record.
    pub taps: Vec<Decision>,
    /// Those of one decision lie side by side, sorted by guardian, then channel, by name.
    pub notices: Vec<RoutedNotice>,
}

impl Decisions {
    /// Empties both lists and keeps their room.
    pub fn clear(&mut self) {
        self.taps.clear();
        self.notices.clear();
    }

    /// The notices that `decision`, one of these, makes.
    pub fn notices_of(&self, decision: &Decision) -> &[RoutedNotice] {
        let range = decision.notices.start as usize..decision.notices.end as usize;
        self.notices.get(range).unwrap_or_default()
    }
}

/// What became of one record (T1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The record's offset.
    pub offset: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// When the card was read; the time of receipt where the record could not be decoded.
    pub at: Timestamp,
    /// When the tap was received.
    pub received: Timestamp,
    /// Whether the record named a reader that nobody registered: its tap is taken all the same, and counted.
    pub unregistered_reader: bool,
    /// There from the test for school days on.
    pub(crate) pupil: Option<PupilRef>,
    /// Where the card was read; there on a passage.
    pub(super) place: Option<SchoolRef>,
    /// Positions in [`Decisions::notices`].
    pub(super) notices: Range<u32>,
}

/// One notice of a passage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoutedNotice {
    /// How it is to be sent.
    pub channel: Channel,
    /// Whether it is to be sent at all.
    pub start: NoticeStart,
    pub(super) guardian: GuardianRef,
    pub(super) order: Option<OrderRef>,
}

/// How a notice begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoticeStart {
    /// To be sent before its deadline.
    Queued,
    /// The deadline was over when the tap was received: recorded, not sent. An SMS counts as had.
    Expired,
}

impl NoticeStart {
    /// The word used in outputs and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Expired => "expired",
        }
    }
}
