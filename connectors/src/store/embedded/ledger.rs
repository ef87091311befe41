//! The ledger in `store.db`: entries, claims and charges, each call one whole change.
//!
//! Owns the port; the tables are in `ledger_schema`, what each change does in `ledger_entries`,
//! `ledger_claims` and `ledger_charges`. A call returns once its change is on the disk; calls made at the
//! same time share a commit.

use std::sync::Arc;

use async_trait::async_trait;
use gatebell_engine::ids::{LaneName, LogPosition, NoticeId};
use gatebell_engine::ledger::{Charge, Claim, ClaimKey, ClaimStamp, LedgerEntry};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::{ChargeVerdict, ClaimVerdict, Ledger};
use gatebell_engine::recount::is_proof;
use gatebell_engine::time::Day;
use rusqlite::params;

use super::ledger_claims::{self, Swap};
use super::ledger_rows::{ENTRY_COLUMNS, entry, notice_blob};
use super::{ledger_charges, ledger_entries};
use crate::sqlite::{Readers, Writer};

/// The embedded ledger. Shared by all tasks of one engine; commands beside it read the same file.
#[derive(Debug)]
pub struct EmbeddedLedger {
    writer: Arc<Writer>,
    readers: Readers,
}

impl EmbeddedLedger {
    pub(super) fn new(writer: Arc<Writer>, readers: Readers) -> Self {
        Self { writer, readers }
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn append(&self, entries: Vec<LedgerEntry>) -> Result<(), PortError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.writer.write(move |connection| ledger_entries::append(connection, &entries)).await
    }

    async fn claim(
        &self,
        expected: Option<ClaimStamp>,
        claim: Claim,
        entry: LedgerEntry,
    ) -> Result<ClaimVerdict, PortError> {
        let swap = self
            .writer
            .write(move |connection| {
                let swap = ledger_claims::swap(connection, expected.as_ref(), &claim)?;
                if matches!(swap, Swap::Done) {
                    ledger_entries::append(connection, &[entry])?;
                }
                Ok(swap)
            })
            .await?;
        verdict(swap)
    }

    async fn advance(
        &self,
        expected: ClaimStamp,
        claim: Claim,
        entries: Vec<LedgerEntry>,
    ) -> Result<ClaimVerdict, PortError> {
        let swap = self
            .writer
            .write(move |connection| {
                ledger_entries::append(connection, &entries)?;
                ledger_claims::swap(connection, Some(&expected), &claim)
            })
            .await?;
        verdict(swap)
    }

