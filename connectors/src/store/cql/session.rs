//! The session: one connection pool to the store, and the classes of request that go through it.
//!
//! Owns what every statement of a class has in common, so that no statement can be run in another way than its class
//! says: consistency, time-out, retries, and the bound on requests under way. A *read* and a *write* ask a majority of the
//! local datacentre and may be repeated by the driver, so every write here must be one that repeating does not change. A
//! *swap* (compare-and-set) is never repeated here: its caller settles what an error leaves open, with a *serial read*.
//! What is in the rows, the parts of the store know.
//!
//! Statements name each table with its keyspace, for which `keyspace.` stands in their text (the word is reserved, so no
//! keyspace has it as its name): a statement prepared against a keyspace in use is another one by the next connection's,
//! and Cassandra warns of each.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatebell_engine::ports::PortError;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy, RetryPolicy};
use scylla::response::PagingState;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, Row};
use secrecy::ExposeSecret;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{self, store_error};
use super::schema;
use super::settings::CqlSettings;

/// Requests under way at once; whoever comes later waits. The driver's book finds a few hundred best.
const IN_FLIGHT_MAX: usize = 256;
/// Tries of a read or write that failed, beside what the driver does by itself (asking another node).
const TRIES_MAX: u32 = 3;
/// Pause before the second try; it doubles, and up to as much again is added by chance so that tasks do not retry in step.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Stands for the session's keyspace in the text of statements.
const KEYSPACE_STAND_IN: &str = "keyspace.";
/// Rows of one page when reading.
const PAGE_ROWS: i32 = 2_000;
/// Rows written together: some hundred KB at most. A batch of one partition is one mutation, which servers do not warn of
/// for its size.
pub(super) const BATCH_ROWS_MAX: usize = 500;
/// Batches kept of each statement.
const SPARE_BATCHES_MAX: usize = 64;

// The kinds of request, as metrics call them.
const READ: &str = "read";
const WRITE: &str = "write";
const SWAP: &str = "compare_and_set";

/// A prepared statement that reads rows.
#[derive(Clone, Debug)]
pub(super) struct Read(PreparedStatement);

/// A prepared statement that writes rows, and changes nothing when it is repeated.
pub(super) struct Write {
    statement: PreparedStatement,
    /// Batches that have served: the driver wants the statement once a row, and copying it costs about as much as the row.
    /// At most [`SPARE_BATCHES_MAX`].
    spare: Mutex<Vec<Batch>>,
}

impl Write {
    fn spare(&self) -> MutexGuard<'_, Vec<Batch>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of `rows` times the statement, to run under `profile`.
    fn batch(&self, rows: usize, profile: &ExecutionProfileHandle) -> Batch {
        let spare = self.spare().pop();
        let mut batch = spare.unwrap_or_else(|| {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            batch.set_execution_profile_handle(Some(profile.clone()));
            batch
        });
        batch.statements.resize_with(rows, || BatchStatement::PreparedStatement(self.statement.clone()));
        batch
    }

    fn give_back(&self, batch: Batch) {
        let mut spare = self.spare();
        if spare.len() < SPARE_BATCHES_MAX {
            spare.push(batch);
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Write").field(&self.statement).finish()
    }
}

/// A prepared compare-and-set.
#[derive(Clone, Debug)]
pub(super) struct Swap(PreparedStatement);

/// A session on one keyspace. Cheap to share; all parts of one process use the same.
#[derive(Debug)]
pub struct CqlSession {
    driver: Session,
    keyspace: String,
    in_flight: Semaphore,
    requests: AtomicU64,
    reads: ExecutionProfileHandle,
    writes: ExecutionProfileHandle,
    swaps: ExecutionProfileHandle,
    /// How many of the next swaps lose their answer, after the store has carried them out.
    #[cfg(test)]
    pub(super) swap_answers_lost: std::sync::atomic::AtomicU32,
}

impl CqlSession {
    /// Connects to the keyspace of `settings`, whose schema must be the one that this program was built with.
    pub async fn open(settings: &CqlSettings) -> Result<Arc<Self>, PortError> {
        let driver = connect(settings).await?;
        schema::check(&driver, &settings.keyspace).await?;
        let timeouts = settings.timeouts;
        let retried: Arc<dyn RetryPolicy> = Arc::new(DefaultRetryPolicy::new());
        let not_retried: Arc<dyn RetryPolicy> = Arc::new(FallthroughRetryPolicy::new());
        Ok(Arc::new(Self {
            driver,
            keyspace: settings.keyspace.clone(),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            requests: AtomicU64::new(0),
            reads: profile(settings, timeouts.read, Arc::clone(&retried)),
            writes: profile(settings, timeouts.write, retried),
            swaps: profile(settings, timeouts.swap, not_retried),
            #[cfg(test)]
            swap_answers_lost: std::sync::atomic::AtomicU32::new(0),
        }))
    }

