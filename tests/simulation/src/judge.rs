//! Judges a played day: each invariant as a predicate over what the world holds at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gatebell_engine::ids::{GuardianId, NoticeId, PupilId};
use gatebell_engine::index::RegistryIndex;
use gatebell_engine::ledger::{ClientReference, Event, LedgerEntry};
use gatebell_engine::notice::{Channel, Notice, NoticeKind};
use gatebell_engine::ports::channel::{ChannelConnector, Message};
use gatebell_engine::ports::receipts::{Receipt, ReceiptStatus};
use gatebell_engine::registry::Entry;
use gatebell_engine::shard::{Decisions, Shard};
use gatebell_engine::testing::fakes::Arrival;
use gatebell_engine::time::Day;

use crate::world::{Outcome, PARTITIONS, SMS_BURST, SMS_RATE_PER_S, SMS_WINDOW, SUBMIT_TIMEOUT, World};

/// A change counts everywhere within a second of its instant, which is a second ahead; the simulated ports may be slow on top.
const CHANGE_COUNTS_AFTER: Duration = Duration::from_secs(7);

/// What the log owes, by one pass over it without any crash.
fn owed(world: &World) -> BTreeMap<NoticeId, Notice> {
    let index = Arc::new(RegistryIndex::new(Arc::clone(&world.term), 100));
    world.registry.changes().iter().for_each(|change| index.apply(change));
    let mut owed = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let mut shard = Shard::new("fake", partition, Arc::clone(&world.term), Arc::clone(&index));
        let mut decisions = Decisions::default();
        shard.decide(&world.tap_log.records(partition), &mut decisions);
        for decision in &decisions.taps {
            for routed in decisions.notices_of(decision) {
                let notice = shard.notice(decision, routed);
                owed.insert(notice.id, notice);
            }
        }
    }
    owed
}

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
    owed(world).keys().all(|notice| ended.contains(notice))
}

/// Every breach of an invariant, in words.
pub(crate) fn judge(world: &World, outcome: &Outcome) -> Vec<String> {
    let mut breaches = outcome.trouble.clone();
    if !outcome.came_to_rest {
        breaches.push(
            "the morning never came to rest: something stays unsettled, or a partition without an owner"
                .to_owned(),
        );
    }
    breaches.extend(world.tap_log.breaches());
    let owed = owed(world);
    let entries = world.ledger.entries();
    let grouped = by_notice(&entries);
    one_end_each(world, &owed, &grouped, &mut breaches);
    committed_is_settled(world, &owed, &entries, &mut breaches);
    one_sms_a_kind_and_day(world, &mut breaches);
    one_sender_at_a_time(world, &mut breaches);
    nothing_to_the_protected(world, &mut breaches);
    nothing_late(world, &owed, &mut breaches);
    within_the_rate(world, &mut breaches);
    charged_is_delivered(world, &grouped, &mut breaches);
    breaches
}

/// Whether these ends, in the order written, are one end that at most proof of success has overturned. What a process sent
/// may be answered after another one has taken its partition and ended the notice: then the proof may come first, or a
/// notice may have been suppressed that had left already. Success outweighs the other end whatever the order.
fn is_one_end(ends: &[Event], several_processes: bool) -> bool {
    let is_proof = |event: &Event| matches!(event, Event::Delivered | Event::Accepted);
    let may_be_overturned = |event: &Event| matches!(event, Event::Failed | Event::Expired);
    match ends {
        [_] => true,
        [first, second] if several_processes => is_proof(first) != is_proof(second),
        [first, second] => may_be_overturned(first) && is_proof(second),
        _ => false,
    }
}

/// N1 and R1: what is owed, and nothing else, ends exactly once; only proof of success overturns an end.
fn one_end_each(
    world: &World,
    owed: &BTreeMap<NoticeId, Notice>,
    grouped: &BTreeMap<NoticeId, Vec<&LedgerEntry>>,
    breaches: &mut Vec<String>,
) {
    for notice in owed.keys() {
        let ends: Vec<Event> = grouped
            .get(notice)
            .into_iter()
            .flatten()
            .map(|entry| entry.event)
            .filter(|event| event.is_end())
            .collect();
        if !is_one_end(&ends, world.processes > 1) {
            let history: Vec<String> = grouped
                .get(notice)
                .into_iter()
                .flatten()
                .map(|entry| format!("{} {}#{}", entry.time, entry.event, entry.attempt))
                .collect();
            breaches.push(format!("N1: notice {notice} has the ends {ends:?}: {history:?}"));
        }
    }
    for notice in grouped.keys().filter(|notice| !owed.contains_key(notice)) {
        breaches
            .push(format!("R1: notice {notice} is in the ledger, and a run without crashes does not owe it"));
    }
}

/// T3: at each commit, everything below it was submitted and recorded, or ended.
fn committed_is_settled(
    world: &World,
    owed: &BTreeMap<NoticeId, Notice>,
    entries: &[LedgerEntry],
    breaches: &mut Vec<String>,
) {
    let mut settled_at: BTreeMap<NoticeId, usize> = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.event.settles()) {
        settled_at.entry(entry.notice).or_insert(place);
    }
    for commit in world.tap_log.commits() {
        for notice in owed.values() {
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
        let different: BTreeSet<&ClientReference> = references.iter().collect();
        if different.len() > 1 || (recognises && references.len() > 1) {
            breaches.push(format!("N2: {references:?} for {key:?}"));
        }
    }
}

