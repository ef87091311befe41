//! A made-up city of any size for the benches, and the taps of its mornings. The same every time.

// Each bench uses its part of it.
#![allow(dead_code)]

use std::sync::Arc;

use bytes::BytesMut;
use compact_str::{CompactString, format_compact};
use gatebell_engine::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, ReaderId, SchoolId};
use gatebell_engine::index::RegistryIndex;
use gatebell_engine::notice::{Channel, Language, Passages};
use gatebell_engine::ports::tap_log::TapRecord;
use gatebell_engine::registry::{
    Binding, Bond, Card, CardHolder, DayKind, DayRule, Entry, Guardian, Level, Order, OrderState, Pupil,
    Reader, ReaderDirection, RegistryChange, Relation, School, Subscription, SubscriptionLine,
};
use gatebell_engine::term::Term;
use gatebell_engine::time::{Day, Stretch, Timestamp};

/// Pupils a school.
const SCHOOL_PUPILS: usize = 2_000;
/// Readers a school.
const SCHOOL_READERS: usize = 4;

pub(crate) fn term() -> Arc<Term> {
    let text = Term::built_in("114-1").expect("the term travels inside the program");
    Arc::new(Term::parse(text).expect("the built-in term has no mistakes"))
}

/// An index, fed change by change.
pub(crate) struct Feed {
    pub(crate) index: Arc<RegistryIndex>,
    version: u64,
}

impl Feed {
    pub(crate) fn new(pupils: usize) -> Self {
        Self { index: Arc::new(RegistryIndex::new(term(), pupils)), version: 0 }
    }

    pub(crate) fn since_ever(&mut self, entry: Entry) {
        self.at(Timestamp::MIN, entry);
    }

    pub(crate) fn at(&mut self, applied: Timestamp, entry: Entry) {
        self.version += 1;
        self.index.apply(&RegistryChange { version: self.version, applied, entry });
    }
}

/// A school day by the term on which a typhoon closed all schools.
pub(crate) const TYPHOON: &str = "2025-11-03";

/// Schools, readers of every direction, a day rule for one school and one for all.
pub(crate) fn places(feed: &mut Feed, pupils: usize) {
    place_entries(pupils).into_iter().for_each(|entry| feed.since_ever(entry));
}

/// What [`places`] feeds.
pub(crate) fn place_entries(pupils: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    for number in 0..pupils.div_ceil(SCHOOL_PUPILS) {
        entries.push(school(number));
        for gate in 0..SCHOOL_READERS {
            entries.push(Entry::Reader(Reader {
                reader: ReaderId::new(&reader_code(number, gate)).expect("of the form of an identifier"),
                school: school_id(number),
                name: CompactString::new("Gate"),
                direction: match gate {
                    0 => ReaderDirection::In,
                    1 => ReaderDirection::Out,
                    _ => ReaderDirection::Both,
                },
                removed: None,
            }));
        }
    }
    for (date, school) in [(TYPHOON, None), ("2025-09-08", Some(school_id(0)))] {
        entries.push(Entry::Day(DayRule {
            date: date.parse().expect("a date"),
            school,
            rule: Some(DayKind::Off),
            name: CompactString::new("Typhoon"),
        }));
    }
    entries
}

pub(crate) fn school(number: usize) -> Entry {
    Entry::School(School {
        school: school_id(number),
        name: format_compact!("School {number}"),
        level: Level::Elementary,
        departure_opens_min: 690,
        removed: None,
    })
}

pub(crate) fn pupil(number: usize) -> Entry {
    Entry::Pupil(Pupil {
        pupil: pupil_id(number),
        school: school_id(number / SCHOOL_PUPILS),
        class: CompactString::new("501"),
        seat: CompactString::new("12"),
        name: Personal::new("王小明"),
        removed: None,
    })
}

pub(crate) fn card(number: usize) -> Entry {
    let holders = vec![CardHolder { pupil: pupil_id(number), stretch: Stretch::ALWAYS }];
    Entry::Card(Card { card: card_number(number), holders })
}

pub(crate) fn guardian(number: usize) -> Entry {
    Entry::Guardian(Guardian {
        guardian: guardian_id(number),
        name: Personal::new("王大明"),
        phone: Personal::new(&format!("09{number:08}")),
        email: Personal::default(),
        app_token: Personal::new(&format!("token-{number}")),
        line_user: Personal::default(),
        language: Language::ZhTw,
        removed: None,
    })
}

