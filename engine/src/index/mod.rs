//! The subscription index: card → pupil → what is owed to whom, and how to reach them.
//!
//! It is shared by every shard and lane of the process. It remembers the registry as of any instant of
//! today and yesterday: each fact carries when it was applied and when it was superseded, so that a tap
//! is decided by what had been applied when it was *received*, with stretches looked up at its `at`,
//! whenever the decision is made. What a notice needs at the moment it is sent (binding, protection,
//! address, names) is the newest word instead.
//!
//! Changes come in one by one, in the feed's order, while others read; no lock covers more than a
//! sixteenth of a table, and none is held across two look-ups. Reading the feed and knowing today's date
//! are left to the runtime.

mod batch;
mod cards;
mod fact;
mod history;
mod names;
mod places;
mod pupils;
mod recipient;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::hint::black_box;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use compact_str::CompactString;
use smallvec::SmallVec;

use self::cards::{Cards, Holding};
use self::fact::Claim;
use self::names::{Names, Reference};
use self::places::{Places, SharedPlaces};
use self::pupils::{FactKey, Offer, Pupils, Standing};
use self::recipient::Contact;
use crate::ids::{CardNumber, GuardianId, OrderId, Personal, PupilId, SchoolId};
use crate::notice::{Channel, Notice};
use crate::registry::{self, Entry, RegistryChange};
use crate::term::Term;
use crate::time::{Stretch, Timestamp};

pub(crate) use self::batch::{CardQuestion, Enrolled, Groups, PupilQuestion};
pub(crate) use self::names::{GuardianRef, OrderRef, PupilRef};
pub(crate) use self::places::{PlacesView, SchoolRef};
pub(crate) use self::pupils::Owed;
pub(crate) use self::recipient::{NoticeRefs, RecipientQuestion, RecipientRoom};
pub use self::recipient::{Recipient, Suppression};

/// What the registry says, for taps of today and yesterday and for notices to be sent now.
#[derive(Debug)]
pub struct RegistryIndex {
    offer: Offer,
    /// The last version applied.
    version: AtomicU64,
    /// Held by whoever applies a change: there is one writer at a time, and any number of readers.
    ageing: Mutex<Ageing>,
    cards: Cards,
    pupils: Pupils,
    places: SharedPlaces,
    pupil_names: Names<PupilId, PupilRef, Personal>,
    guardians: Names<GuardianId, GuardianRef, Option<Box<Contact>>>,
    /// With the pupils whose facts name the order: one, unless the order was moved.
    orders: Names<OrderId, OrderRef, SmallVec<[PupilRef; 2]>>,
}

/// What has a history to be forgotten, by the instant at which its change was applied.
type Ageing = BTreeMap<Timestamp, Vec<Aged>>;

#[derive(Clone, Copy, Debug)]
enum Aged {
    Card(CardNumber),
    Pupil(PupilRef),
    Places,
}

impl RegistryIndex {
    /// An empty index with room for `pupils_expected` pupils, each with a card.
    pub fn new(term: Arc<Term>, pupils_expected: usize) -> Self {
        Self {
            offer: Offer::of(&term.channels),
            version: AtomicU64::new(0),
            ageing: Mutex::default(),
            cards: Cards::with_capacity(pupils_expected),
            pupils: Pupils::with_capacity(pupils_expected),
            places: SharedPlaces::default(),
            pupil_names: Names::with_capacity(pupils_expected),
            guardians: Names::with_capacity(0),
            orders: Names::with_capacity(0),
        }
    }

