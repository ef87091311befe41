//! Schools, gate readers and day rules: a few thousand rows that nearly every tap asks about.
//!
//! They are held as one immutable table behind an `Arc`. A shard keeps the table it last saw and asks a
//! single atomic number whether it has changed, so that a look-up takes no lock; a change copies the
//! table only when a shard still holds the old one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use compact_str::CompactString;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::history::History;
use crate::ids::SchoolId;
use crate::registry::{DayKind, DayRule, Reader, ReaderDirection, School};
use crate::tap::Direction;
use crate::time::{Day, Timestamp};

/// A school of this process's index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SchoolRef(u32);

impl SchoolRef {
    /// From its number.
    pub(super) const fn from_u32(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub(super) const fn as_u32(self) -> u32 {
        self.0
    }
}

/// When a school's first tap without a direction is a departure, if nobody said otherwise: 11:30, in
/// minutes of the day.
const DEPARTURE_OPENS_MIN_DEFAULT: u16 = 11 * 60 + 30;

#[derive(Clone, Debug)]
struct SchoolRow {
    id: SchoolId,
    /// The current name; empty while only others' rows name the school.
    name: CompactString,
    departure_opens_min: History<u16>,
}

/// Where a reader hangs and what its position says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReaderPlace {
    /// The school at whose gate it hangs.
    pub(crate) school: SchoolRef,
    /// What it says of direction; `None`: unknown.
    pub(crate) direction: Option<Direction>,
    /// The first instant at which it was no longer registered.
    removed: Timestamp,
}

/// What the rules say about one date.
#[derive(Clone, Default, Debug)]
pub(crate) struct DateRules {
    for_all: Option<History<Option<DayKind>>>,
    for_one: HashMap<SchoolRef, History<Option<DayKind>>, FixedState>,
}

impl DateRules {
    /// The rule for `school` that counts for a tap received at `received`: the school's own before the
    /// one for all.
    pub(crate) fn kind(&self, school: SchoolRef, received: Timestamp) -> Option<DayKind> {
        let as_of = |rule: Option<&History<Option<DayKind>>>| {
            rule.and_then(|rule| rule.as_of(received).copied().flatten())
        };
        as_of(self.for_one.get(&school)).or_else(|| as_of(self.for_all.as_ref()))
    }
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    schools: Vec<SchoolRow>,
    school_refs: HashMap<SchoolId, SchoolRef, FixedState>,
    readers: HashMap<CompactString, History<ReaderPlace>, FixedState>,
    dates: HashMap<Day, DateRules, FixedState>,
}

impl Places {
    /// The registered reader called `code`, as of `received`, at `at`.
    #[inline]
    pub(crate) fn reader(&self, code: &str, received: Timestamp, at: Timestamp) -> Option<ReaderPlace> {
        let history = self.readers.get(code)?;
        let place = history.settled().or_else(|| history.as_of(received))?;
        (at < place.removed).then_some(*place)
    }

    /// The minute of the local day from which on the school's first tap without a direction is a departure.
    pub(crate) fn departure_opens_min(&self, school: SchoolRef, received: Timestamp) -> u16 {
        let row = self.schools.get(school.0 as usize);
        row.and_then(|row| row.departure_opens_min.as_of(received))
            .copied()
            .unwrap_or(DEPARTURE_OPENS_MIN_DEFAULT)
    }

    /// The rules about `date`, if there are any.
    pub(crate) fn date(&self, date: Day) -> Option<&DateRules> {
        self.dates.get(&date)
    }

    /// The school's current name as a text to parents has it; its code while it has none.
    pub(super) fn school_name(&self, school: &SchoolId) -> CompactString {
        let known = self.school_refs.get(school).and_then(|school| self.name_behind(*school));
        known.unwrap_or_else(|| CompactString::new(school.as_str()))
    }

    /// As [`school_name`](Self::school_name); `None` where this table is older than the reference.
    pub(super) fn name_behind(&self, school: SchoolRef) -> Option<CompactString> {
        let row = self.schools.get(school.0 as usize)?;
        let is_named = !row.name.is_empty();
        Some(if is_named { row.name.clone() } else { CompactString::new(row.id.as_str()) })
    }

    /// The school's code; `None` where this table is older than the reference.
    pub(crate) fn school_id(&self, school: SchoolRef) -> Option<&SchoolId> {
        self.schools.get(school.0 as usize).map(|row| &row.id)
    }