/// N2: nobody asks the gateway to send what another request, which may still be answered, asks it to send already.
fn one_sender_at_a_time(world: &World, breaches: &mut Vec<String>) {
    let mut last: BTreeMap<_, Arrival> = BTreeMap::new();
    for sent in world.sms.arrivals() {
        let key = about(world, &sent.message);
        if let Some(before) = last.get(&key) {
            let given_up_at = before.at + SUBMIT_TIMEOUT;
            let over_at = before.over_at.map_or(given_up_at, |over_at| over_at.min(given_up_at));
            if sent.at < over_at {
                breaches.push(format!(
                    "N2: {} sent by {} at {:?} and {} by {} at {:?}, before the first could be answered",
                    before.message.reference.as_str(),
                    before.process,
                    before.at,
                    sent.message.reference.as_str(),
                    sent.process,
                    sent.at,
                ));
            }
        }
        last.insert(key, sent);
    }
}

/// N3: nothing reaches a gateway for a pair that was protected a moment before.
fn nothing_to_the_protected(world: &World, breaches: &mut Vec<String>) {
    let changes = world.registry.changes();
    let written_at = world.changes_written_at();
    for (place, change) in changes.iter().enumerate() {
        let Entry::Protection(protection) = &change.entry else { continue };
        if !protection.protected {
            continue;
        }
        let key = change.entry.key();
        let lifted = (place + 1..changes.len()).find(|later| changes[*later].entry.key() == key);
        let counts_from = written_at[place] + CHANGE_COUNTS_AFTER;
        let counts_until = lifted.map_or(Duration::MAX, |lifted| written_at[lifted]);
        for sent in world.sms.arrivals().into_iter().chain(world.app.arrivals()) {
            let message = &sent.message;
            let to_them = message.guardian == protection.guardian && message.pupil == protection.pupil;
            if to_them && sent.at > counts_from && sent.at < counts_until {
                breaches
                    .push(format!("N3: sent at {} to a guardian protected at {}", sent.wall, change.applied));
            }
        }
    }
}

/// N4: nothing reaches a gateway at or after its deadline, and each is told to give up by then.
fn nothing_late(world: &World, owed: &BTreeMap<NoticeId, Notice>, breaches: &mut Vec<String>) {
    for sent in world.sms.arrivals().into_iter().chain(world.app.arrivals()) {
        let (at, message) = (sent.wall, &sent.message);
        let Some(notice) = owed.get(&message.notice) else {
            breaches.push(format!("R1: {} was sent and is not owed", message.notice));
            continue;
        };
        if at >= notice.deadline || at.plus(message.valid_for) > notice.deadline {
            breaches.push(format!("N4: {} sent at {at}, deadline {}", notice.id, notice.deadline));
        }
    }
}

/// L1: no window of any length holds more than rate and burst, and no more requests are in flight than the window.
fn within_the_rate(world: &World, breaches: &mut Vec<String>) {
    let arrivals: Vec<Duration> = world.sms.arrivals().into_iter().map(|sent| sent.at).collect();
    for (first, start) in arrivals.iter().enumerate() {
        for (last, end) in arrivals.iter().enumerate().skip(first) {
            let passed_ms = (*end - *start).as_millis();
            let allowed = u128::from(SMS_BURST) + passed_ms * u128::from(SMS_RATE_PER_S) / 1000;
            let sent = (last - first + 1) as u128;
            // A millisecond of slack: the timer's own resolution.
            if sent > allowed + 1 {
                breaches.push(format!("L1: {sent} messages within {passed_ms} ms, {allowed} allowed"));
                return;
            }
        }
    }
    let most = world.sms.most_in_flight();
    if most > SMS_WINDOW {
        breaches.push(format!("L1: {most} requests in flight"));
    }
}

/// Whether the receipt is about the message that the ledger knows. A gateway that recognises no references takes an attempt in
/// doubt twice, and what it says of the one whose id nobody heard is not believed.
fn is_known_receipt(entries: &[&LedgerEntry], receipt: &Receipt) -> bool {
    let mut ids = entries.iter().filter(|entry| entry.event == Event::Submitted).peekable();
    ids.peek().is_none() || ids.any(|entry| entry.gateway_id.as_ref() == Some(&receipt.gateway_id))
}

/// B1, B2, B3: charged is exactly what the gateway proved delivered, each once; the recount finds the same.
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
    let mut charged: BTreeMap<NoticeId, u32> = BTreeMap::new();
    for charge in world.ledger.charges() {
        *charged.entry(charge.proof.notice).or_default() += 1;
        if !matches!(charge.kind, NoticeKind::Arrival | NoticeKind::Departure) {
            breaches.push(format!("B4: a {} is charged", charge.kind));
        }
    }
    for (notice, count) in &charged {
        if *count > 1 {
            breaches.push(format!("B1: {count} charges for {notice}"));
        }
        if !proven.contains(notice) && !maybe.contains(notice) {
            breaches.push(format!("B1: {notice} is charged without proof"));
        }
    }
    for notice in proven.iter().filter(|notice| !charged.contains_key(notice)) {
        breaches.push(format!("B3: {notice} was delivered and is not charged"));
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
