//! Names as small numbers: each name of the registry is kept once, with a value beside it, and
//! everything else refers to it by a 32-bit reference that never changes while the process lives.
//!
//! The table is split into segments with a lock each, held for one look-up or one edit.

use std::hash::{BuildHasher, Hash};
use std::hint::black_box;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::batch::{Asked, Groups};

/// How many segments a table has; a power of two. Both halves of a reference (segment, row) are derived
/// from it.
pub(super) const SEGMENTS: usize = 16;

/// The seed of the tables' hashes: fixed, since what is kept comes from the city and not from strangers.
const SEED: u64 = 0x6761_7465_6265_6c6c;

/// A reference to a name: four bytes, also as an option.
pub(super) trait Reference: Copy + Eq {
    /// From its number.
    fn from_number(number: u32) -> Self;
    /// Its number.
    fn number(self) -> u32;
    /// The segment that holds it.
    fn segment(self) -> usize {
        self.number() as usize % SEGMENTS
    }
    /// Its row in the segment.
    fn row(self) -> usize {
        self.number() as usize / SEGMENTS
    }
}

macro_rules! reference {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) struct $name(NonZeroU32);

        impl Reference for $name {
            #[inline]
            fn from_number(number: u32) -> Self {
                Self(NonZeroU32::MIN.saturating_add(number))
            }

            #[inline]
            fn number(self) -> u32 {
                self.0.get() - 1
            }
        }
    };
}

reference!(
    /// A pupil of this process's index.
    PupilRef
);
reference!(
    /// A guardian of this process's index.
    GuardianRef
);
reference!(
    /// An order of this process's index.
    OrderRef
);

#[derive(Debug)]
struct Segment<K, V> {
    rows: Vec<(K, V)>,
    /// Rows by the hash of their name.
    by_name: HashTable<u32>,
}

/// Names of one kind, each with a value.
#[derive(Debug)]
pub(super) struct Names<K, R, V> {
    segments: Box<[RwLock<Segment<K, V>>]>,
    hasher: FixedState,
    reference: PhantomData<fn() -> R>,
}

impl<K: Eq + Hash + Clone, R: Reference, V: Default> Names<K, R, V> {
    /// A table with room for `expected` names.
    pub(super) fn with_capacity(expected: usize) -> Self {
        let per_segment = room_per_segment(expected);
        let segment = || Segment {
            rows: Vec::with_capacity(per_segment),
            by_name: HashTable::with_capacity(per_segment),
        };
        Self {
            segments: (0..SEGMENTS).map(|_| RwLock::new(segment())).collect(),
            hasher: FixedState::with_seed(SEED),
            reference: PhantomData,
        }
    }

    fn segment_of(hash: u64) -> usize {
        // The table inside a segment uses the lowest and the topmost bits.
        (hash >> 32) as usize % SEGMENTS
    }

    fn read(&self, segment: usize) -> RwLockReadGuard<'_, Segment<K, V>> {
        self.segments[segment].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, segment: usize) -> RwLockWriteGuard<'_, Segment<K, V>> {
        self.segments[segment].write().unwrap_or_else(PoisonError::into_inner)
    }

    fn reference(segment: usize, row: usize) -> R {
        let number = u32::try_from(row * SEGMENTS + segment);
        R::from_number(number.expect("memory ends long before four thousand million names"))
    }

    /// The reference of `name`, if it was ever interned.
    pub(super) fn find(&self, name: &K) -> Option<R> {
        let hash = self.hasher.hash_one(name);
        let segment = Self::segment_of(hash);
        let held = self.read(segment);
        let row = held.by_name.find(hash, |row| held.rows[*row as usize].0 == *name)?;
        Some(Self::reference(segment, *row as usize))
    }

    /// The reference of `name`, made when it is new.
    pub(super) fn intern(&self, name: &K) -> R {
        let hash = self.hasher.hash_one(name);
        let segment = Self::segment_of(hash);
        let mut held = self.write(segment);
        let Segment { rows, by_name } = &mut *held;
        if let Some(row) = by_name.find(hash, |row| rows[*row as usize].0 == *name) {
            return Self::reference(segment, *row as usize);
        }
        let reference = Self::reference(segment, rows.len());
        let row = u32::try_from(rows.len()).expect("a row's number is smaller than its reference");
        rows.push((name.clone(), V::default()));
        by_name.insert_unique(hash, row, |row| self.hasher.hash_one(&rows[*row as usize].0));
        reference
    }

    /// The name behind `reference`.
    pub(super) fn name(&self, reference: R) -> K {
        self.read(reference.segment()).rows[reference.row()].0.clone()
    }

    /// Looks at the value beside a name.
    pub(super) fn with<T>(&self, reference: R, look: impl FnOnce(&V) -> T) -> T {
        look(&self.read(reference.segment()).rows[reference.row()].1)
    }

    /// Looks at the names of `asked` and the values beside them, which were [arranged](arrange) by their references. What
    /// `look` gets first is where its question stands in the batch.
    pub(super) fn visit(&self, asked: &Groups<usize>, mut look: impl FnMut(usize, &K, &V)) {
        for (segment, group) in asked.iter() {
            let held = self.read(segment);
            // The first walk fetches the rows.
            let is_first = |asked: &&Asked<usize>| held.rows[asked.key].0 == held.rows[group[0].key].0;
            black_box(group.iter().filter(is_first).count());
            for Asked { position, key: row } in group {
                let (name, value) = &held.rows[*row];
                look(*position, name, value);
            }
        }
    }

    /// Changes the value beside a name.
    pub(super) fn edit<T>(&self, reference: R, change: impl FnOnce(&mut V) -> T) -> T {
        change(&mut self.write(reference.segment()).rows[reference.row()].1)
    }
}

/// Groups `references` for [`Names::visit`].
pub(super) fn arrange<R: Reference>(references: impl Iterator<Item = R>, groups: &mut Groups<usize>) {
    groups.arrange(references.map(|reference| (reference.segment(), reference.row())));
}

/// Room in a segment so that `expected` rows fit with some imbalance.
pub(super) fn room_per_segment(expected: usize) -> usize {
    let even = expected.div_ceil(SEGMENTS);
    even + even / 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_reference_and_its_value() {
        let names: Names<String, PupilRef, u32> = Names::with_capacity(10);
        let references: Vec<PupilRef> = (0..1000).map(|n| names.intern(&format!("P{n}"))).collect();
        for (number, reference) in (0_u32..).zip(&references) {
            names.edit(*reference, |value| *value = number);
        }
        for (number, reference) in (0_u32..).zip(&references) {
            let name = format!("P{number}");
            assert_eq!(names.find(&name), Some(*reference));
            assert_eq!(names.intern(&name), *reference);
            assert_eq!(names.name(*reference), name);
            assert_eq!(names.with(*reference, |value| *value), number);
        }
        assert_eq!(names.find(&"nobody".to_owned()), None);
    }

    #[test]
    fn a_batch_of_references_is_answered_as_each_alone() {
        let names: Names<String, PupilRef, u32> = Names::with_capacity(10);
        let references: Vec<PupilRef> = (0..100).map(|n| names.intern(&format!("P{n}"))).collect();
        let asked: Vec<PupilRef> = references.iter().rev().chain(&references).copied().collect();
        let mut groups = Groups::default();
        arrange(asked.iter().copied(), &mut groups);
        let mut found = vec![String::new(); asked.len()];
        names.visit(&groups, |position, name, _| found[position].clone_from(name));
        let alone: Vec<String> = asked.iter().map(|reference| names.name(*reference)).collect();
        assert_eq!(found, alone);
    }
}
