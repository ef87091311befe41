//! The registry as commands use it, beside others that write and processes that follow.

use super::*;

#[tokio::test]
async fn what_stands_is_the_last_value_of_each_key() {
    let city = City::made_up().await;
    let registry: &dyn RegistryStore = &city.registry;
    assert!(registry.is_empty().unwrap());
    assert!(registry.current().unwrap().is_empty());
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
    registry.for_each("card", &mut |entry| cards.push(entry)).unwrap();
    assert_eq!(cards, [card(1, 7), card(2, 9)]);
    registry.for_each("unheard_of", &mut |_| panic!("there is none of this kind")).unwrap();
}

#[tokio::test]
async fn every_change_is_told_with_who_made_it() {
    let city = City::made_up().await;
    let registry = &city.registry;
    registry.apply(vec![card(1, 1)], Timestamp::MIN, "import by chen").unwrap();
    let version = registry.apply(vec![card(1, 2)], Timestamp::from_millis(5), "card replace by lin").unwrap();
    let changes = registry.changes(0, 10).unwrap();
    let told: Vec<_> =
        changes.iter().map(|it| (it.who.as_str(), it.change.applied, it.change.entry.clone())).collect();
    let first = ("import by chen", Timestamp::MIN, card(1, 1));
    assert_eq!(told, [first, ("card replace by lin", Timestamp::from_millis(5), card(1, 2))]);
    assert!(changes.iter().all(|it| it.written_at > Timestamp::from_millis(0)));
    assert_eq!(registry.changes(0, 1).unwrap(), changes[..1]);
    assert_eq!(registry.changes(version - 1, 10).unwrap(), changes[1..]);
    assert_eq!(registry.changes(version, 10).unwrap(), []);
}

#[tokio::test]
async fn what_follows_from_an_old_version_is_not_written() {
    let city = City::made_up().await;
    let (one, other) = (&city.registry, city.another_registry());
    let read_at = one.apply(vec![card(1, 7)], Timestamp::MIN, "import").unwrap();
    let soon = Timestamp::from_millis(5);
    let written =
        other.apply_to_version(read_at, vec![card(1, 8)], soon, "somebody", ChangeOrigin::Import).unwrap();
    assert_eq!(written, Some(read_at + 1));
    assert_eq!(
        one.apply_to_version(read_at, vec![card(1, 9)], soon, "somebody else", ChangeOrigin::Import).unwrap(),
        None
    );
    assert_eq!(one.entry(&card(1, 8).key()).unwrap(), Some(card(1, 8)));
}

#[tokio::test]
async fn what_a_single_command_changed_is_told_until_an_import_takes_it_over() {
    let city = City::made_up().await;
    let registry = &city.registry;
    let at = Timestamp::from_millis(5);
    let version = registry.apply(vec![card(1, 1), card(2, 2)], Timestamp::MIN, "import").unwrap();
    assert_eq!(registry.standing_by_single_commands().unwrap(), []);
    let changed = vec![card(1, 3), card(2, 3)];
    registry.apply_to_version(version, changed, at, "lin", ChangeOrigin::SingleCommand).unwrap().unwrap();
    registry.apply(vec![card(1, 3)], at, "import").unwrap();
    for registry in [registry, &city.another_registry()] {
        let standing = registry.standing_by_single_commands().unwrap();
        let told: Vec<_> =
            standing.iter().map(|it| (it.change.version, it.change.entry.clone(), it.who.as_str())).collect();
        assert_eq!(told, [(version + 2, card(2, 3), "lin")]);
    }
}

