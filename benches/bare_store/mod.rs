//! What the store takes from somebody who does nothing but write: the rows of a ledger once more, under another log's name.
//!
//! The driver alone, with statements, batches and rows as the ledger has them; so what an engine reaches beside it is what
//! the store allows, less what the engine costs.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use gatebell_connectors::store::cql::settings::CqlSettings;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::value::{CqlDate, CqlTimestamp};
use scylla::{DeserializeValue, SerializeValue};

use crate::{Figure, Watch};

/// Rows of one batch, as the ledger has them; and batches at once, beyond which the store got no faster.
const BATCH_ROWS: usize = 500;
const BATCHES_AT_ONCE: usize = 64;
/// Groups of the notices by pupil.
const GROUPS: u8 = 32;
/// A session's request; dropping a keyspace takes its time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An entry's part that is one value in the store. It repeats what the ledger's own row has, on purpose: the bare writer must
/// not use the code that it is compared with, whose every change would move both figures.
#[derive(SerializeValue, DeserializeValue)]
struct Line {
    written_desc: i64,
    pupil: String,
    guardian: String,
    channel: String,
    kind: String,
    day: CqlDate,
    tap_at: CqlTimestamp,
    happened_at: CqlTimestamp,
    order_code: Option<String>,
    gateway: Option<String>,
    gateway_id: Option<String>,
    reason: Option<String>,
}

/// Offset, notice, event, attempt, line, write timestamp.
type Entry = (i64, Vec<u8>, String, i64, Line, i64);

/// The rows of one log's ledger.
pub(crate) struct LedgerRows {
    session: Session,
    keyspace: String,
    /// By partition and bucket.
    buckets: BTreeMap<(i64, i64), Vec<Entry>>,
}

/// A session that has no keyspace in use.
async fn open(settings: &CqlSettings) -> anyhow::Result<Session> {
    Ok(SessionBuilder::new().known_nodes(&settings.contact_points).build().await?)
}

/// Leaves nothing of earlier runs behind.
pub(crate) async fn drop_keyspace(settings: &CqlSettings) -> anyhow::Result<()> {
    let drop = format!("DROP KEYSPACE IF EXISTS {}", settings.keyspace);
    let mut statement = Statement::new(drop);
    statement.set_request_timeout(Some(TIMEOUT));
    open(settings).await?.query_unpaged(statement, ()).await?;
    Ok(())
}

impl LedgerRows {
    /// Reads what the ledger of `log` has in `partitions` partitions.
    pub(crate) async fn read(settings: &CqlSettings, log: &str, partitions: u32) -> anyhow::Result<Self> {
        let (session, keyspace) = (open(settings).await?, settings.keyspace.clone());
        let head = format!("SELECT bucket FROM {keyspace}.entry_heads WHERE log = ? AND log_partition = ?");
        let rows = format!(
            "SELECT log_offset, notice, event, attempt, line, writetime(line) FROM {keyspace}.ledger_entries
             WHERE log = ? AND log_partition = ? AND bucket = ?"
        );
        let (head, rows) = (session.prepare(head).await?, session.prepare(rows).await?);
        let mut buckets = BTreeMap::new();
        for partition in (0..partitions).map(i64::from) {
            let found = session.execute_unpaged(&head, (log, partition)).await?.into_rows_result()?;
            let Some((last,)) = found.maybe_first_row::<(i64,)>()? else { continue };
            for bucket in 0..=last {
                let found = session.execute_iter(rows.clone(), (log, partition, bucket)).await?;
                let entries: Vec<Entry> = found.rows_stream()?.try_collect().await?;
                buckets.insert((partition, bucket), entries);
            }
        }
        Ok(Self { session, keyspace, buckets })
    }

    /// Writes all of it for `log`, entries and notices by pupil; what that took, an entry standing for its tap.
    pub(crate) async fn write(&self, log: &str) -> anyhow::Result<Figure> {
        let keyspace = &self.keyspace;
        let entries = self.prepare(format!(
            "INSERT INTO {keyspace}.ledger_entries (log, log_partition, bucket, log_offset, notice, event, attempt, line)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        ));
        let notices = self.prepare(format!(
            "INSERT INTO {keyspace}.notices_by_day (day, pupil_group, pupil, log, log_partition, log_offset, notice)
             VALUES (?, ?, ?, ?, ?, ?, ?)"
        ));
        let (insert_entry, insert_notice) = futures::try_join!(entries, notices)?;
        let mut entries = Vec::new();
        let mut by_group: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((partition, bucket), of_bucket) in &self.buckets {
            for (offset, notice, event, attempt, line, written) in of_bucket {
                entries.push((log, partition, bucket, offset, notice, event, attempt, line, written));
                let group = notice.first().map_or(0, |byte| byte % GROUPS);
                let row = (line.day, i32::from(group), &line.pupil, log, partition, offset, notice);
                by_group.entry((line.day.0, group)).or_default().push(row);
            }
        }
        let watch = Watch::start()?;
        let of_entries = entries.chunk_by(|one, next| (one.1, one.2) == (next.1, next.2));
        let of_entries = of_entries.flat_map(|of_bucket| of_bucket.chunks(BATCH_ROWS));
        let of_notices = by_group.values().flat_map(|of_group| of_group.chunks(BATCH_ROWS));
        let entries_written =
            stream::iter(of_entries).map(|rows| self.write_batch(&insert_entry, rows).boxed());
        let notices_written =
            stream::iter(of_notices).map(|rows| self.write_batch(&insert_notice, rows).boxed());
        // In turns, as an engine does.
        let all = stream::select(entries_written, notices_written);
        all.buffer_unordered(BATCHES_AT_ONCE).try_collect::<()>().await?;
        watch.stop(entries.len() as u64)
    }

    async fn prepare(&self, cql: String) -> anyhow::Result<PreparedStatement> {
        let mut statement = self.session.prepare(cql).await?;
        statement.set_consistency(Consistency::LocalQuorum);
        Ok(statement)
    }

    /// Rows of one partition, as one mutation.
    async fn write_batch(
        &self,
        statement: &PreparedStatement,
        rows: &[impl SerializeRow + Sync],
    ) -> anyhow::Result<()> {
        let statements = rows.iter().map(|_| BatchStatement::PreparedStatement(statement.clone())).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_consistency(Consistency::LocalQuorum);
        self.session.batch(&batch, rows).await?;
        Ok(())
    }
}