    /// The last version applied; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version.load(atomic::Ordering::Acquire)
    }

    /// Applies the next change of the feed. A version at or below the last one changes nothing.
    pub fn apply(&self, change: &RegistryChange) {
        let mut ageing = self.ageing.lock().unwrap_or_else(PoisonError::into_inner);
        if change.version <= self.version() {
            return;
        }
        let aged = self.apply_entry(change.applied, &change.entry);
        if change.applied > Timestamp::MIN {
            ageing.entry(change.applied).or_default().extend(aged);
        }
        self.version.store(change.version, atomic::Ordering::Release);
    }

    /// Forgets what no tap received at or after `horizon` can need. To be called once a day or more
    /// often; costs as much as there were changes, not as there are pupils.
    pub fn forget_before(&self, horizon: Timestamp) {
        let mut ageing = self.ageing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut forget_places = false;
        while let Some(oldest) = ageing.first_entry().filter(|oldest| *oldest.key() <= horizon) {
            for aged in oldest.remove() {
                match aged {
                    Aged::Card(card) => self.cards.forget_before(card, horizon),
                    Aged::Pupil(pupil) => self.pupils.forget_before(pupil, horizon),
                    Aged::Places => forget_places = true,
                }
            }
        }
        if forget_places {
            self.places.forget_before(horizon);
        }
    }

    /// The school at whose gate `reader` hangs, by the newest word of the registry; `None` when nobody
    /// registered it, or no longer.
    pub fn school_of_reader(&self, reader: &str) -> Option<SchoolId> {
        self.places.current().school_of_reader(reader)
    }

    /// Where `notice` goes, by the newest word of the registry and the bindings in force at `now`.
    ///
    /// # Errors
    /// When it must not be sent: the guardian is not bound, is protected, or has no address for the channel.
    pub fn recipient(&self, notice: &Notice, now: Timestamp) -> Result<Recipient, Suppression> {
        let pupil = self.pupil_names.find(&notice.pupil).ok_or(Suppression::Unbound)?;
        let guardian = self.guardians.find(&notice.guardian).ok_or(Suppression::Unbound)?;
        may_learn(self.pupils.standing(pupil, guardian, now))?;
        let (address, language) = self
            .guardians
            .with(guardian, |contact| contact.as_deref()?.reached(notice.channel))
            .ok_or(Suppression::NoAddress)?;
        Ok(Recipient {
            address,
            language,
            pupil_name: self.pupil_names.with(pupil, Personal::clone),
            place_name: self.places.current().school_name(&notice.place),
        })
    }

    fn apply_entry(&self, applied: Timestamp, entry: &Entry) -> SmallVec<[Aged; 2]> {
        match entry {
            Entry::School(school) => self.places.set_school(applied, school),
            Entry::Reader(reader) => self.places.set_reader(applied, reader),
            Entry::Day(rule) => self.places.set_day(applied, rule),
            Entry::Guardian(guardian) => {
                let contact = guardian.removed.is_none().then(|| Box::new(Contact::of(guardian)));
                let reference = self.guardians.intern(&guardian.guardian);
                self.guardians.edit(reference, |held| *held = contact);
                return SmallVec::new();
            }
            Entry::Card(card) => {
                let holding = |holder: &registry::CardHolder| Holding {
                    pupil: self.pupil_names.intern(&holder.pupil),
                    stretch: holder.stretch,
                };
                self.cards.set(card.card, applied, card.holders.iter().map(holding).collect());
                return SmallVec::from_elem(Aged::Card(card.card), 1);
            }
            Entry::Order(order) => return self.apply_order(applied, order),
            Entry::Pupil(pupil) => {
                let reference = self.pupil_names.intern(&pupil.pupil);
                self.pupil_names.edit(reference, |name| *name = pupil.name.clone());
                let claim = Claim::AtSchool(self.places.intern(&pupil.school));
                let enrolled =
                    Stretch { from: Timestamp::MIN, until: pupil.removed.unwrap_or(Timestamp::MAX) };
                return self.replace(reference, FactKey::School, applied, [(claim, enrolled)]);
            }
            Entry::Binding(binding) => {
                let (pupil, guardian) = self.pair(&binding.pupil, &binding.guardian);
                let bonds = binding.bonds.iter().map(|bond| (Claim::Bound(guardian), bond.stretch));
                return self.replace(pupil, FactKey::Binding(guardian), applied, bonds);
            }
            Entry::Subscription(subscription) => {
                let (pupil, guardian) = self.pair(&subscription.pupil, &subscription.guardian);
                let channel = subscription.channel;
                let claim = |passages| Claim::Subscribed(guardian, channel, passages);
                let lines = subscription.lines.iter().map(|line| (claim(line.passages), line.stretch));
                return self.replace(pupil, FactKey::Subscription(guardian, channel), applied, lines);
            }
            Entry::Protection(protection) => {
                let (pupil, guardian) = self.pair(&protection.pupil, &protection.guardian);
                let claim = protection.protected.then_some((Claim::Protected(guardian), Stretch::ALWAYS));
                // Only ever asked about now, so it needs no history.
                self.replace(pupil, FactKey::Protection(guardian), Timestamp::MIN, claim);
                return SmallVec::new();
            }
        }
        SmallVec::from_elem(Aged::Places, 1)
    }

    fn apply_order(&self, applied: Timestamp, order: &registry::Order) -> SmallVec<[Aged; 2]> {
        let (pupil, guardian) = self.pair(&order.pupil, &order.guardian);
        let reference = self.orders.intern(&order.order);
        let mut named_by = self.orders.with(reference, SmallVec::clone);
        if !named_by.contains(&pupil) {
            named_by.push(pupil);
            self.orders.edit(reference, |held| *held = named_by.clone());
        }
        let claim = Claim::Ordered(guardian, reference, order.plan);
        let mut aged = SmallVec::new();
        for named in named_by {
            let line = order.in_force().filter(|_| named == pupil).map(|stretch| (claim, stretch));
            aged.extend(self.replace(named, FactKey::Order(reference), applied, line));
        }
        aged
    }

    fn pair(&self, pupil: &PupilId, guardian: &GuardianId) -> (PupilRef, GuardianRef) {
        (self.pupil_names.intern(pupil), self.guardians.intern(guardian))
    }

    fn replace(
        &self,
        pupil: PupilRef,
        key: FactKey,
        applied: Timestamp,
        lines: impl IntoIterator<Item = (Claim, Stretch)>,
    ) -> SmallVec<[Aged; 2]> {
        self.pupils.replace(pupil, key, applied, lines, |a, b| self.by_name(a, b));
        SmallVec::from_elem(Aged::Pupil(pupil), 1)
    }

    /// The order in which a pupil's claims are kept: the school, then by guardian, and within a guardian
    /// what says whether they are told before how, free channels before orders; each by name.
    fn by_name(&self, a: &Claim, b: &Claim) -> Ordering {
        let (guardian_of_a, rank_of_a) = rank(a);
        let (guardian_of_b, rank_of_b) = rank(b);
        let by_guardian = match (guardian_of_a, guardian_of_b) {
            (Some(a), Some(b)) if a != b => self.guardians.name(a).cmp(&self.guardians.name(b)),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        let by_order = || match (a, b) {
            (Claim::Ordered(_, a, _), Claim::Ordered(_, b, _)) if a != b => {
                self.orders.name(*a).cmp(&self.orders.name(*b))
            }
            _ => Ordering::Equal,
        };
        by_guardian.then(rank_of_a.cmp(&rank_of_b)).then_with(by_order)
    }
}

