//! What a shard knows about today: each pupil's passages, and which guardians have had their SMS.
//!
//! The rules of duplicates and directions are the public format's "What becomes of a tap", tests 5 to 7.
//! The state of a day is one compact row for each pupil who passed the gate, found by the pupil's
//! reference; it belongs to one shard and takes no locks. When the day turns all of it is dropped.

use std::hash::BuildHasher;
use std::hint::black_box;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::index::{GuardianRef, PupilRef};
use crate::notice::Passage;
use crate::tap::Direction;
use crate::term::Term;
use crate::time::{Day, Timestamp};

/// More passages than this of one pupil on one day are no longer believed (the public format, test 6).
pub const PASSAGES_MAX: usize = 32;

/// How many passages a row holds in place; nearly every pupil has two.
const PASSAGES_IN_PLACE: usize = 3;

/// The windows of a term's rules, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    repeat_ms: i64,
    min_stay_ms: i64,
    useful_for_ms: i64,
}

impl Windows {
    /// Of `term`.
    pub(crate) fn of(term: &Term) -> Self {
        let ms = |window: std::time::Duration| i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        Self {
            repeat_ms: ms(term.repeat_window),
            min_stay_ms: ms(term.min_stay),
            useful_for_ms: ms(term.useful_for),
        }
    }

    /// Whether the deadline of a tap read at `at` is after its receipt.
    pub(crate) fn is_useful(self, at: Timestamp, received: Timestamp) -> bool {
        at.as_millis().saturating_add(self.useful_for_ms) > received.as_millis()
    }
}

/// What becomes of a tap of a known pupil on a school day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The same passing of the gate, read again.
    Duplicate,
    /// The pupil already has [`PASSAGES_MAX`] passages.
    TooMany,
    /// It counts.
    Passage(Passage),
}

/// A passage in four bytes: milliseconds since the day's first instant, and its kind in the lowest bit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Admitted(i32);

impl Admitted {
    fn new(since_midnight_ms: i32, passage: Passage) -> Self {
        Self(since_midnight_ms << 1 | i32::from(passage == Passage::Departure))
    }

    fn since_midnight_ms(self) -> i64 {
        i64::from(self.0 >> 1)
    }

    fn passage(self) -> Passage {
        if self.0 & 1 == 0 { Passage::Arrival } else { Passage::Departure }
    }
}

/// What does not fit into a row.
#[derive(Clone, Default, Debug)]
struct Overflow {
    passages: Vec<Admitted>,
    sms: Vec<(GuardianRef, Passage)>,
}

/// One pupil's day. Aligned so that no row lies across two lines of the processor's cache.
#[derive(Clone, Debug)]
#[repr(align(32))]
pub(crate) struct PupilDay {
    pupil: PupilRef,
    passages: [Admitted; PASSAGES_IN_PLACE],
    /// The guardian of the first SMS.
    sms_guardian: Option<GuardianRef>,
    overflow: Option<Box<Overflow>>,
    passage_count: u8,
    /// Which kinds of SMS that guardian has had, a bit each.
    sms_kinds: u8,
}

impl PupilDay {
    fn new(pupil: PupilRef) -> Self {
        Self {
            pupil,
            passages: [Admitted::default(); PASSAGES_IN_PLACE],
            sms_guardian: None,
            overflow: None,
            passage_count: 0,
            sms_kinds: 0,
        }
    }