    /// Prepares a read by a majority.
    pub(super) async fn prepare_read(&self, cql: &str) -> Result<Read, PortError> {
        let mut statement = self.prepare(cql, &self.reads).await?;
        statement.set_is_idempotent(true);
        Ok(Read(statement))
    }

    /// Prepares a read that sees, and completes, every compare-and-set before it.
    pub(super) async fn prepare_serial_read(&self, cql: &str) -> Result<Read, PortError> {
        let mut statement = self.prepare(cql, &self.swaps).await?;
        statement.set_is_idempotent(true);
        statement.set_consistency(Consistency::LocalSerial);
        Ok(Read(statement))
    }

    /// Prepares a write by a majority. It must not matter how often it is carried out, nor when.
    pub(super) async fn prepare_write(&self, cql: &str) -> Result<Write, PortError> {
        let mut statement = self.prepare(cql, &self.writes).await?;
        statement.set_is_idempotent(true);
        Ok(Write { statement, spare: Mutex::default() })
    }

    /// Prepares a compare-and-set.
    pub(super) async fn prepare_swap(&self, cql: &str) -> Result<Swap, PortError> {
        let mut statement = self.prepare(cql, &self.swaps).await?;
        statement.set_is_idempotent(false);
        Ok(Swap(statement))
    }

    async fn prepare(
        &self,
        cql: &str,
        profile: &ExecutionProfileHandle,
    ) -> Result<PreparedStatement, PortError> {
        let cql = in_keyspace(cql, &self.keyspace);
        let mut statement = self.driver.prepare(cql).await.map_err(|error| error::prepare(&error))?;
        statement.set_execution_profile_handle(Some(profile.clone()));
        statement.set_page_size(PAGE_ROWS);
        Ok(statement)
    }

    /// Every row that `statement` finds.
    pub(super) async fn rows<R>(
        &self,
        statement: &Read,
        values: impl SerializeRow + Sync,
    ) -> Result<Vec<R>, PortError>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        let mut rows = Vec::new();
        let mut next = Some(PagingState::start());
        while let Some(page) = next {
            let found;
            (found, next) = self.page(statement, &values, page).await?;
            rows.extend(found);
        }
        Ok(rows)
    }

