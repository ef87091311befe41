//! The shard against the naive model, over random small cities that change while taps come in, in and
//! out of order.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::gate::{Gate, date, instant, term};
use crate::ids::{CardNumber, ReaderId};
use crate::index::RegistryIndex;
use crate::notice::{Channel, Passages};
use crate::ports::tap_log::TapRecord;
use crate::registry::{DayKind, Entry, Pupil, Reader, ReaderDirection, RegistryChange};
use crate::shard::{Decisions, Shard};
use crate::tap::{Direction, Outcome};
use crate::term::Term;
use crate::testing::naive::{NaiveDecision, NaiveRegistry, NaiveShard, NaiveTap};
use crate::testing::registry::{binding, card, day, order, protection, pupil, reader, school, subscription};
use crate::time::{Stretch, Timestamp};

#[derive(Clone, Debug)]
enum Step {
    Change { entry: Entry, applied: Timestamp },
    Tap(NaiveTap),
    Forget { horizon: Timestamp },
}

/// An instant of the morning, noon or afternoon of a Monday, the day before or the day after.
fn an_instant() -> impl Strategy<Value = Timestamp> {
    let minute = prop_oneof![3 => 7 * 60..8 * 60, 1 => 11 * 60 + 20..11 * 60 + 40, 1 => 16 * 60..17 * 60];
    // Rarely another day: whatever is read of the days before one is stale.
    let day = prop_oneof![1 => Just(7), 100 => Just(8), 2 => Just(9)];
    (day, minute)
        .prop_map(|(day, minute)| instant(&format!("2025-09-{day:02}T{:02}:{:02}", minute / 60, minute % 60)))
}

fn a_stretch() -> impl Strategy<Value = Stretch> {
    prop_oneof![
        6 => Just(Stretch::ALWAYS),
        1 => an_instant().prop_map(|from| Stretch { from, until: Timestamp::MAX }),
        1 => an_instant().prop_map(|until| Stretch { from: Timestamp::MIN, until }),
        1 => (an_instant(), an_instant()).prop_map(|(from, until)| Stretch { from, until }),
    ]
}

/// The first of `many` codes more often than the others, so that one key sees several changes.
fn a_code(letter: char, many: u8) -> impl Strategy<Value = String> {
    prop_oneof![Just(0), 0..many].prop_map(move |number| format!("{letter}{number}"))
}

fn passages() -> impl Strategy<Value = Passages> {
    prop::sample::select(vec![Passages::Arrival, Passages::Departure, Passages::Both, Passages::Both])
}

fn removed() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::weighted(0.2, an_instant())
}

/// `entry`, a reader or a pupil, removed at that instant, if any.
fn removed_at(removed: Option<Timestamp>, entry: Entry) -> Entry {
    match entry {
        Entry::Reader(reader) => Entry::Reader(Reader { removed, ..reader }),
        Entry::Pupil(pupil) => Entry::Pupil(Pupil { removed, ..pupil }),
        other => other,
    }
}

fn an_entry() -> impl Strategy<Value = Entry> {
    let direction =
        prop::sample::select(vec![ReaderDirection::In, ReaderDirection::Out, ReaderDirection::Both]);
    let kind = prop::sample::select(vec![None, Some(DayKind::Off), Some(DayKind::School)]);
    let date = prop::sample::select(vec!["2025-09-07", "2025-09-08", "2025-09-09"]).prop_map(date);
    let in_force = prop::option::weighted(0.8, a_stretch());
    let free = prop::sample::select(vec![Channel::App, Channel::App, Channel::Email, Channel::Line]);
    prop_oneof![
        1 => (a_code('S', 2), 675_u16..705).prop_map(|(code, opens)| school(&code, opens)),
        1 => (a_code('R', 3), a_code('S', 2), direction, removed())
            .prop_map(|(code, of, direction, removed)| removed_at(removed, reader(&code, &of, direction))),
        2 => (a_code('P', 3), a_code('S', 2), removed())
            .prop_map(|(code, of, removed)| removed_at(removed, pupil(&code, &of))),
        3 => (a_code('C', 4), prop::collection::vec((a_code('P', 3), a_stretch()), 0..3)).prop_map(
            |(number, holders)| {
                let holders = holders.iter().map(|(pupil, stretch)| (pupil.as_str(), *stretch));
                card(&number, &holders.collect::<Vec<_>>())
            }
        ),
        4 => (a_code('G', 3), a_code('P', 3), prop::collection::vec(a_stretch(), 0..3))
            .prop_map(|(guardian, pupil, stretches)| binding(&guardian, &pupil, &stretches)),
        3 => (a_code('G', 3), a_code('P', 3), free, prop::collection::vec((passages(), a_stretch()), 0..3))
            .prop_map(|(guardian, pupil, channel, lines)| subscription(&guardian, &pupil, channel, &lines)),
        3 => (a_code('O', 4), a_code('G', 3), a_code('P', 3), passages(), in_force).prop_map(
            |(code, guardian, pupil, plan, in_force)| order(&code, &guardian, &pupil, plan, in_force)
        ),
        1 => (date, prop::option::of(a_code('S', 2)), kind)
            .prop_map(|(date, school, kind)| day(date, school.as_deref(), kind)),
        1 => (a_code('G', 3), a_code('P', 3), any::<bool>())
            .prop_map(|(guardian, pupil, protected)| protection(&guardian, &pupil, protected)),
    ]
}