pub(crate) fn binding(number: usize) -> Entry {
    let bonds = vec![Bond { relation: Relation::Mother, stretch: Stretch::ALWAYS }];
    Entry::Binding(Binding { guardian: guardian_id(number), pupil: pupil_id(number), bonds })
}

pub(crate) fn subscription(number: usize) -> Entry {
    let lines = vec![SubscriptionLine { passages: Passages::Both, stretch: Stretch::ALWAYS }];
    let (guardian, pupil) = (guardian_id(number), pupil_id(number));
    Entry::Subscription(Subscription { guardian, pupil, channel: Channel::App, lines })
}

pub(crate) fn order(number: usize) -> Entry {
    Entry::Order(Order {
        order: OrderId::new(&format!("O{number:07}")).expect("of the form of an identifier"),
        guardian: guardian_id(number),
        pupil: pupil_id(number),
        plan: Passages::Both,
        state: OrderState::Approved,
        prepaid_dollars: 136,
        approved_at: Some(Timestamp::from_millis(1_756_000_000_000 + i64::try_from(number).expect("small"))),
        cancelled_at: None,
    })
}

/// A whole city: everybody has a card, a guardian and the app, every third an SMS order.
pub(crate) fn build(pupils: usize) -> Feed {
    let mut feed = Feed::new(pupils);
    places(&mut feed, pupils);
    for number in 0..pupils {
        feed.since_ever(pupil(number));
        feed.since_ever(card(number));
        feed.since_ever(guardian(number));
        feed.since_ever(binding(number));
        feed.since_ever(subscription(number));
        if number % 3 == 0 {
            feed.since_ever(order(number));
        }
    }
    feed
}

pub(crate) fn pupil_id(number: usize) -> PupilId {
    PupilId::new(&format!("P{number:07}")).expect("of the form of an identifier")
}

pub(crate) fn guardian_id(number: usize) -> GuardianId {
    GuardianId::new(&format!("G{number:07}")).expect("of the form of an identifier")
}

pub(crate) fn school_id(number: usize) -> SchoolId {
    SchoolId::new(&format!("{:06}", 353_000 + number)).expect("of the form of an identifier")
}

fn reader_code(school: usize, gate: usize) -> String {
    format!("{}-G1-{gate}", 353_000 + school)
}

pub(crate) fn card_number(number: usize) -> CardNumber {
    // Card numbers are not counted up: spread by an odd factor over 16 digits.
    let spread = (number as u64).wrapping_mul(6_364_136_223_846_793_005) % 10_000_000_000_000_000;
    CardNumber::new(&format!("{spread:016}")).expect("of the form of a card number")
}

/// The `position`-th of `many` numbers in an order that jumps about, each once. `many` is no multiple of
/// 7919.
pub(crate) fn shuffled(position: usize, many: usize) -> usize {
    position * 7919 % many
}

/// The instant `ms` milliseconds after 07:00 in Taipei on `day`.
pub(crate) fn morning(day: Day, ms: i64) -> Timestamp {
    Timestamp::from_millis(i64::from(day.epoch_days()) * 86_400_000 - 3_600_000 + ms)
}

/// One tap each of the pupils that `numbers` names, in this order, from `from_ms` after 07:00 on `day`
/// over the `over_ms` that follow, as most readers write them, received two seconds later.
pub(crate) fn taps(
    first_offset: u64,
    day: Day,
    from_ms: i64,
    numbers: impl ExactSizeIterator<Item = usize>,
    over_ms: i64,
) -> Vec<TapRecord> {
    let many = i64::try_from(numbers.len().max(1)).expect("small");
    let mut values = BytesMut::with_capacity(numbers.len() * 100);
    let mut records = Vec::with_capacity(numbers.len());
    for (position, number) in (0_i64..).zip(numbers) {
        let ms = from_ms + position * over_ms / many;
        let (hour, minute, second) = (7 + ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        let reader = reader_code(number / SCHOOL_PUPILS, number % SCHOOL_READERS);
        let dir = if number.is_multiple_of(SCHOOL_READERS) { r#","dir":"in""# } else { "" };
        let value = format!(
            r#"{{"card":"{}","reader":"{reader}","at":"{day}T{hour:02}:{minute:02}:{second:02}.{:03}+08:00"{dir}}}"#,
            card_number(number).expose(),
            ms % 1000,
        );
        values.extend_from_slice(value.as_bytes());
        records.push(TapRecord {
            offset: first_offset + u64::try_from(position).expect("counted up"),
            received: morning(day, ms + 2000),
            value: values.split().freeze(),
        });
    }
    records
}