/// Whether a guardian of this standing may be told.
fn may_learn(standing: Standing) -> Result<(), Suppression> {
    if !standing.bound {
        return Err(Suppression::Unbound);
    }
    if standing.protected {
        return Err(Suppression::Protected);
    }
    Ok(())
}

/// What lanes ask.
impl RegistryIndex {
    /// Where each notice of `asked` goes, in their order, as [`recipient`](Self::recipient) says it of one: all of them by one
    /// table after the other, so that the processor waits for several of them at a time.
    pub(crate) fn recipients(
        &self,
        asked: &[RecipientQuestion],
        now: Timestamp,
        room: &mut RecipientRoom,
    ) -> Vec<Result<Recipient, Suppression>> {
        let RecipientRoom { by_pupil, by_guardian, standings, reached, pupil_names } = room;
        names::arrange(asked.iter().map(|question| question.refs.pupil), by_pupil);
        names::arrange(asked.iter().map(|question| question.refs.guardian), by_guardian);
        self.pupils.standings(by_pupil, asked.iter().map(|question| question.refs.guardian), now, standings);

        reached.clear();
        reached.resize(asked.len(), None);
        // The first walk fetches what lies beside the guardians' rows.
        let mut reachable = 0;
        self.guardians.visit(by_guardian, |position, _, contact| {
            let channel = asked[position].channel;
            reachable += usize::from(contact.as_deref().is_some_and(|contact| contact.has_address(channel)));
        });
        black_box(reachable);
        self.guardians.visit(by_guardian, |position, _, contact| {
            reached[position] =
                contact.as_deref().and_then(|contact| contact.reached(asked[position].channel));
        });

        pupil_names.clear();
        pupil_names.resize(asked.len(), Personal::default());
        self.pupil_names.visit(by_pupil, |position, _, name| pupil_names[position].clone_from(name));

        let places = self.places.current();
        let found = asked.iter().zip(standings).zip(reached.drain(..)).zip(pupil_names.drain(..));
        found
            .map(|(((question, standing), reached), pupil_name)| {
                may_learn(*standing)?;
                let (address, language) = reached.ok_or(Suppression::NoAddress)?;
                let place_name = self.name_of_school(&places, question.refs.place);
                Ok(Recipient { address, language, pupil_name, place_name })
            })
            .collect()
    }

