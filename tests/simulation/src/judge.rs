//! Judges a played day: each invariant as a predicate over what the world holds at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use compact_str::CompactString;
use gatebell_engine::ids::{GuardianId, LogPosition, NoticeId, PupilId};
use gatebell_engine::invariants::predicates::{self, Owners};
use gatebell_engine::ledger::{Charge, ClaimKey, ClientReference, Event, LedgerEntry};
use gatebell_engine::notice::{Channel, NoticeKind};
use gatebell_engine::ports::channel::{ChannelConnector, Message};
use gatebell_engine::ports::ledger::Counter;
use gatebell_engine::ports::receipts::{Receipt, ReceiptStatus};
use gatebell_engine::recount::{BookedCharge, ChargeKey, recount};
use gatebell_engine::tap::{Outcome as TapOutcome, RejectReason};
use gatebell_engine::testing::fakes::Arrival;
use gatebell_engine::time::Day;

use crate::counters::Counters;
use crate::model::Model;
use crate::world::{Outcome, SUBMIT_TIMEOUT, World};

/// The entries of each notice, in the order written.
pub(crate) fn by_notice(entries: &[LedgerEntry]) -> BTreeMap<NoticeId, Vec<&LedgerEntry>> {
    let mut grouped: BTreeMap<NoticeId, Vec<&LedgerEntry>> = BTreeMap::new();
    for entry in entries {
        grouped.entry(entry.notice).or_default().push(entry);
    }
    grouped
}

/// Whether the ledger has an end for all that is owed: nothing is queued, submitted or in doubt any more.
pub(crate) fn every_notice_has_ended(world: &World) -> bool {
    let entries = world.ledger.entries();
    let ended: BTreeSet<NoticeId> =
        entries.iter().filter(|entry| entry.event.is_end()).map(|entry| entry.notice).collect();
    let known_have_ended = entries.iter().all(|entry| ended.contains(&entry.notice));
    known_have_ended && Model::of(world).owed.keys().all(|notice| ended.contains(notice))
}

/// Every breach of an invariant, in words.
pub(crate) fn judge(world: &World, outcome: &Outcome, counters: &Counters) -> Vec<String> {
    let mut breaches = outcome.trouble.clone();
    if !outcome.came_to_rest {
        breaches.push(
            "the morning never came to rest: something stays unsettled, or a partition without an owner"
                .to_owned(),
        );
    }
    breaches.extend(world.tap_log.breaches());
    let model = Model::of(world);
    let entries = world.ledger.entries();
    let grouped = by_notice(&entries);
    outcomes_are_counted(world, &model, counters, &mut breaches);
    rejected_is_kept(world, &model, &mut breaches);
    committed_is_settled(world, &model, &entries, &mut breaches);
    one_end_each(world, &model, &grouped, &mut breaches);
    ledger_is_of_the_model(&model, &entries, &mut breaches);
    ends_have_their_cause(world, &model, &grouped, &mut breaches);
    one_sms_a_kind_and_day(world, &mut breaches);
    one_sender_at_a_time(world, &mut breaches);
    one_push_a_notice(world, &mut breaches);
    nobody_starves(world, &model, &grouped, &mut breaches);
    sent_as_owed(world, &model, &mut breaches);
    within_the_rate(world, &mut breaches);
    charged_is_delivered(world, &grouped, &mut breaches);
    recount_finds_nothing(world, &entries, &mut breaches);
    breaches
}

/// Whether these ends of an SMS, in the order written, fit its claim. What a process decides by itself goes through the claim,
/// which its successor has; only what the gateway itself answered a former owner may stand beside the proof.
fn fit_the_claim(ends: &[&LedgerEntry]) -> bool {
    let may_be_overturned = |entry: &LedgerEntry| matches!(entry.event, Event::Failed | Event::Expired);
    let was_refused =
        |entry: &LedgerEntry| entry.event == Event::Failed && entry.reason.as_deref() != Some("unknown");
    match ends {
        [first, second] => {
            (may_be_overturned(first) && predicates::proves_success(second.event))
                || (predicates::proves_success(first.event) && was_refused(second))
        }
        _ => true,
    }
}