fn a_tap(at: impl Strategy<Value = Timestamp>) -> impl Strategy<Value = NaiveTap> {
    let direction = prop::sample::select(vec![None, None, Some(Direction::In), Some(Direction::Out)]);
    let lag_min =
        prop_oneof![80 => Just(0_i64), 8 => -6..=-4_i64, 20 => 0..20_i64, 10 => 59..62_i64, 1 => Just(1440)];
    (a_code('C', 5), a_code('R', 4), at, direction, lag_min).prop_map(
        |(card, reader, at, direction, lag_min)| NaiveTap {
            card: CardNumber::new(&card).unwrap(),
            reader: ReaderId::new(&reader).unwrap(),
            at,
            direction,
            received: Timestamp::from_millis(at.as_millis() + lag_min * 60_000),
        },
    )
}

/// A city in which most things are usual, and have been since ever.
fn a_city() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(an_entry(), 0..20).prop_map(|unusual| {
        let mut city = vec![school("S0", 690), school("S1", 700)];
        for number in 0..3 {
            city.push(pupil(&format!("P{number}"), &format!("S{}", number % 2)));
            city.push(card(&format!("C{number}"), &[(&format!("P{number}"), Stretch::ALWAYS)]));
            city.push(binding("G0", &format!("P{number}"), &[Stretch::ALWAYS]));
        }
        city.extend(unusual);
        city
    })
}

