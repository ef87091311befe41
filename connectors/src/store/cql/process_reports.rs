//! Which processes are alive: rows that expire unless they are written again.
//!
//! The store counts the time, in whole seconds, so a row lives somewhat longer than the registry asks for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;

use super::error::store_error;
use super::ledger_rows::{Stamps, unreadable};
use super::session::{CqlSession, Read, Write};
use crate::registry::{ProcessReports, REPORT_LIVES};

/// All processes of a city report in one partition: some dozen rows.
const POOL: &str = "engines";
/// What the store may cut off by counting whole seconds.
const MARGIN: Duration = Duration::from_secs(1);

/// The reports of the processes on one keyspace.
#[derive(Debug)]
pub struct CqlProcessReports {
    session: Arc<CqlSession>,
    pool: String,
    lives_s: i32,
    /// A report replaces the one before, whichever node takes it.
    stamps: Stamps,
    insert: Write,
    select: Read,
}

impl CqlProcessReports {
    /// The reports in the keyspace of `session`.
    pub async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        Self::in_pool(session, POOL, REPORT_LIVES + MARGIN).await
    }

    async fn in_pool(session: Arc<CqlSession>, pool: &str, lives: Duration) -> Result<Self, PortError> {
        let insert = session.prepare_write(
            "INSERT INTO keyspace.process_reports (pool, owner, version) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?",
        );
        let select =
            session.prepare_read("SELECT owner, version FROM keyspace.process_reports WHERE pool = ?");
        Ok(Self {
            insert: insert.await?,
            select: select.await?,
            session,
            pool: pool.to_owned(),
            lives_s: i32::try_from(lives.as_secs()).expect("some seconds"),
            stamps: Stamps::default(),
        })
    }
}

#[async_trait]
impl ProcessReports for CqlProcessReports {
    async fn report(&self, owner: &str, version: u64) -> Result<(), PortError> {
        let version = i64::try_from(version)
            .map_err(|_| store_error(format_args!("version {version} is beyond what a registry can have")))?;
        let values = (&self.pool, owner, version, self.lives_s, self.stamps.next().us);
        self.session.write(&self.insert, values).await
    }

    async fn live(&self) -> Result<Vec<(String, u64)>, PortError> {
        let rows: Vec<(String, i64)> = self.session.rows(&self.select, (&self.pool,)).await?;
        rows.into_iter()
            .map(|(owner, version)| Ok((owner, u64::try_from(version).map_err(|_| unreadable("version"))?)))
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::super::fixture;
    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(60);

    async fn reports(pool: &str, lives: Duration) -> CqlProcessReports {
        CqlProcessReports::in_pool(fixture::session().await, pool, lives).await.unwrap()
    }

    #[tokio::test]
    async fn the_last_report_of_each_process_is_seen_by_all() {
        let pool = fixture::unique();
        let (one, other) = (reports(&pool, WAIT_MAX).await, reports(&pool, WAIT_MAX).await);
        one.report("a", 7).await.unwrap();
        other.report("b", 3).await.unwrap();
        for version in 8..12 {
            one.report("a", version).await.unwrap();
        }
        let expected = [("a".to_owned(), 11), ("b".to_owned(), 3)];
        assert_eq!(one.live().await.unwrap(), expected);
        assert_eq!(other.live().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_process_that_does_not_report_any_more_is_gone_soon() {
        let pool = fixture::unique();
        let lasting = reports(&pool, WAIT_MAX * 2).await;
        let passing = reports(&pool, Duration::from_secs(2)).await;
        lasting.report("a", 1).await.unwrap();
        passing.report("b", 1).await.unwrap();
        let deadline = Instant::now() + WAIT_MAX;
        while lasting.live().await.unwrap().len() > 1 {
            assert!(Instant::now() < deadline, "the report stays");
        }
        assert_eq!(lasting.live().await.unwrap(), [("a".to_owned(), 1)]);
    }
}