/// T1: each record was decided as the model decides it. A record that is read again is counted again.
fn outcomes_are_counted(world: &World, model: &Model, counters: &Counters, breaches: &mut Vec<String>) {
    let counted = counters.by_labels("gatebell_taps_total");
    let counted = |outcome: TapOutcome| counted.get(&labels_of(outcome)).copied().unwrap_or(0);
    let was_read_again = world.journal.tally().contains_key("records read again");
    for outcome in TapOutcome::ALL {
        let (expected, found) = (model.outcomes.get(&outcome).copied().unwrap_or(0), counted(outcome));
        let fits = if was_read_again {
            found >= expected && (expected > 0 || found == 0)
        } else {
            found == expected
        };
        if !fits {
            breaches.push(format!("T1: {expected} records are {outcome:?}, {found} were counted"));
        }
    }
    if !was_read_again {
        let records = model.outcomes.values().sum();
        if !predicates::outcomes_add_up(records, TapOutcome::ALL.map(counted)) {
            breaches.push(format!("T1: the outcomes do not add up to {records} records"));
        }
    }
}

/// How the engine labels what it counts of an outcome.
fn labels_of(outcome: TapOutcome) -> Vec<String> {
    let detail = match outcome {
        TapOutcome::Rejected(reason) => reason.name(),
        TapOutcome::Passage(passage) => passage.name(),
        _ => "",
    };
    vec![outcome.name().to_owned(), detail.to_owned()]
}

/// T1: what is rejected is kept with its reason, and nothing else is.
fn rejected_is_kept(world: &World, model: &Model, breaches: &mut Vec<String>) {
    let kept: BTreeMap<LogPosition, RejectReason> =
        world.rejected.records().into_iter().map(|record| (record.position, record.reason)).collect();
    for (position, reason) in &model.rejected {
        if kept.get(position) != Some(reason) {
            breaches.push(format!("T1: {position} is {reason:?}, and kept as {:?}", kept.get(position)));
        }
    }
    for position in kept.keys().filter(|position| !model.rejected.contains_key(position)) {
        breaches.push(format!("T1: {position} is kept as rejected and is not"));
    }
}

/// N1: what is owed ends exactly once; only proof of success overturns an end.
fn one_end_each(
    world: &World,
    model: &Model,
    grouped: &BTreeMap<NoticeId, Vec<&LedgerEntry>>,
    breaches: &mut Vec<String>,
) {
    for (notice, owed) in &model.owed {
        let entries: &[&LedgerEntry] = grouped.get(notice).map_or(&[], Vec::as_slice);
        let ends: Vec<&LedgerEntry> = entries.iter().copied().filter(|entry| entry.event.is_end()).collect();
        let owners = if world.processes > 1 { Owners::Several } else { Owners::One };
        let is_one = predicates::one_end(entries.iter().map(|entry| entry.event), owners);
        if !is_one || (owed.channel == Channel::Sms && !fit_the_claim(&ends)) {
            breaches.push(format!("N1: notice {notice} has {} ends: {}", ends.len(), history(entries)));
        }
    }
}

fn history(entries: &[&LedgerEntry]) -> String {
    let told = |entry: &&LedgerEntry| {
        let reason = entry.reason.as_deref().unwrap_or_default();
        format!("{} {}#{} {reason}", entry.time, entry.event, entry.attempt)
    };
    entries.iter().map(told).collect::<Vec<_>>().join(", ")
}

