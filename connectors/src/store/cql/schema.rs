//! The schema: numbered files in `config/cql/`, applied in order and written down in `schema_versions`.
//!
//! Every statement of a file may be run again (`IF NOT EXISTS`), so a migration that broke off is run again. Two at once
//! are kept apart by compare-and-set: a version is *applying* under the token of the one who applies it, then *applied*;
//! who comes second waits, and takes over what was left lying. What is older or newer than this program is not used.

use std::time::Duration;

use gatebell_engine::ports::PortError;
use scylla::client::session::Session;
use scylla::errors::DbError;
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::CqlTimestamp;

use super::error::{self, store_error};
use super::session::{connect, in_keyspace, retried, run};
use super::settings::CqlSettings;

/// One version of the schema.
struct Version {
    /// From 1 without gaps.
    number: i32,
    statements: &'static str,
}

const VERSIONS: &[Version] = &[
    Version { number: 1, statements: include_str!("../../../../config/cql/0001_ledger.cql") },
    Version { number: 2, statements: include_str!("../../../../config/cql/0002_books.cql") },
    Version { number: 3, statements: include_str!("../../../../config/cql/0003_tokens.cql") },
    Version { number: 4, statements: include_str!("../../../../config/cql/0004_processes.cql") },
    Version { number: 5, statements: include_str!("../../../../config/cql/0005_receipts.cql") },
    Version { number: 6, statements: include_str!("../../../../config/cql/0006_message_ids.cql") },
    Version { number: 7, statements: include_str!("../../../../config/cql/0007_notices.cql") },
    Version { number: 8, statements: include_str!("../../../../config/cql/0008_terms.cql") },
];

/// A change of the schema waits until all nodes have it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A version that somebody has been applying for so long is taken over: its statements may be run again.
const ABANDONED_AFTER: Duration = Duration::from_secs(120);
/// Between two looks at a version that somebody else is applying.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks before giving up: somewhat longer than [`ABANDONED_AFTER`].
const LOOKS_MAX: u32 = 600;

/// What `migrate` did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// The version that the keyspace had; 0 when it was empty.
    pub from: i32,
    /// The version that it has now.
    pub to: i32,
    /// Whether it was empty and nobody else was faster.
    pub is_first: bool,
}

/// The version of the keyspace of `settings`; 0 where nothing is there.
pub async fn version(settings: &CqlSettings) -> Result<i32, PortError> {
    applied_version(&connect(settings).await?, &settings.keyspace).await
}

/// Creates the keyspace of `settings` if it is missing, and brings its schema to this program's version. Running it again,
/// or twice at once, changes nothing more.
pub async fn migrate(settings: &CqlSettings) -> Result<Migration, PortError> {
    let driver = connect(settings).await?;
    create_keyspace(&driver, settings).await?;
    driver.use_keyspace(&settings.keyspace, true).await.map_err(|error| error::use_keyspace(&error))?;
    change(&driver, CREATE_VERSIONS).await?;
    let from = applied_version(&driver, &settings.keyspace).await?;
    let token = getrandom::u64().map_err(store_error)?.cast_signed();
    let mut is_first = false;
    for version in VERSIONS.iter().filter(|version| version.number > from) {
        let by_us = apply(&driver, &settings.keyspace, version, token).await?;
        is_first |= by_us && version.number == 1;
    }
    let to = applied_version(&driver, &settings.keyspace).await?;
    Ok(Migration { from, to, is_first })
}

/// Whether the keyspace that `driver` uses has this program's version.
pub(super) async fn check(driver: &Session, keyspace: &str) -> Result<(), PortError> {
    let newest = newest();
    let applied = applied_version(driver, keyspace).await?;
    if applied == newest {
        return Ok(());
    }
    Err(store_error(format_args!(
        "keyspace {keyspace} has version {applied} of the schema, this program needs {newest}: run `gatebell store migrate`"
    )))
}

fn newest() -> i32 {
    VERSIONS.last().map_or(0, |version| version.number)
}

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (
    part       text,
    version    int,
    state      text,
    migrator   bigint,
    since      timestamp,
    PRIMARY KEY ((part), version)
)";

async fn create_keyspace(driver: &Session, settings: &CqlSettings) -> Result<(), PortError> {
    let exists = format!(
        "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = '{}'",
        settings.keyspace
    );
    if is_found(driver, &exists).await? {
        return Ok(());
    }
    let copies: Vec<String> =
        settings.replication.iter().map(|(name, copies)| format!("'{name}': {copies}")).collect();
    let keyspace = &settings.keyspace;
    let replication = format!("{{'class': 'NetworkTopologyStrategy', {}}}", copies.join(", "));
    let mut create = format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}");
    // ScyllaDB's tablets take compare-and-set from 2025.4 on only; without them all versions do.
    let is_scylla = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = 'scylla_local'";
    if is_found(driver, is_scylla).await? {
        create.push_str(" AND tablets = {'enabled': false}");
    }
    change(driver, &create).await.map_err(|error| {
        store_error(format_args!(
            "keyspace {keyspace} cannot be created: {} (create it with {replication}, or give the user the right to)",
            error.cause
        ))
    })
}

