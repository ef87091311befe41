//! The embedded registry against the feed's contract, and beside a running engine.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::registry::{Entry, EntryKey};
use gatebell_engine::registry_feed_contract;
use gatebell_engine::testing::contract::registry_feed::{RegistryUnderTest, card, one_of_each};
use gatebell_engine::time::Timestamp;
use tempfile::TempDir;

use super::registry::{Applied, ChangeOrigin, EmbeddedRegistry};
use super::registry_feed::EmbeddedRegistryFeed;
use crate::data_dir::DataDir;

struct OnDisk {
    _directory: TempDir,
    data: DataDir,
    registry: EmbeddedRegistry,
}

impl OnDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let registry = EmbeddedRegistry::open(&data).unwrap();
        Self { _directory: directory, data, registry }
    }
}

impl RegistryUnderTest for OnDisk {
    type Feed = EmbeddedRegistryFeed;

    async fn write(&mut self, applied: Timestamp, entries: Vec<Entry>) -> u64 {
        self.registry.apply(entries, applied, "contract").unwrap()
    }

    async fn feed(&mut self) -> EmbeddedRegistryFeed {
        EmbeddedRegistryFeed::open(&self.data).unwrap()
    }
}

registry_feed_contract!(contract, async || OnDisk::new());

const SOME_TIME: Duration = Duration::from_secs(30);

#[test]
fn what_stands_is_the_last_value_of_each_key() {
    let OnDisk { registry, .. } = &OnDisk::new();
    assert!(registry.is_empty().unwrap());
    registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap();
    registry.apply(vec![card(1, 7), card(2, 8), card(2, 9)], Timestamp::from_millis(5), "import").unwrap();
    assert!(!registry.is_empty().unwrap());

    let mut expected: Vec<Entry> = one_of_each();
    expected.retain(|entry| entry.key() != card(1, 7).key());
    expected.extend([card(1, 7), card(2, 9)]);
    let current = registry.current().unwrap();
    assert_eq!(current.len(), expected.len());
    for entry in expected {
        assert_eq!(current.get(&entry.key()), Some(&entry));
        assert_eq!(registry.entry(&entry.key()).unwrap(), Some(entry));
    }
    assert_eq!(registry.entry(&card(3, 3).key()).unwrap(), None);
    let mut cards = Vec::new();
    registry.for_each("card", |entry| cards.push(entry)).unwrap();
    assert_eq!(cards, [card(1, 7), card(2, 9)]);
}

#[test]
fn what_follows_from_an_old_version_is_not_written() {
    let OnDisk { registry, .. } = &OnDisk::new();
    let read_at = registry.apply(vec![card(1, 7)], Timestamp::MIN, "import").unwrap();
    let change = |holder, at, who| {
        let at = Timestamp::from_millis(at);
        registry.apply_to_version(read_at, vec![card(1, holder)], at, who, ChangeOrigin::Import).unwrap()
    };
    assert_eq!(change(8, 5, "somebody"), Some(read_at + 1));
    assert_eq!(change(9, 6, "somebody else"), None);
    assert_eq!(registry.entry(&card(1, 8).key()).unwrap(), Some(card(1, 8)));
}

#[test]
fn every_change_is_told_with_who_made_it() {
    let OnDisk { registry, .. } = &OnDisk::new();
    registry.apply(vec![card(1, 1)], Timestamp::MIN, "import by chen").unwrap();
    let version = registry.apply(vec![card(1, 2)], Timestamp::from_millis(5), "card replace by lin").unwrap();
    let changes = registry.changes(0, 10).unwrap();
    let told: Vec<_> =
        changes.iter().map(|it| (it.who.as_str(), it.change.applied, it.change.entry.clone())).collect();
    assert_eq!(
        told,
        [
            ("import by chen", Timestamp::MIN, card(1, 1)),
            ("card replace by lin", Timestamp::from_millis(5), card(1, 2))
        ]
    );
    assert!(changes.iter().all(|it| it.written_at > Timestamp::from_millis(0)));
    assert_eq!(registry.changes(version, 10).unwrap(), []);
}

#[test]
fn what_a_single_command_changed_is_told_until_an_import_takes_it_over() {
    let OnDisk { registry, .. } = &OnDisk::new();
    let version = registry.apply(vec![card(1, 1), card(2, 2)], Timestamp::MIN, "import").unwrap();
    let at = Timestamp::from_millis(5);
    registry.apply_to_version(version, vec![card(1, 3)], at, "lin", ChangeOrigin::SingleCommand).unwrap();
    let standing = registry.standing_by_single_commands().unwrap();
    let told: Vec<_> = standing.iter().map(|it| (it.who.as_str(), &it.change.entry)).collect();
    assert_eq!(told, [("lin", &card(1, 3))]);

    registry.apply(vec![card(1, 3)], at, "import").unwrap();
    assert_eq!(registry.standing_by_single_commands().unwrap(), []);
}