/// R1: the ledger is about what the whole input owes, and about nothing else.
fn ledger_is_of_the_model(model: &Model, entries: &[LedgerEntry], breaches: &mut Vec<String>) {
    for entry in entries {
        let Some(owed) = model.owed.get(&entry.notice) else {
            breaches.push(format!("R1: notice {} is in the ledger and not owed", entry.notice));
            continue;
        };
        let as_owed = LedgerEntry {
            attempt: entry.attempt,
            gateway: entry.gateway.clone(),
            gateway_id: entry.gateway_id.clone(),
            reason: entry.reason.clone(),
            ..LedgerEntry::of(owed, entry.event, entry.time)
        };
        if *entry != as_owed {
            breaches.push(format!("R1: the ledger has {entry:?}, owed is {owed:?}"));
        }
    }
}

/// N1, N3, N4: nothing is written down that did not happen. Success was proved, what failed had been sent, what expired was late,
/// and what was suppressed might not be sent.
fn ends_have_their_cause(
    world: &World,
    model: &Model,
    grouped: &BTreeMap<NoticeId, Vec<&LedgerEntry>>,
    breaches: &mut Vec<String>,
) {
    // A claim counts also where the write of its entry was torn off: others saw it.
    let claims = world.ledger.claims();
    let taken: BTreeSet<NoticeId> =
        world.sms.taken().into_iter().chain(world.app.taken()).map(|sent| sent.message.notice).collect();
    let arrived: BTreeSet<NoticeId> = world
        .sms
        .arrivals()
        .into_iter()
        .chain(world.app.arrivals())
        .map(|sent| sent.message.notice)
        .collect();
    let delivered: BTreeSet<NoticeId> = world
        .receipts
        .arrived()
        .into_iter()
        .filter(|receipt| receipt.status == ReceiptStatus::Delivered)
        .map(|receipt| receipt.notice)
        .collect();
    for (notice, owed) in &model.owed {
        let entries: &[&LedgerEntry] = grouped.get(notice).map_or(&[], Vec::as_slice);
        for entry in entries {
            let is_caused = match entry.event {
                Event::Submitted | Event::Accepted => taken.contains(notice),
                Event::Delivered => delivered.contains(notice),
                Event::Failed => {
                    arrived.contains(notice) || entries.iter().any(|entry| entry.event == Event::Claimed)
                }
                Event::Expired => entry.time >= owed.deadline || model.expired_at_once.contains(notice),
                Event::Suppressed if entry.reason.as_deref() == Some("sent_elsewhere") => {
                    claims.iter().any(|claim| claim.notice != *notice && is_about_the_same(&claim.key, entry))
                }
                Event::Suppressed => world
                    .clock
                    .moments_of(entry.time)
                    .into_iter()
                    .flat_map(|moment| model.verdicts(owed, moment, entry.time))
                    .any(|verdict| verdict.is_err_and(|why| Some(why.reason()) == entry.reason.as_deref())),
                Event::Claimed | Event::Charged | Event::Adjusted => !model.expired_at_once.contains(notice),
            };
            if !is_caused {
                let invariant = match (entry.event, entry.reason.as_deref()) {
                    (Event::Suppressed, Some("sent_elsewhere")) => "N2",
                    (Event::Suppressed, _) => "N3",
                    _ => "N1",
                };
                breaches.push(format!(
                    "{invariant}: {notice}, due until {}, is {} without a cause: {}",
                    owed.deadline,
                    entry.event,
                    history(entries)
                ));
            }
        }
    }
}

/// Whether only one of the two may be sent.
fn is_about_the_same(key: &ClaimKey, entry: &LedgerEntry) -> bool {
    (&key.pupil, &key.guardian, key.kind, key.day) == (&entry.pupil, &entry.guardian, entry.kind, entry.day)
}