/// The version up to which all are applied; an error where there is one that this program does not know.
async fn applied_version(driver: &Session, keyspace: &str) -> Result<i32, PortError> {
    let select =
        in_keyspace("SELECT version, state FROM keyspace.schema_versions WHERE part = 'store'", keyspace);
    let found = match run(driver, &select, STATEMENT_TIMEOUT).await {
        Ok(found) => found,
        // Nothing is in the keyspace, or there is none.
        Err(error) if error::db_error(&error) == Some(&DbError::Invalid) => return Ok(0),
        Err(error) => return Err(error::execution(&error)),
    };
    let found = found.into_rows_result().map_err(|_| unreadable())?;
    let newest = newest();
    let mut applied = 0;
    // By version, rising: that is how they are clustered.
    for row in found.rows::<(i32, String)>().map_err(|_| unreadable())? {
        let (version, state) = row.map_err(|_| unreadable())?;
        if version > newest {
            return Err(store_error(format_args!(
                "keyspace {keyspace} has version {version} of the schema, this program knows {newest}: use the newer program"
            )));
        }
        if state == APPLIED && version == applied + 1 {
            applied = version;
        }
    }
    Ok(applied)
}

const APPLYING: &str = "applying";
const APPLIED: &str = "applied";

/// Applies `version` as the one who holds it under `token`, or waits until somebody else has. Whether it was us.
async fn apply(driver: &Session, keyspace: &str, version: &Version, token: i64) -> Result<bool, PortError> {
    for _ in 0..LOOKS_MAX {
        match hold(driver, keyspace, version.number, token).await? {
            Held::ByUs => {
                for statement in statements(version.statements) {
                    change(driver, statement).await.map_err(|error| {
                        store_error(format_args!("schema version {}: {}", version.number, error.cause))
                    })?;
                }
                // Where somebody has taken over meanwhile, that one says it.
                swap(
                    driver,
                    keyspace,
                    "UPDATE keyspace.schema_versions SET state = ? WHERE part = 'store' AND version = ? IF migrator = ? AND state = ?",
                    (APPLIED, version.number, token, APPLYING),
                )
                .await?;
            }
            Held::ByAnother => tokio::time::sleep(LOOK_EVERY).await,
            Held::Applied { by_us } => return Ok(by_us),
        }
    }
    Err(store_error(format_args!(
        "schema version {} is being applied by somebody for too long",
        version.number
    )))
}

enum Held {
    ByUs,
    ByAnother,
    Applied { by_us: bool },
}

/// Takes the right to apply a version, if nobody has it.
async fn hold(driver: &Session, keyspace: &str, number: i32, token: i64) -> Result<Held, PortError> {
    let now = jiff::Timestamp::now().as_millisecond();
    let insert = "INSERT INTO keyspace.schema_versions (part, version, state, migrator, since) VALUES ('store', ?, ?, ?, ?) IF NOT EXISTS";
    // Whether it was applied or its answer was lost, the row tells.
    swap(driver, keyspace, insert, (number, APPLYING, token, CqlTimestamp(now))).await?;
    let select =
        "SELECT state, migrator, since FROM keyspace.schema_versions WHERE part = 'store' AND version = ?";
    let mut select = Statement::new(in_keyspace(select, keyspace));
    select.set_consistency(Consistency::LocalSerial);
    let found = retried("schema", || driver.query_unpaged(select.clone(), (number,))).await?;
    let found = found.into_rows_result().map_err(|_| unreadable())?;
    let row = found.maybe_first_row::<(String, i64, CqlTimestamp)>().map_err(|_| unreadable())?;
    let Some((state, holder, CqlTimestamp(since))) = row else { return Ok(Held::ByAnother) };
    if state == APPLIED {
        return Ok(Held::Applied { by_us: holder == token });
    }
    if holder == token {
        return Ok(Held::ByUs);
    }
    let age_ms = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
    if Duration::from_millis(age_ms) > ABANDONED_AFTER {
        swap(
            driver,
            keyspace,
            "UPDATE keyspace.schema_versions SET migrator = ?, since = ? WHERE part = 'store' AND version = ? IF migrator = ? AND state = ?",
            (token, CqlTimestamp(now), number, holder, APPLYING),
        )
        .await?;
    }
    Ok(Held::ByAnother)
}

/// A compare-and-set whose outcome the row tells, so it may be tried again: two that come at once can time each other out.
async fn swap(
    driver: &Session,
    keyspace: &str,
    cql: &str,
    values: impl SerializeRow,
) -> Result<(), PortError> {
    let mut statement = Statement::new(in_keyspace(cql, keyspace));
    statement.set_consistency(Consistency::LocalQuorum);
    statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
    statement.set_request_timeout(Some(STATEMENT_TIMEOUT));
    retried("schema", || driver.query_unpaged(statement.clone(), &values)).await.map(drop)
}

