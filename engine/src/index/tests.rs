//! The index where shards do not go: sending, forgetting, and changes while others read.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ids::{LogPosition, NoticeId, SchoolId};
use crate::notice::{Language, NoticeKind, Passages};
use crate::registry::{Guardian, Pupil, School};
use crate::testing::registry::{
    binding, card, changes, guardian, order, protection, pupil, school, subscription,
};

const ALWAYS: &[Stretch] = &[Stretch::ALWAYS];

fn term() -> Arc<Term> {
    Arc::new(Term::parse(Term::built_in("114-1").unwrap()).unwrap())
}

fn instant(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// P1 of S1, to whom G1 is bound.
fn index() -> RegistryIndex {
    let index = RegistryIndex::new(term(), 4);
    let city = vec![school("S1", 690), pupil("P1", "S1"), guardian("G1"), binding("G1", "P1", ALWAYS)];
    apply(&index, Timestamp::MIN, city);
    index
}

fn apply(index: &RegistryIndex, applied: Timestamp, entries: Vec<Entry>) {
    for change in changes(index.version() + 1, applied, entries) {
        index.apply(&change);
    }
}

fn notice(channel: Channel) -> Notice {
    let guardian = GuardianId::new("G1").unwrap();
    let position = LogPosition { partition: 0, offset: 1 };
    Notice {
        id: NoticeId::derive("test", position, &guardian, channel),
        position,
        kind: NoticeKind::Arrival,
        channel,
        pupil: PupilId::new("P1").unwrap(),
        guardian,
        order: None,
        place: SchoolId::new("S1").unwrap(),
        at: instant(0),
        day: crate::time::Day::from_epoch_days(0),
        received: instant(0),
        deadline: instant(3_600_000),
    }
}

/// Where `notice` goes: the same alone and in a batch, in which it is asked about among others.
fn recipient(index: &RegistryIndex, notice: &Notice, now: i64) -> Result<Recipient, Suppression> {
    let alone = index.recipient(notice, instant(now));
    if let Some(refs) = index.refs_of(notice) {
        let asked =
            [notice.channel, Channel::App, notice.channel].map(|channel| RecipientQuestion { refs, channel });
        let in_batch = index.recipients(&asked, instant(now), &mut RecipientRoom::default());
        assert_eq!((&in_batch[0], &in_batch[2]), (&alone, &alone));
        let by_app = Notice { channel: Channel::App, ..notice.clone() };
        assert_eq!(in_batch[1], index.recipient(&by_app, instant(now)));
    }
    alone
}

/// Every notice of a batch goes to its own guardian: some are protected, some unbound, some have no phone.
#[test]
fn each_of_a_batch_goes_where_it_goes_alone() {
    let index = index();
    let mut notices = Vec::new();
    for number in 0..100_u32 {
        let (child, parent) = (format!("C{}", number / 2), format!("T{}", number.wrapping_mul(37) % 101));
        let Entry::Guardian(known) = guardian(&parent) else { unreachable!() };
        let Entry::Pupil(named) = pupil(&child, "S1") else { unreachable!() };
        let phone = if number % 7 == 0 { String::new() } else { format!("09{number:08}") };
        let mut entries = vec![
            Entry::Pupil(Pupil { name: Personal::new(&format!("王{}", number / 2)), ..named }),
            Entry::Guardian(Guardian { phone: Personal::new(&phone), ..known }),
            protection(&parent, &child, number % 5 == 0),
        ];
        if number % 11 != 0 {
            entries.push(binding(&parent, &child, ALWAYS));
        }
        apply(&index, Timestamp::MIN, entries);
        notices.push(Notice {
            pupil: PupilId::new(&child).unwrap(),
            guardian: GuardianId::new(&parent).unwrap(),
            ..notice(Channel::Sms)
        });
    }
    // An order that is neither that of the registry nor sorted.
    notices.sort_by_key(|notice| notice.guardian.as_str().bytes().rev().collect::<Vec<u8>>());

    let refs = |notice| index.refs_of(notice).unwrap();
    let asked: Vec<RecipientQuestion> = notices
        .iter()
        .map(|notice| RecipientQuestion { refs: refs(notice), channel: notice.channel })
        .collect();
    let in_batch = index.recipients(&asked, instant(0), &mut RecipientRoom::default());
    let alone: Vec<_> = notices.iter().map(|notice| index.recipient(notice, instant(0))).collect();
    assert_eq!(in_batch, alone);
    let phones: BTreeSet<&str> = alone.iter().flatten().map(|recipient| recipient.address.expose()).collect();
    assert!(phones.len() > 50 && alone.iter().any(Result::is_err), "{phones:?}");
}

fn suppressed(index: &RegistryIndex, now: i64) -> Option<&'static str> {
    recipient(index, &notice(Channel::Sms), now).err().map(Suppression::reason)
}