/// T3: at each commit, everything below it was submitted and recorded, or ended.
fn committed_is_settled(world: &World, model: &Model, entries: &[LedgerEntry], breaches: &mut Vec<String>) {
    let mut settled_at: BTreeMap<NoticeId, usize> = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.event.settles()) {
        settled_at.entry(entry.notice).or_insert(place);
    }
    for commit in world.tap_log.commits() {
        for notice in model.owed.values() {
            let below =
                notice.position.partition == commit.partition && notice.position.offset < commit.offset;
            if below && settled_at.get(&notice.id).is_none_or(|place| *place >= commit.ledger_len) {
                breaches.push(format!("T3: {} committed above unsettled {}", commit.offset, notice.position));
            }
        }
    }
}

/// What only one SMS may be about.
fn about(world: &World, message: &Message) -> (PupilId, GuardianId, NoticeKind, Day) {
    (message.pupil.clone(), message.guardian.clone(), message.kind, world.term.day_of(message.at))
}

/// N2: the gateway took at most one SMS a pupil, guardian, kind and day. Where it recognises references, even an attempt in
/// doubt that was sent again is one message; elsewhere it was sent again under the same reference.
fn one_sms_a_kind_and_day(world: &World, breaches: &mut Vec<String>) {
    let mut taken: BTreeMap<_, Vec<ClientReference>> = BTreeMap::new();
    for sent in world.sms.taken() {
        taken.entry(about(world, &sent.message)).or_default().push(sent.message.reference);
    }
    let recognises = world.sms.profile().deduplicates_for.is_some();
    for (key, references) in taken {
        if !predicates::at_most_one_message(&references, recognises) {
            breaches.push(format!("N2: {references:?} for {key:?}"));
        }
    }
}

/// N1: a push backend that recognises references gets each notice under one, however often it is asked.
fn one_push_a_notice(world: &World, breaches: &mut Vec<String>) {
    let mut taken: BTreeMap<NoticeId, usize> = BTreeMap::new();
    for sent in world.app.taken() {
        *taken.entry(sent.message.notice).or_default() += 1;
    }
    for (notice, times) in taken.into_iter().filter(|(_, times)| *times > 1) {
        breaches.push(format!("N1: {notice} was pushed {times} times under different references"));
    }
}

/// How many notices of one partition may overtake an older one that is due earlier: what was claimed ahead or on the wire, and
/// what a ledger that fails a few times lets pass.
const OVERTAKEN_MAX: usize = 25;

/// L2: no notice is overtaken by many that came behind it and are due later.
fn nobody_starves(
    world: &World,
    model: &Model,
    grouped: &BTreeMap<NoticeId, Vec<&LedgerEntry>>,
    breaches: &mut Vec<String>,
) {
    for gateway in [&world.sms, &world.app] {
        let mut first_sent: BTreeMap<NoticeId, Arrival> = BTreeMap::new();
        for sent in gateway.arrivals() {
            first_sent.entry(sent.message.notice).or_insert(sent);
        }
        let due = |notice: &NoticeId| model.owed.get(notice).map(|owed| owed.deadline);
        let channel = gateway.profile().channel;
        for (notice, owed) in model.owed.iter().filter(|(_, owed)| owed.channel == channel) {
            let entries: &[&LedgerEntry] = grouped.get(notice).map_or(&[], Vec::as_slice);
            // Who takes a claim over waits until its predecessor's request is over; what may not be sent waits for nothing.
            let claims = entries.iter().filter(|entry| entry.event == Event::Claimed).count();
            let sent = first_sent.get(notice);
            let waited_for_its_turn = match sent {
                Some(_) => claims <= 1,
                None => claims == 0 && entries.iter().all(|entry| entry.event == Event::Expired),
            };
            if !waited_for_its_turn || model.expired_at_once.contains(notice) {
                continue;
            }
            let mut overtaken_by: BTreeMap<u64, usize> = BTreeMap::new();
            for other in first_sent.values() {
                let position = other.message.position;
                let came_later = position.partition == owed.position.partition
                    && position.offset > owed.position.offset
                    && due(&other.message.notice).is_some_and(|due| due > owed.deadline);
                let went_before = sent.map_or(other.wall < owed.deadline, |sent| other.at < sent.at);
                if came_later && went_before {
                    *overtaken_by.entry(other.process).or_default() += 1;
                }
            }
            let most = overtaken_by.into_values().max().unwrap_or(0);
            if most > OVERTAKEN_MAX {
                breaches.push(format!("L2: {notice}, due until {}, was overtaken by {most}", owed.deadline));
            }
        }
    }
}