/// A change of the schema; returns when the nodes agree on it.
async fn change(driver: &Session, cql: &str) -> Result<(), PortError> {
    run(driver, cql, STATEMENT_TIMEOUT).await.map(drop).map_err(|error| error::schema_change(&error))
}

async fn is_found(driver: &Session, cql: &str) -> Result<bool, PortError> {
    let found = run(driver, cql, STATEMENT_TIMEOUT).await.map_err(|error| error::execution(&error))?;
    Ok(found.into_rows_result().map_err(|_| unreadable())?.rows_num() > 0)
}

fn unreadable() -> PortError {
    store_error("schema_versions is not of the form that this program writes")
}

/// The statements of a file: they end with `;` at the end of a line, comments take whole lines.
fn statements(file: &str) -> impl Iterator<Item = &str> {
    file.split_inclusive(";\n").filter_map(|text| {
        let start = text
            .split_inclusive('\n')
            .take_while(|line| line.trim().is_empty() || line.starts_with("--"))
            .map(str::len)
            .sum::<usize>();
        let statement = text.get(start..)?.trim().trim_end_matches(';');
        (!statement.is_empty()).then_some(statement)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture;
    use super::super::session::CqlSession;
    use super::*;

    #[test]
    fn versions_rise_by_one_and_every_statement_may_run_again() {
        for (expected, version) in (1..).zip(VERSIONS) {
            assert_eq!(version.number, expected);
            for statement in statements(version.statements) {
                let may_run_again =
                    ["CREATE TABLE IF NOT EXISTS ", "CREATE TYPE IF NOT EXISTS ", "DROP TABLE IF EXISTS "];
                assert!(may_run_again.iter().any(|start| statement.starts_with(start)), "{statement}");
                assert!(!statement.contains(';'), "{statement}");
            }
        }
    }

    #[test]
    fn a_file_is_split_at_semicolons_and_its_comments_are_left_out() {
        let file = "-- about; all\n\n-- one\nCREATE A (\n    b int -- why\n);\n\n-- two\nCREATE B;\n";
        let found: Vec<_> = statements(file).collect();
        assert_eq!(found, ["CREATE A (\n    b int -- why\n)", "CREATE B"]);
    }

    #[tokio::test]
    async fn two_migrations_at_once_and_one_after_are_harmless() {
        let settings = fixture::settings_of(&fixture::keyspace_name("twice"));
        let (one, other) = futures::join!(migrate(&settings), migrate(&settings));
        let both = [one.unwrap(), other.unwrap()];
        assert!(both.iter().all(|migration| migration.to == newest()));
        assert_eq!(both.iter().filter(|migration| migration.is_first).count(), 1, "{both:?}");
        let again = migrate(&settings).await.unwrap();
        assert_eq!(again, Migration { from: newest(), to: newest(), is_first: false });
        CqlSession::open(&settings).await.unwrap();
        fixture::drop_keyspace(&settings).await;
    }

    #[tokio::test]
    async fn a_keyspace_of_another_version_is_not_opened() {
        let settings = fixture::settings_of(&fixture::keyspace_name("versions"));
        let missing = CqlSession::open(&settings).await.unwrap_err().to_string();
        assert!(missing.contains("gatebell store migrate"), "{missing}");

        let driver = connect(&settings).await.unwrap();
        create_keyspace(&driver, &settings).await.unwrap();
        let empty = CqlSession::open(&settings).await.unwrap_err().to_string();
        assert!(empty.contains("version 0") && empty.contains("gatebell store migrate"), "{empty}");

        migrate(&settings).await.unwrap();
        driver.use_keyspace(&settings.keyspace, true).await.unwrap();
        let future = newest() + 1;
        change(
            &driver,
            &format!(
                "INSERT INTO schema_versions (part, version, state) VALUES ('store', {future}, 'applied')"
            ),
        )
        .await
        .unwrap();
        let newer = CqlSession::open(&settings).await.unwrap_err().to_string();
        assert!(newer.contains("newer program"), "{newer}");
        assert!(migrate(&settings).await.is_err(), "what is newer is left alone");
        fixture::drop_keyspace(&settings).await;
    }

    #[tokio::test]
    async fn a_migration_left_lying_is_taken_over() {
        let settings = fixture::settings_of(&fixture::keyspace_name("abandoned"));
        let driver = connect(&settings).await.unwrap();
        create_keyspace(&driver, &settings).await.unwrap();
        driver.use_keyspace(&settings.keyspace, true).await.unwrap();
        change(&driver, CREATE_VERSIONS).await.unwrap();
        let long_ago = jiff::Timestamp::now().as_millisecond() - 600_000;
        swap(
            &driver,
            &settings.keyspace,
            "INSERT INTO keyspace.schema_versions (part, version, state, migrator, since) VALUES ('store', 1, ?, 7, ?) IF NOT EXISTS",
            (APPLYING, CqlTimestamp(long_ago)),
        )
        .await
        .unwrap();
        assert_eq!(migrate(&settings).await.unwrap(), Migration { from: 0, to: newest(), is_first: true });
        fixture::drop_keyspace(&settings).await;
    }
}