    /// One page of what `statement` finds, from `page` on, and where the next one begins.
    pub(super) async fn page<R>(
        &self,
        statement: &Read,
        values: impl SerializeRow + Sync,
        page: PagingState,
    ) -> Result<(Vec<R>, Option<PagingState>), PortError>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        let (found, next) = retried(READ, || async {
            let _under_way = self.permit(READ).await;
            self.driver.execute_single_page(&statement.0, &values, page.clone()).await
        })
        .await?;
        let mut rows = Vec::new();
        rows_of(found, &mut rows)?;
        Ok((rows, next.into_paging_control_flow().continue_value()))
    }

    /// The row that `statement` finds, if any.
    pub(super) async fn row<R>(
        &self,
        statement: &Read,
        values: impl SerializeRow + Sync,
    ) -> Result<Option<R>, PortError>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        Ok(self.rows(statement, values).await?.into_iter().next())
    }

    /// Writes one row.
    pub(super) async fn write(
        &self,
        statement: &Write,
        values: impl SerializeRow + Sync,
    ) -> Result<(), PortError> {
        retried(WRITE, || async {
            let _under_way = self.permit(WRITE).await;
            self.driver.execute_unpaged(&statement.statement, &values).await
        })
        .await
        .map(drop)
    }

    /// Writes rows of one partition, at most [`BATCH_ROWS_MAX`], as one mutation.
    pub(super) async fn write_partition<V: SerializeRow + Sync>(
        &self,
        statement: &Write,
        rows: &[V],
    ) -> Result<(), PortError> {
        debug_assert!(rows.len() <= BATCH_ROWS_MAX, "a batch of {} rows", rows.len());
        if let [row] = rows {
            return self.write(statement, row).await;
        }
        let batch = statement.batch(rows.len(), &self.writes);
        retried(WRITE, || async {
            let _under_way = self.permit(WRITE).await;
            self.driver.batch(&batch, rows).await
        })
        .await?;
        statement.give_back(batch);
        Ok(())
    }

    /// Carries out a compare-and-set; whether it was applied. After an error nothing is known: it may have been, or may
    /// yet be, applied.
    pub(super) async fn swap(
        &self,
        statement: &Swap,
        values: impl SerializeRow + Sync,
    ) -> Result<bool, PortError> {
        let under_way = self.permit(SWAP).await;
        let answer = self.driver.execute_unpaged(&statement.0, &values).await;
        drop(under_way);
        let answer = answer.map_err(|error| error::execution(&error))?;
        #[cfg(test)]
        self.lose_answer()?;
        // Cassandra appends the row only where nothing was applied, ScyllaDB always: only the first column is the same.
        let mut rows: Vec<Row> = Vec::new();
        rows_of(answer, &mut rows)?;
        let applied = rows.first().and_then(|row| row.columns.first());
        match applied {
            Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
            _ => Err(store_error("the answer to a compare-and-set does not say whether it was applied")),
        }
    }

    #[cfg(test)]
    fn lose_answer(&self) -> Result<(), PortError> {
        use std::sync::atomic::Ordering::SeqCst;
        let lost = self.swap_answers_lost.try_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if lost.is_ok() { Err(store_error("the answer was lost")) } else { Ok(()) }
    }

    /// Requests made so far, repeated ones as often as they were made.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Waits until another request may go, and counts it.
    async fn permit(&self, class: &'static str) -> UnderWay<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
        UnderWay { class, since: Instant::now(), _permit: permit }
    }
}

/// A request to the store, for as long as it takes, whatever comes of it.
struct UnderWay<'session> {
    class: &'static str,
    since: Instant,
    _permit: SemaphorePermit<'session>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        metrics::histogram!("gatebell_store_request_seconds", "class" => self.class)
            .record(took.as_secs_f64());
    }
}

/// Connects with the addresses and credentials of `settings`.
pub(super) async fn connect(settings: &CqlSettings) -> Result<Session, PortError> {
    settings.check()?;
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.contact_points)
        .connection_timeout(settings.timeouts.connect)
        .keyspaces_to_fetch([&settings.keyspace])
        .default_execution_profile_handle(profile(
            settings,
            settings.timeouts.read,
            Arc::new(DefaultRetryPolicy::new()),
        ));
    if let Some(credentials) = &settings.credentials {
        builder = builder.user(&credentials.user, credentials.password.expose_secret());
    }
    builder.build().await.map_err(|error| error::new_session(&error))
}

/// `cql` with `keyspace` in the place of its stand-in.
pub(super) fn in_keyspace(cql: &str, keyspace: &str) -> String {
    cql.replace(KEYSPACE_STAND_IN, &format!("{keyspace}."))
}

fn profile(
    settings: &CqlSettings,
    timeout: Duration,
    retries: Arc<dyn RetryPolicy>,
) -> ExecutionProfileHandle {
    // Token-aware, and shard-aware where the server is ScyllaDB: the driver finds that out by itself. Another datacentre
    // is not asked: its majority is another one.
    let local = DefaultPolicy::builder()
        .prefer_datacenter(settings.local_datacenter.clone())
        .permit_dc_failover(false)
        .token_aware(true)
        .build();
    ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(timeout))
        .load_balancing_policy(local)
        .retry_policy(retries)
        .build()
        .into_handle()
}

