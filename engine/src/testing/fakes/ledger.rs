//! A ledger in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use compact_str::CompactString;

use super::{Faults, locked};
use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, OrderId, PupilId};
use crate::ledger::{Charge, Claim, ClaimKey, ClaimStamp, ClaimState, Event, LedgerEntry};
use crate::notice::NoticeKind;
use crate::ports::PortError;
use crate::ports::ledger::{ChargeVerdict, ClaimVerdict, Ledger};
use crate::time::Day;

type ChargeKey = (CompactString, PupilId, GuardianId, OrderId, Day, NoticeKind);

#[derive(Default)]
struct State {
    entries: Vec<LedgerEntry>,
    names: BTreeSet<(NoticeId, Event, u32)>,
    claims: BTreeMap<ClaimKey, Claim>,
    charges: BTreeMap<ChargeKey, Charge>,
}

impl State {
    fn append(&mut self, faults: &Faults, entries: impl IntoIterator<Item = LedgerEntry>) {
        for entry in entries {
            if self.names.insert((entry.notice, entry.event, entry.attempt)) {
                faults.note(|| {
                    let reason = entry.reason.as_deref().unwrap_or_default();
                    let (notice, position) = (entry.notice, entry.position);
                    let attempt = entry.attempt;
                    format!("ledger: {notice} of {position} {} #{attempt} {reason}", entry.event)
                });
                self.entries.push(entry);
            }
        }
    }

    fn replace(&mut self, faults: &Faults, expected: Option<&ClaimStamp>, claim: Claim) -> ClaimVerdict {
        match self.claims.get(&claim.key) {
            Some(held) if *held == claim => ClaimVerdict::Won,
            Some(held) if expected != Some(&held.stamp()) => {
                self.tell_of_held(faults, held, &claim);
                ClaimVerdict::Held(Box::new(held.clone()))
            }
            held => {
                if let Some(held) = held
                    && held.owner != claim.owner
                    && held.state == ClaimState::Open
                {
                    faults.journal().reached("claims taken over");
                }
                if held.is_some_and(|held| held.state == ClaimState::Refused) {
                    faults.journal().reached("claims for a next attempt");
                }
                faults.note(|| {
                    let (notice, attempt, state) = (claim.notice, claim.attempt, &claim.state);
                    format!("claim: {notice} #{attempt} {state:?}")
                });
                self.claims.insert(claim.key.clone(), claim);
                ClaimVerdict::Won
            }
        }
    }

    /// What a claim that was asked for in vain meets: each is a branch of recovery.
    fn tell_of_held(&self, faults: &Faults, held: &Claim, asked: &Claim) {
        let is_known = |of: &[Event]| of.iter().any(|event| self.has(held.notice, *event));
        let met = match held.state {
            _ if held.notice != asked.notice => "claims held for another notice",
            // An answer to be written down, not a claim to send under.
            _ if asked.state != ClaimState::Open => "claims lost before their outcome",
            ClaimState::Ended { .. } if !is_known(&[Event::Failed, Event::Expired, Event::Suppressed]) => {
                "claims ended without an entry"
            }
            ClaimState::Ended { .. } => "claims found ended",
            ClaimState::Submitted { .. } if !is_known(&[Event::Submitted, Event::Accepted]) => {
                "claims submitted without an entry"
            }
            ClaimState::Submitted { .. } => "claims found submitted",
            ClaimState::Refused => "claims found refused",
            ClaimState::Open if held.owner == asked.owner => "claims found to be one's own",
            ClaimState::Open => "claims found in doubt",
        };
        faults.journal().reached(met);
    }

    fn has(&self, notice: NoticeId, event: Event) -> bool {
        self.entries.iter().any(|entry| entry.notice == notice && entry.event == event)
    }
}

/// A call of which a part was done.
fn torn() -> PortError {
    PortError::new("ledger", "simulated: timed out in the middle")
}

/// See the module. Clones share what they hold.
#[derive(Clone)]
pub struct FakeLedger {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl Default for FakeLedger {
    fn default() -> Self {
        Self { state: Arc::default(), faults: Faults::none() }
    }
}

impl FakeLedger {
    /// The same ledger, seen by a process with `faults`.
    pub fn connect(&self, faults: Faults) -> Self {
        Self { state: Arc::clone(&self.state), faults }
    }