    /// Passages in the order in which they were admitted.
    fn passages(&self) -> impl Iterator<Item = Admitted> + '_ {
        let in_place = usize::from(self.passage_count).min(PASSAGES_IN_PLACE);
        let overflown = self.overflow.as_ref().map_or(&[][..], |overflow| &overflow.passages);
        self.passages[..in_place].iter().chain(overflown).copied()
    }

    /// Tests 5 to 7 for a tap at `since_midnight_ms`; `first` is the passage that a first tap without a
    /// direction makes.
    pub(crate) fn judge(
        &self,
        since_midnight_ms: i32,
        direction: Option<Direction>,
        windows: Windows,
        first: impl FnOnce() -> Passage,
    ) -> Verdict {
        let at_ms = i64::from(since_midnight_ms);
        let mut previous: Option<Admitted> = None;
        for admitted in self.passages() {
            let near = (at_ms - admitted.since_midnight_ms()).abs() < windows.repeat_ms;
            if near && direction.is_none_or(|direction| direction.passage() == admitted.passage()) {
                return Verdict::Duplicate;
            }
            let latest_so_far =
                previous.is_none_or(|previous| previous.since_midnight_ms() <= admitted.since_midnight_ms());
            if admitted.since_midnight_ms() <= at_ms && latest_so_far {
                previous = Some(admitted);
            }
        }
        let just_arrived = previous.is_some_and(|previous| {
            previous.passage() == Passage::Arrival
                && at_ms - previous.since_midnight_ms() < windows.min_stay_ms
        });
        if direction.is_none() && just_arrived {
            return Verdict::Duplicate;
        }
        if usize::from(self.passage_count) >= PASSAGES_MAX {
            return Verdict::TooMany;
        }
        Verdict::Passage(match (direction, previous) {
            (Some(direction), _) => direction.passage(),
            (None, Some(previous)) => previous.passage().opposite(),
            (None, None) => first(),
        })
    }

    /// Remembers a passage that [`judge`](Self::judge) found.
    pub(crate) fn admit(&mut self, since_midnight_ms: i32, passage: Passage) {
        let admitted = Admitted::new(since_midnight_ms, passage);
        match self.passages.get_mut(usize::from(self.passage_count)) {
            Some(place) => *place = admitted,
            None => self.overflow.get_or_insert_default().passages.push(admitted),
        }
        self.passage_count = self.passage_count.saturating_add(1);
    }

    /// Whether `guardian` has had no SMS about such a passage today; from now on they have.
    pub(crate) fn first_sms(&mut self, guardian: GuardianRef, passage: Passage) -> bool {
        if *self.sms_guardian.get_or_insert(guardian) == guardian {
            let kind = match passage {
                Passage::Arrival => 0b01,
                Passage::Departure => 0b10,
            };
            let first = self.sms_kinds & kind == 0;
            self.sms_kinds |= kind;
            return first;
        }
        let had = &mut self.overflow.get_or_insert_default().sms;
        let first = !had.contains(&(guardian, passage));
        if first {
            had.push((guardian, passage));
        }
        first
    }
}

/// One day of one shard.
#[derive(Debug)]
pub(crate) struct ShardDay {
    /// The civil day.
    pub(crate) day: Day,
    midnight: Timestamp,
    /// In the order of the first passage.
    rows: Vec<PupilDay>,
    /// Rows by their pupil.
    by_pupil: HashTable<u32>,
    hasher: FixedState,
}

impl ShardDay {
    /// Nobody has passed yet on `day`, which begins at `midnight`.
    pub(crate) fn new(day: Day, midnight: Timestamp) -> Self {
        Self { day, midnight, rows: Vec::new(), by_pupil: HashTable::new(), hasher: FixedState::default() }
    }

    /// Drops the state of the day before; keeps its room.
    pub(crate) fn turn(&mut self, day: Day, midnight: Timestamp) {
        self.day = day;
        self.midnight = midnight;
        self.rows.clear();
        self.by_pupil.clear();
    }

    /// `at`, an instant of this day, in milliseconds since the day's first one.
    pub(crate) fn since_midnight_ms(&self, at: Timestamp) -> i32 {
        // A civil day is never longer than some thirty hours; a row has room for twelve days either way.
        const ROOM_MS: i64 = 1 << 30;
        let since_ms = at.as_millis().saturating_sub(self.midnight.as_millis());
        i32::try_from(since_ms.clamp(-ROOM_MS, ROOM_MS - 1)).unwrap_or(0)
    }

    /// Fetches the rows of `pupils` into the processor's cache, side by side: first the table's tags,
    /// then the rows.
    pub(crate) fn touch(&self, pupils: impl Iterator<Item = PupilRef> + Clone) {
        let tagged = |pupil| self.by_pupil.find(self.hasher.hash_one(pupil), |_| false).is_some();
        black_box(pupils.clone().filter(|pupil| tagged(*pupil)).count());
        let found = |pupil| self.row_of(self.hasher.hash_one(pupil), pupil).is_some();
        black_box(pupils.filter(|pupil| found(*pupil)).count());
    }

    #[inline]
    fn row_of(&self, hash: u64, pupil: PupilRef) -> Option<u32> {
        self.by_pupil.find(hash, |row| self.rows[*row as usize].pupil == pupil).copied()
    }

    /// The pupil's row, made when it is new.
    pub(crate) fn row(&mut self, pupil: PupilRef) -> &mut PupilDay {
        let hash = self.hasher.hash_one(pupil);
        let row = self.row_of(hash, pupil).unwrap_or_else(|| {
            let row =
                u32::try_from(self.rows.len()).expect("there are no more rows than references to pupils");
            self.rows.push(PupilDay::new(pupil));
            let Self { rows, by_pupil, hasher, .. } = self;
            by_pupil.insert_unique(hash, row, |row| hasher.hash_one(rows[*row as usize].pupil));
            row
        });
        &mut self.rows[row as usize]
    }
}
