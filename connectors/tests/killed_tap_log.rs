//! The embedded tap log under `kill -9`: a process of its own appends until it is killed, then the log is read.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::tap_log::embedded::{self, EmbeddedTapIntake, EmbeddedTapLog, TapLogSettings};
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::ports::tap_log::{TapIntake, TapLog, TapLogEvent};
use gatebell_engine::testing::contract::tap_log::tap;

const BATCH: u64 = 100;
const DIRECTORY: &str = "GATEBELL_TEST_DIRECTORY";
const FIRST: &str = "GATEBELL_TEST_FIRST";

fn open(directory: &Path) -> (EmbeddedTapLog, EmbeddedTapIntake) {
    let settings = TapLogSettings { partitions: NonZeroU32::MIN, ..TapLogSettings::default() };
    embedded::open(&DataDir::open(directory).unwrap(), &settings, Arc::new(SystemClock::new())).unwrap()
}

async fn values(log: &mut EmbeddedTapLog) -> Vec<Bytes> {
    log.rewind(0, None).await.unwrap();
    let mut values = Vec::new();
    loop {
        if let TapLogEvent::Batch { records, end, .. } = log.next().await.unwrap() {
            values.extend(records.into_iter().map(|record| record.value));
            if values.len() as u64 == end {
                return values;
            }
        }
    }
}

#[tokio::test]
#[ignore = "the process that is killed: started by the test beside it"]
async fn appends_until_it_is_killed() {
    let directory = std::env::var(DIRECTORY).unwrap();
    let mut first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let (_log, intake) = open(Path::new(&directory));
    loop {
        intake.append((first..first + BATCH).map(tap).collect()).await.unwrap();
        first += BATCH;
        println!("acknowledged {first}");
        std::io::stdout().flush().unwrap();
    }
}

/// Starts the process, kills it after `batches` acknowledgements, and says how many taps it had acknowledged.
fn killed_after(batches: usize, directory: &Path, first: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "appends_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines.map_while(Result::ok) {
        // The harness starts its own line before the first one.
        let Some((_, count)) = line.split_once("acknowledged ") else { continue };
        acknowledged.push(count.parse().unwrap());
        if acknowledged.len() == batches {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    *acknowledged.last().expect("it acknowledged something before it was killed")
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after_it_and_no_half_batch() {
    let directory = tempfile::tempdir().unwrap();
    let mut there: u64 = 0;
    for batches in [1, 7, 30] {
        let acknowledged = killed_after(batches, directory.path(), there);
        let (mut log, _intake) = open(directory.path());
        let values = values(&mut log).await;
        there = values.len() as u64;
        assert!(there >= acknowledged, "{acknowledged} acknowledged, {there} there");
        assert_eq!(there % BATCH, 0, "whole batches");
        assert_eq!(values, (0..there).map(|number| tap(number).value).collect::<Vec<_>>());
    }
}