#[tokio::test]
async fn what_was_superseded_before_the_horizon_is_left_out() {
    let mut on_disk = OnDisk::new();
    for (holder, applied) in [(1, i64::MIN), (2, 10), (3, 20)] {
        on_disk.write(Timestamp::from_millis(applied), vec![card(1, holder)]).await;
    }
    let mut feed = on_disk.feed().await;
    for (horizon, count) in [(9, 3), (10, 2), (19, 2), (20, 1)] {
        let changes = feed.read(0, Timestamp::from_millis(horizon)).await.unwrap();
        assert_eq!(changes.len(), count, "horizon {horizon}");
    }
}

#[tokio::test]
async fn a_command_waits_for_the_running_engine_and_for_nobody_else() {
    let mut on_disk = OnDisk::new();
    let version = on_disk.write(Timestamp::MIN, one_of_each()).await;
    let waited = |on_disk: &OnDisk, timeout| on_disk.registry.wait_applied(version, timeout).unwrap();
    assert_eq!(waited(&on_disk, SOME_TIME), Applied::NoEngineRuns);

    let lock = on_disk.data.lock_engine().unwrap();
    let mut feed = on_disk.feed().await;
    assert_eq!(waited(&on_disk, Duration::ZERO), Applied::NotInTime { reached: 0 });
    feed.report_applied(version - 1).await.unwrap();
    assert_eq!(waited(&on_disk, Duration::ZERO), Applied::NotInTime { reached: version - 1 });
    feed.report_applied(version).await.unwrap();
    assert_eq!(waited(&on_disk, SOME_TIME), Applied::ByTheEngine);

    drop((feed, lock));
    assert_eq!(
        waited(&on_disk, SOME_TIME),
        Applied::NoEngineRuns,
        "a process that is gone is not waited for"
    );
    let _lock = on_disk.data.lock_engine().unwrap();
    let _feed = on_disk.feed().await;
    let after_restart = waited(&on_disk, Duration::ZERO);
    assert_eq!(
        after_restart,
        Applied::NotInTime { reached: 0 },
        "what the one before it had read does not count"
    );
}

#[tokio::test]
async fn a_command_returns_as_soon_as_the_engine_reports() {
    let mut on_disk = OnDisk::new();
    let version = on_disk.write(Timestamp::MIN, one_of_each()).await;
    let _lock = on_disk.data.lock_engine().unwrap();
    let mut feed = on_disk.feed().await;
    let registry = EmbeddedRegistry::open(&on_disk.data).unwrap();
    let waiting = tokio::task::spawn_blocking(move || registry.wait_applied(version, SOME_TIME).unwrap());
    feed.report_applied(version).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Applied::ByTheEngine);
}

#[tokio::test]
async fn an_import_underway_holds_the_engine_up_in_nothing() {
    let mut on_disk = OnDisk::new();
    let version = on_disk.write(Timestamp::MIN, one_of_each()).await;
    let mut connection = rusqlite::Connection::open(on_disk.data.registry()).unwrap();
    let import = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut feed = on_disk.feed().await;
    assert_eq!(feed.read(0, Timestamp::MIN).await.unwrap().len(), one_of_each().len());
    feed.report_applied(version).await.unwrap();
    import.rollback().unwrap();
}

#[test]
fn the_made_up_mark_is_for_good() {
    let on_disk = OnDisk::new();
    assert!(!on_disk.registry.is_made_up().unwrap());
    on_disk.registry.mark_made_up().unwrap();
    on_disk.registry.mark_made_up().unwrap();
    assert!(EmbeddedRegistry::open(&on_disk.data).unwrap().is_made_up().unwrap());
}

#[test]
fn an_unreadable_value_is_told_by_its_version_and_not_quoted() {
    let on_disk = OnDisk::new();
    on_disk.registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap();
    let connection = rusqlite::Connection::open(on_disk.data.registry()).unwrap();
    let damage =
        "UPDATE change SET value = replace(value, '\"zh-TW\"', '\"0912345678\"') WHERE kind = 'guardian'";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    let guardian = EntryKey::Guardian(gatebell_engine::ids::GuardianId::new("G1").unwrap());
    let error = on_disk.registry.entry(&guardian).unwrap_err().to_string();
    assert!(error.contains("change 5"), "{error}");
    assert!(!error.contains("0912345678"), "{error}");
}
