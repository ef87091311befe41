//! What every [`RegistryFeed`] promises, as tests.
//!
//! Each function takes an empty registry and fails where one obligation is not met. An implementation runs them all with
//! [`registry_feed_contract`](crate::registry_feed_contract), each as a test of its own.

use std::collections::BTreeMap;

use crate::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, ReaderId, SchoolId};
use crate::notice::{Channel, Language, Passages};
use crate::ports::registry_feed::RegistryFeed;
use crate::registry::{
    Binding, Bond, Card, CardHolder, DayKind, DayRule, Entry, EntryKey, Guardian, Level, Order, OrderState,
    Protection, Pupil, Reader, ReaderDirection, RegistryChange, Relation, School, Subscription,
    SubscriptionLine,
};
use crate::time::{Day, Stretch, Timestamp};

/// A registry that can be written to and followed.
#[allow(async_fn_in_trait)]
pub trait RegistryUnderTest {
    /// How it is followed.
    type Feed: RegistryFeed;

    /// Writes `entries`, in force since `applied`; the version of the last one.
    async fn write(&mut self, applied: Timestamp, entries: Vec<Entry>) -> u64;

    /// A feed of its own.
    async fn feed(&mut self) -> Self::Feed;
}

/// Runs the registry feed's contract: a module of tests, one an obligation, each on a registry of its own.
///
/// The argument is an expression of an async function or closure that gives an empty [`RegistryUnderTest`].
#[macro_export]
macro_rules! registry_feed_contract {
    ($module:ident, $fresh:expr) => {
        $crate::registry_feed_contract!(@tests $module, $fresh,
            every_kind_of_entry_comes_back_as_it_was_written
            an_empty_registry_has_nothing_to_say
            changes_come_once_in_the_order_of_their_versions
            what_was_written_before_the_call_is_there
            reading_on_gives_only_what_came_later
            values_that_taps_since_the_horizon_need_are_there
            the_last_value_of_a_key_is_there_however_old
            a_large_registry_comes_whole
            two_feeds_do_not_disturb_each_other
            progress_can_be_reported_at_any_time
        );
    };
    (@tests $module:ident, $fresh:expr, $($obligation:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test]
                async fn $obligation() {
                    let registry = ($fresh)().await;
                    $crate::testing::contract::registry_feed::$obligation(registry).await;
                }
            )+
        }
    };
}

/// An entry of every kind, with every field filled.
pub fn one_of_each() -> Vec<Entry> {
    let school = SchoolId::new("353604").expect("of the allowed form");
    let pupil = PupilId::new("P000123").expect("of the allowed form");
    let guardian = GuardianId::new("G1").expect("of the allowed form");
    let stretch = Stretch { from: Timestamp::from_millis(1_000), until: Timestamp::from_millis(2_000) };
    vec![
        Entry::School(School {
            school: school.clone(),
            name: "大安國小".into(),
            level: Level::Elementary,
            departure_opens_min: 690,
            removed: Some(Timestamp::from_millis(9_000)),
        }),
        Entry::Reader(Reader {
            reader: ReaderId::new("353604-G1-2").expect("of the allowed form"),
            school: school.clone(),
            name: "正門".into(),
            direction: ReaderDirection::Both,
            removed: None,
        }),
        Entry::Pupil(Pupil {
            pupil: pupil.clone(),
            school: school.clone(),
            class: "302".into(),
            seat: "07".into(),
            name: Personal::new("王小明"),
            removed: None,
        }),
        Entry::Card(Card {
            card: card_number(1),
            holders: vec![
                CardHolder { pupil: pupil.clone(), stretch },
                CardHolder {
                    pupil: pupil.clone(),
                    stretch: Stretch { from: stretch.until, ..Stretch::ALWAYS },
                },
            ],
        }),
        Entry::Guardian(Guardian {
            guardian: guardian.clone(),
            name: Personal::new("王大明"),
            phone: Personal::new("0912345678"),
            email: Personal::new("a@example.org"),
            app_token: Personal::new("token-1"),
            line_user: Personal::new("U1"),
            language: Language::ZhTw,
            removed: None,
        }),
        Entry::Binding(Binding {
            guardian: guardian.clone(),
            pupil: pupil.clone(),
            bonds: vec![Bond { relation: Relation::PaternalGrandparent, stretch: Stretch::ALWAYS }],
        }),
        Entry::Subscription(Subscription {
            guardian: guardian.clone(),
            pupil: pupil.clone(),
            channel: Channel::App,
            lines: vec![SubscriptionLine { passages: Passages::Both, stretch }],
        }),
        Entry::Order(Order {
            order: OrderId::new("O17").expect("of the allowed form"),
            guardian: guardian.clone(),
            pupil: pupil.clone(),
            plan: Passages::Arrival,
            state: OrderState::Cancelled,
            prepaid_dollars: 68,
            approved_at: Some(stretch.from),
            cancelled_at: Some(stretch.until),
        }),
        Entry::Day(DayRule {
            date: Day::from_epoch_days(20_339),
            school: Some(school),
            rule: Some(DayKind::Off),
            name: "颱風停課".into(),
        }),
        Entry::Protection(Protection { guardian, pupil, protected: true }),
    ]
}