#[test]
fn a_notice_goes_to_the_guardians_address_for_its_channel() {
    let index = index();
    for (channel, address) in [
        (Channel::Sms, "0900000001"),
        (Channel::App, "token-1"),
        (Channel::Email, "parent@example.org"),
        (Channel::Line, "line-1"),
    ] {
        let recipient = recipient(&index, &notice(channel), 0).unwrap();
        assert_eq!(recipient.address.expose(), address);
        assert_eq!(recipient.pupil_name.expose(), "王小明");
        assert_eq!(recipient.place_name, "School S1");
        assert_eq!(recipient.language, Language::ZhTw);
    }
}

#[test]
fn an_unbound_guardian_gets_nothing() {
    let index = index();
    let until_ten = Stretch { from: instant(5), until: instant(10) };
    apply(&index, instant(5), vec![binding("G1", "P1", &[until_ten])]);
    let by_now = [4, 5, 9, 10].map(|now| suppressed(&index, now));
    assert_eq!(by_now, [Some("unbound"), None, None, Some("unbound")]);
}

#[test]
fn a_binding_that_was_superseded_no_longer_counts_whatever_the_clock_says() {
    let index = index();
    apply(&index, instant(1_000), vec![binding("G1", "P1", &[])]);
    assert_eq!(suppressed(&index, 0), Some("unbound"));
}

#[test]
fn nobody_on_the_roster_is_unbound() {
    let index = RegistryIndex::new(term(), 0);
    assert_eq!(suppressed(&index, 0), Some("unbound"));
}

#[test]
fn protection_suppresses_whatever_else_is_on_record_until_it_is_lifted() {
    let index = index();
    apply(&index, instant(5), vec![protection("G1", "P1", true)]);
    assert_eq!(suppressed(&index, 0), Some("protected"));
    apply(&index, instant(6), vec![binding("G1", "P1", ALWAYS), protection("G2", "P1", false)]);
    assert_eq!(suppressed(&index, 7), Some("protected"));
    index.forget_before(instant(100));
    assert_eq!(suppressed(&index, 7), Some("protected"));
    apply(&index, instant(8), vec![protection("G1", "P1", false)]);
    assert_eq!(suppressed(&index, 9), None);
}

#[test]
fn a_guardian_without_an_address_gets_nothing() {
    let index = index();
    let Entry::Guardian(known) = guardian("G1") else { unreachable!("a guardian") };
    let without_phone = Guardian { phone: Personal::default(), ..known.clone() };
    apply(&index, instant(1), vec![Entry::Guardian(without_phone)]);
    assert_eq!(suppressed(&index, 2), Some("no_address"));
    assert!(recipient(&index, &notice(Channel::App), 2).is_ok());

    let removed = Guardian { removed: Some(instant(3)), ..known };
    apply(&index, instant(3), vec![Entry::Guardian(removed)]);
    assert!(recipient(&index, &notice(Channel::App), 4).is_err());
}

#[test]
fn names_are_those_of_the_moment_of_sending() {
    let index = index();
    let (Entry::Pupil(known), Entry::School(its_school)) = (pupil("P1", "S1"), school("S1", 690)) else {
        unreachable!("a pupil and a school")
    };
    let renamed = Pupil { name: Personal::new("王大華"), ..known };
    let moved = School { name: "Other School".into(), ..its_school };
    apply(&index, instant(50), vec![Entry::Pupil(renamed), Entry::School(moved)]);
    let recipient = recipient(&index, &notice(Channel::Sms), 0).unwrap();
    assert_eq!((recipient.pupil_name.expose(), recipient.place_name.as_str()), ("王大華", "Other School"));
}

