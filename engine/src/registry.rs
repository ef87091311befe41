//! The registry: schools, readers, pupils, cards, guardians, bindings, subscriptions, orders, days and protections, as a
//! feed of changes.
//!
//! Each [`Entry`] is the whole value of its key: a card with all its stretches, a pair of guardian and pupil with all
//! their bindings. So the feed can be compacted by key, and applying a change again changes nothing. A change carries the
//! instant at which it was applied; a tap is decided by what had been applied when it was received. A removal keeps the
//! value with `until` set to that instant, since taps read before it may still be uploaded.

use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, ReaderId, SchoolId};
use crate::notice::{Channel, Language, Passages, UnknownWord};
use crate::time::{Day, Stretch, Timestamp};

/// How far ahead of its writing a change is to count from ([`RegistryChange::applied`]), after the first import.
///
/// A tap is decided by the changes that count when it was received, and decided the same whenever it is read again. So a
/// change must not count for taps that were decided before the engine could know of it: it counts from a moment by which
/// every process has read it, and a shard waits with a tap that was received later than that after its process last read
/// the feed. Protection is not bound by this: it is asked when a notice is sent, and holds as soon as it is read.
pub const CHANGE_LEAD: std::time::Duration = std::time::Duration::from_secs(1);

/// One change of the registry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RegistryChange {
    /// Its place in the feed, rising by one.
    pub version: u64,
    /// Since when it counts, by its own log's clock; [`Timestamp::MIN`] for the first import into an empty store.
    pub applied: Timestamp,
    /// What the key holds from then on.
    pub entry: Entry,
}

/// The value of one key of the registry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// A school.
    School(School),
    /// A gate reader.
    Reader(Reader),
    /// A pupil.
    Pupil(Pupil),
    /// A card with every stretch in which it belonged to a pupil.
    Card(Card),
    /// A guardian and how to reach them.
    Guardian(Guardian),
    /// A guardian's bindings to a pupil.
    Binding(Binding),
    /// A guardian's subscriptions for a pupil through one free channel.
    Subscription(Subscription),
    /// An SMS order.
    Order(Order),
    /// A day off or a makeup day, of one school or of all.
    Day(DayRule),
    /// No notices about this pupil to this guardian, whatever else is on record.
    Protection(Protection),
}

/// Names one key of the registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EntryKey {
    /// A school.
    School(SchoolId),
    /// A reader.
    Reader(ReaderId),
    /// A pupil.
    Pupil(PupilId),
    /// A card.
    Card(CardNumber),
    /// A guardian.
    Guardian(GuardianId),
    /// A pair.
    Binding(GuardianId, PupilId),
    /// A pair and a free channel.
    Subscription(GuardianId, PupilId, Channel),
    /// An order.
    Order(OrderId),
    /// A date, of one school or of all.
    Day(Day, Option<SchoolId>),
    /// A pair.
    Protection(GuardianId, PupilId),
}

impl Entry {
    /// The key that this is the value of.
    pub fn key(&self) -> EntryKey {
        match self {
            Self::School(it) => EntryKey::School(it.school.clone()),
            Self::Reader(it) => EntryKey::Reader(it.reader.clone()),
            Self::Pupil(it) => EntryKey::Pupil(it.pupil.clone()),
            Self::Card(it) => EntryKey::Card(it.card),
            Self::Guardian(it) => EntryKey::Guardian(it.guardian.clone()),
            Self::Binding(it) => EntryKey::Binding(it.guardian.clone(), it.pupil.clone()),
            Self::Subscription(it) => {
                EntryKey::Subscription(it.guardian.clone(), it.pupil.clone(), it.channel)
            }
            Self::Order(it) => EntryKey::Order(it.order.clone()),
            Self::Day(it) => EntryKey::Day(it.date, it.school.clone()),
            Self::Protection(it) => EntryKey::Protection(it.guardian.clone(), it.pupil.clone()),
        }
    }
}

impl Entry {
    /// The kind's word, as the feed and the store name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::School(_) => "school",
            Self::Reader(_) => "reader",
            Self::Pupil(_) => "pupil",
            Self::Card(_) => "card",
            Self::Guardian(_) => "guardian",
            Self::Binding(_) => "binding",
            Self::Subscription(_) => "subscription",
            Self::Order(_) => "order",
            Self::Day(_) => "day",
            Self::Protection(_) => "protection",
        }
    }
}

impl EntryKey {
    /// The kind's word, as the feed and the store name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::School(_) => "school",
            Self::Reader(_) => "reader",
            Self::Pupil(_) => "pupil",
            Self::Card(_) => "card",
            Self::Guardian(_) => "guardian",
            Self::Binding(..) => "binding",
            Self::Subscription(..) => "subscription",
            Self::Order(_) => "order",
            Self::Day(..) => "day",
            Self::Protection(..) => "protection",
        }
    }

    /// The key within its kind as one text, for stores and compacted topics. Holds a card number for cards: not for logs.
    pub fn expose(&self) -> CompactString {
        use compact_str::format_compact;
        match self {
            Self::School(id) => CompactString::new(id.as_str()),
            Self::Reader(id) => CompactString::new(id.as_str()),
            Self::Pupil(id) => CompactString::new(id.as_str()),
            Self::Card(card) => card.expose(),
            Self::Guardian(id) => CompactString::new(id.as_str()),
            Self::Order(id) => CompactString::new(id.as_str()),
            Self::Binding(guardian, pupil) | Self::Protection(guardian, pupil) => {
                format_compact!("{guardian}|{pupil}")
            }
            Self::Subscription(guardian, pupil, channel) => format_compact!("{guardian}|{pupil}|{channel}"),
            Self::Day(date, None) => format_compact!("{date}"),
            Self::Day(date, Some(school)) => format_compact!("{date}|{school}"),
        }
    }
}

