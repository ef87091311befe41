//! A city of a few dozen pupils at two schools, and what changes on record while the day goes on. All from a seed.

use std::collections::BTreeMap;

use compact_str::{CompactString, format_compact};
use gatebell_engine::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, ReaderId, SchoolId};
use gatebell_engine::notice::{Channel, Language, Passages};
use gatebell_engine::registry::{
    Binding, Bond, Card, CardHolder, DayKind, DayRule, Entry, EntryKey, Guardian, Level, Order, OrderState,
    Protection, Pupil, Reader, ReaderDirection, Relation, School, Subscription, SubscriptionLine,
};
use gatebell_engine::time::{Day, Stretch, Timestamp};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

pub(crate) const PUPILS: u32 = 30;
/// How each card begins.
const CARD_PREFIX: &str = "041700";
const PUPIL_NAME: &str = "王小明";
const GUARDIAN_NAME: &str = "王大明";
const PHONE: &str = "0900000000";
const NEW_PHONE: &str = "0911111111";
/// What nobody may read in a log line.
pub(crate) const PERSONAL: [&str; 5] = [CARD_PREFIX, PUPIL_NAME, GUARDIAN_NAME, PHONE, NEW_PHONE];
/// Second cards, which another partition may see, are numbered from here on.
pub(crate) const SECOND_CARDS: u32 = 1000;
/// Cards that replace others are.
const NEW_CARDS: u32 = 2000;

/// Readers, each with what its position says of direction and how far its clock is off, in milliseconds.
pub(crate) const READERS: [(&str, &str, ReaderDirection, i64); 6] = [
    ("R-IN", "S1", ReaderDirection::In, 0),
    ("R-OUT", "S1", ReaderDirection::Out, 0),
    ("R", "S1", ReaderDirection::Both, 0),
    ("R2", "S2", ReaderDirection::Both, 0),
    ("R-AHEAD", "S1", ReaderDirection::Both, 100_000),
    ("R-BEHIND", "S2", ReaderDirection::Both, -150_000),
];

fn id<T: std::str::FromStr>(text: CompactString) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("of the form of an identifier")
}

fn pupil(number: u32) -> PupilId {
    id(format_compact!("P{number:03}"))
}

fn guardian(number: u32) -> GuardianId {
    id(format_compact!("G{number:03}"))
}

fn school(number: u32) -> SchoolId {
    id(format_compact!("S{number}"))
}

pub(crate) fn card(number: u32) -> CardNumber {
    CardNumber::new(&format_compact!("{CARD_PREFIX}{number:010}")).expect("of the form of a card number")
}

/// What is on record.
pub(crate) struct City {
    current: BTreeMap<EntryKey, Entry>,
    new_cards: u32,
    new_orders: u32,
    /// Whether only what counts at the moment of sending may change: while the wall clock goes back by minutes, nobody can say
    /// which taps another change was in time for.
    changes_sending_only: bool,
}

impl City {
    /// The city as it is when the day begins.
    pub(crate) fn founded(random: &mut ChaCha8Rng, changes_sending_only: bool) -> Self {
        let mut city = Self { current: BTreeMap::new(), new_cards: 0, new_orders: 0, changes_sending_only };
        for number in [1, 2] {
            city.keep(Entry::School(School {
                school: school(number),
                name: "市立模擬國小".into(),
                level: Level::Elementary,
                departure_opens_min: 11 * 60 + 30,
                removed: None,
            }));
        }
        for (reader, at_school, direction, _) in READERS {
            let reader: ReaderId = id(reader.into());
            let school: SchoolId = id(at_school.into());
            city.keep(Entry::Reader(Reader {
                reader,
                school,
                name: "校門".into(),
                direction,
                removed: None,
            }));
        }
        for number in 0..PUPILS {
            city.enrol(random, number);
        }
        city
    }