    /// The school at whose gate the reader hangs by the newest word; `None` when nobody registered it,
    /// or no longer.
    pub(super) fn school_of_reader(&self, code: &str) -> Option<SchoolId> {
        let place = self.readers.get(code)?.as_of(Timestamp::MAX)?;
        let school = self.schools.get(place.school.0 as usize)?;
        (place.removed == Timestamp::MAX).then(|| school.id.clone())
    }

    fn intern(&mut self, school: &SchoolId) -> SchoolRef {
        if let Some(known) = self.school_refs.get(school) {
            return *known;
        }
        let number =
            u32::try_from(self.schools.len()).expect("a city has fewer than four thousand million schools");
        let reference = SchoolRef(number);
        self.schools.push(SchoolRow {
            id: school.clone(),
            name: CompactString::default(),
            departure_opens_min: History::new(),
        });
        self.school_refs.insert(school.clone(), reference);
        reference
    }

    fn set_school(&mut self, applied: Timestamp, school: &School) {
        let reference = self.intern(&school.school);
        if let Some(row) = self.schools.get_mut(reference.0 as usize) {
            row.name = school.name.clone();
            row.departure_opens_min.set(applied, school.departure_opens_min);
        }
    }

    fn set_reader(&mut self, applied: Timestamp, reader: &Reader) {
        let place = ReaderPlace {
            school: self.intern(&reader.school),
            direction: match reader.direction {
                ReaderDirection::In => Some(Direction::In),
                ReaderDirection::Out => Some(Direction::Out),
                ReaderDirection::Both => None,
            },
            removed: reader.removed.unwrap_or(Timestamp::MAX),
        };
        let code = CompactString::new(reader.reader.as_str());
        self.readers.entry(code).or_insert_with(History::new).set(applied, place);
    }

    fn set_day(&mut self, applied: Timestamp, rule: &DayRule) {
        let school = rule.school.as_ref().map(|school| self.intern(school));
        let rules = self.dates.entry(rule.date).or_default();
        let history = match school {
            Some(school) => rules.for_one.entry(school).or_insert_with(History::new),
            None => rules.for_all.get_or_insert_with(History::new),
        };
        history.set(applied, rule.rule);
    }

    fn forget_before(&mut self, horizon: Timestamp) {
        for row in &mut self.schools {
            row.departure_opens_min.forget_before(horizon);
        }
        for history in self.readers.values_mut() {
            history.forget_before(horizon);
        }
        for rules in self.dates.values_mut() {
            rules.for_one.values_mut().chain(&mut rules.for_all).for_each(|rule| rule.forget_before(horizon));
        }
    }
}

/// The table that shards and lanes share.
#[derive(Debug, Default)]
pub(super) struct SharedPlaces {
    current: RwLock<Arc<Places>>,
    generation: AtomicU64,
}

/// A shard's hold on the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlacesView {
    places: Arc<Places>,
    generation: u64,
}

impl PlacesView {
    /// The table as last refreshed.
    #[inline]
    pub(crate) fn get(&self) -> &Places {
        &self.places
    }
}

impl SharedPlaces {
    /// The table as it is now.
    pub(super) fn current(&self) -> Arc<Places> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The school's code.
    pub(super) fn school_id(&self, school: SchoolRef) -> SchoolId {
        // A reference is given out by this table, which never drops a school.
        self.current.read().unwrap_or_else(PoisonError::into_inner).schools[school.0 as usize].id.clone()
    }

    /// Brings a shard's view up to date.
    pub(super) fn refresh(&self, view: &mut PlacesView) {
        let generation = self.generation.load(Ordering::Acquire);
        if generation != view.generation {
            // Read after the number: the table may be newer than it says, and is then fetched once more.
            *view = PlacesView { places: self.current(), generation };
        }
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Places) -> T) -> T {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(Arc::make_mut(&mut current));
        self.generation.fetch_add(1, Ordering::Release);
        changed
    }

    pub(super) fn intern(&self, school: &SchoolId) -> SchoolRef {
        if let Some(known) = self.current().school_refs.get(school) {
            return *known;
        }
        self.edit(|places| places.intern(school))
    }

    pub(super) fn set_school(&self, applied: Timestamp, school: &School) {
        self.edit(|places| places.set_school(applied, school));
    }

    pub(super) fn set_reader(&self, applied: Timestamp, reader: &Reader) {
        self.edit(|places| places.set_reader(applied, reader));
    }

    pub(super) fn set_day(&self, applied: Timestamp, rule: &DayRule) {
        self.edit(|places| places.set_day(applied, rule));
    }

    pub(super) fn forget_before(&self, horizon: Timestamp) {
        self.edit(|places| places.forget_before(horizon));
    }
}