    /// Entries so far.
    pub fn len(&self) -> usize {
        locked(&self.state).entries.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry, in the order written.
    pub fn entries(&self) -> Vec<LedgerEntry> {
        locked(&self.state).entries.clone()
    }

    /// Every claim as it is now, sorted by key.
    pub fn claims(&self) -> Vec<Claim> {
        locked(&self.state).claims.values().cloned().collect()
    }

    /// Every charge, sorted by key.
    pub fn charges(&self) -> Vec<Charge> {
        locked(&self.state).charges.values().cloned().collect()
    }
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn append(&self, entries: Vec<LedgerEntry>) -> Result<(), PortError> {
        let (state, faults) = (Arc::clone(&self.state), self.faults.clone());
        let is_torn = entries.len() > 1 && self.faults.tears();
        let first = if is_torn { entries.len() / 2 } else { entries.len() };
        let append = move || locked(&state).append(&faults, entries.into_iter().take(first));
        self.faults.call("ledger", append).await?;
        if is_torn {
            self.faults.journal().reached("ledger: torn in an append");
            return Err(torn());
        }
        Ok(())
    }

    async fn claim(
        &self,
        expected: Option<ClaimStamp>,
        claim: Claim,
        entry: LedgerEntry,
    ) -> Result<ClaimVerdict, PortError> {
        let (shared, faults) = (Arc::clone(&self.state), self.faults.clone());
        let is_torn = self.faults.tears();
        let verdict = self
            .faults
            .call("ledger", move || {
                let mut state = locked(&shared);
                let verdict = state.replace(&faults, expected.as_ref(), claim);
                if verdict == ClaimVerdict::Won && !is_torn {
                    state.append(&faults, [entry]);
                }
                verdict
            })
            .await?;
        if is_torn {
            self.faults.journal().reached("ledger: torn in a claim");
            return Err(torn());
        }
        Ok(verdict)
    }

    async fn advance(
        &self,
        expected: ClaimStamp,
        claim: Claim,
        entries: Vec<LedgerEntry>,
    ) -> Result<ClaimVerdict, PortError> {
        let (shared, faults) = (Arc::clone(&self.state), self.faults.clone());
        // Entries come first in every store: the row says that nothing more is owed, and must not say so alone.
        let is_torn = self.faults.tears();
        let verdict = self
            .faults
            .call("ledger", move || {
                let mut state = locked(&shared);
                state.append(&faults, entries);
                (!is_torn).then(|| state.replace(&faults, Some(&expected), claim))
            })
            .await?;
        verdict.ok_or_else(|| {
            self.faults.journal().reached("ledger: torn in an advance");
            torn()
        })
    }

    async fn claim_of(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError> {
        let (state, key) = (Arc::clone(&self.state), key.clone());
        self.faults.call("ledger", move || locked(&state).claims.get(&key).cloned()).await
    }

    async fn charge(&self, charge: Charge) -> Result<ChargeVerdict, PortError> {
        if !charge.kind.is_charged() {
            return Err(PortError::new("ledger", "only arrivals and departures are charged"));
        }
        let (shared, faults) = (Arc::clone(&self.state), self.faults.clone());
        let is_torn = self.faults.tears();
        let verdict = self
            .faults
            .call("ledger", move || {
                let key = (
                    charge.term.clone(),
                    charge.pupil.clone(),
                    charge.guardian.clone(),
                    charge.order.clone(),
                    charge.day,
                    charge.kind,
                );
                let mut state = locked(&shared);
                let held = state.charges.entry(key).or_insert_with(|| charge.clone());
                if held.proof.notice != charge.proof.notice {
                    faults.journal().reached("charges held by another notice");
                    return ChargeVerdict::Charged;
                }
                if !is_torn {
                    let charged = charge.proof.followed_by(Event::Charged, charge.proof.time);
                    state.append(&faults, [charged]);
                }
                ChargeVerdict::Charged
            })
            .await?;
        if is_torn {
            self.faults.journal().reached("ledger: torn in a charge");
            return Err(torn());
        }
        Ok(verdict)
    }

    async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError> {
        let (shared, faults) = (Arc::clone(&self.state), self.faults.clone());
        self.faults
            .call("ledger", move || {
                let of_partition = |entry: &&LedgerEntry| {
                    entry.position.partition == partition && entry.position.offset >= offset
                };
                let loaded: Vec<LedgerEntry> =
                    locked(&shared).entries.iter().filter(of_partition).cloned().collect();
                if !loaded.is_empty() {
                    faults.journal().reached("ledger entries loaded");
                }
                loaded
            })
            .await
    }

    async fn entries_of(
        &self,
        _position: LogPosition,
        notice: NoticeId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults
            .call("ledger", move || {
                locked(&shared).entries.iter().filter(|entry| entry.notice == notice).cloned().collect()
            })
            .await
    }

    async fn awaiting_receipt(
        &self,
        partition: u32,
        lane: &LaneName,
        since: Day,
        after: Option<&LedgerEntry>,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        let (lane, after) = (lane.clone(), after.cloned());
        let shared = Arc::clone(&self.state);
        self.faults
            .call("ledger", move || {
                let state = locked(&shared);
                let ended: BTreeSet<NoticeId> = state
                    .entries
                    .iter()
                    .filter(|entry| entry.event.is_end())
                    .map(|entry| entry.notice)
                    .collect();
                let after = after
                    .and_then(|last| state.entries.iter().position(|entry| *entry == last))
                    .map_or(0, |place| place + 1);
                let last_of = |notice: NoticeId| {
                    state
                        .entries
                        .iter()
                        .rposition(|entry| entry.notice == notice && entry.event == Event::Submitted)
                };
                (after..state.entries.len())
                    .filter(|place| {
                        let entry = &state.entries[*place];
                        entry.event == Event::Submitted
                            && entry.position.partition == partition
                            && entry.gateway.as_ref() == Some(&lane)
                            && entry.day >= since
                            && !ended.contains(&entry.notice)
                            && last_of(entry.notice) == Some(*place)
                    })
                    .take(limit)
                    .map(|place| state.entries[place].clone())
                    .collect()
            })
            .await
    }

    async fn ping(&self) -> Result<(), PortError> {
        self.faults.call("ledger", || ()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::ledger_contract!(fake_ledger, || async { Arc::new(FakeLedger::default()) });
}
