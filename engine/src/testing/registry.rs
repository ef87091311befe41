//! Entries of the registry in one line each, for tests that need a small city.
//!
//! Every builder takes codes that have the form of an identifier and panics on others: a test's mistake.

use compact_str::CompactString;

use crate::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, ReaderId, SchoolId};
use crate::notice::{Channel, Language, Passages};
use crate::registry::{
    Binding, Bond, Card, CardHolder, DayKind, DayRule, Entry, Guardian, Level, Order, OrderState, Protection,
    Pupil, Reader, ReaderDirection, RegistryChange, Relation, School, Subscription, SubscriptionLine,
};
use crate::time::{Day, Stretch, Timestamp};

/// `entries` as the feed brings them: versions from `first_version` on, all applied at `applied`.
pub fn changes(first_version: u64, applied: Timestamp, entries: Vec<Entry>) -> Vec<RegistryChange> {
    (first_version..)
        .zip(entries)
        .map(|(version, entry)| RegistryChange { version, applied, entry })
        .collect()
}

/// A school whose departures open at `departure_opens_min`, in minutes of the local day.
pub fn school(code: &str, departure_opens_min: u16) -> Entry {
    Entry::School(School {
        school: id(code, SchoolId::new),
        name: CompactString::new(format!("School {code}")),
        level: Level::Elementary,
        departure_opens_min,
        removed: None,
    })
}

/// A reader at the gate of `of_school`.
pub fn reader(code: &str, of_school: &str, direction: ReaderDirection) -> Entry {
    Entry::Reader(Reader {
        reader: id(code, ReaderId::new),
        school: id(of_school, SchoolId::new),
        name: CompactString::new(format!("Gate {code}")),
        direction,
        removed: None,
    })
}

/// A pupil of `of_school`, called 王小明.
pub fn pupil(code: &str, of_school: &str) -> Entry {
    Entry::Pupil(Pupil {
        pupil: id(code, PupilId::new),
        school: id(of_school, SchoolId::new),
        class: CompactString::new("501"),
        seat: CompactString::new("12"),
        name: Personal::new("王小明"),
        removed: None,
    })
}

/// A card that belongs to each of `holders` for a stretch.
pub fn card(number: &str, holders: &[(&str, Stretch)]) -> Entry {
    let holder = |(of_pupil, stretch): &(&str, Stretch)| CardHolder {
        pupil: id(of_pupil, PupilId::new),
        stretch: *stretch,
    };
    Entry::Card(Card { card: id(number, CardNumber::new), holders: holders.iter().map(holder).collect() })
}

/// A guardian with an address for every channel.
pub fn guardian(code: &str) -> Entry {
    Entry::Guardian(Guardian {
        guardian: id(code, GuardianId::new),
        name: Personal::new("王大明"),
        phone: Personal::new("0900000001"),
        email: Personal::new("parent@example.org"),
        app_token: Personal::new("token-1"),
        line_user: Personal::new("line-1"),
        language: Language::ZhTw,
        removed: None,
    })
}

/// A binding of the guardian to the pupil, in force in each of `stretches`.
pub fn binding(of_guardian: &str, to_pupil: &str, stretches: &[Stretch]) -> Entry {
    Entry::Binding(Binding {
        guardian: id(of_guardian, GuardianId::new),
        pupil: id(to_pupil, PupilId::new),
        bonds: stretches
            .iter()
            .map(|stretch| Bond { relation: Relation::Mother, stretch: *stretch })
            .collect(),
    })
}

/// Subscription lines of one guardian, pupil and free channel.
pub fn subscription(
    of_guardian: &str,
    about_pupil: &str,
    channel: Channel,
    lines: &[(Passages, Stretch)],
) -> Entry {
    let line = |(passages, stretch): &(Passages, Stretch)| SubscriptionLine {
        passages: *passages,
        stretch: *stretch,
    };
    Entry::Subscription(Subscription {
        guardian: id(of_guardian, GuardianId::new),
        pupil: id(about_pupil, PupilId::new),
        channel,
        lines: lines.iter().map(line).collect(),
    })
}

/// An order in force in `in_force`; `None`: paid, and never approved.
pub fn order(
    code: &str,
    of_guardian: &str,
    about_pupil: &str,
    plan: Passages,
    in_force: Option<Stretch>,
) -> Entry {
    let cancelled_at = in_force.map(|stretch| stretch.until).filter(|until| *until != Timestamp::MAX);
    let state = match (in_force, cancelled_at) {
        (None, _) => OrderState::Paid,
        (Some(_), None) => OrderState::Approved,
        (Some(_), Some(_)) => OrderState::Cancelled,
    };
    Entry::Order(Order {
        order: id(code, OrderId::new),
        guardian: id(of_guardian, GuardianId::new),
        pupil: id(about_pupil, PupilId::new),
        plan,
        state,
        prepaid_dollars: 136,
        approved_at: in_force.map(|stretch| stretch.from),
        cancelled_at,
    })
}

/// A day rule of one school, or of all; `None` removes it.
pub fn day(date: Day, of_school: Option<&str>, rule: Option<DayKind>) -> Entry {
    Entry::Day(DayRule {
        date,
        school: of_school.map(|code| id(code, SchoolId::new)),
        rule,
        name: CompactString::new("颱風停課"),
    })
}

/// Protects the pupil from the guardian, or lifts it.
pub fn protection(from_guardian: &str, of_pupil: &str, protected: bool) -> Entry {
    Entry::Protection(Protection {
        guardian: id(from_guardian, GuardianId::new),
        pupil: id(of_pupil, PupilId::new),
        protected,
    })
}

fn id<T, E: std::fmt::Debug>(code: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> T {
    parse(code).expect("a test's code has the form of an identifier")
}
