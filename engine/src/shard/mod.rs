//! One partition of the tap log: records in, one decision each out, with the notices that are due.
//!
//! A [`Shard`] is owned by one task and takes no locks on its own state; it shares the [`RegistryIndex`]
//! with the others. What it decides follows from the records of the day, in the order of their offsets,
//! and from what the registry said as of their times of receipt: so folding the day again after a crash
//! decides the same. It keeps the promises T1 (one outcome a record) and T2 (a record read again changes
//! nothing). Sending, claiming and committing are the runtime's.

mod decision;
mod passes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use compact_str::CompactString;

pub use self::decision::{Decision, Decisions, NoticeStart, RoutedNotice};
use self::passes::Batch;
use crate::day::{ShardDay, Windows};
use crate::ids::{GuardianId, LogPosition, NoticeId, OrderId, PupilId};
use crate::index::{Groups, NoticeRefs, PlacesView, PupilRef, RegistryIndex, SchoolRef};
use crate::notice::{Notice, NoticeKind, Passage};
use crate::ports::tap_log::TapRecord;
use crate::tap::Outcome;
use crate::term::Term;
use crate::time::Day;

/// How many records go through the passes together: enough to overlap their cache misses, few enough to
/// stay cached.
const PASS_RECORDS_MAX: usize = 512;

/// The state of one partition.
#[derive(Debug)]
pub struct Shard {
    log: CompactString,
    partition: u32,
    term: Arc<Term>,
    index: Arc<RegistryIndex>,
    places: PlacesView,
    windows: Windows,
    last_read: Option<u64>,
    /// The latest civil day of receipt among the records that could be decoded.
    day: Option<Day>,
    /// The state of the last day with a passage; dropped when a later one has one.
    today: Option<ShardDay>,
    /// The batch at hand; kept for its room.
    batch: Batch,
}

impl Shard {
    /// A shard of `partition` of `log` that has read nothing yet.
    pub fn new(log: &str, partition: u32, term: Arc<Term>, index: Arc<RegistryIndex>) -> Self {
        Self {
            log: CompactString::new(log),
            partition,
            windows: Windows::of(&term),
            term,
            index,
            places: PlacesView::default(),
            last_read: None,
            day: None,
            today: None,
            batch: Batch::default(),
        }
    }

    /// The offset after the last record read; `None` before the first.
    pub fn next_offset(&self) -> Option<u64> {
        self.last_read.map(|offset| offset.saturating_add(1))
    }

    /// The shard's day: the latest civil day of receipt among the records that it could decode.
    pub fn day(&self) -> Option<Day> {
        self.day
    }

    /// Decides `records`, which come in the order of their offsets, and appends to `decisions` exactly
    /// one decision for each that was not read before (T1, T2). Never fails, whatever the bytes are.
    pub fn decide(&mut self, records: &[TapRecord], decisions: &mut Decisions) {
        self.index.refresh(&mut self.places);
        for batch in records.chunks(PASS_RECORDS_MAX) {
            self.open_taps(batch, decisions);
            self.find_pupils();
            self.find_what_is_owed(decisions);
            self.conclude(decisions);
        }
    }

    /// The pupil whose tap `decision` is about; `None` where the tests ended before one was known.
    pub fn pupil(&self, decision: &Decision) -> Option<PupilId> {
        decision.pupil.map(|pupil| self.index.pupil_id(pupil))
    }

    /// `routed`, one of the notices of `decision`, in full.
    ///
    /// # Panics
    /// When `decision` is no passage, and so has no notices.
    pub fn notice(&self, decision: &Decision, routed: &RoutedNotice) -> Notice {
        let told = Told::by(decision);
        let guardian = self.index.guardian_id(routed.guardian);
        let order = routed.order.map(|order| self.index.order_id(order));
        self.named(decision, routed, told, (self.index.pupil_id(told.pupil), guardian, order))
    }

    /// Every notice of `decisions` in full, with the references behind its names: those of one decision after those of the
    /// one before. Their names are looked up all at once.
    pub(crate) fn notices(
        &self,
        decisions: &Decisions,
        room: &mut NamingRoom,
    ) -> impl Iterator<Item = (Notice, NoticeRefs)> {
        let routed: Vec<(&Decision, &RoutedNotice, Told)> = decisions
            .taps
            .iter()
            .flat_map(|decision| decisions.notices_of(decision).iter().map(move |routed| (decision, routed)))
            .map(|(decision, routed)| (decision, routed, Told::by(decision)))
            .collect();
        let pupils = self.index.pupil_ids(routed.iter().map(|(.., told)| told.pupil), &mut room.by_pupil);
        let guardians = self
            .index
            .guardian_ids(routed.iter().map(|(_, routed, _)| routed.guardian), &mut room.by_guardian);
        routed.into_iter().zip(pupils).zip(guardians).map(|(((decision, routed, told), pupil), guardian)| {
            let order = routed.order.map(|order| self.index.order_id(order));
            let refs = NoticeRefs { pupil: told.pupil, guardian: routed.guardian, place: told.place };
            (self.named(decision, routed, told, (pupil, guardian, order)), refs)
        })
    }

    fn named(
        &self,
        decision: &Decision,
        routed: &RoutedNotice,
        told: Told,
        (pupil, guardian, order): (PupilId, GuardianId, Option<OrderId>),
    ) -> Notice {
        let position = LogPosition { partition: self.partition, offset: decision.offset };
        // The view may be older than the pupil's school.
        let place = self.places.get().school_id(told.place).cloned();
        Notice {
            id: NoticeId::derive(&self.log, position, &guardian, routed.channel),
            position,
            kind: NoticeKind::from(told.passage),
            channel: routed.channel,
            pupil,
            guardian,
            order,
            place: place.unwrap_or_else(|| self.index.school_id(told.place)),
            at: decision.at,
            day: self.term.day_of(decision.at),
            received: decision.received,
            deadline: decision.at.plus(self.term.useful_for),
        }
    }
}

/// Room for naming the notices of a batch; kept between batches.
#[derive(Default, Debug)]
pub(crate) struct NamingRoom {
    by_pupil: Groups<usize>,
    by_guardian: Groups<usize>,
}

/// What the notices of one decision tell.
#[derive(Clone, Copy)]
struct Told {
    passage: Passage,
    pupil: PupilRef,
    place: SchoolRef,
}

impl Told {
    fn by(decision: &Decision) -> Self {
        let (Outcome::Passage(passage), Some(pupil), Some(place)) =
            (decision.outcome, decision.pupil, decision.place)
        else {
            panic!("only a passage has notices");
        };
        Self { passage, pupil, place }
    }
}
