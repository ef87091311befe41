//! The made-up city and its morning against the real rules: what the morning expects is what `gatebell replay` finds.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use gatebell_engine::notice::Channel;
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;
use serde_json::Value;

use super::city::{City, CityPlan};
use super::city_files;
use super::morning::{Expected, Morning};
use crate::{city, replay};

const TERM: &str = include_str!("../../config/terms/114-1.toml");

/// Writes the city, reads it back, and runs the rules over the morning.
fn decided(city: &City, morning: &Morning) -> Expected {
    let dir = tempfile::tempdir().unwrap();
    city_files::write(city, dir.path()).unwrap();
    let term = Term::parse(TERM).unwrap();
    let reading = city::read(dir.path(), term.time_zone(), Timestamp::from_millis(0));
    assert!(reading.findings.mistakes.is_empty(), "{:?}", reading.findings.mistakes);

    let taps = dir.path().join("taps.ndjson");
    let lines: Vec<String> = morning
        .uploads
        .iter()
        .flat_map(super::morning::Upload::replay_lines)
        .map(|line| line + "\n")
        .collect();
    fs::write(&taps, lines.concat()).unwrap();
    let mut out = Vec::new();
    replay::replay(term, reading.entries, &taps, &mut out).unwrap();

    let mut decided = Expected { sent: lines.len() as u64, ..Expected::default() };
    for line in String::from_utf8(out).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let detail = if record["passage"].is_string() { word("passage") } else { word("reason") };
        *match (word("outcome").as_str(), detail.as_str()) {
            ("rejected", "malformed") => &mut decided.malformed,
            ("rejected", "clock_ahead") => &mut decided.clock_ahead,
            ("stale", _) => &mut decided.stale,
            ("unknown_card", _) => &mut decided.unknown_card,
            ("no_school", _) => &mut decided.no_school,
            ("duplicate", _) => &mut decided.duplicate,
            ("passage", "arrival") => &mut decided.arrivals,
            ("passage", "departure") => &mut decided.departures,
            other => panic!("{other:?}"),
        } += 1;
        for notice in record["notices"].as_array().into_iter().flatten() {
            let channel: Channel = notice["channel"].as_str().unwrap().parse().unwrap();
            *decided.notices.entry(channel).or_default() += 1;
        }
    }
    decided
}

#[test]
fn the_rules_decide_a_morning_as_it_was_made() {
    for (seed, schools, pupils, collect_ms) in
        [(1, 20, 6_000, 20_000), (2, 20, 3_000, 2_000), (3, 1, 400, 2_000), (4, 7, 2_000, 120_000)]
    {
        let city = City::generate(CityPlan { schools, pupils, seed });
        let morning = Morning::draw(&city, seed, collect_ms);
        assert_eq!(decided(&city, &morning), morning.expected, "seed {seed}");
    }
}

#[test]
fn a_made_up_city_has_no_mistakes_and_few_warnings() {
    let dir = tempfile::tempdir().unwrap();
    city_files::write(&City::generate(CityPlan { schools: 20, pupils: 12_000, seed: 5 }), dir.path())
        .unwrap();
    let term = Term::parse(TERM).unwrap();
    let findings = city::read(dir.path(), term.time_zone(), Timestamp::from_millis(0)).findings;
    assert!(findings.mistakes.is_empty(), "{:?}", findings.mistakes);
    assert!(findings.warnings.len() < 120, "{}", findings.warnings.len());
}

#[test]
fn somebodys_city_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pupils.csv"), "mine").unwrap();
    let city = City::generate(CityPlan { schools: 1, pupils: 10, seed: 1 });
    assert!(city_files::write(&city, dir.path()).is_err());
    assert_eq!(fs::read_to_string(dir.path().join("pupils.csv")).unwrap(), "mine");
}

#[test]
fn every_channel_is_owed_something() {
    let city = City::generate(CityPlan { schools: 20, pupils: 2_000, seed: 1 });
    let owed: BTreeMap<Channel, u64> = Morning::draw(&city, 1, 2_000).expected.notices;
    assert!(owed.get(&Channel::App).is_some_and(|it| *it > 1_000), "{owed:?}");
    assert!(owed.get(&Channel::Sms).is_some_and(|it| *it > 300), "{owed:?}");
}
