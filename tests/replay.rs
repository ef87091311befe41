//! `gatebell replay` as it is called: exit codes, where outcomes and summary go, and clear errors.

#![allow(clippy::unwrap_used)]

mod city_fixture;

use city_fixture::{City, text};

const TAPS: &str = "{\"card\":\"04AA\",\"reader\":\"R-in\",\"at\":\"2025-09-08T07:31:04.250+08:00\",\"dir\":\"in\"}\n\
                    rubbish\n\
                    {\"card\":\"04aa\",\"reader\":\"R-in\",\"at\":\"2025-09-08T07:31:09+08:00\"}\n";

const OUTCOMES: &str = concat!(
    r#"{"record":0,"outcome":"passage","passage":"arrival","pupil":"P1","notices":["#,
    r#"{"guardian":"G1","channel":"app","state":"queued"},{"guardian":"G1","channel":"sms","state":"queued","order":"O1"}]}"#,
    "\n",
    r#"{"record":1,"outcome":"rejected","reason":"malformed"}"#,
    "\n",
    r#"{"record":2,"outcome":"duplicate","pupil":"P1"}"#,
    "\n"
);

fn replay(city: &City, more: &[&str]) -> city_fixture::Run {
    let (dir, taps) = (city.dir(), city.beside("taps.ndjson"));
    let args = ["replay", "--city", text(&dir), "--term", "114-1", "--taps", text(&taps)];
    city.gatebell(&[&args, more].concat())
}

#[test]
fn outcomes_go_to_standard_output_and_the_summary_to_standard_error() {
    let city = City::new();
    std::fs::write(city.beside("taps.ndjson"), TAPS).unwrap();
    let run = replay(&city, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (0, OUTCOMES));
    assert_eq!(
        run.stderr,
        "3 records\n  rejected: malformed       1\n  duplicate                 1\n  passage: arrival          1\n"
    );
    assert!(!city.data().exists(), "a replay stores nothing");
}

#[test]
fn outcomes_go_to_the_file_that_out_names() {
    let city = City::new();
    std::fs::write(city.beside("taps.ndjson"), TAPS).unwrap();
    let out = city.beside("outcomes.ndjson");
    let run = replay(&city, &["--out", text(&out)]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), OUTCOMES);
}

#[test]
fn the_taps_are_never_overwritten_by_their_outcomes() {
    let city = City::new();
    let taps = city.beside("taps.ndjson");
    std::fs::write(&taps, TAPS).unwrap();
    let schools = city.dir().join("schools.csv");
    for out in [&taps, &schools] {
        let run = replay(&city, &["--out", text(out)]);
        assert_eq!(run.code, 1);
        assert!(run.stderr.contains("the outcomes would overwrite"), "{}", run.stderr);
    }
    assert_eq!(std::fs::read_to_string(&taps).unwrap(), TAPS);
}

#[test]
fn a_file_or_term_that_is_not_there_is_told() {
    let city = City::new();
    let run = replay(&city, &[]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("there is no file") && run.stderr.contains("taps.ndjson"), "{}", run.stderr);

    let (dir, taps) = (city.dir(), city.beside("taps.ndjson"));
    std::fs::write(&taps, TAPS).unwrap();
    let run = city.gatebell(&["replay", "--city", text(&dir), "--term", "99-9", "--taps", text(&taps)]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("99-9"), "{}", run.stderr);
    let run = city.gatebell(&["replay", "--city", text(&dir), "--term", "114-1", "--taps", text(&dir)]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("directory"), "{}", run.stderr);
}

#[test]
fn a_city_with_mistakes_is_not_replayed() {
    let city = City::new();
    city.edit("cards.csv", "04BB,P2", "04BB,P9");
    std::fs::write(city.beside("taps.ndjson"), TAPS).unwrap();
    let run = replay(&city, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("cards.csv:3: pupil: found \"P9\""), "{}", run.stderr);
}
