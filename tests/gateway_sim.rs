//! The simulator as an integrator starts it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The configuration that the environment names is the city's. The simulator took it for its own and refused to start.
#[test]
fn the_city_s_configuration_in_the_environment_is_not_the_simulator_s() {
    let dir = TempDir::new().unwrap();
    let city = dir.path().join("gatebell.toml");
    fs::write(&city, "[city]\nterm = \"114-1\"\n").unwrap();
    let gatebell = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatebell"));
        command.env("GATEBELL_CONFIG", &city);
        command
    };

    let mut simulator =
        gatebell().args(["gateway-sim", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first_line = String::new();
    BufReader::new(simulator.stdout.take().unwrap()).read_line(&mut first_line).unwrap();
    simulator.kill().unwrap();
    simulator.wait().unwrap();
    assert!(first_line.starts_with("SMS gateway"), "{first_line}");

    fs::write(&city, "[city]\nterm = 114\n").unwrap();
    let checked = gatebell().args(["config", "check"]).output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stderr).contains("city.term"), "the others read it");
}