fn card_number(number: u64) -> CardNumber {
    CardNumber::new(&format!("{number:016}")).expect("of the allowed form")
}

/// Card `card`, held by pupil `holder`.
pub fn card(card: u64, holder: u64) -> Entry {
    let pupil = PupilId::new(&format!("P{holder}")).expect("of the allowed form");
    Entry::Card(Card {
        card: card_number(card),
        holders: vec![CardHolder { pupil, stretch: Stretch::ALWAYS }],
    })
}

/// Everything after `version`, until the feed says that there is no more.
pub async fn read_on(feed: &mut impl RegistryFeed, version: u64, horizon: Timestamp) -> Vec<RegistryChange> {
    let mut changes: Vec<RegistryChange> = Vec::new();
    loop {
        let after = changes.last().map_or(version, |change| change.version);
        let more = feed.read(after, horizon).await.expect("the feed works");
        if more.is_empty() {
            return changes;
        }
        for change in more {
            let before = changes.last().map_or(version, |change| change.version);
            assert!(change.version > before, "{} came after {before}", change.version);
            changes.push(change);
        }
    }
}

/// Also the instants at both ends of time.
pub async fn every_kind_of_entry_comes_back_as_it_was_written(mut registry: impl RegistryUnderTest) {
    for applied in [Timestamp::MIN, Timestamp::from_millis(1_757_288_000_123)] {
        let before = registry.write(applied, vec![card(7, 7)]).await;
        registry.write(applied, one_of_each()).await;
        let mut feed = registry.feed().await;
        let changes = read_on(&mut feed, before, Timestamp::MIN).await;
        assert!(changes.iter().all(|change| change.applied == applied), "{applied}");
        let entries: Vec<Entry> = changes.into_iter().map(|change| change.entry).collect();
        assert_eq!(entries, one_of_each());
    }
}

/// At once, and not as an error.
pub async fn an_empty_registry_has_nothing_to_say(mut registry: impl RegistryUnderTest) {
    let mut feed = registry.feed().await;
    assert_eq!(read_on(&mut feed, 0, Timestamp::MIN).await, []);
}

/// And `write` names the version of the last one.
pub async fn changes_come_once_in_the_order_of_their_versions(mut registry: impl RegistryUnderTest) {
    let mut last = 0;
    let mut expected = Vec::new();
    for round in 0..20 {
        let entries: Vec<Entry> = (0..5).map(|number| card(round * 5 + number, round)).collect();
        expected.extend(entries.clone());
        let version = registry.write(Timestamp::from_millis(1_000), entries).await;
        assert!(version > last);
        last = version;
    }
    let mut feed = registry.feed().await;
    let changes = read_on(&mut feed, 0, Timestamp::MIN).await;
    assert_eq!(changes.last().map(|change| change.version), Some(last));
    assert_eq!(changes.into_iter().map(|change| change.entry).collect::<Vec<_>>(), expected);
}

/// Whatever the feed had read, or read ahead, before.
pub async fn what_was_written_before_the_call_is_there(mut registry: impl RegistryUnderTest) {
    let mut feed = registry.feed().await;
    let mut version = 0;
    for round in 0..50 {
        let written = registry.write(Timestamp::from_millis(1_000), vec![card(1, round)]).await;
        let changes = read_on(&mut feed, version, Timestamp::MIN).await;
        assert_eq!(changes.last().map(|change| change.version), Some(written), "round {round}");
        version = written;
    }
}

