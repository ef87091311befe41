//! What a failing disk does to the log's file: found, said where, never read as a tap, and mended by an operator.

use std::collections::BTreeMap;

use gatebell_engine::decode::decode;
use gatebell_engine::ids::LogPosition;
use gatebell_engine::tap::RejectReason;

use super::*;
use crate::damage::look_for;
use crate::sqlite::Schema;

/// A closed log of one partition with `taps` taps, all of it in the main file.
async fn written(taps: u64) -> OnDisk {
    let on_disk = OnDisk::with(TapLogSettings { batch_taps_max: 10, ..one_partition() });
    let (log, intake) = on_disk.reopen().unwrap();
    intake.append((0..taps).map(tap).collect()).await.unwrap();
    drop((log, intake));
    write_to_main_file(&on_disk.data());
    on_disk
}

fn write_to_main_file(data: &DataDir) {
    let connection = Connection::open(data.taps()).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// Flips one bit of the last byte of `text` in the file.
fn flip(on_disk: &OnDisk, text: &[u8]) {
    let path = on_disk.data().taps();
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(text.len()).position(|window| window == text).expect("it is there");
    bytes[place + text.len() - 1] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn sql(on_disk: &OnDisk, statement: &str) {
    Connection::open(on_disk.data().taps()).unwrap().execute(statement, []).unwrap();
}

/// Reads on until damage is met: what was handed out before it, and what is said.
async fn until_damage(log: &mut EmbeddedTapLog) -> (Vec<TapRecord>, String) {
    let mut handed_out = Vec::new();
    loop {
        match log.next().await.unwrap() {
            TapLogEvent::Batch { records, .. } => handed_out.extend(records),
            TapLogEvent::Damaged { partition: 0, cause } => return (handed_out, cause.to_string()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_is_reported_with_its_place_and_never_handed_out() {
    let on_disk = written(30).await;
    flip(&on_disk, br#""number":17"#);
    let (mut log, _intake) = on_disk.reopen().unwrap();
    log.rewind(0, None).await.unwrap();
    let (handed_out, said) = until_damage(&mut log).await;
    for expected in ["taps.db", "0/17", "checksum", "gatebell data check"] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert_eq!(values(&handed_out), expected(0..17), "everything before it");
    let (more, again) = until_damage(&mut log).await;
    assert_eq!((more.len(), again), (0, said), "it is said again as long as it is so");
}

#[tokio::test]
async fn a_row_that_is_gone_is_reported_and_not_skipped() {
    let on_disk = written(30).await;
    sql(&on_disk, "DELETE FROM tap_0 WHERE offset = 12");
    let (mut log, _intake) = on_disk.reopen().unwrap();
    let said = records(&mut log).await.unwrap_err().to_string();
    assert!(said.contains("0/12 is missing"), "{said}");
}

#[tokio::test]
async fn what_is_set_aside_is_no_tap_and_the_partition_goes_on_by_itself() {
    let on_disk = written(30).await;
    flip(&on_disk, br#""number":17"#);
    sql(&on_disk, "DELETE FROM tap_0 WHERE offset = 22");
    let (mut log, _intake) = on_disk.reopen().unwrap();
    log.rewind(0, None).await.unwrap();
    let (mut read, _) = until_damage(&mut log).await;

    let damages = look_for(&on_disk.data());
    let places: Vec<u64> = damages.iter().filter_map(|damage| damage.tap).map(|tap| tap.offset).collect();
    assert_eq!(places, [17, 22], "{damages:?}");
    let check = TapLogCheck::open(&on_disk.data()).unwrap().unwrap();
    let set_aside = |offset| check.set_aside(LogPosition { partition: 0, offset }).unwrap();
    assert_eq!([16, 17, 22, 30].map(set_aside), [false, true, true, false], "only what is damaged");
    assert_eq!(look_for(&on_disk.data()), []);

    while read.len() < 30 {
        if let TapLogEvent::Batch { records, .. } = log.next().await.unwrap() {
            read.extend(records);
        }
    }
    for record in &read {
        if matches!(record.offset, 17 | 22) {
            assert!(record.value.starts_with(b"damaged: "));
            assert_eq!(decode(&record.value), Err(RejectReason::Malformed));
        } else {
            assert_eq!(record.value, tap(record.offset).value);
        }
    }
    assert!(read.is_sorted_by_key(|record| record.received), "times of receipt never decrease");
}

#[tokio::test]
async fn a_gap_is_told_tap_by_tap_and_a_huge_one_at_once() {
    const FAR: u64 = 1 << 40;
    let on_disk = written(30).await;
    sql(&on_disk, "DELETE FROM tap_0 WHERE offset BETWEEN 10 AND 11");
    sql(&on_disk, &format!("UPDATE tap_0 SET offset = {FAR} WHERE offset = 29"));
    let found = look_for(&on_disk.data());
    let said: Vec<&str> = found.iter().map(|damage| damage.what.as_str()).collect();
    let taps: Vec<Option<u64>> = found.iter().map(|damage| damage.tap.map(|tap| tap.offset)).collect();
    assert_eq!(taps, [Some(10), Some(11), None, Some(FAR)], "{said:?}");
    assert!(said[2].contains(&format!("0/29 to {} are missing", FAR - 1)), "{said:?}");
}

#[tokio::test]
async fn last_taps_that_are_gone_though_settled_are_found() {
    let on_disk = written(30).await;
    let (mut log, intake) = on_disk.reopen().unwrap();
    log.commit(&[(0, 30)]).await.unwrap();
    drop((log, intake));
    assert_eq!(look_for(&on_disk.data()), []);
    sql(&on_disk, "DELETE FROM tap_0 WHERE offset >= 25");
    let found = look_for(&on_disk.data());
    assert!(found[0].what.contains("settled up to offset 30, but its taps end at 25"), "{found:?}");

    // What is taken now must not lie below what is settled, where it would never be decided.
    let (mut log, intake) = on_disk.reopen().unwrap();
    intake.append(vec![tap(30)]).await.unwrap();
    let said = records(&mut log).await.unwrap_err().to_string();
    assert!(said.contains("0/25 is missing"), "the partition is held: {said}");
    let last: u64 = Connection::open(on_disk.data().taps())
        .unwrap()
        .query_row("SELECT max(offset) FROM tap_0", [], |row| row.get(0))
        .unwrap();
    assert_eq!(last, 30);
}

#[tokio::test]
async fn what_was_forgotten_is_not_set_aside() {
    let on_disk = written(30).await;
    sql(&on_disk, "DELETE FROM tap_0 WHERE offset < 10");
    let check = TapLogCheck::open(&on_disk.data()).unwrap().unwrap();
    for offset in [0, 9] {
        assert!(!check.set_aside(LogPosition { partition: 0, offset }).unwrap(), "{offset}");
    }
    let earliest: u64 = Connection::open(on_disk.data().taps())
        .unwrap()
        .query_row("SELECT min(offset) FROM tap_0", [], |row| row.get(0))
        .unwrap();
    assert_eq!(earliest, 10);
}

#[tokio::test]
async fn a_damaged_old_tap_is_no_hindrance_to_forgetting_and_to_finding_a_time() {
    let on_disk = written(30).await;
    let (mut log, _intake) = on_disk.reopen().unwrap();
    log.commit(&[(0, 30)]).await.unwrap();
    // The earliest one, and one that the bisection for a time looks at.
    sql(&on_disk, "UPDATE tap_0 SET received = received + 1 WHERE offset IN (0, 14, 15)");
    let later = Timestamp::from_millis(i64::MAX);
    assert_eq!(log.rewind(0, Some(later)).await.unwrap(), 30);
    assert_eq!(
        log.rewind(0, Some(Timestamp::MIN)).await.unwrap(),
        0,
        "also the damaged ones are from then on"
    );
    let forget = move |connection: &Connection| rows::forget_before(connection, 0, later, 100);
    assert_eq!(log.shared.writer.write(forget).await.unwrap(), 29);
}

#[tokio::test]
async fn the_other_partitions_go_on_beside_a_damaged_one() {
    let on_disk = OnDisk::new();
    let (log, intake) = on_disk.reopen().unwrap();
    intake.append((0..40).map(tap).collect()).await.unwrap();
    drop((log, intake));
    sql(&on_disk, "UPDATE tap_1 SET received = received + 1 WHERE offset = 3");
    let (mut log, intake) = on_disk.reopen().unwrap();
    for partition in 0..4 {
        log.rewind(partition, None).await.unwrap();
    }
    intake.append((40..80).map(tap).collect()).await.unwrap();
    let mut read: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let all_others = |read: &BTreeMap<u32, (u64, u64)>| {
        [0, 2, 3].iter().all(|other| read.get(other).is_some_and(|(next, end)| next == end))
    };
    let mut damages = 0;
    while !all_others(&read) || damages < 2 {
        match log.next().await.unwrap() {
            TapLogEvent::Batch { partition, records, end } => {
                let last = records.last().unwrap().offset;
                assert!(partition != 1 || last < 3, "what comes before the damage");
                read.insert(partition, (last + 1, end));
            }
            TapLogEvent::Damaged { partition, .. } => {
                assert_eq!(partition, 1);
                damages += 1;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_damaged_last_row_does_not_keep_taps_out() {
    let on_disk = OnDisk::with(one_partition());
    let (log, intake) = on_disk.reopen().unwrap();
    intake.append(vec![tap(0)]).await.unwrap();
    drop(log);
    let damaged_time = i64::MAX;
    sql(&on_disk, &format!("UPDATE tap_0 SET received = {damaged_time}"));
    intake.append(vec![tap(1)]).await.unwrap();
    let received: i64 = Connection::open(on_disk.data().taps())
        .unwrap()
        .query_row("SELECT received FROM tap_0 WHERE offset = 1", [], |row| row.get(0))
        .unwrap();
    assert!(received < damaged_time, "the damaged time does not spread");
}

#[tokio::test]
async fn behind_a_damaged_committed_offset_everything_is_read_again() {
    let on_disk = written(30).await;
    let (mut log, _intake) = on_disk.reopen().unwrap();
    log.commit(&[(0, 20)]).await.unwrap();
    sql(&on_disk, "UPDATE committed SET next_offset = 28");
    assert!(look_for(&on_disk.data())[0].what.contains("committed offset of partition 0"));
    drop((log, _intake));
    let (mut log, _intake) = on_disk.reopen().unwrap();
    assert!(matches!(log.next().await.unwrap(), TapLogEvent::Assigned { partition: 0, committed: None }));
}

#[tokio::test]
async fn a_log_whose_name_is_damaged_is_not_opened() {
    let on_disk = written(1).await;
    sql(&on_disk, "UPDATE tap_log SET name = 'x' || name");
    let said = on_disk.reopen().unwrap_err().to_string();
    assert!(said.contains("name") && said.contains("from a copy"), "{said}");
}

#[tokio::test]
async fn a_log_of_the_former_form_is_taken_over_and_its_taps_are_read() {
    let on_disk = OnDisk::with(one_partition());
    let former = Schema { name: TAP_LOG_SCHEMA.name, steps: &TAP_LOG_SCHEMA.steps[..1] };
    DatabaseFile::open(&on_disk.data().taps(), PORT, &former).unwrap();
    for statement in [
        "INSERT INTO tap_log (id, name, partitions) VALUES (1, 'former', 1)",
        "INSERT INTO committed (partition, next_offset) VALUES (0, 0)",
        "CREATE TABLE tap_0 (offset INTEGER PRIMARY KEY, received INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL) STRICT",
    ] {
        sql(&on_disk, statement);
    }
    let (mut log, intake) = on_disk.reopen().unwrap();
    assert_eq!(log.name(), "former");
    assert!(matches!(log.next().await.unwrap(), TapLogEvent::Assigned { partition: 0, committed: Some(0) }));
    intake.append(vec![tap(0)]).await.unwrap();
    assert_eq!(values(&records(&mut log).await.unwrap()), expected(0..1));
    assert_eq!(look_for(&on_disk.data()), []);
}

/// What is read of a log, however it is damaged, is what was written there, or an error.
async fn assert_nothing_else_is_read(on_disk: &OnDisk, what: &str) {
    let Ok((mut log, _intake)) = on_disk.reopen() else { return };
    let Ok(mut next) = log.rewind(0, None).await else { return };
    loop {
        match log.next().await {
            Ok(TapLogEvent::Batch { records, end, .. }) => {
                for record in records {
                    assert_eq!((record.offset, &record.value), (next, &tap(next).value), "{what}");
                    next += 1;
                }
                if next == end {
                    return;
                }
            }
            // A confirmation comes late enough: there is nothing to be read.
            Ok(TapLogEvent::Damaged { .. } | TapLogEvent::Confirmed { .. }) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn whichever_byte_is_flipped_nothing_is_read_that_was_not_written() {
    let on_disk = written(30).await;
    let whole = fs::read(on_disk.data().taps()).unwrap();
    for place in (0..whole.len()).step_by(167) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        let damaged = OnDisk::with(one_partition());
        fs::copy(on_disk.data().taps(), damaged.data().taps()).unwrap();
        fs::write(damaged.data().taps(), bytes).unwrap();
        assert_nothing_else_is_read(&damaged, &format!("byte {place}")).await;
    }
}

#[tokio::test]
async fn a_main_file_that_was_cut_off_is_found_and_nothing_is_read_that_was_not_written() {
    let on_disk = written(300).await;
    let whole = fs::read(on_disk.data().taps()).unwrap();
    for len in (0..whole.len()).step_by(4_096).skip(1) {
        let damaged = OnDisk::with(one_partition());
        fs::copy(on_disk.data().taps(), damaged.data().taps()).unwrap();
        fs::write(damaged.data().taps(), &whole[..len]).unwrap();
        assert_nothing_else_is_read(&damaged, &format!("cut at {len}")).await;
        assert_ne!(look_for(&damaged.data()), [], "cut at {len}");
    }
}
