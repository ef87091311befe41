//! The demo through its public face, as a newcomer runs it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use unicode_width::UnicodeWidthStr as _;

fn gatebell() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatebell"));
    command.env_remove("GATEBELL_DATA").env_remove("GATEBELL_CONFIG");
    command
}

#[test]
fn a_small_morning_is_played_accounted_for_and_left_for_other_commands() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let played =
        gatebell().args(["demo", "--pupils", "300", "--speed", "600", "--data"]).arg(&data).output().unwrap();
    let report = String::from_utf8(played.stdout).unwrap();
    let progress = String::from_utf8(played.stderr).unwrap();
    assert!(played.status.success(), "{progress}\n{report}");
    assert!(report.contains("✓ the recount of the ledger finds no difference"), "{report}");
    assert!(report.contains("charged, as it was delivered: NT$0.75"), "{report}");
    assert!(
        progress.contains("taps") && !progress.contains('\u{1b}'),
        "no terminal, plain lines: {progress}"
    );
    // The lines to copy are as long as the directory's name.
    let (told, _) = report.split_once("What to type next").unwrap();
    let (introduction, _) = progress.split_once(" · making").unwrap();
    for line in introduction.lines().chain(told.lines()) {
        assert!(line.width() <= 100, "{line}");
    }

    let recounted = gatebell().args(["recount", "--data"]).arg(&data).output().unwrap();
    assert!(recounted.status.success(), "{}", String::from_utf8_lossy(&recounted.stderr));
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("store.db"), "somebody's").unwrap();
    let refused = gatebell().args(["demo", "--data"]).arg(dir.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not empty"));
    assert_eq!(fs::read_to_string(dir.path().join("store.db")).unwrap(), "somebody's");
}

#[test]
fn ctrl_c_stops_it_cleanly() {
    let dir = TempDir::new().unwrap();
    let mut playing = gatebell()
        .args(["demo", "--pupils", "300", "--speed", "10", "--data"])
        .arg(dir.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(playing.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.contains("the morning begins")));
    let interrupted = Command::new("kill").args(["-INT", &playing.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert!(lines.any(|line| line.contains("stopped")));
    assert_eq!(playing.wait().unwrap().code(), Some(130));
}