/// N2: nobody asks the gateway to send what another request, which may still be answered, asks it to send already.
fn one_sender_at_a_time(world: &World, breaches: &mut Vec<String>) {
    let mut requests: BTreeMap<_, Vec<Arrival>> = BTreeMap::new();
    for sent in world.sms.arrivals() {
        requests.entry(about(world, &sent.message)).or_default().push(sent);
    }
    let lasting = |sent: &Arrival| {
        let given_up_at = sent.at + SUBMIT_TIMEOUT;
        (sent.at, sent.over_at.map_or(given_up_at, |over_at| over_at.min(given_up_at)))
    };
    let told =
        |sent: &Arrival| format!("{} by {} at {:?}", sent.message.reference.as_str(), sent.process, sent.at);
    for requests in requests.into_values() {
        if !predicates::one_sender_at_a_time(requests.iter().map(lasting)) {
            let requests: Vec<String> = requests.iter().map(told).collect();
            breaches
                .push(format!("N2: sent before the one before could be answered: {}", requests.join(", ")));
        }
    }
}

/// R1, N3, N4: what reaches a gateway is owed, nobody who might not be told is told, and each request is in time and says when
/// to give up.
fn sent_as_owed(world: &World, model: &Model, breaches: &mut Vec<String>) {
    for sent in world.sms.arrivals().into_iter().chain(world.app.arrivals()) {
        let (at, message) = (sent.wall, &sent.message);
        let Some(owed) = model.owed.get(&message.notice) else {
            breaches.push(format!("R1: {} was sent and is not owed", message.notice));
            continue;
        };
        let is_same = message.position == owed.position
            && message.kind == owed.kind
            && message.pupil == owed.pupil
            && message.guardian == owed.guardian
            && message.at == owed.at;
        if !is_same {
            breaches.push(format!("R1: {message:?} was sent, owed is {owed:?}"));
        }
        let verdicts = model.verdicts(owed, sent.at, at);
        if verdicts.iter().all(Result::is_err) {
            breaches.push(format!("N3: {} sent at {at}, when it was {verdicts:?}", owed.id));
        }
        if !predicates::sent_in_time(at, message.valid_for, owed.deadline) {
            breaches.push(format!("N4: {} sent at {at}, deadline {}", owed.id, owed.deadline));
        }
    }
}

/// L1: no window of any length holds more than rate and burst, and no more requests are in flight than the window.
fn within_the_rate(world: &World, breaches: &mut Vec<String>) {
    for gateway in [&world.sms, &world.app] {
        let profile = gateway.profile();
        let interval = Duration::from_secs(1) / profile.rate_per_s;
        let arrivals = gateway.arrivals().into_iter().map(|sent| sent.at);
        // One more than the burst: the timer's own resolution is a millisecond.
        if !predicates::within_rate(arrivals, interval, profile.burst + 1) {
            breaches.push(format!("L1: more than rate and burst through {}", profile.name));
        }
        let most = gateway.most_in_flight();
        if !predicates::within_window(most, profile.window) {
            breaches.push(format!("L1: {most} requests in flight through {}", profile.name));
        }
    }
}

/// Whether the receipt is about the message that the ledger knows. A gateway that recognises no references takes an attempt in
/// doubt twice, and what it says of the one whose id nobody heard is not believed.
fn is_known_receipt(entries: &[&LedgerEntry], receipt: &Receipt) -> bool {
    let mut ids = entries.iter().filter(|entry| entry.event == Event::Submitted).peekable();
    ids.peek().is_none() || ids.any(|entry| entry.gateway_id.as_ref() == Some(&receipt.gateway_id))
}