    fn name_of_school(&self, places: &Places, school: SchoolRef) -> CompactString {
        let known = places.name_behind(school);
        known.unwrap_or_else(|| CompactString::new(self.places.school_id(school).as_str()))
    }
}

/// The guardian whom a claim is about, and the claim's place among theirs.
fn rank(claim: &Claim) -> (Option<GuardianRef>, (u8, Option<Channel>)) {
    match claim {
        Claim::AtSchool(_) => (None, (0, None)),
        Claim::Bound(guardian) => (Some(*guardian), (1, None)),
        Claim::Protected(guardian) => (Some(*guardian), (2, None)),
        Claim::Subscribed(guardian, channel, _) => (Some(*guardian), (3, Some(*channel))),
        Claim::Ordered(guardian, ..) => (Some(*guardian), (4, None)),
    }
}

/// The names behind references that were arranged as `groups`, by their places in the batch.
fn ids<K: Eq + Hash + Clone, R: Reference, V: Default>(
    names: &Names<K, R, V>,
    references: impl ExactSizeIterator<Item = R>,
    groups: &mut Groups<usize>,
) -> Vec<K> {
    let mut found = vec![None; references.len()];
    names::arrange(references, groups);
    names.visit(groups, |position, name, _| found[position] = Some(name.clone()));
    found.into_iter().map(|name| name.expect("each place of the batch is in a group")).collect()
}

/// What shards ask.
impl RegistryIndex {
    /// Whose card each of `asked` is; `found` gets an answer each, in their order.
    pub(crate) fn pupils(
        &self,
        asked: &[CardQuestion],
        groups: &mut Groups<u64>,
        found: &mut Vec<Option<PupilRef>>,
    ) {
        self.cards.pupils(asked, groups, found);
    }

    /// Where each pupil goes, `None` when the roster has no such pupil; `enrolled` gets an answer each,
    /// in their order. What their guardians are owed through the channels on offer is put into `owed`.
    pub(crate) fn enrolled(
        &self,
        asked: &[PupilQuestion],
        groups: &mut Groups<usize>,
        enrolled: &mut Vec<Option<Enrolled>>,
        owed: &mut Vec<Owed>,
    ) {
        self.pupils.enrolled(asked, self.offer, groups, enrolled, owed);
    }

    /// Brings a shard's view of schools, readers and day rules up to date.
    pub(crate) fn refresh(&self, view: &mut PlacesView) {
        self.places.refresh(view);
    }

    /// The codes of pupils, in their order.
    pub(crate) fn pupil_ids(
        &self,
        pupils: impl ExactSizeIterator<Item = PupilRef>,
        groups: &mut Groups<usize>,
    ) -> Vec<PupilId> {
        ids(&self.pupil_names, pupils, groups)
    }

    /// The codes of guardians, in their order.
    pub(crate) fn guardian_ids(
        &self,
        guardians: impl ExactSizeIterator<Item = GuardianRef>,
        groups: &mut Groups<usize>,
    ) -> Vec<GuardianId> {
        ids(&self.guardians, guardians, groups)
    }

    /// The school's code.
    pub(crate) fn school_id(&self, school: SchoolRef) -> SchoolId {
        self.places.school_id(school)
    }

    /// The pupil's code.
    pub(crate) fn pupil_id(&self, pupil: PupilRef) -> PupilId {
        self.pupil_names.name(pupil)
    }

    /// The guardian's code.
    pub(crate) fn guardian_id(&self, guardian: GuardianRef) -> GuardianId {
        self.guardians.name(guardian)
    }

    /// The order's code.
    pub(crate) fn order_id(&self, order: OrderRef) -> OrderId {
        self.orders.name(order)
    }
}

#[cfg(test)]
impl RegistryIndex {
    /// The references behind the names of `notice`.
    pub(crate) fn refs_of(&self, notice: &Notice) -> Option<NoticeRefs> {
        let pupil = self.pupil_names.find(&notice.pupil)?;
        let guardian = self.guardians.find(&notice.guardian)?;
        Some(NoticeRefs { pupil, guardian, place: self.places.intern(&notice.place) })
    }
}
