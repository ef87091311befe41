//! What is written down about notices: entries, claims and charges.
//!
//! The ledger is append-only and the only source of billing. An entry is named by (notice, event, attempt); writing it
//! again changes nothing, so a crash between a write and the knowledge of it is mended by writing again.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, OrderId, PupilId, hexadecimal};
use crate::notice::{Channel, Notice, NoticeKind, UnknownWord};
use crate::time::{Day, Timestamp};

/// What happened to a notice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// An SMS is about to leave, under a reference that is now durable.
    Claimed,
    /// The gateway has it and gave its own id; a receipt is to come.
    Submitted,
    /// The gateway or push backend has it, and no receipt will come: an end.
    Accepted,
    /// A receipt proves it arrived: an end, never overturned.
    Delivered,
    /// It did not arrive, or nobody will ever know: an end, overturned only by proof of delivery.
    Failed,
    /// Its deadline passed before it was sent: an end, overturned only by proof of delivery.
    Expired,
    /// It may not be sent (unbound, protected, no address, sent elsewhere): an end.
    Suppressed,
    /// One delivered SMS was put on the order's account.
    Charged,
    /// One delivered SMS arrived after the bill was frozen: kept apart, never charged.
    Adjusted,
}

impl Event {
    /// Every event, in the order in which they can happen.
    pub const ALL: [Self; 9] = [
        Self::Claimed,
        Self::Submitted,
        Self::Accepted,
        Self::Delivered,
        Self::Failed,
        Self::Expired,
        Self::Suppressed,
        Self::Charged,
        Self::Adjusted,
    ];

    /// Whether the notice reached its reader, as far as its channel can tell: overturns every other end.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Delivered | Self::Accepted)
    }

    /// The word used in exports and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Submitted => "submitted",
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Suppressed => "suppressed",
            Self::Charged => "charged",
            Self::Adjusted => "adjusted",
        }
    }

    /// Whether a notice ends with it (N1).
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Accepted | Self::Delivered | Self::Failed | Self::Expired | Self::Suppressed)
    }

    /// Whether the log owes nothing more for a notice that has it: submitted and recorded, or ended.
    pub const fn settles(self) -> bool {
        matches!(self, Self::Submitted) || self.is_end()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Event {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|event| event.name() == text).ok_or(UnknownWord)
    }
}

/// One line of the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The notice.
    pub notice: NoticeId,
    /// The tap that made it.
    pub position: LogPosition,
    /// About whom.
    pub pupil: PupilId,
    /// To whom.
    pub guardian: GuardianId,
    /// How.
    pub channel: Channel,
    /// What it tells.
    pub kind: NoticeKind,
    /// The civil day of `at`.
    pub day: Day,
    /// When the card was read.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// When that happened (the engine's wall clock).
    pub time: Timestamp,
    /// The attempt that it belongs to, from 1; 0 where there was none.
    pub attempt: u32,
    /// The order; on SMS only.
    pub order: Option<OrderId>,
    /// The lane that sent it.
    pub gateway: Option<LaneName>,
    /// The gateway's own id of the message.
    pub gateway_id: Option<CompactString>,
    /// Why: a fixed word or a gateway's status code, never free text from outside.
    pub reason: Option<CompactString>,
}

impl LedgerEntry {
    /// What happened to `notice` at `time`; attempt 0, no gateway, no reason.
    pub fn of(notice: &Notice, event: Event, time: Timestamp) -> Self {
        Self {
            notice: notice.id,
            position: notice.position,
            pupil: notice.pupil.clone(),
            guardian: notice.guardian.clone(),
            channel: notice.channel,
            kind: notice.kind,
            day: notice.day,
            at: notice.at,
            event,
            time,
            attempt: 0,
            order: notice.order.clone(),
            gateway: None,
            gateway_id: None,
            reason: None,
        }
    }

    /// What happened to the same notice next; attempt, gateway and its id stay, the reason does not.
    #[must_use]
    pub fn followed_by(&self, event: Event, time: Timestamp) -> Self {
        Self { event, time, reason: None, ..self.clone() }
    }

    /// With a reason.
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = Some(CompactString::new(reason));
        self
    }

    /// With the lane and the attempt.
    #[must_use]
    pub fn through(mut self, lane: &LaneName, attempt: u32) -> Self {
        self.gateway = Some(lane.clone());
        self.attempt = attempt;
        self
    }

    /// With the gateway's own id.
    #[must_use]
    pub fn known_as(mut self, gateway_id: &str) -> Self {
        self.gateway_id = Some(CompactString::new(gateway_id));
        self
    }
}