/// B1, B3, B4: charged is exactly what the gateway proved delivered, each once, and written down with it.
fn charged_is_delivered(
    world: &World,
    grouped: &BTreeMap<NoticeId, Vec<&LedgerEntry>>,
    breaches: &mut Vec<String>,
) {
    let accepted = |notice: &&NoticeId| grouped[*notice].iter().any(|entry| entry.event == Event::Accepted);
    let by_sms = |notice: &&NoticeId| grouped[*notice].iter().any(|entry| entry.channel == Channel::Sms);
    let (proven, maybe): (BTreeSet<NoticeId>, BTreeSet<NoticeId>) = if world.sms.profile().gives_receipts {
        let delivered = |receipt: &Receipt| receipt.status == ReceiptStatus::Delivered;
        let (known, unknown): (Vec<Receipt>, Vec<Receipt>) =
            world.receipts.arrived().into_iter().filter(delivered).partition(|receipt| {
                grouped.get(&receipt.notice).is_some_and(|entries| is_known_receipt(entries, receipt))
            });
        let notices = |receipts: Vec<Receipt>| receipts.into_iter().map(|receipt| receipt.notice).collect();
        (notices(known), notices(unknown))
    } else {
        (grouped.keys().filter(accepted).filter(by_sms).copied().collect(), BTreeSet::new())
    };
    let mut charges: BTreeMap<NoticeId, usize> = BTreeMap::new();
    for charge in world.ledger.charges() {
        *charges.entry(charge.proof.notice).or_default() += 1;
        if !predicates::is_payable(charge.kind) {
            breaches.push(format!("B4: a {} is charged", charge.kind));
        }
    }
    for (notice, count) in &charges {
        if !predicates::is_due(*count, proven.contains(notice) || maybe.contains(notice)) {
            breaches.push(format!("B1: {notice} has {count} charges, or no proof"));
        }
    }
    let charged: BTreeSet<NoticeId> = charges.into_keys().collect();
    if !predicates::totals_follow_proof(&charged, &proven, &maybe) {
        let missing: Vec<&NoticeId> = proven.difference(&charged).collect();
        breaches.push(format!("B3: delivered and not charged, if any: {missing:?}"));
    }
    for (notice, entries) in grouped {
        let events = |event| entries.iter().filter(|entry| entry.event == event).count();
        let sms = entries.iter().any(|entry| entry.channel == Channel::Sms);
        let proofs = events(Event::Delivered) + events(Event::Accepted);
        if sms && events(Event::Charged) != proofs {
            breaches
                .push(format!("B2: {notice} is proved {proofs} times, charged {}", events(Event::Charged)));
        }
    }
}

/// B2: charges, and counters as their number, are what the operators' recount makes of the ledger.
fn recount_finds_nothing(world: &World, entries: &[LedgerEntry], breaches: &mut Vec<String>) {
    let mut counters: BTreeMap<_, u64> = BTreeMap::new();
    let mut booked = Vec::new();
    for Charge { term, pupil, guardian, order, day, kind, .. } in world.ledger.charges() {
        *counters.entry((pupil.clone(), guardian.clone(), order.clone())).or_default() += 1;
        booked.push(BookedCharge {
            key: ChargeKey { term, pupil, guardian, order, day, kind },
            adjusted: false,
        });
    }
    let term = &world.term.name;
    let counter = |((pupil, guardian, order), delivered)| Counter {
        term: CompactString::new(term),
        pupil,
        guardian,
        order,
        delivered,
    };
    let counters: Vec<Counter> = counters.into_iter().map(counter).collect();
    let differences = recount(term, entries, &booked, &counters);
    breaches
        .extend(differences.into_iter().map(|difference| format!("B2: the recount finds {difference:?}")));
}
