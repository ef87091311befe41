//! What the whole input of a morning owes, by the naive rules: every tap and every change of the registry, known at once, and
//! no process, no lane and no crash between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gatebell_engine::ids::{LogPosition, NoticeId};
use gatebell_engine::index::Suppression;
use gatebell_engine::notice::{Channel, Notice, NoticeKind};
use gatebell_engine::registry::{Entry, EntryKey, RegistryChange};
use gatebell_engine::tap::{Outcome as TapOutcome, RejectReason};
use gatebell_engine::testing::naive::{NaiveRegistry, NaiveShard};
use gatebell_engine::time::Timestamp;

use crate::world::{PARTITIONS, World};

/// A change counts everywhere within a second of its instant, which is a second ahead; the simulated ports may be slow on top.
const CHANGE_COUNTS_AFTER: Duration = Duration::from_secs(7);

/// See the module.
pub(crate) struct Model {
    /// By notice.
    pub(crate) owed: BTreeMap<NoticeId, Notice>,
    /// Notices that were of no use when their tap was received.
    pub(crate) expired_at_once: BTreeSet<NoticeId>,
    /// Records that must be in the rejected log, and why.
    pub(crate) rejected: BTreeMap<LogPosition, RejectReason>,
    /// How many records became what.
    pub(crate) outcomes: BTreeMap<TapOutcome, u64>,
    changes: Vec<RegistryChange>,
    /// When each change was written, on the monotonic clock.
    written_at: Vec<Duration>,
}

impl Model {
    /// Of everything that `world` has seen so far.
    pub(crate) fn of(world: &World) -> Self {
        let changes = world.registry.changes();
        let mut registry = NaiveRegistry::default();
        changes.iter().cloned().for_each(|change| registry.apply(change));
        let mut model = Self {
            owed: BTreeMap::new(),
            expired_at_once: BTreeSet::new(),
            rejected: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            changes,
            written_at: world.changes_written_at(),
        };
        for partition in 0..PARTITIONS {
            let shard = NaiveShard::new((*world.term).clone(), registry.clone());
            model.read(world, partition, shard);
        }
        model
    }

    fn read(&mut self, world: &World, partition: u32, mut shard: NaiveShard) {
        for record in world.tap_log.records(partition) {
            let position = LogPosition { partition, offset: record.offset };
            let decision = shard.decide_record(&record.value, record.received);
            *self.outcomes.entry(decision.outcome).or_default() += 1;
            if let TapOutcome::Rejected(reason) = decision.outcome {
                self.rejected.insert(position, reason);
            }
            let (TapOutcome::Passage(passage), Some(pupil), Some(place)) =
                (decision.outcome, decision.pupil, decision.place)
            else {
                continue;
            };
            let at = decision.at;
            for notice in decision.notices {
                let id = NoticeId::derive("fake", position, &notice.guardian, notice.channel);
                if notice.is_expired {
                    self.expired_at_once.insert(id);
                }
                let owed = Notice {
                    id,
                    position,
                    kind: NoticeKind::from(passage),
                    channel: notice.channel,
                    pupil: pupil.clone(),
                    guardian: notice.guardian,
                    order: notice.order,
                    place: place.clone(),
                    at,
                    day: world.term.day_of(at),
                    received: record.received,
                    deadline: at.plus(world.term.useful_for),
                };
                self.owed.insert(id, owed);
            }
        }
    }

    /// What every state of the registry that a process may have had at `moment`, on the monotonic clock, when the wall
    /// clock showed `now`, says of sending `notice`: the last one that it must have known, and each that was written since.
    pub(crate) fn verdicts(
        &self,
        notice: &Notice,
        moment: Duration,
        now: Timestamp,
    ) -> Vec<Result<(), Suppression>> {
        let first =
            self.written_at.iter().take_while(|written| **written + CHANGE_COUNTS_AFTER <= moment).count();
        let last = self.written_at.iter().take_while(|written| **written <= moment).count();
        (first..=last.max(first)).map(|version| verdict(&self.changes[..version], notice, now)).collect()
    }
}

/// What the newest word of `changes` says of sending `notice` at `now`.
fn verdict(changes: &[RegistryChange], notice: &Notice, now: Timestamp) -> Result<(), Suppression> {
    let (guardian, pupil, channel) = (&notice.guardian, &notice.pupil, notice.channel);
    let newest =
        |key: EntryKey| changes.iter().map(|change| &change.entry).rev().find(|entry| entry.key() == key);
    let is_bound = match newest(EntryKey::Binding(guardian.clone(), pupil.clone())) {
        Some(Entry::Binding(binding)) => binding.bonds.iter().any(|bond| bond.stretch.contains(now)),
        _ => false,
    };
    let is_protected = match newest(EntryKey::Protection(guardian.clone(), pupil.clone())) {
        Some(Entry::Protection(protection)) => protection.protected,
        _ => false,
    };
    let has_address = match newest(EntryKey::Guardian(guardian.clone())) {
        Some(Entry::Guardian(guardian)) if guardian.removed.is_none() => match channel {
            Channel::App => !guardian.app_token.is_empty(),
            Channel::Email => !guardian.email.is_empty(),
            Channel::Line => !guardian.line_user.is_empty(),
            Channel::Sms => !guardian.phone.is_empty(),
        },
        _ => false,
    };
    match (is_bound, is_protected, has_address) {
        (false, _, _) => Err(Suppression::Unbound),
        (true, true, _) => Err(Suppression::Protected),
        (true, false, false) => Err(Suppression::NoAddress),
        (true, false, true) => Ok(()),
    }
}