/// After any version, also one that was superseded.
pub async fn reading_on_gives_only_what_came_later(mut registry: impl RegistryUnderTest) {
    for round in 0..10 {
        registry.write(Timestamp::from_millis(1_000), vec![card(round % 3, round)]).await;
    }
    let mut feed = registry.feed().await;
    let all = read_on(&mut feed, 0, Timestamp::MIN).await;
    for (position, change) in all.iter().enumerate() {
        let later = read_on(&mut feed, change.version, Timestamp::MIN).await;
        assert_eq!(later, all.iter().skip(position + 1).cloned().collect::<Vec<_>>());
    }
}

/// What a key held at an instant, by its changes.
fn as_of(changes: &[RegistryChange], instant: Timestamp) -> BTreeMap<EntryKey, Entry> {
    changes
        .iter()
        .filter(|change| change.applied <= instant)
        .map(|change| (change.entry.key(), change.entry.clone()))
        .collect()
}

/// Checked at every instant from every horizon on, against everything that was written.
pub async fn values_that_taps_since_the_horizon_need_are_there(mut registry: impl RegistryUnderTest) {
    let mut written = Vec::new();
    for round in 0..30_u64 {
        let applied = Timestamp::from_millis(i64::try_from(round / 2).expect("a small number") * 10);
        let entries = vec![card(round % 4, round), card(100 + round % 7, round)];
        registry.write(applied, entries.clone()).await;
        written.extend(entries.into_iter().map(|entry| RegistryChange { version: 0, applied, entry }));
    }
    for horizon in (-5..160).step_by(5) {
        let mut feed = registry.feed().await;
        let read = read_on(&mut feed, 0, Timestamp::from_millis(horizon)).await;
        for instant in (horizon..165).step_by(5).map(Timestamp::from_millis) {
            assert_eq!(as_of(&read, instant), as_of(&written, instant), "horizon {horizon}, at {instant}");
        }
    }
}

/// Only what was superseded may be left out.
pub async fn the_last_value_of_a_key_is_there_however_old(mut registry: impl RegistryUnderTest) {
    registry.write(Timestamp::MIN, vec![card(1, 1), card(2, 1)]).await;
    registry.write(Timestamp::from_millis(10), vec![card(1, 2)]).await;
    let mut feed = registry.feed().await;
    let changes = read_on(&mut feed, 0, Timestamp::MAX).await;
    assert_eq!(as_of(&changes, Timestamp::MAX).into_values().collect::<Vec<_>>(), [card(1, 2), card(2, 1)]);
}

/// More than one answer holds.
pub async fn a_large_registry_comes_whole(mut registry: impl RegistryUnderTest) {
    let entries: Vec<Entry> = (0..25_000).map(|number| card(number, number)).collect();
    let version = registry.write(Timestamp::MIN, entries.clone()).await;
    let mut feed = registry.feed().await;
    let changes = read_on(&mut feed, 0, Timestamp::MIN).await;
    assert_eq!(changes.last().map(|change| change.version), Some(version));
    assert_eq!(changes.into_iter().map(|change| change.entry).collect::<Vec<_>>(), entries);
}

/// Each goes at its own pace.
pub async fn two_feeds_do_not_disturb_each_other(mut registry: impl RegistryUnderTest) {
    registry.write(Timestamp::MIN, one_of_each()).await;
    let mut one = registry.feed().await;
    let mut other = registry.feed().await;
    let by_one = read_on(&mut one, 0, Timestamp::MIN).await;
    registry.write(Timestamp::MIN, vec![card(9, 9)]).await;
    let by_other = read_on(&mut other, 0, Timestamp::MIN).await;
    assert_eq!(by_other.len(), by_one.len() + 1);
}

/// Also again, and before anything was written.
pub async fn progress_can_be_reported_at_any_time(mut registry: impl RegistryUnderTest) {
    let mut feed = registry.feed().await;
    feed.report_applied(0).await.expect("the feed works");
    let version = registry.write(Timestamp::MIN, one_of_each()).await;
    feed.report_applied(version).await.expect("the feed works");
    feed.report_applied(version).await.expect("the feed works");
}
