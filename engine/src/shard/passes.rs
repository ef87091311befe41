//! The passes of a batch, in the order of the tests of the public format's "What becomes of a tap".
//!
//! Each pass asks one table for all taps that are still open. With a million pupils the cost of a tap is its cache misses,
//! and those of independent look-ups overlap when they stand side by side. Every record has its decision from the first
//! pass on, with the outcome of the test that it has yet to pass; later passes overwrite it.

use std::ops::Range;
use std::time::Duration;

use super::Shard;
use super::decision::{Decision, Decisions, NoticeStart, RoutedNotice};
use crate::day::{PupilDay, ShardDay, Verdict};
use crate::decode::decode;
use crate::ids::CardNumber;
use crate::index::{Owed, PupilRef, SchoolRef};
use crate::notice::{Channel, Passage};
use crate::ports::tap_log::TapRecord;
use crate::registry::DayKind;
use crate::tap::{Direction, Outcome, RejectReason};
use crate::time::{Day, Timestamp};

/// How far a reader's clock may be ahead of the time of receipt.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// The taps of a batch that are still open after each pass, and their room.
#[derive(Default, Debug)]
pub(super) struct Batch {
    open: Vec<OpenTap>,
    of_pupils: Vec<TapOfPupil>,
    at_school: Vec<TapAtSchool>,
    owed: Vec<Owed>,
}

/// A tap that was decoded and is of today.
#[derive(Debug)]
struct OpenTap {
    /// Its decision's position in [`Decisions::taps`].
    decision: usize,
    card: CardNumber,
    at: Timestamp,
    received: Timestamp,
    /// The civil day of `at`.
    day: Day,
    minute_of_day: u16,
    direction: Option<Direction>,
    /// The school of the registered reader.
    gate: Option<SchoolRef>,
}

/// A tap of a known card; `tap` is its position among the open ones.
#[derive(Debug)]
struct TapOfPupil {
    tap: usize,
    pupil: PupilRef,
}

/// A tap of a pupil on a school day, and what their guardians are owed, as positions in [`Batch::owed`].
#[derive(Debug)]
struct TapAtSchool {
    tap: usize,
    pupil: PupilRef,
    school: SchoolRef,
    owed: Range<usize>,
}

impl Shard {
    /// First pass, from bytes to taps: tests 1 and 2.
    pub(super) fn open_taps(&mut self, records: &[TapRecord], decisions: &mut Decisions) {
        self.batch.open.clear();
        for record in records {
            if self.last_read.is_some_and(|last_read| record.offset <= last_read) {
                continue;
            }
            self.last_read = Some(record.offset);
            let decision = self.open_tap(record, decisions.taps.len());
            decisions.taps.push(decision);
        }
    }

    fn open_tap(&mut self, record: &TapRecord, position: usize) -> Decision {
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
        let tap = match decode(&record.value) {
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
        self.batch.open.push(OpenTap {
            decision: position,
            card: tap.card,
            at: tap.at,
            received,
            day,
            minute_of_day,
            direction: tap.direction.or(reader.and_then(|reader| reader.direction)),
            gate: reader.map(|reader| reader.school),
        });
        decision
    }

    /// Second pass, from cards to pupils: test 3. An open tap's decision says so far that its card is unknown.
    pub(super) fn find_pupils(&mut self) {
        let Batch { open, of_pupils, .. } = &mut self.batch;
        of_pupils.clear();
        for (position, tap) in open.iter().enumerate() {
            if let Some(pupil) = self.index.pupil_of(&tap.card, tap.received, tap.at) {
                of_pupils.push(TapOfPupil { tap: position, pupil });
            }
        }
    }

    /// Third pass, from pupils to their schools and guardians: test 4. A card of somebody whom the roster does not have
    /// stays unknown.
    pub(super) fn find_what_is_owed(&mut self, decisions: &mut Decisions) {
        let Batch { open, of_pupils, at_school, owed } = &mut self.batch;
        at_school.clear();
        owed.clear();
        for TapOfPupil { tap: position, pupil } in of_pupils.iter() {
            let tap = &open[*position];
            let owed_from = owed.len();
            let Some(school) = self.index.owed(*pupil, tap.received, tap.at, owed) else {
                continue;
            };
            let rules = self.places.get().date(tap.day);
            let is_school_day = match rules.and_then(|rules| rules.kind(school, tap.received)) {
                Some(DayKind::Off) => false,
                Some(DayKind::School) => self.term.days.contains(tap.day),
                None => self.term.days.is_school_day(tap.day),
            };
            let decision = &mut decisions.taps[tap.decision];
            decision.pupil = Some(*pupil);
            decision.place = Some(tap.gate.unwrap_or(school));
            decision.outcome = Outcome::NoSchool;
            if is_school_day {
                let owed = owed_from..owed.len();
                at_school.push(TapAtSchool { tap: *position, pupil: *pupil, school, owed });
            }
        }
    }

    /// Last pass, in the order of the records: tests 5 to 7, and which notices are due.
    pub(super) fn conclude(&mut self, decisions: &mut Decisions) {
        let Batch { open, at_school, owed, .. } = &self.batch;
        for TapAtSchool { tap, pupil, school, owed: range } in at_school {
            let tap = &open[*tap];
            let today = self.today.get_or_insert_with(|| ShardDay::new(tap.day, self.term.midnight(tap.day)));
            if today.day != tap.day {
                today.turn(tap.day, self.term.midnight(tap.day));
            }
            let since_midnight_ms = today.since_midnight_ms(tap.at);
            let pupil_day = today.row(*pupil);
            let first = || {
                let opens_min = self.places.get().departure_opens_min(*school, tap.received);
                if tap.minute_of_day >= opens_min { Passage::Departure } else { Passage::Arrival }
            };
            let decision = &mut decisions.taps[tap.decision];
            decision.outcome = match pupil_day.judge(since_midnight_ms, tap.direction, self.windows, first) {
                Verdict::Duplicate => Outcome::Duplicate,
                Verdict::TooMany => Outcome::Rejected(RejectReason::TooMany),
                Verdict::Passage(passage) => Outcome::Passage(passage),
            };
            let Outcome::Passage(passage) = decision.outcome else { continue };
            pupil_day.admit(since_midnight_ms, passage);
            let due = tap.at.plus(self.term.useful_for) > tap.received;
            let start = if due { NoticeStart::Queued } else { NoticeStart::Expired };
            let first_notice = position(&decisions.notices);
            route(&owed[range.clone()], passage, start, pupil_day, &mut decisions.notices);
            decision.notices = first_notice..position(&decisions.notices);
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
