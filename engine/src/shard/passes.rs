//! The passes of a batch, in the order of the tests of the public format's "What becomes of a tap".
//!
//! Each pass asks one table for all taps that are still open. With a million pupils the cost of a tap is
//! its cache misses, and those of independent look-ups overlap when they stand side by side. Every
//! record has its decision from the first pass on, with the outcome of the test that it has yet to pass;
//! later passes overwrite it.

use std::time::Duration;

use super::Shard;
use super::decision::{Decision, Decisions, NoticeStart, RoutedNotice};
use crate::day::{PupilDay, ShardDay, Verdict};
use crate::decode::{TapView, decode};
use crate::index::{CardQuestion, Enrolled, Groups, Owed, PupilQuestion, PupilRef, SchoolRef};
use crate::notice::{Channel, Passage};
use crate::ports::tap_log::TapRecord;
use crate::registry::DayKind;
use crate::tap::{Direction, Outcome, RejectReason};
use crate::time::Day;

/// How far a reader's clock may be ahead of the time of receipt.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// The taps of a batch that are still open after each pass, what was asked about them, and the room for
/// all that.
#[derive(Default, Debug)]
pub(super) struct Batch {
    open: Vec<OpenTap>,
    /// What is asked about each of `open`, and the answers.
    cards: Vec<CardQuestion>,
    holders: Vec<Option<PupilRef>>,
    /// Positions in `open` of the taps of known cards.
    known: Vec<usize>,
    /// What is asked about each of `known`, and the answers.
    pupils: Vec<PupilQuestion>,
    enrolled: Vec<Option<Enrolled>>,
    owed: Vec<Owed>,
    at_school: Vec<TapAtSchool>,
    by_card: Groups<u64>,
    by_pupil: Groups<usize>,
}

/// A tap that was decoded and is of today.
#[derive(Debug)]
struct OpenTap {
    /// Its decision's position in [`Decisions::taps`].
    decision: usize,
    /// The civil day of `at`.
    day: Day,
    minute_of_day: u16,
    direction: Option<Direction>,
    /// The school of the registered reader.
    gate: Option<SchoolRef>,
}

/// A tap of a pupil on a school day.
#[derive(Debug)]
struct TapAtSchool {
    /// Its position among the open ones.
    tap: usize,
    asked: PupilQuestion,
    enrolled: Enrolled,
}

impl Shard {
    /// First pass, from bytes to taps: tests 1 and 2.
    pub(super) fn open_taps(&mut self, records: &[TapRecord], decisions: &mut Decisions) {
        self.batch.open.clear();
        self.batch.cards.clear();
        // All are decoded before the first reader is looked up, so that the look-ups stand side by side.
        let mut decoded = Vec::with_capacity(records.len());
        for record in records {
            if self.last_read.is_none_or(|last_read| record.offset > last_read) {
                self.last_read = Some(record.offset);
                decoded.push((record, decode(&record.value)));
            }
        }
        for (record, tap) in decoded {
            let decision = self.open_tap(record, tap, decisions.taps.len());
            decisions.taps.push(decision);
        }
    }

    fn open_tap(
        &mut self,
        record: &TapRecord,
        tap: Result<TapView<'_>, RejectReason>,
        position: usize,
    ) -> Decision {
        let received = record.received;
        let mut decision = Decision {
            offset: record.offset,
            outcome: Outcome::UnknownCard,
            at: received,
            received,
            unregistered_reader: false,
            pupil: None,
            place: None,
            notices: 0..0,
        };
        let tap = match tap {
            Ok(tap) => tap,
            Err(reason) => {
                decision.outcome = Outcome::Rejected(reason);
                return decision;
            }
        };
        let reader = self.places.get().reader(&tap.reader, received, tap.at);
        decision.at = tap.at;
        decision.unregistered_reader = reader.is_none();

        let (day, minute_of_day) = self.term.local(tap.at);
        let day_of_receipt = self.term.day_of(received);
        let shard_day = self.day.map_or(day_of_receipt, |known| known.max(day_of_receipt));
        self.day = Some(shard_day);
        if tap.at > received.plus(CLOCK_AHEAD_MAX) || day > day_of_receipt {
            decision.outcome = Outcome::Rejected(RejectReason::ClockAhead);
            return decision;
        }
        if day < shard_day {
            decision.outcome = Outcome::Stale;
            return decision;
        }
        self.batch.cards.push(CardQuestion { card: tap.card, received, at: tap.at });
        self.batch.open.push(OpenTap {
            decision: position,
            day,
            minute_of_day,
            direction: tap.direction.or(reader.and_then(|reader| reader.direction)),
            gate: reader.map(|reader| reader.school),
        });
        decision
    }