/// Runs `attempt` until it succeeds, at most [`TRIES_MAX`] times, unless its error is one that time does not heal.
pub(super) async fn retried<T, F>(class: &'static str, attempt: impl Fn() -> F) -> Result<T, PortError>
where
    F: Future<Output = Result<T, ExecutionError>>,
{
    let mut tries = 1;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if tries == TRIES_MAX || !may_pass(&error) {
            return Err(error::execution(&error));
        }
        metrics::counter!("gatebell_store_retries_total", "class" => class).increment(1);
        tokio::time::sleep(pause_after(tries)).await;
        tries += 1;
    }
}

/// The pause after the `tries`th failure.
pub(super) fn pause_after(tries: u32) -> Duration {
    let pause = RETRY_PAUSE * 2u32.saturating_pow(tries.min(8) - 1);
    // Without a random number the tasks retry in step, which is slower and no more.
    let chance = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    pause + pause.mul_f64(chance)
}

/// Whether an error may pass by itself shortly. A request that used up its own time-out is not tried again here: the
/// caller holds its work, says so, and asks again.
fn may_pass(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(error) => match error {
            RequestAttemptError::BrokenConnectionError(_) | RequestAttemptError::UnableToAllocStreamId => {
                true
            }
            RequestAttemptError::DbError(error, _) => matches!(
                error,
                DbError::Unavailable { .. }
                    | DbError::Overloaded
                    | DbError::RateLimitReached { .. }
                    | DbError::IsBootstrapping
                    | DbError::ReadTimeout { .. }
                    | DbError::WriteTimeout { .. }
                    | DbError::ReadFailure { .. }
                    | DbError::WriteFailure { .. }
                    | DbError::ServerError
            ),
            _ => false,
        },
        _ => false,
    }
}

fn rows_of<R>(result: QueryResult, rows: &mut Vec<R>) -> Result<(), PortError>
where
    R: for<'frame> DeserializeRow<'frame, 'frame>,
{
    // What is wrong with a row is told by its column's name, which the driver's error has together with the value.
    let unreadable = || store_error("a row is not of the form that this program writes");
    let result = result.into_rows_result().map_err(|_| unreadable())?;
    for row in result.rows::<R>().map_err(|_| unreadable())? {
        rows.push(row.map_err(|_| unreadable())?);
    }
    Ok(())
}

/// Runs a statement once, unprepared and without values: for the schema.
pub(super) async fn run(
    driver: &Session,
    cql: &str,
    timeout: Duration,
) -> Result<QueryResult, ExecutionError> {
    let mut statement = Statement::new(cql);
    statement.set_request_timeout(Some(timeout));
    statement.set_is_idempotent(true);
    driver.query_unpaged(statement, ()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_chance_added() {
        for (tries, least_ms) in [(1, 20), (2, 40), (3, 80)] {
            let pause = pause_after(tries);
            assert!(pause >= Duration::from_millis(least_ms), "{pause:?}");
            assert!(pause <= Duration::from_millis(least_ms * 2), "{pause:?}");
        }
    }

    #[test]
    fn what_time_does_not_heal_is_not_tried_again() {
        let db = |error| ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()));
        assert!(may_pass(&db(DbError::Overloaded)));
        assert!(may_pass(&db(DbError::IsBootstrapping)));
        assert!(!may_pass(&db(DbError::Invalid)));
        assert!(!may_pass(&db(DbError::Unauthorized)));
        assert!(!may_pass(&ExecutionError::RequestTimeout(Duration::from_secs(1))));
    }

    #[test]
    fn an_error_tells_nothing_that_the_server_quotes() {
        let error = ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Invalid,
            "line 1: user bob wrote 0912345678".to_owned(),
        ));
        let told = error::execution(&error).to_string();
        assert_eq!(
            told,
            "store: a statement is not valid here: are keyspace and schema those of this program?"
        );
    }
}
