//! What the feed makes of topics that were compacted, damaged, or written by others.

use super::*;

#[tokio::test]
async fn another_contact_key_is_told_as_such() {
    let city = City::made_up().await;
    city.registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap();
    let mut feed = city.feed_with(2, Arc::new(Reported::default()));
    for _ in 0..2 {
        let error = feed.read(0, Timestamp::MIN).await.unwrap_err().to_string();
        assert!(error.contains(key(1).id()) && error.contains(key(2).id()), "{error}");
        assert!(!error.contains("0912345678") && !error.contains("王"), "{error}");
    }
}

#[tokio::test]
async fn values_wait_for_their_head() {
    let city = City::made_up().await;
    let writer = city.begin();
    write_value(&writer, 1, card(1, 1));
    city.commit(writer);
    let mut feed = city.new_feed();
    for _ in 0..2 {
        let error = feed.read(0, Timestamp::MIN).await.unwrap_err().to_string();
        assert!(error.contains("no transaction's end"), "{error}");
    }
    city.registry.version().unwrap_err();
    let writer = city.begin();
    write_head(&writer, 1, 1, 1);
    city.commit(writer);
    assert_eq!(entries(&all(&mut feed).await), [card(1, 1)]);

    let writer = city.begin();
    write_value(&writer, 2, card(1, 2));
    city.commit(writer);
    feed.read(1, Timestamp::MIN).await.unwrap_err();
    let writer = city.begin();
    write_value(&writer, 3, card(1, 3));
    write_head(&writer, 2, 3, 1);
    city.commit(writer);
    assert_eq!(entries(&read_on(&mut feed, 1, Timestamp::MIN).await), [card(1, 2), card(1, 3)]);
}

/// What was lost, and by which versions of the values and which head of a transaction after change 2.
#[tokio::test]
async fn a_gap_is_an_error_while_following() {
    for (lost, values, head) in [
        ("a transaction", vec![4], (4, 4, 2)),
        ("a value at the beginning", vec![4], (3, 4, 2)),
        ("a value in the middle", vec![3, 5], (3, 5, 2)),
        ("a value at the end", vec![3], (3, 4, 2)),
    ] {
        let city = City::made_up().await;
        city.registry.apply(vec![card(1, 1), card(2, 2)], Timestamp::MIN, "import").unwrap();
        let mut feed = city.new_feed();
        assert_eq!(all(&mut feed).await.len(), 2);
        let writer = city.begin();
        values.iter().for_each(|version| write_value(&writer, *version, card(1, *version)));
        write_head(&writer, head.0, head.1, head.2);
        city.commit(writer);
        for _ in 0..2 {
            let error = feed.read(2, Timestamp::MIN).await.unwrap_err().to_string();
            assert!(error.contains("has lost the change") && error.contains("restart"), "{lost}: {error}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_without_all_keys_is_an_error() {
    let city = City::made_up().await;
    let writer = city.begin();
    write_value(&writer, 2, card(1, 1));
    write_head(&writer, 1, 2, 2);
    city.commit(writer);
    let error = city.new_feed().read(0, Timestamp::MIN).await.unwrap_err().to_string();
    assert!(error.contains("values of 1 keys") && error.contains("says 2"), "{error}");
    let error = city.registry.version().unwrap_err().to_string();
    assert!(error.contains("values of 1 keys"), "{error}");
}

#[tokio::test]
async fn a_key_with_a_tombstone_has_no_value_any_more() {
    let city = City::made_up().await;
    city.registry.apply(vec![card(1, 1), card(2, 2)], Timestamp::MIN, "import").unwrap();
    let mut following = city.new_feed();
    assert_eq!(all(&mut following).await.len(), 2);
    let writer = city.begin();
    writer.write(key_of(&card(2, 2).key()).as_bytes(), None).unwrap();
    write_head(&writer, 3, 2, 1);
    city.commit(writer);

    assert_eq!(read_on(&mut following, 2, Timestamp::MIN).await, []);
    assert_eq!(city.registry.entry(&card(2, 2).key()).unwrap(), None);
    assert_eq!(city.registry.current().unwrap().len(), 1);
    city.registry.apply(vec![card(2, 3)], Timestamp::MIN, "import").unwrap();
    assert_eq!(entries(&read_on(&mut following, 2, Timestamp::MIN).await), [card(2, 3)]);
    assert_eq!(standing(&all(&mut city.new_feed()).await), standing(&all(&mut following).await));
}

/// Waits until real compaction has taken values away, with settings that allow it at once.
#[tokio::test]
async fn a_compacted_topic_gives_what_the_full_history_gave() {
    let topics = OwnTopics::new();
    let name = topics.settings.registry_topic();
    let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("message.timestamp.type", "LogAppendTime")
        .set("min.cleanable.dirty.ratio", "0.001")
        .set("segment.ms", "1")
        .set("delete.retention.ms", "0");
    let made = admin(&topics.settings).create_topics(&[topic], &AdminOptions::new()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let city = City::on(topics);

    city.registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap();
    let mut history = Vec::new();
    let mut following = city.new_feed();
    for round in 0..8 {
        let changed = vec![card(round % 2, round), card(100 + round, round)];
        city.registry.apply(changed, Timestamp::from_millis(5), "lin").unwrap();
        let known = history.last().map_or(0, |change: &RegistryChange| change.version);
        history.extend(read_on(&mut following, known, Timestamp::MIN).await);
    }
    let reader = TopicReader::new(&city.topics.settings).unwrap();
    let records = || {
        let bounds = reader.bounds().unwrap();
        let mut count = 0;
        reader.survey(bounds.low, bounds.end, true, |_| count += 1).unwrap();
        count
    };
    let (started, all_records) = (Instant::now(), history.len());
    while records() > all_records - 3 {
        assert!(started.elapsed() < 3 * SOME_TIME, "the broker compacts nothing: {} records", records());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let compacted = all(&mut city.new_feed()).await;
    assert!(compacted.len() < history.len(), "{} of {}", compacted.len(), history.len());
    assert_eq!(standing(&compacted), standing(&history));
    assert!(compacted.is_sorted_by_key(|change| change.version));
    let last = compacted.last().unwrap();
    assert_eq!(Some(last), history.last(), "what the last head says is as it was");
    for change in &compacted {
        let was = history.iter().find(|was| was.version == change.version).unwrap();
        assert_eq!(change.entry, was.entry);
        // Dated by its own record now, which lies a moment before its head.
        let moved = was.applied.since(change.applied);
        assert!(change.applied <= was.applied && moved < CHANGE_LEAD, "{change:?} was {was:?}");
    }
    let fresh = city.another_registry();
    assert_eq!(fresh.version().unwrap(), last.version);
    assert_eq!(fresh.current().unwrap(), standing(&history));
    let after = fresh.apply(vec![card(1, 99)], Timestamp::from_millis(5), "lin").unwrap();
    assert_eq!(after, last.version + 1);
    assert_eq!(entries(&read_on(&mut following, last.version, Timestamp::MIN).await), [card(1, 99)]);
}

#[tokio::test]
async fn a_process_that_cannot_report_itself_gets_no_answer() {
    let city = City::made_up().await;
    city.registry.apply(one_of_each(), Timestamp::MIN, "import").unwrap();
    let mut feed = city.feed_with(1, Arc::new(NoReports));
    let error = feed.read(0, Timestamp::MIN).await.unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
}