/// A school's level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// 國小
    Elementary,
    /// 國中
    Junior,
    /// 高中
    Senior,
    /// 高職
    Vocational,
}

/// A school.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct School {
    /// Its code.
    pub school: SchoolId,
    /// Its name, as a text to parents has it.
    pub name: CompactString,
    /// Its level.
    pub level: Level,
    /// From this minute of the local day on, the first tap without a direction is a departure (11:30 is 690).
    pub departure_opens_min: u16,
    /// A removed school keeps its row, with the instant of removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// What a reader's position says of direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReaderDirection {
    /// Read on the way in.
    In,
    /// Read on the way out.
    Out,
    /// Unknown.
    Both,
}

/// A gate reader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reader {
    /// Its code.
    pub reader: ReaderId,
    /// The school at whose gate it hangs.
    pub school: SchoolId,
    /// Its name.
    pub name: CompactString,
    /// What it says of direction.
    pub direction: ReaderDirection,
    /// A removed reader keeps its row, with the instant of removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// A pupil.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pupil {
    /// Their code.
    pub pupil: PupilId,
    /// Their school.
    pub school: SchoolId,
    /// Their class.
    pub class: CompactString,
    /// Their seat number.
    pub seat: CompactString,
    /// Their name.
    pub name: Personal,
    /// A removed pupil keeps their row, with the instant of removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// A card and whose it was when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Card {
    /// Its number.
    pub card: CardNumber,
    /// Stretches that do not overlap.
    pub holders: Vec<CardHolder>,
}

/// One stretch in which a card belonged to a pupil.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct CardHolder {
    /// The pupil.
    pub pupil: PupilId,
    /// When.
    #[serde(flatten)]
    pub stretch: Stretch,
}

/// A guardian and how to reach them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guardian {
    /// Their code.
    pub guardian: GuardianId,
    /// Their name.
    pub name: Personal,
    /// Mobile number; empty when there is none.
    pub phone: Personal,
    /// E-mail address; empty when there is none.
    pub email: Personal,
    /// The app's push token; empty when there is none.
    pub app_token: Personal,
    /// LINE user id; empty when there is none.
    pub line_user: Personal,
    /// The language they read.
    pub language: Language,
    /// A removed guardian keeps their row, with the instant of removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// What a guardian is to a pupil.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// 父親
    Father,
    /// 母親
    Mother,
    /// 祖父母
    PaternalGrandparent,
    /// 外祖父母
    MaternalGrandparent,
    /// 其他
    Other,
}

/// A guardian's reviewed relation to a pupil; without one in force nothing is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// The guardian.
    pub guardian: GuardianId,
    /// The pupil.
    pub pupil: PupilId,
    /// Stretches that do not overlap.
    pub bonds: Vec<Bond>,
}

/// One stretch of a binding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Bond {
    /// What the guardian is to the pupil.
    pub relation: Relation,
    /// When.
    #[serde(flatten)]
    pub stretch: Stretch,
}

/// Which passages of a pupil a guardian gets through one free channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// The guardian.
    pub guardian: GuardianId,
    /// The pupil.
    pub pupil: PupilId,
    /// A free channel; SMS comes from orders.
    pub channel: Channel,
    /// Lines that add up.
    pub lines: Vec<SubscriptionLine>,
}

/// One line of a subscription.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SubscriptionLine {
    /// Which passages.
    pub passages: Passages,
    /// When.
    #[serde(flatten)]
    pub stretch: Stretch,
}

/// How far an order has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// Placed; nothing paid.
    Ordered,
    /// Paid at the school's cashier.
    Paid,
    /// Approved by the school: in force.
    Approved,
    /// Cancelled.
    Cancelled,
}

impl OrderState {
    /// Every state, in the order in which an order comes to them.
    pub const ALL: [Self; 4] = [Self::Ordered, Self::Paid, Self::Approved, Self::Cancelled];

    /// The word used in files and bills.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Paid => "paid",
            Self::Approved => "approved",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for OrderState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(UnknownWord)
    }
}

/// An SMS plan that a guardian ordered for a pupil. In force from `approved_at` until `cancelled_at`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Its code.
    pub order: OrderId,
    /// Who ordered.
    pub guardian: GuardianId,
    /// About whom.
    pub pupil: PupilId,
    /// Which passages.
    pub plan: Passages,
    /// How far it has come.
    pub state: OrderState,
    /// Money received, in whole NT$.
    pub prepaid_dollars: i64,
    /// Since when it is in force; `None`: never was.
    pub approved_at: Option<Timestamp>,
    /// Until when; `None`: for ever.
    pub cancelled_at: Option<Timestamp>,
}

impl Order {
    /// When it is in force, if ever.
    pub fn in_force(&self) -> Option<Stretch> {
        let from = self.approved_at?;
        Some(Stretch { from, until: self.cancelled_at.unwrap_or(Timestamp::MAX) })
    }
}

/// What a day rule makes of a date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DayKind {
    /// No school.
    Off,
    /// School, as on a makeup day.
    School,
}

/// A date that differs from the term's calendar.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DayRule {
    /// The date.
    pub date: Day,
    /// One school, or all.
    pub school: Option<SchoolId>,
    /// What it is; `None`: the rule was removed, and what stands behind it counts again.
    pub rule: Option<DayKind>,
    /// Its name, such as 颱風停課.
    pub name: CompactString,
}

/// No notices about this pupil to this guardian: a key of its own, which no import lifts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Protection {
    /// The guardian who must not learn.
    pub guardian: GuardianId,
    /// The pupil.
    pub pupil: PupilId,
    /// Whether it stands.
    pub protected: bool,
}