    /// Second pass, from cards to pupils: test 3. An open tap's decision says so far that its card is
    /// unknown.
    pub(super) fn find_pupils(&mut self) {
        let Batch { cards, holders, known, pupils, by_card, .. } = &mut self.batch;
        self.index.pupils(cards, by_card, holders);
        known.clear();
        pupils.clear();
        for (tap, (asked, holder)) in cards.iter().zip(holders).enumerate() {
            if let Some(pupil) = *holder {
                known.push(tap);
                pupils.push(PupilQuestion { pupil, received: asked.received, at: asked.at });
            }
        }
    }

    /// Third pass, from pupils to their schools and guardians: test 4. A card of somebody whom the
    /// roster does not have stays unknown.
    pub(super) fn find_what_is_owed(&mut self, decisions: &mut Decisions) {
        let Batch { open, known, pupils, enrolled, owed, at_school, by_pupil, .. } = &mut self.batch;
        self.index.enrolled(pupils, by_pupil, enrolled, owed);
        at_school.clear();
        for ((&position, asked), enrolled) in known.iter().zip(pupils).zip(enrolled) {
            let Some(enrolled) = enrolled.take() else { continue };
            let tap = &open[position];
            let rules = self.places.get().date(tap.day);
            let is_school_day = match rules.and_then(|rules| rules.kind(enrolled.school, asked.received)) {
                Some(DayKind::Off) => false,
                Some(DayKind::School) => self.term.days.contains(tap.day),
                None => self.term.days.is_school_day(tap.day),
            };
            let decision = &mut decisions.taps[tap.decision];
            decision.pupil = Some(asked.pupil);
            decision.place = Some(tap.gate.unwrap_or(enrolled.school));
            decision.outcome = Outcome::NoSchool;
            if is_school_day {
                at_school.push(TapAtSchool { tap: position, asked: *asked, enrolled });
            }
        }
    }

    /// Last pass, in the order of the records: tests 5 to 7, and which notices are due.
    pub(super) fn conclude(&mut self, decisions: &mut Decisions) {
        let Batch { open, at_school, owed, .. } = &self.batch;
        for taps_of_a_day in at_school.chunk_by(|a, b| open[a.tap].day == open[b.tap].day) {
            let day = open[taps_of_a_day[0].tap].day;
            let today = self.today.get_or_insert_with(|| ShardDay::new(day, self.term.midnight(day)));
            if today.day != day {
                today.turn(day, self.term.midnight(day));
            }
            today.touch(taps_of_a_day.iter().map(|tap| tap.asked.pupil));
            for TapAtSchool { tap, asked, enrolled } in taps_of_a_day {
                let tap = &open[*tap];
                let since_midnight_ms = today.since_midnight_ms(asked.at);
                let pupil_day = today.row(asked.pupil);
                let first = || {
                    let opens_min = self.places.get().departure_opens_min(enrolled.school, asked.received);
                    if tap.minute_of_day >= opens_min { Passage::Departure } else { Passage::Arrival }
                };
                let decision = &mut decisions.taps[tap.decision];
                decision.outcome =
                    match pupil_day.judge(since_midnight_ms, tap.direction, self.windows, first) {
                        Verdict::Duplicate => Outcome::Duplicate,
                        Verdict::TooMany => Outcome::Rejected(RejectReason::TooMany),
                        Verdict::Passage(passage) => Outcome::Passage(passage),
                    };
                let Outcome::Passage(passage) = decision.outcome else { continue };
                pupil_day.admit(since_midnight_ms, passage);
                let useful = self.windows.is_useful(asked.at, asked.received);
                let start = if useful { NoticeStart::Queued } else { NoticeStart::Expired };
                let first_notice = position(&decisions.notices);
                route(&owed[enrolled.owed.clone()], passage, start, pupil_day, &mut decisions.notices);
                decision.notices = first_notice..position(&decisions.notices);
            }
        }
    }
}

/// Pushes the notices that `passage` makes (the public format's "Which notices a passage makes").
fn route(
    owed: &[Owed],
    passage: Passage,
    start: NoticeStart,
    pupil_day: &mut PupilDay,
    notices: &mut Vec<RoutedNotice>,
) {
    for owed in owed {
        let guardian = owed.guardian;
        let free = owed.free_channels(passage);
        notices.extend(free.map(|channel| RoutedNotice { channel, start, guardian, order: None }));
        // Its name sorts after those of the free channels.
        if let Some(order) = owed.order(passage)
            && pupil_day.first_sms(guardian, passage)
        {
            notices.push(RoutedNotice { channel: Channel::Sms, start, guardian, order: Some(order) });
        }
    }
}

/// The position that the next notice gets.
fn position(notices: &[RoutedNotice]) -> u32 {
    u32::try_from(notices.len()).expect("a batch makes fewer than four thousand million notices")
}
