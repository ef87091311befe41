//! A keyspace of the real store for tests.
//!
//! Creating one takes seconds, so all tests of a run share one, each with a log and a term of its own. Keyspaces that
//! earlier runs left behind are dropped when the next one begins.

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::commands::CqlCommands;
use super::schema::migrate;
use super::session::{CqlSession, connect, run};
use super::settings::{CqlSettings, CqlTimeouts};

/// Names of keyspaces that tests made begin with it, and go on with the minute in which they did.
const PREFIX: &str = "gatebell_test_";
/// A keyspace so old belongs to no run any more.
const LEFT_BEHIND_AFTER_MIN: i64 = 180;
const DDL_TIMEOUT: Duration = Duration::from_secs(60);

/// A session on the keyspace that the tests of this run share.
pub(super) async fn session() -> Arc<CqlSession> {
    CqlSession::open(&shared_settings()).await.expect("the store opens")
}

/// What the tests' commands share on that keyspace.
pub(super) fn commands() -> Arc<CqlCommands> {
    static SHARED: OnceLock<Arc<CqlCommands>> = OnceLock::new();
    Arc::clone(SHARED.get_or_init(|| CqlCommands::open(&shared_settings()).expect("the store opens")))
}

/// The settings of the keyspace that the tests of this run share; created when the first test asks.
pub(super) fn shared_settings() -> CqlSettings {
    static SHARED: OnceLock<CqlSettings> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            // A runtime of its own: that of the test that happens to come first ends with that test.
            let created = std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime starts").block_on(async {
                    let settings = settings_of(&keyspace_name("shared"));
                    drop_left_behind(&settings).await;
                    migrate(&settings).await.expect("the schema is applied");
                    settings
                })
            });
            created.join().expect("the keyspace is created")
        })
        .clone()
}

/// Settings for `keyspace` at the address of the tests' store.
pub(super) fn settings_of(keyspace: &str) -> CqlSettings {
    let address = env::var("GATEBELL_TEST_CQL").unwrap_or_else(|_| "127.0.0.1:19042".to_owned());
    assert!(std::net::TcpStream::connect(&address).is_ok(), "no CQL store at {address}: run dev/services up");
    CqlSettings {
        contact_points: vec![address],
        keyspace: keyspace.to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication: BTreeMap::from([("datacenter1".to_owned(), 1)]),
        credentials: None,
        // A store that shares few cores with a compiler may take long.
        timeouts: CqlTimeouts {
            connect: Duration::from_secs(20),
            read: Duration::from_secs(20),
            write: Duration::from_secs(20),
            swap: Duration::from_secs(20),
        },
    }
}

/// A name that no other keyspace has.
pub(super) fn keyspace_name(purpose: &str) -> String {
    format!("{PREFIX}{}_{purpose}_{}", minute_now(), unique())
}

/// A word that no other test has: for logs and terms.
pub(super) fn unique() -> String {
    format!("{:08x}", getrandom::u32().expect("a random number"))
}

/// Drops the keyspace of `settings`.
pub(super) async fn drop_keyspace(settings: &CqlSettings) {
    let driver = connect(settings).await.expect("the store answers");
    let drop = format!("DROP KEYSPACE IF EXISTS {}", settings.keyspace);
    run(&driver, &drop, DDL_TIMEOUT).await.expect("the keyspace is dropped");
}

async fn drop_left_behind(settings: &CqlSettings) {
    let driver = connect(settings).await.expect("the store answers");
    let all = run(&driver, "SELECT keyspace_name FROM system_schema.keyspaces", DDL_TIMEOUT)
        .await
        .expect("keyspaces are listed")
        .into_rows_result()
        .expect("rows");
    for row in all.rows::<(String,)>().expect("names") {
        let (keyspace,) = row.expect("a name");
        let minute =
            keyspace.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()?.parse::<i64>().ok());
        if minute.is_some_and(|minute| minute + LEFT_BEHIND_AFTER_MIN < minute_now()) {
            drop_keyspace(&settings_of(&keyspace)).await;
        }
    }
}

fn minute_now() -> i64 {
    jiff::Timestamp::now().as_second() / 60
}