/// What an SMS is claimed under: at most one message a term, pupil, guardian, kind and day (N2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClaimKey {
    /// The term's name.
    pub term: CompactString,
    /// The civil day.
    pub day: Day,
    /// About whom.
    pub pupil: PupilId,
    /// To whom.
    pub guardian: GuardianId,
    /// What it tells.
    pub kind: NoticeKind,
}

impl ClaimKey {
    /// The key that `notice` is sent under.
    pub fn of(term: &str, notice: &Notice) -> Self {
        Self {
            term: CompactString::new(term),
            day: notice.day,
            pupil: notice.pupil.clone(),
            guardian: notice.guardian.clone(),
            kind: notice.kind,
        }
    }
}

/// One tenure of one run of an engine process, counted on from a token drawn at its start: whoever restarts is another
/// owner, and so is a process that gets a partition back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OwnerToken(pub u128);

/// How far a claim has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ClaimState {
    /// The request may be on the wire, or may have been: *in doubt* once its owner is gone.
    Open,
    /// The gateway refused this attempt for certain; the next attempt may take a new reference.
    Refused,
    /// The gateway has it under its own id.
    Submitted {
        /// The gateway's own id of the message.
        gateway_id: CompactString,
    },
    /// Nothing more will be sent under this key. How the notice ended is kept here too, since a crash can fall between
    /// this row and the entry that says so.
    Ended {
        /// The end.
        event: Event,
        /// Why, as in its entry.
        reason: Option<CompactString>,
    },
}

/// The one sender of an SMS: only ever written by compare-and-set on (`owner`, `attempt`, `state`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What is claimed.
    pub key: ClaimKey,
    /// The notice that may be sent under it.
    pub notice: NoticeId,
    /// That notice's tap.
    pub position: LogPosition,
    /// Who sends.
    pub owner: OwnerToken,
    /// From 1; rises only after a definite refusal. The gateway's reference is made of notice and attempt.
    pub attempt: u32,
    /// The lane it goes through.
    pub lane: LaneName,
    /// When this attempt was claimed.
    pub claimed_at: Timestamp,
    /// The notice's deadline.
    pub deadline: Timestamp,
    /// How far it has come.
    pub state: ClaimState,
}

impl Claim {
    /// The reference under which the gateway knows this attempt; it deduplicates by it where it can. 36 characters.
    pub fn reference(&self) -> ClientReference {
        ClientReference::new(self.notice, self.attempt)
    }

    /// What a compare-and-set must find to replace this claim.
    pub fn stamp(&self) -> ClaimStamp {
        ClaimStamp { owner: self.owner, attempt: self.attempt, state: self.state.clone() }
    }
}

/// The part of a claim that a compare-and-set compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimStamp {
    /// Who sends.
    pub owner: OwnerToken,
    /// Which attempt.
    pub attempt: u32,
    /// How far.
    pub state: ClaimState,
}

/// Our name for one attempt to send one notice: `{notice}` and the attempt in three hexadecimal digits, 36 characters
/// with the dash (the most that a gateway's field holds).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientReference([u8; ClientReference::LEN]);

impl ClientReference {
    /// The highest attempt that a reference can name.
    pub const ATTEMPT_MAX: u32 = 0xfff;

    const LEN: usize = 36;
    const NOTICE_DIGITS: usize = 32;

    /// Of `attempt` (at most [`Self::ATTEMPT_MAX`]; higher ones are held at it) to send `notice`.
    pub fn new(notice: NoticeId, attempt: u32) -> Self {
        let attempt = attempt.min(Self::ATTEMPT_MAX);
        let mut text = [b'-'; Self::LEN];
        let (notice_digits, rest) = text.split_at_mut(Self::NOTICE_DIGITS);
        notice_digits.copy_from_slice(&notice.digits());
        rest[1..].copy_from_slice(&hexadecimal::<3>(attempt.into()));
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of digits and a dash")
    }
}

impl fmt::Debug for ClientReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One delivered SMS on an order's account. Inserting it again changes nothing, whoever does it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    /// The term's name.
    pub term: CompactString,
    /// About whom.
    pub pupil: PupilId,
    /// Who pays.
    pub guardian: GuardianId,
    /// Under which order.
    pub order: OrderId,
    /// The civil day.
    pub day: Day,
    /// Arrival or departure.
    pub kind: NoticeKind,
    /// The `delivered` entry (or `accepted`, where the gateway gives no receipts) that proves it.
    pub proof: LedgerEntry,
}
