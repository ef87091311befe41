//! How a new owner comes to know what the old one knew, without snapshots.
//!
//! The log is rewound to local midnight of the day of the record at the committed offset; records below that offset are
//! folded silently; what the ledger already has at or above it stands. Without a committed offset the partition is read
//! from its earliest record.
//!
//! Three things of the ledger are not at their end where a crash fell: a claim under which a request may have left, so that
//! its notice is *in doubt* from the first moment on; a claim that ended before the entry was written that says so; and
//! proof of success that was not charged yet.

use std::collections::{BTreeMap, HashSet};

use super::shards::ShardContext;
use super::{charging, retrying, settling};
use crate::ids::{LogPosition, NoticeId};
use crate::ledger::{Claim, ClaimKey, ClaimState, Event, LedgerEntry};
use crate::ports::PortError;
use crate::ports::tap_log::TapLog;

/// Notices that a former owner has dealt with.
#[derive(Debug, Default)]
pub(crate) struct KnownNotices {
    /// Settled: nothing is owed any more.
    settled: HashSet<NoticeId>,
    /// Not settled, and a request may have left.
    in_doubt: HashSet<NoticeId>,
}

impl KnownNotices {
    /// Whether `notice` was settled; it is forgotten with that.
    pub(crate) fn take_settled(&mut self, notice: &NoticeId) -> bool {
        take(&mut self.settled, notice)
    }

    /// Whether a request of `notice` may have left; it is forgotten with that.
    pub(crate) fn take_in_doubt(&mut self, notice: &NoticeId) -> bool {
        take(&mut self.in_doubt, notice)
    }
}

/// Sooner or later a set is empty, and then nothing need be hashed.
fn take(notices: &mut HashSet<NoticeId>, notice: &NoticeId) -> bool {
    !notices.is_empty() && notices.remove(notice)
}

/// Puts `log` where `partition` must be read from. Returns the offset from which on records are decided; those before it
/// are folded silently.
pub(crate) async fn seek(
    log: &mut dyn TapLog,
    context: &ShardContext,
    partition: u32,
    committed: Option<u64>,
) -> Result<u64, PortError> {
    let Some(live_from) = committed else {
        return log.rewind(partition, None).await;
    };
    // Nothing there yet: whatever comes will be received from now on.
    let received = log.received_at(partition, live_from).await?.unwrap_or_else(|| context.clock.now());
    let midnight = context.term.midnight(context.term.day_of(received));
    log.rewind(partition, Some(midnight)).await?;
    Ok(live_from)
}

/// What the ledger has from `offset` on; writes what a crash kept from being written. Tries again until the ledger
/// answers.
pub(crate) async fn known_from(context: &ShardContext, partition: u32, offset: u64) -> KnownNotices {
    let entries = retrying(&context.status, "ledger", || context.ledger.load_from(partition, offset)).await;
    check_histories(context, &entries);
    charge_what_is_proven(context, &entries).await;
    let mut settled: HashSet<NoticeId> =
        entries.iter().filter(|entry| entry.event.settles()).map(|entry| entry.notice).collect();
    let mut in_doubt = HashSet::new();
    for claimed in entries.iter().filter(|entry| entry.event == Event::Claimed) {
        if settled.contains(&claimed.notice) {
            continue;
        }
        let Some(held) = claim_of(context, claimed).await else { continue };
        match held.state {
            // Its request may have reached the gateway, or has; the lane finds out.
            ClaimState::Open | ClaimState::Submitted { .. } => {
                in_doubt.insert(claimed.notice);
            }
            ClaimState::Ended { event, reason } => {
                let end = claimed.followed_by(event, context.clock.now()).through(&held.lane, held.attempt);
                let _settling = context.receipts.settling.of(claimed.notice).await;
                let end = LedgerEntry { reason, ..end };
                settling::append_unless_overtaken(&context.status, &*context.ledger, end).await;
                settled.insert(claimed.notice);
            }
            ClaimState::Refused => {}
        }
    }
    KnownNotices { settled, in_doubt }
}

/// What must hold of each notice that a former owner has dealt with.
fn check_histories(context: &ShardContext, entries: &[LedgerEntry]) {
    let mut histories: BTreeMap<NoticeId, (LogPosition, Vec<Event>)> = BTreeMap::new();
    for entry in entries {
        let (_, events) = histories.entry(entry.notice).or_insert((entry.position, Vec::new()));
        events.push(entry.event);
    }
    for (position, events) in histories.into_values() {
        context.status.watch().check_history(position, events);
    }
}

/// The claim that `claimed` tells of, if it is still this notice's.
async fn claim_of(context: &ShardContext, claimed: &LedgerEntry) -> Option<Claim> {
    let key = ClaimKey {
        term: context.term.name.clone(),
        day: claimed.day,
        pupil: claimed.pupil.clone(),
        guardian: claimed.guardian.clone(),
        kind: claimed.kind,
    };
    let held = retrying(&context.status, "ledger", || context.ledger.claim_of(&key)).await;
    held.filter(|held| held.notice == claimed.notice)
}

/// Charges accepted SMS of gateways that give no receipts, where the crash fell between acceptance and charge. (A receipt
/// is charged by reading it again.) Entries of other terms are left alone: their charges have another key.
async fn charge_what_is_proven(context: &ShardContext, entries: &[LedgerEntry]) {
    let charged: HashSet<NoticeId> = entries
        .iter()
        .filter(|entry| matches!(entry.event, Event::Charged | Event::Adjusted))
        .map(|entry| entry.notice)
        .collect();
    let days_of_term = context.term.first_day..=context.term.last_day;
    for entry in entries.iter().filter(|entry| entry.event == Event::Accepted) {
        if !charged.contains(&entry.notice) && days_of_term.contains(&entry.day) {
            charging::charge_if_proven(&context.status, &*context.ledger, &context.term.name, entry).await;
        }
    }
}