    async fn claim_of(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError> {
        let key = key.clone();
        self.readers.read(move |connection| ledger_claims::read(connection, &key)).await
    }

    async fn charge(&self, charge: Charge) -> Result<ChargeVerdict, PortError> {
        if !charge.kind.is_charged() || !is_proof(&charge.proof) {
            return Err(PortError::new(
                "ledger",
                format_args!(
                    "notice {} cannot be charged: {} by {} with {} as its proof",
                    charge.proof.notice, charge.kind, charge.proof.channel, charge.proof.event
                ),
            ));
        }
        self.writer.write(move |connection| ledger_charges::book(connection, &charge)).await
    }

    async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError> {
        self.readers
            .read(move |connection| {
                let sql =
                    format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE partition = ?1 AND offset >= ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                statement.query_map(params![partition, offset], entry)?.collect()
            })
            .await
    }

    async fn entries_of(
        &self,
        position: LogPosition,
        notice: NoticeId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        self.readers
            .read(move |connection| {
                let sql = format!(
                    "SELECT {ENTRY_COLUMNS} FROM entries WHERE partition = ?1 AND offset = ?2 AND notice = ?3 ORDER BY seq"
                );
                let mut statement = connection.prepare_cached(&sql)?;
                statement
                    .query_map(params![position.partition, position.offset, notice_blob(notice)], entry)?
                    .collect()
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
        let lane = lane.clone();
        let after = after.cloned();
        self.readers
            .read(move |connection| {
                let after_seq = match after {
                    None => 0,
                    Some(after) => seq_of(connection, &after)?,
                };
                let sql = format!(
                    "SELECT {ENTRY_COLUMNS} FROM entries WHERE seq IN (
                         SELECT seq FROM awaiting WHERE partition = ?1 AND lane = ?2 AND seq > ?3 AND day >= ?4
                         ORDER BY seq LIMIT ?5
                     ) ORDER BY seq"
                );
                let mut statement = connection.prepare_cached(&sql)?;
                statement
                    .query_map(params![partition, lane.as_str(), after_seq, since.epoch_days(), limit], entry)?
                    .collect()
            })
            .await
    }

    async fn ping(&self) -> Result<(), PortError> {
        self.readers.read(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await
    }
}

fn verdict(swap: Swap) -> Result<ClaimVerdict, PortError> {
    match swap {
        Swap::Done => Ok(ClaimVerdict::Won),
        Swap::Held(claim) => Ok(ClaimVerdict::Held(claim)),
        Swap::Missing => Err(PortError::new(
            "ledger",
            "the claim to be moved on is not in the store: was store.db replaced?",
        )),
    }
}

/// Where `entry` stands in the ledger; 0 when it does not.
fn seq_of(connection: &rusqlite::Connection, entry: &LedgerEntry) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT coalesce(max(seq), 0) FROM entries
             WHERE partition = ?1 AND offset = ?2 AND notice = ?3 AND event = ?4 AND attempt = ?5",
        )?
        .query_row(
            params![
                entry.position.partition,
                entry.position.offset,
                notice_blob(entry.notice),
                entry.event.name(),
                entry.attempt,
            ],
            |row| row.get(0),
        )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::ledger::Event;
    use gatebell_engine::ledger_contract;
    use gatebell_engine::testing::contract::ledger::{charge, entry, sms_notice};

    use super::super::store_fixture::{fresh_ledger, open};
    use super::*;

    ledger_contract!(contract, fresh_ledger);

    #[tokio::test]
    async fn everything_is_there_again_after_a_stop() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        store.ledger().append(vec![entry(1, Event::Submitted, 0), charge(2).proof]).await.unwrap();
        store.ledger().charge(charge(2)).await.unwrap();
        drop(store);

        let again = open(&directory).ledger();
        assert_eq!(again.load_from(3, 0).await.unwrap().len(), 3);
        assert_eq!(again.charge(charge(2)).await.unwrap(), ChargeVerdict::Charged);
        assert_eq!(again.load_from(3, 0).await.unwrap().len(), 3);
        let lane = entry(1, Event::Submitted, 0).gateway.unwrap();
        let waiting = again.awaiting_receipt(3, &lane, sms_notice(0).day, None, 10).await.unwrap();
        assert_eq!(waiting, [entry(1, Event::Submitted, 0)]);
    }

    #[tokio::test]
    async fn a_claim_moved_on_without_a_row_is_an_error_that_keeps_the_outcome() {
        let ledger = fresh_ledger().await;
        let notice = sms_notice(1);
        let claim = Claim {
            key: ClaimKey::of("114-1", &notice),
            notice: notice.id,
            position: notice.position,
            owner: gatebell_engine::ledger::OwnerToken(1),
            attempt: 1,
            lane: entry(1, Event::Submitted, 0).gateway.unwrap(),
            claimed_at: notice.at,
            deadline: notice.deadline,
            state: gatebell_engine::ledger::ClaimState::Open,
        };
        let error = ledger
            .advance(claim.stamp(), claim.clone(), vec![entry(1, Event::Delivered, 0)])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not in the store"), "{error}");
        let kept = ledger.entries_of(notice.position, notice.id).await.unwrap();
        assert_eq!(kept, [entry(1, Event::Delivered, 0)]);
    }
    /// Whatever is altered behind the ledger's back, as a failing disk would.
    #[tokio::test]
    async fn an_altered_entry_is_reported_with_its_place_and_never_read() {
        for alteration in [
            "order_code = 'O9'",
            "order_code = NULL",
            "guardian = 'G9'",
            "channel = 'app'",
            "kind = 'no kind'",
            "day = day + 1",
            "at = at + 1",
            "time = time - 1",
            "gateway_id = gateway_id || '1'",
            "reason = 'x'",
            "checksum = checksum + 1",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let ledger = open(&directory).ledger();
            let proof = charge(2).proof;
            ledger.append(vec![proof.clone()]).await.unwrap();
            let loaded = ledger.load_from(proof.position.partition, 0).await.unwrap();
            assert_eq!(loaded, std::slice::from_ref(&proof));
            let data = crate::data_dir::DataDir::open(directory.path()).unwrap();
            let altered = rusqlite::Connection::open(data.store())
                .unwrap()
                .execute(&format!("UPDATE entries SET {alteration}"), [])
                .unwrap();
            assert_eq!(altered, 1);
            let error = ledger.load_from(proof.position.partition, 0).await.unwrap_err().to_string();
            let place = format!("the tap at {} is damaged", proof.position);
            assert!(error.contains(&place), "{alteration}: {error}");
            let found = crate::damage::look_for(&data);
            assert!(found.iter().any(|damage| damage.what.contains(&place)), "{alteration}: {found:?}");
        }
    }
}