    /// Every entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.current.values()
    }

    fn keep(&mut self, entry: Entry) -> Entry {
        self.current.insert(entry.key(), entry.clone());
        entry
    }

    fn enrol(&mut self, random: &mut ChaCha8Rng, number: u32) {
        self.keep(Entry::Pupil(Pupil {
            pupil: pupil(number),
            school: school(if number.is_multiple_of(4) { 2 } else { 1 }),
            class: "101".into(),
            seat: format_compact!("{number}"),
            name: Personal::new(PUPIL_NAME),
            removed: None,
        }));
        let holder = CardHolder { pupil: pupil(number), stretch: Stretch::ALWAYS };
        self.keep(Entry::Card(Card { card: card(number), holders: vec![holder.clone()] }));
        // Some pupils use a second card, which another partition may see.
        if random.random_range(0..4) == 0 {
            self.keep(Entry::Card(Card { card: card(SECOND_CARDS + number), holders: vec![holder] }));
        }
        let has_phone = random.random_range(0..12) > 0;
        self.keep(Entry::Guardian(Guardian {
            guardian: guardian(number),
            name: Personal::new(GUARDIAN_NAME),
            phone: if has_phone { Personal::new(PHONE) } else { Personal::default() },
            email: Personal::default(),
            app_token: Personal::new("token"),
            line_user: Personal::default(),
            language: Language::ZhTw,
            removed: None,
        }));
        self.keep(binding(number, vec![Stretch::ALWAYS]));
        // Some guardians have two pupils.
        if number.is_multiple_of(7) {
            self.keep(Entry::Binding(Binding {
                guardian: guardian(number),
                pupil: pupil(number + 1),
                bonds: vec![Bond { relation: Relation::Father, stretch: Stretch::ALWAYS }],
            }));
            self.keep(Entry::Order(Order {
                order: id(format_compact!("OS{number:03}")),
                pupil: pupil(number + 1),
                ..order(number)
            }));
        }
        if random.random_range(0..3) > 0 {
            self.keep(subscription(number, Passages::Both, Stretch::ALWAYS));
        }
        if random.random_range(0..4) > 0 {
            self.keep(Entry::Order(order(number)));
        }
    }

    /// Entries that change in the middle of the day and count from `counts_from` on: about the pupil whose card was read last,
    /// whose notices are on their way just now, or about any.
    pub(crate) fn change(
        &mut self,
        random: &mut ChaCha8Rng,
        counts_from: Timestamp,
        today: Day,
        last_read: u32,
    ) -> Vec<Entry> {
        let number = if random.random_range(0..2) == 0 { last_read } else { random.random_range(0..PUPILS) };
        let kind = random.random_range(0..if self.changes_sending_only { 4 } else { 18 });
        let changed = match kind {
            0..=2 => vec![self.protect(number)],
            3 => self.reach_otherwise(random, number, counts_from),
            4 | 5 => self.cancel(number, counts_from),
            6 | 7 => self.order(number, counts_from),
            8 => vec![self.change_plan(random, number)],
            9 | 10 => vec![subscribe(random, number, counts_from)],
            11 | 12 => vec![self.rebind(number, counts_from)],
            13 | 14 => self.replace_card(number, counts_from),
            15 => vec![self.hand_card_on(number, counts_from)],
            16 => vec![self.turn_reader(random)],
            _ => vec![self.declare(random, today)],
        };
        changed.into_iter().map(|entry| self.keep(entry)).collect()
    }

    /// A protection begins, or ends.
    fn protect(&self, number: u32) -> Entry {
        let (guardian, pupil) = (guardian(number), pupil(number));
        let key = EntryKey::Protection(guardian.clone(), pupil.clone());
        let stands = matches!(self.current.get(&key), Some(Entry::Protection(it)) if it.protected);
        Entry::Protection(Protection { guardian, pupil, protected: !stands })
    }

    /// A guardian's phone changes, goes, or the guardian is taken off the record.
    fn reach_otherwise(&self, random: &mut ChaCha8Rng, number: u32, counts_from: Timestamp) -> Vec<Entry> {
        let Some(Entry::Guardian(known)) = self.current.get(&EntryKey::Guardian(guardian(number))) else {
            return Vec::new();
        };
        let known = known.clone();
        let changed = match random.random_range(0..4) {
            0 => Guardian { removed: Some(counts_from), ..known },
            1 => Guardian { phone: Personal::default(), removed: None, ..known },
            _ => Guardian { phone: Personal::new(NEW_PHONE), removed: None, ..known },
        };
        vec![Entry::Guardian(changed)]
    }

    /// The orders of a guardian for the pupil of the same number.
    fn orders(&self, number: u32) -> Vec<Order> {
        let of_pair = |entry: &Entry| match entry {
            Entry::Order(order) if order.guardian == guardian(number) && order.pupil == pupil(number) => {
                Some(order.clone())
            }
            _ => None,
        };
        self.entries().filter_map(of_pair).collect()
    }

    fn cancel(&self, number: u32, counts_from: Timestamp) -> Vec<Entry> {
        let cancelled =
            |order: Order| Order { state: OrderState::Cancelled, cancelled_at: Some(counts_from), ..order };
        let open = self.orders(number).into_iter().filter(|order| order.cancelled_at.is_none());
        open.map(cancelled).map(Entry::Order).collect()
    }

    /// A first order, or another one after the last was cancelled.
    fn order(&mut self, number: u32, counts_from: Timestamp) -> Vec<Entry> {
        let mut changed = self.cancel(number, counts_from);
        self.new_orders += 1;
        let new = id(format_compact!("ON{:03}", self.new_orders));
        changed.push(Entry::Order(Order { order: new, approved_at: Some(counts_from), ..order(number) }));
        changed
    }

    fn change_plan(&self, random: &mut ChaCha8Rng, number: u32) -> Entry {
        let plan = [Passages::Arrival, Passages::Departure, Passages::Both][random.random_range(0..3)];
        let known = self.orders(number).pop().unwrap_or_else(|| order(number));
        Entry::Order(Order { plan, ..known })
    }

    /// A binding ends, or is renewed after it had ended.
    fn rebind(&self, number: u32, counts_from: Timestamp) -> Entry {
        let key = EntryKey::Binding(guardian(number), pupil(number));
        let mut stretches: Vec<Stretch> = match self.current.get(&key) {
            Some(Entry::Binding(known)) => known.bonds.iter().map(|bond| bond.stretch).collect(),
            _ => Vec::new(),
        };
        match stretches.last_mut() {
            Some(last) if last.until == Timestamp::MAX => last.until = counts_from,
            _ => stretches.push(Stretch { from: counts_from, until: Timestamp::MAX }),
        }
        binding(number, stretches)
    }

    /// A lost card: it ends, and another one begins.
    fn replace_card(&mut self, number: u32, counts_from: Timestamp) -> Vec<Entry> {
        self.new_cards += 1;
        let from = Stretch { from: counts_from, until: Timestamp::MAX };
        let new = Card {
            card: card(NEW_CARDS + self.new_cards),
            holders: vec![CardHolder { pupil: pupil(number), stretch: from }],
        };
        let holders = self.holders_until(number, counts_from);
        vec![Entry::Card(Card { card: card(number), holders }), Entry::Card(new)]
    }

    /// A card goes to another pupil.
    fn hand_card_on(&mut self, number: u32, counts_from: Timestamp) -> Entry {
        let mut holders = self.holders_until(number, counts_from);
        let stretch = Stretch { from: counts_from, until: Timestamp::MAX };
        holders.push(CardHolder { pupil: pupil((number + 1) % PUPILS), stretch });
        Entry::Card(Card { card: card(number), holders })
    }

    fn holders_until(&self, number: u32, until: Timestamp) -> Vec<CardHolder> {
        let Some(Entry::Card(known)) = self.current.get(&EntryKey::Card(card(number))) else {
            return Vec::new();
        };
        let mut holders = known.holders.clone();
        holders.retain(|holder| holder.stretch.from < until);
        if let Some(last) = holders.last_mut() {
            last.stretch.until = last.stretch.until.min(until);
        }
        holders
    }

    /// The card that a pupil carries, by its number: the first one, a second one, or the newest.
    pub(crate) fn carried(&self, random: &mut ChaCha8Rng, number: u32) -> u32 {
        match random.random_range(0..5) {
            0 => SECOND_CARDS + number,
            1 if self.new_cards > 0 => NEW_CARDS + random.random_range(1..=self.new_cards),
            _ => number,
        }
    }

    fn turn_reader(&self, random: &mut ChaCha8Rng) -> Entry {
        let (reader, at_school, ..) = READERS[random.random_range(0..READERS.len())];
        let direction =
            [ReaderDirection::In, ReaderDirection::Out, ReaderDirection::Both][random.random_range(0..3)];
        let (reader, school) = (id(reader.into()), id(at_school.into()));
        Entry::Reader(Reader { reader, school, name: "側門".into(), direction, removed: None })
    }

    /// Today is declared off, for one school or for all, or school after all.
    fn declare(&self, random: &mut ChaCha8Rng, today: Day) -> Entry {
        let of = [None, Some(school(1)), Some(school(2))][random.random_range(0..3)].clone();
        let is_off = matches!(
            self.current.get(&EntryKey::Day(today, of.clone())),
            Some(Entry::Day(DayRule { rule: Some(DayKind::Off), .. }))
        );
        let rule = match random.random_range(0..2) {
            _ if !is_off => Some(DayKind::Off),
            0 => Some(DayKind::School),
            _ => None,
        };
        Entry::Day(DayRule { date: today, school: of, rule, name: "颱風停課".into() })
    }
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

fn binding(number: u32, stretches: Vec<Stretch>) -> Entry {
    let bond = |stretch| Bond { relation: Relation::Mother, stretch };
    Entry::Binding(Binding {
        guardian: guardian(number),
        pupil: pupil(number),
        bonds: stretches.into_iter().map(bond).collect(),
    })
}

fn subscription(number: u32, passages: Passages, stretch: Stretch) -> Entry {
    Entry::Subscription(Subscription {
        guardian: guardian(number),
        pupil: pupil(number),
        channel: Channel::App,
        lines: vec![SubscriptionLine { passages, stretch }],
    })
}

/// A subscription ends, begins, or is for other passages.
fn subscribe(random: &mut ChaCha8Rng, number: u32, counts_from: Timestamp) -> Entry {
    let (from, until) = (Timestamp::MIN, Timestamp::MAX);
    match random.random_range(0..3) {
        0 => subscription(number, Passages::Both, Stretch { from, until: counts_from }),
        1 => subscription(number, Passages::Both, Stretch { from: counts_from, until }),
        _ => subscription(number, Passages::Arrival, Stretch { from, until }),
    }
}