fn applied_of(step: &Step) -> Option<Timestamp> {
    match step {
        Step::Change { applied, .. } => Some(*applied),
        Step::Tap(_) | Step::Forget { .. } => None,
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let applied = prop_oneof![1 => Just(Timestamp::MIN), 9 => an_instant()];
    let a_horizon = (0..24_i64).prop_map(|hour| {
        // Taps received before it are no longer asked about: mostly early, so that there are some left.
        Timestamp::from_millis(instant("07:00").as_millis() + hour * hour * 60_000)
    });
    let step = prop_oneof![
        12 => a_tap(an_instant()).prop_map(Step::Tap),
        4 => (an_entry(), applied).prop_map(|(entry, applied)| Step::Change { entry, applied }),
        1 => a_horizon.prop_map(|horizon| Step::Forget { horizon }),
    ];
    // A clock that runs as it should makes histories; one that is set back cuts them short.
    (prop::collection::vec(step, 1..80), any::<bool>()).prop_map(|(mut steps, in_order)| {
        let mut stamps: Vec<Timestamp> = steps.iter().filter_map(applied_of).collect();
        stamps.sort();
        let mut stamps = stamps.into_iter();
        for step in steps.iter_mut().filter(|_| in_order) {
            if let Step::Change { applied, .. } = step {
                *applied = stamps.next().unwrap();
            }
        }
        steps
    })
}

fn json(tap: &NaiveTap) -> String {
    let dir = match tap.direction {
        None => "",
        Some(Direction::In) => r#","dir":"in""#,
        Some(Direction::Out) => r#","dir":"out""#,
    };
    let (card, at) = (tap.card.expose(), tap.at.as_millis());
    format!(r#"{{"card":"{card}","reader":"{}","at":{at}{dir}}}"#, tap.reader)
}

fn record(offset: u64, tap: &NaiveTap) -> TapRecord {
    TapRecord { offset, received: tap.received, value: json(tap).into() }
}

fn term_with(channels: &[Channel]) -> Term {
    Term { channels: channels.to_vec(), ..term() }
}

/// Decisions of `taps` in the words of the gate, through a batch.
fn decide_in_words(gate: &mut Gate, first_offset: u64, taps: &[NaiveTap]) -> Vec<String> {
    let records: Vec<TapRecord> =
        (first_offset..).zip(taps).map(|(offset, tap)| record(offset, tap)).collect();
    let mut decisions = Decisions::default();
    gate.shard.decide(&records, &mut decisions);
    decisions.taps.iter().map(|decision| gate.told(decision, &decisions)).collect()
}

/// A decision of the model in the words of the gate.
fn in_words(decision: &NaiveDecision) -> String {
    let mut told = match decision.outcome {
        Outcome::Rejected(reason) => reason.name().to_owned(),
        Outcome::Passage(passage) => passage.name().to_owned(),
        outcome => outcome.name().to_owned(),
    };
    for notice in &decision.notices {
        let order = notice.order.as_ref().map(|order| format!("/{order}")).unwrap_or_default();
        let expired = if notice.is_expired { "/expired" } else { "" };
        told += &format!(" {}/{}{order}{expired}", notice.guardian, notice.channel);
    }
    told
}

fn decides_as_the_model(channels: &[Channel], city: Vec<Entry>, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut gate = Gate::in_term(term_with(channels), city.clone());
    let mut naive = NaiveShard::new(term_with(channels), NaiveRegistry::default());
    for entry in city {
        naive.apply(RegistryChange { version: 0, applied: Timestamp::MIN, entry });
    }
    let mut offset = 0;
    let mut horizon = Timestamp::MIN;
    let mut waiting: Vec<NaiveTap> = Vec::new();
    // A change splits the batch, as the model knows it only for the taps behind it.
    for step in steps.iter().map(Some).chain([None]) {
        if let Some(Step::Tap(tap)) = step {
            // What is forgotten before the horizon may no longer be asked for.
            let received = tap.received.max(horizon);
            waiting.push(NaiveTap { received, ..tap.clone() });
            continue;
        }
        let expected: Vec<String> = waiting.iter().map(|tap| in_words(&naive.decide(tap))).collect();
        prop_assert_eq!(decide_in_words(&mut gate, offset, &waiting), expected, "{:?}", waiting);
        offset += u64::try_from(waiting.len()).unwrap();
        waiting.clear();
        match step {
            Some(Step::Change { entry, applied }) => {
                gate.apply(*applied, vec![entry.clone()]);
                naive.apply(RegistryChange { version: 0, applied: *applied, entry: entry.clone() });
            }
            Some(Step::Forget { horizon: next }) => {
                horizon = horizon.max(*next);
                gate.index.forget_before(*next);
            }
            Some(Step::Tap(_)) | None => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_decides_as_the_naive_model(
        channels in prop::sample::subsequence(Channel::ALL.to_vec(), 0..=4),
        city in a_city(),
        steps in steps(),
    ) {
        decides_as_the_model(&channels, city, &steps)?;
    }

    #[test]
    fn many_taps_of_one_pupil_in_a_day_are_decided_as_by_the_naive_model(
        taps in prop::collection::vec(a_tap((6 * 60..18 * 60_i64).prop_map(|minute: i64| {
            Timestamp::from_millis(instant("00:00").as_millis() + minute * 60_000)
        })), 150),
    ) {
        let steps: Vec<Step> = taps
            .into_iter()
            .map(|tap| Step::Tap(NaiveTap { card: CardNumber::new("C0").unwrap(), received: tap.at, ..tap }))
            .collect();
        let city = vec![school("S0", 690), pupil("P0", "S0"), card("C0", &[("P0", Stretch::ALWAYS)])];
        decides_as_the_model(&Channel::ALL, city, &steps)?;
    }

    /// A change is known to the live shard from its application on, and to one that recovers from the
    /// beginning.
    #[test]
    fn folding_the_day_again_decides_what_the_live_shard_decided(
        city in a_city(),
        steps in steps(),
        folded in any::<prop::sample::Index>(),
    ) {
        let mut live = Gate::new(city);
        let mut clock = instant("2025-09-08T07:00");
        let mut records = Vec::new();
        let mut decided = Vec::new();
        for step in steps {
            // Half a minute later.
            clock = clock.plus(Duration::from_secs(30));
            match step {
                Step::Change { entry, .. } => live.apply(clock, vec![entry]),
                Step::Tap(tap) => {
                    let offset = u64::try_from(records.len()).unwrap();
                    let late = tap.received.since(tap.at).min(Duration::from_secs(3600));
                    let tap = NaiveTap { at: clock.minus(late), received: clock, ..tap };
                    records.push(record(offset, &tap));
                    let mut decisions = Decisions::default();
                    live.shard.decide(&records[records.len() - 1..], &mut decisions);
                    decided.push(live.told(&decisions.taps[0], &decisions));
                }
                Step::Forget { .. } => {}
            }
        }

        let folded = folded.index(records.len() + 1);
        let Gate { index, .. } = live;
        let mut recovered = Gate::over(Arc::new(term()), index);
        let mut decisions = Decisions::default();
        recovered.shard.decide(&records[..folded], &mut decisions);
        recovered.shard.decide(&records, &mut decisions);
        let again: Vec<String> =
            decisions.taps.iter().map(|decision| recovered.told(decision, &decisions)).collect();
        prop_assert_eq!(again, decided);
    }

    #[test]
    fn any_bytes_received_at_any_instant_have_one_decision(
        records in prop::collection::vec(
            (any::<i64>(), prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                a_tap(prop_oneof![an_instant(), any::<i64>().prop_map(Timestamp::from_millis)]
                    .prop_filter("minutes are added", |at| at.as_millis().unsigned_abs() < 1 << 62))
                    .prop_map(|tap| json(&tap).into_bytes()),
            ]),
            0..20,
        ),
    ) {
        let term = Arc::new(term());
        let index = Arc::new(RegistryIndex::new(Arc::clone(&term), 0));
        let mut shard = Shard::new("test", 0, term, index);
        let records: Vec<TapRecord> = (0..)
            .zip(records)
            .map(|(offset, (received_ms, value))| TapRecord {
                offset,
                received: Timestamp::from_millis(received_ms),
                value: value.into(),
            })
            .collect();
        let mut decisions = Decisions::default();
        shard.decide(&records, &mut decisions);
        prop_assert_eq!(decisions.taps.len(), records.len());
    }
}
