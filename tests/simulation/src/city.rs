//! A city of a few dozen pupils, and a morning of their taps, from a seed.

use bytes::Bytes;
use compact_str::{CompactString, format_compact};
use gatebell_engine::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, ReaderId, SchoolId};
use gatebell_engine::notice::{Channel, Language, Passages};
use gatebell_engine::registry::{
    Binding, Bond, Card, CardHolder, Entry, Guardian, Level, Order, OrderState, Protection, Pupil, Reader,
    ReaderDirection, Relation, School, Subscription, SubscriptionLine,
};
use gatebell_engine::time::{Stretch, Timestamp};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

pub(crate) const PUPILS: u32 = 30;

fn id<T: std::str::FromStr>(text: CompactString) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("of the form of an identifier")
}

pub(crate) fn pupil(number: u32) -> PupilId {
    id(format_compact!("P{number:03}"))
}

pub(crate) fn guardian(number: u32) -> GuardianId {
    id(format_compact!("G{number:03}"))
}

pub(crate) fn card(number: u32) -> CardNumber {
    CardNumber::new(&format_compact!("0417{number:012}")).expect("of the form of a card number")
}

/// Everything that is on record when the morning begins.
pub(crate) fn registry(random: &mut ChaCha8Rng) -> Vec<Entry> {
    let school: SchoolId = id("S1".into());
    let mut entries = vec![Entry::School(School {
        school: school.clone(),
        name: "市立模擬國小".into(),
        level: Level::Elementary,
        departure_opens_min: 11 * 60 + 30,
        removed: None,
    })];
    for (reader, direction) in
        [("R-IN", ReaderDirection::In), ("R-OUT", ReaderDirection::Out), ("R", ReaderDirection::Both)]
    {
        let reader: ReaderId = id(reader.into());
        entries.push(Entry::Reader(Reader {
            reader,
            school: school.clone(),
            name: "校門".into(),
            direction,
            removed: None,
        }));
    }
    for number in 0..PUPILS {
        entries.push(Entry::Pupil(Pupil {
            pupil: pupil(number),
            school: school.clone(),
            class: "101".into(),
            seat: format_compact!("{number}"),
            name: Personal::new("王小明"),
            removed: None,
        }));
        let holder = CardHolder { pupil: pupil(number), stretch: Stretch::ALWAYS };
        entries.push(Entry::Card(Card { card: card(number), holders: vec![holder.clone()] }));
        // Some pupils use a second card, which another partition may see.
        if random.random_range(0..4) == 0 {
            entries.push(Entry::Card(Card { card: card(1000 + number), holders: vec![holder] }));
        }
        entries.push(Entry::Guardian(Guardian {
            guardian: guardian(number),
            name: Personal::new("王大明"),
            phone: if random.random_range(0..12) == 0 {
                Personal::default()
            } else {
                Personal::new("0900000000")
            },
            email: Personal::default(),
            app_token: Personal::new("token"),
            line_user: Personal::default(),
            language: Language::ZhTw,
            removed: None,
        }));
        entries.push(Entry::Binding(Binding {
            guardian: guardian(number),
            pupil: pupil(number),
            bonds: vec![Bond { relation: Relation::Mother, stretch: Stretch::ALWAYS }],
        }));
        if random.random_range(0..3) > 0 {
            entries.push(Entry::Subscription(Subscription {
                guardian: guardian(number),
                pupil: pupil(number),
                channel: Channel::App,
                lines: vec![SubscriptionLine { passages: Passages::Both, stretch: Stretch::ALWAYS }],
            }));
        }
        if random.random_range(0..4) > 0 {
            entries.push(Entry::Order(order(number)));
        }
    }
    entries
}

fn order(number: u32) -> Order {
    let order: OrderId = id(format_compact!("O{number:03}"));
    Order {
        order,
        guardian: guardian(number),
        pupil: pupil(number),
        plan: Passages::Both,
        state: OrderState::Approved,
        prepaid_dollars: 136,
        approved_at: Some(Timestamp::from_millis(0)),
        cancelled_at: None,
    }
}

/// A change that falls into the morning and counts from `counts_from` on: about the pupil whose card was read last, whose
/// notices are on their way just now, or about any.
pub(crate) fn change(random: &mut ChaCha8Rng, counts_from: Timestamp, last_read: u32) -> Entry {
    let number = if random.random_range(0..2) == 0 { last_read } else { random.random_range(0..PUPILS) };
    if random.random_range(0..2) == 0 {
        return Entry::Protection(Protection {
            guardian: guardian(number),
            pupil: pupil(number),
            protected: true,
        });
    }
    Entry::Order(Order { state: OrderState::Cancelled, cancelled_at: Some(counts_from), ..order(number) })
}

/// A report as some reader sends it now, mostly a good one: the pupil, the key, the report.
pub(crate) fn report(random: &mut ChaCha8Rng, now: Timestamp) -> (u32, CardNumber, Bytes) {
    let second_card = random.random_range(0..5) == 0;
    let pupil = random.random_range(0..PUPILS);
    let number = pupil + if second_card { 1000 } else { 0 };
    let reader = ["R-IN", "R-OUT", "R", "R-NOBODY"][random.random_range(0..4)];
    // Some readers were offline for a while: up to longer than a notice is of use.
    let late_ms = if random.random_range(0..10) == 0 { random.random_range(0..900_000) } else { 200 };
    let at = now.as_millis() - late_ms;
    let value = match random.random_range(0..25) {
        0 => "{\"card\":\"broken".to_owned(),
        1 => format!(r#"{{"card":"9999","reader":"{reader}","at":{at}}}"#),
        2 => format!(r#"{{"card":"{}","reader":"{reader}","at":{}}}"#, card(number).expose(), at + 3_600_000),
        _ => format!(r#"{{"card":"{}","reader":"{reader}","at":{at}}}"#, card(number).expose()),
    };
    (pupil, card(number), value.into())
}