#[test]
fn a_place_without_a_name_is_told_by_its_code() {
    let elsewhere = Notice { place: SchoolId::new("S9").unwrap(), ..notice(Channel::Sms) };
    assert_eq!(recipient(&index(), &elsewhere, 0).unwrap().place_name, "S9");
}

#[test]
fn applying_a_change_again_changes_nothing() {
    let index = index();
    let old = changes(2, Timestamp::MIN, vec![binding("G1", "P1", &[])]);
    assert_eq!(index.version(), 4);
    index.apply(&old[0]);
    assert_eq!(index.version(), 4);
    assert_eq!(suppressed(&index, 0), None);
}

#[test]
fn what_is_old_enough_takes_no_more_room_than_what_was_there_since_ever() {
    let index = index();
    for applied in [100, 101, 102].map(instant) {
        let entries = vec![
            pupil("P1", "S1"),
            binding("G1", "P1", ALWAYS),
            subscription("G1", "P1", Channel::App, &[(Passages::Both, Stretch::ALWAYS)]),
            card("C1", &[("P1", Stretch::ALWAYS)]),
        ];
        apply(&index, applied, entries);
    }
    let pupil = index.pupil_names.find(&PupilId::new("P1").unwrap()).unwrap();
    assert_eq!(index.pupils.facts_of(pupil), 11);
    assert_eq!(index.cards.unusual_len(), 1);
    index.forget_before(instant(101));
    assert_eq!(index.pupils.facts_of(pupil), 6);
    index.forget_before(instant(102));
    assert_eq!(index.pupils.facts_of(pupil), 3);
    assert_eq!(index.cards.unusual_len(), 0);
    assert!(index.ageing.lock().unwrap().is_empty());
}

/// One thread changes a card and an order again and again, between values that mean the same at every
/// instant; another must find that meaning whenever it looks.
#[test]
fn readers_never_see_a_change_in_part() {
    const FIVE: Timestamp = Timestamp::from_millis(5);
    let index = index();
    let usual = [("P1", Stretch::ALWAYS)];
    let in_two = [
        ("P1", Stretch { from: Timestamp::MIN, until: FIVE }),
        ("P1", Stretch { from: FIVE, until: Timestamp::MAX }),
    ];
    let ordered = |plan| order("O1", "G1", "P1", plan, Some(Stretch::ALWAYS));
    apply(&index, Timestamp::MIN, vec![card("C1", &usual), ordered(Passages::Both)]);
    let number = CardNumber::new("C1").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2_000 {
                apply(&index, Timestamp::MIN, vec![card("C1", &in_two), ordered(Passages::Both)]);
                apply(&index, Timestamp::MIN, vec![card("C1", &usual), ordered(Passages::Arrival)]);
            }
            stop.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            let mut last_version = 0;
            let (mut by_card, mut by_pupil, mut found) = (Groups::default(), Groups::default(), Vec::new());
            let (mut enrolled, mut owed) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Acquire) {
                let version = index.version();
                assert!(version >= last_version);
                last_version = version;
                let asked =
                    [4, 5].map(|at| CardQuestion { card: number, received: instant(at), at: instant(at) });
                index.pupils(&asked, &mut by_card, &mut found);
                let asked: Vec<PupilQuestion> = found
                    .iter()
                    .map(|pupil| PupilQuestion {
                        pupil: pupil.unwrap(),
                        received: instant(5),
                        at: instant(5),
                    })
                    .collect();
                index.enrolled(&asked, &mut by_pupil, &mut enrolled, &mut owed);
                assert!(enrolled.iter().all(|pupil| pupil.as_ref().unwrap().owed.len() == 1));
                assert!(owed.iter().all(|owed| owed.order(crate::notice::Passage::Arrival).is_some()));
            }
        });
    });
}
