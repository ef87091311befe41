//! A tap (刷卡) as a reader reports it, and what can become of it.

use compact_str::CompactString;

use crate::ids::CardNumber;
use crate::notice::Passage;
use crate::time::Timestamp;

/// Largest report, in bytes, without line end and byte order mark.
pub const TAP_LEN_MAX: usize = 4096;

/// Which way a tap says it went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Into the school.
    In,
    /// Out of the school.
    Out,
}

impl Direction {
    /// The passage that this direction makes.
    pub const fn passage(self) -> Passage {
        match self {
            Self::In => Passage::Arrival,
            Self::Out => Passage::Departure,
        }
    }
}

/// One card read by one reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tap {
    /// The card.
    pub card: CardNumber,
    /// The reader's code, of the form of an identifier.
    pub reader: CompactString,
    /// When the card was read, by the reader's clock.
    pub at: Timestamp,
    /// The direction that the tap itself names; overrides the reader's.
    pub direction: Option<Direction>,
}

/// Why a record is no tap to be decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RejectReason {
    /// Longer than [`TAP_LEN_MAX`].
    Oversize,
    /// Not JSON, a field missing, of the wrong type or form.
    Malformed,
    /// Read more than five minutes after it was received, or on a later day.
    ClockAhead,
    /// The pupil already has 32 passages today.
    TooMany,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Oversize, Self::Malformed, Self::ClockAhead, Self::TooMany];

    /// The word used in outputs and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::Malformed => "malformed",
            Self::ClockAhead => "clock_ahead",
            Self::TooMany => "too_many",
        }
    }

    /// The reason of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What becomes of a tap: exactly one of these (T1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// No tap to be decided.
    Rejected(RejectReason),
    /// Of a day before the shard's: kept, no notice.
    Stale,
    /// No such card, or none in force.
    UnknownCard,
    /// No school that day.
    NoSchool,
    /// The same passing of the gate, read again.
    Duplicate,
    /// It counts.
    Passage(Passage),
}

impl Outcome {
    /// Every outcome, in the order of the tests that find them.
    pub const ALL: [Self; 10] = [
        Self::Rejected(RejectReason::Oversize),
        Self::Rejected(RejectReason::Malformed),
        Self::Rejected(RejectReason::ClockAhead),
        Self::Stale,
        Self::UnknownCard,
        Self::NoSchool,
        Self::Duplicate,
        Self::Rejected(RejectReason::TooMany),
        Self::Passage(Passage::Arrival),
        Self::Passage(Passage::Departure),
    ];

    /// The word used in outputs and labels; the reason or the kind of passage is apart.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Stale => "stale",
            Self::UnknownCard => "unknown_card",
            Self::NoSchool => "no_school",
            Self::Duplicate => "duplicate",
            Self::Passage(_) => "passage",
        }
    }
}
