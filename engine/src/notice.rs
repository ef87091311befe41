//! What is owed to a guardian: a [`Notice`], and the words around it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{GuardianId, LogPosition, NoticeId, OrderId, PupilId, SchoolId};
use crate::time::{Day, Timestamp};

/// The path by which a guardian is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Push to the city's app; free.
    App,
    /// E-mail; free.
    Email,
    /// LINE push; free.
    Line,
    /// Text message; paid by the parent.
    Sms,
}

impl Channel {
    /// Every channel, sorted by name.
    pub const ALL: [Self; 4] = [Self::App, Self::Email, Self::Line, Self::Sms];

    /// The word used in files, labels and ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Email => "email",
            Self::Line => "line",
            Self::Sms => "sms",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is none of the allowed words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is none of the allowed words")]
pub struct UnknownWord;

impl FromStr for Channel {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|channel| channel.name() == text).ok_or(UnknownWord)
    }
}

/// Which way a pupil passed the gate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// 到校
    Arrival,
    /// 離校
    Departure,
}

impl Passage {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Arrival => Self::Departure,
            Self::Departure => Self::Arrival,
        }
    }

    /// The word used in files and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Departure => "departure",
        }
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which passages a subscription or an order includes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passages {
    /// Arrivals only.
    Arrival,
    /// Departures only.
    Departure,
    /// Both.
    Both,
}

impl Passages {
    /// Whether `passage` is among them.
    pub const fn include(self, passage: Passage) -> bool {
        matches!(
            (self, passage),
            (Self::Both, _) | (Self::Arrival, Passage::Arrival) | (Self::Departure, Passage::Departure)
        )
    }

    /// Whether the two have a passage in common.
    pub const fn overlap(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Both, _)
                | (_, Self::Both)
                | (Self::Arrival, Self::Arrival)
                | (Self::Departure, Self::Departure)
        )
    }

    /// The word used in files and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Departure => "departure",
            Self::Both => "both",
        }
    }
}

impl fmt::Display for Passages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Passages {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Arrival, Self::Departure, Self::Both]
            .into_iter()
            .find(|passages| passages.name() == text)
            .ok_or(UnknownWord)
    }
}

/// What a notice tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeKind {
    /// The pupil has arrived (到校).
    Arrival,
    /// The pupil has left (離校).
    Departure,
    /// The pupil has not come (未到校).
    Absence,
    /// An absence was told in error.
    Correction,
    /// Important or urgent news from the school or the city (重要/緊急).
    Emergency,
}

impl NoticeKind {
    /// The word used in files and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Departure => "departure",
            Self::Absence => "absence",
            Self::Correction => "correction",
            Self::Emergency => "emergency",
        }
    }

    /// Whether the parent pays for it by SMS: passages only; absence, correction and emergency are the city's (B4).
    pub const fn is_charged(self) -> bool {
        matches!(self, Self::Arrival | Self::Departure)
    }

    /// Its place in a lane: an emergency overtakes everything else, a passage everything but that.
    pub const fn priority(self) -> Priority {
        match self {
            Self::Emergency => Priority::Emergency,
            Self::Correction => Priority::Correction,
            Self::Arrival | Self::Departure => Priority::Passage,
            Self::Absence => Priority::Absence,
        }
    }
}

impl From<Passage> for NoticeKind {
    fn from(passage: Passage) -> Self {
        match passage {
            Passage::Arrival => Self::Arrival,
            Passage::Departure => Self::Departure,
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NoticeKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Arrival, Self::Departure, Self::Absence, Self::Correction, Self::Emergency]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or(UnknownWord)
    }
}

/// The order of kinds in a lane, first served first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// Overtakes everything that is not yet in flight.
    Emergency,
    /// Takes back a wrong absence.
    Correction,
    /// Arrivals and departures.
    Passage,
    /// Absences.
    Absence,
}

/// The language a guardian reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Language {
    /// Traditional Chinese as written in Taiwan.
    #[default]
    #[serde(rename = "zh-TW")]
    ZhTw,
    /// English.
    #[serde(rename = "en")]
    En,
}

impl Language {
    /// Every language that texts exist in.
    pub const ALL: [Self; 2] = [Self::ZhTw, Self::En];

    /// The BCP 47 tag.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::ZhTw => "zh-TW",
            Self::En => "en",
        }
    }
}

impl FromStr for Language {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|language| language.tag() == text).ok_or(UnknownWord)
    }
}

/// What is owed to one guardian through one channel for one passage (or absence, correction, emergency).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Its name, the same whenever the record is read.
    pub id: NoticeId,
    /// The tap that makes it.
    pub position: LogPosition,
    /// What it tells.
    pub kind: NoticeKind,
    /// How.
    pub channel: Channel,
    /// About whom.
    pub pupil: PupilId,
    /// To whom.
    pub guardian: GuardianId,
    /// The order that pays for it; on every SMS notice of a passage, and on no other.
    pub order: Option<OrderId>,
    /// The school at whose gate the card was read; the pupil's own where nobody registered the reader.
    pub place: SchoolId,
    /// When the card was read.
    pub at: Timestamp,
    /// The civil day of `at`.
    pub day: Day,
    /// When the tap was received.
    pub received: Timestamp,
    /// Not sent at or after this instant: `at` plus the term's `useful_for`.
    pub deadline: Timestamp,
}