#[tokio::test]
async fn in_a_real_city_the_broker_says_since_when_a_change_counts() {
    let city = City::real().await;
    let clock = SystemClock::new();
    city.registry.apply(vec![card(1, 1)], Timestamp::MIN, "import").unwrap();
    let before = clock.now();
    city.registry.apply(vec![card(1, 2), card(2, 2)], Timestamp::from_millis(5), "lin").unwrap();
    let after = clock.now();
    let changes = all(&mut city.new_feed()).await;
    assert_eq!(changes[0].applied, Timestamp::MIN);
    for change in &changes[1..] {
        let counts_from = change.applied;
        assert!(
            before.plus(CHANGE_LEAD) <= counts_from && counts_from <= after.plus(CHANGE_LEAD),
            "{change:?}"
        );
    }
    let told: Vec<_> = city.registry.changes(0, 10).unwrap().into_iter().map(|it| it.change).collect();
    assert_eq!(told, changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_at_once_end_with_one_order_and_no_lost_change() {
    const CHANGES: u64 = 6;
    let city = City::made_up().await;
    let at = Timestamp::from_millis(5);
    city.registry.apply(vec![card(9, 0)], at, "import").unwrap();
    let writers: Vec<_> = [1, 2]
        .map(|writer| {
            let registry = city.another_registry();
            std::thread::spawn(move || {
                for change in 1..=CHANGES {
                    // Retried as a command is: the writer that is fenced by the other begins again.
                    let written =
                        (0..20).find_map(|_| registry.apply(vec![card(writer, change)], at, "w").ok());
                    assert!(written.is_some(), "writer {writer}, change {change}");
                }
            })
        })
        .into_iter()
        .collect();
    for writer in writers {
        tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
    }
    let changes = all(&mut city.new_feed()).await;
    let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
    assert_eq!(versions, (1..=1 + 2 * CHANGES).collect::<Vec<_>>());
    for writer in [1, 2] {
        let key = card(writer, 0).key();
        let of_writer: Vec<Entry> =
            entries(&changes).into_iter().filter(|entry| entry.key() == key).collect();
        assert_eq!(of_writer, (1..=CHANGES).map(|change| card(writer, change)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_writer_killed_in_mid_transaction_leaves_nothing_visible() {
    let city = City::made_up().await;
    city.registry.apply(vec![card(1, 1)], Timestamp::MIN, "import").unwrap();
    let mut feed = city.new_feed();
    assert_eq!(all(&mut feed).await.len(), 1);
    let killed = city.begin();
    write_value(&killed, 2, card(1, 66));
    write_head(&killed, 2, 2, 1);
    killed.abandon();
    assert_eq!(read_on(&mut feed, 1, Timestamp::MIN).await, []);
    assert_eq!(city.another_registry().version().unwrap(), 1);

    city.registry.apply(vec![card(1, 2)], Timestamp::from_millis(5), "lin").unwrap();
    let seen = read_on(&mut feed, 1, Timestamp::MIN).await;
    assert_eq!((entries(&seen), seen[0].version), (vec![card(1, 2)], 2));
    assert_eq!(entries(&all(&mut city.new_feed()).await), [card(1, 1), card(1, 2)]);
}

#[tokio::test]
async fn a_fenced_writer_has_written_nothing() {
    let city = City::made_up().await;
    let fenced = city.begin();
    write_value(&fenced, 1, card(1, 66));
    write_head(&fenced, 1, 1, 1);
    city.registry.apply(vec![card(1, 1)], Timestamp::MIN, "import").unwrap();
    fenced.commit().unwrap_err();
    assert_eq!(entries(&all(&mut city.new_feed()).await), [card(1, 1)]);
}

/// As after a commit whose answer was lost.
#[tokio::test]
async fn a_transaction_tried_again_is_written_once() {
    let city = City::made_up().await;
    let entries_of_it = [card(1, 1)];
    let wanted = Wanted::new(&entries_of_it, Timestamp::MIN, "import", Some(0)).unwrap();
    assert_eq!(city.registry.write(&wanted).unwrap(), Some(1));
    city.registry.apply(vec![card(1, 2)], Timestamp::MIN, "lin").unwrap();
    assert_eq!(city.another_registry().write(&wanted).unwrap(), Some(1));
    assert_eq!(entries(&all(&mut city.new_feed()).await), [card(1, 1), card(1, 2)]);
}

#[tokio::test]
async fn the_made_up_mark_is_for_good() {
    let city = City::made_up().await;
    assert!(!city.registry.is_made_up().unwrap());
    city.registry.mark_made_up().unwrap();
    assert!(city.registry.is_empty().unwrap(), "the mark is no change");
    city.registry.mark_made_up().unwrap();
    assert_eq!(city.registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap(), 10);
    assert!(city.another_registry().is_made_up().unwrap());
    assert_eq!(entries(&all(&mut city.new_feed()).await), one_of_each());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_every_live_process_and_for_nobody_else() {
    let city = City::made_up().await;
    let version = city.registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap();
    let wait = async |timeout| {
        let registry = city.another_registry();
        tokio::task::spawn_blocking(move || registry.wait_applied(version, timeout).unwrap()).await.unwrap()
    };
    assert_eq!(wait(SOME_TIME).await, Applied::NoEngineRuns);

    let mut feed = city.new_feed();
    assert_eq!(feed.read(0, Timestamp::MIN).await.unwrap().len(), 10);
    assert_eq!(wait(Duration::ZERO).await, Applied::NotInTime { reached: 0 }, "reported before it read");
    city.reports.report("process-2", version).await.unwrap();
    assert_eq!(wait(Duration::ZERO).await, Applied::NotInTime { reached: 0 });
    feed.report_applied(version).await.unwrap();
    assert_eq!(wait(SOME_TIME).await, Applied::ByTheEngine);
    city.reports.report("process-2", version - 1).await.unwrap();
    assert_eq!(wait(Duration::ZERO).await, Applied::NotInTime { reached: version - 1 });
    city.reports.forget("process-2");
    assert_eq!(wait(SOME_TIME).await, Applied::ByTheEngine);
}
