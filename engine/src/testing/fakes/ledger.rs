//! A ledger in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use compact_str::CompactString;

use super::{Faults, locked};
use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, OrderId, PupilId};
use crate::ledger::{Charge, Claim, ClaimKey, ClaimStamp, Event, LedgerEntry};
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
    fn append(&mut self, entries: impl IntoIterator<Item = LedgerEntry>) {
        for entry in entries {
            if self.names.insert((entry.notice, entry.event, entry.attempt)) {
                self.entries.push(entry);
            }
        }
    }

    fn replace(&mut self, expected: Option<&ClaimStamp>, claim: Claim) -> ClaimVerdict {
        match self.claims.get(&claim.key) {
            Some(held) if *held == claim => ClaimVerdict::Won,
            Some(held) if expected != Some(&held.stamp()) => ClaimVerdict::Held(Box::new(held.clone())),
            _ => {
                self.claims.insert(claim.key.clone(), claim);
                ClaimVerdict::Won
            }
        }
    }
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

    /// Every charge, sorted by key.
    pub fn charges(&self) -> Vec<Charge> {
        locked(&self.state).charges.values().cloned().collect()
    }
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn append(&self, entries: Vec<LedgerEntry>) -> Result<(), PortError> {
        let state = Arc::clone(&self.state);
        self.faults.call("ledger", move || locked(&state).append(entries)).await
    }

    async fn claim(
        &self,
        expected: Option<ClaimStamp>,
        claim: Claim,
        entry: LedgerEntry,
    ) -> Result<ClaimVerdict, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults
            .call("ledger", move || {
                let mut state = locked(&shared);
                let verdict = state.replace(expected.as_ref(), claim);
                if verdict == ClaimVerdict::Won {
                    state.append([entry]);
                }
                verdict
            })
            .await
    }

    async fn advance(
        &self,
        expected: ClaimStamp,
        claim: Claim,
        entries: Vec<LedgerEntry>,
    ) -> Result<ClaimVerdict, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults
            .call("ledger", move || {
                let mut state = locked(&shared);
                state.append(entries);
                state.replace(Some(&expected), claim)
            })
            .await
    }

    async fn claim_of(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError> {
        let (state, key) = (Arc::clone(&self.state), key.clone());
        self.faults.call("ledger", move || locked(&state).claims.get(&key).cloned()).await
    }

    async fn charge(&self, charge: Charge) -> Result<ChargeVerdict, PortError> {
        if !charge.kind.is_charged() {
            return Err(PortError::new("ledger", "only arrivals and departures are charged"));
        }
        let shared = Arc::clone(&self.state);
        self.faults
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
                if state.charges.contains_key(&key) {
                    return ChargeVerdict::Charged;
                }
                let charged = charge.proof.followed_by(Event::Charged, charge.proof.time);
                state.append([charged]);
                state.charges.insert(key, charge);
                ChargeVerdict::Charged
            })
            .await
    }

    async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults
            .call("ledger", move || {
                let of_partition = |entry: &&LedgerEntry| {
                    entry.position.partition == partition && entry.position.offset >= offset
                };
                locked(&shared).entries.iter().filter(of_partition).cloned().collect()
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
