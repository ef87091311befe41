//! `gatebell data`: whether the files of a data directory hold what was written, and what to do where the tap log does not.
//! Works beside a running `serve`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use gatebell_connectors::damage;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::tap_log::embedded::TapLogCheck;

use super::rejected::Place;
use super::{EXIT_FOUND_OR_FAILED, Globals};
use crate::standard_error::say;

/// What to do with the files.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read everything and print what is damaged, and where; exit code 1 when anything is
    Check,
    /// Give a damaged tap up: its place is taken by a record that is no tap, so that the taps behind it are decided. What is
    /// left of it is kept with the rejected records
    SetAside {
        /// Places in the tap log, as the check has them
        #[arg(value_name = "PARTITION/OFFSET", required = true)]
        places: Vec<Place>,
    },
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    if home.is_shared() {
        bail!(
            "the city is on Kafka and ScyllaDB, which check their own files: this is for a data directory of one machine"
        );
    }
    match &args.action {
        Action::Check => check(home.directory()),
        Action::SetAside { places } => set_aside(home.directory(), places),
    }
}

fn check(directory: &DataDir) -> anyhow::Result<ExitCode> {
    let found = damage::look_for(directory);
    let mut out = std::io::stdout().lock();
    for damage in &found {
        writeln!(out, "{}: {}", damage.file.display(), damage.what)?;
    }
    if found.is_empty() {
        say("everything is as it was written");
        return Ok(ExitCode::SUCCESS);
    }
    let taps: Vec<String> = found.iter().filter_map(|damage| damage.tap).map(|tap| tap.to_string()).collect();
    if !taps.is_empty() {
        say(format_args!(
            "to give these taps up, so that those behind them are decided: gatebell data set-aside {}",
            taps.join(" ")
        ));
    }
    Ok(ExitCode::from(EXIT_FOUND_OR_FAILED))
}

fn set_aside(directory: &DataDir, places: &[Place]) -> anyhow::Result<ExitCode> {
    let log = TapLogCheck::open(directory).context("cannot open the tap log")?;
    let Some(log) = log else { bail!("there is no tap log in {}", directory.path().display()) };
    let mut all_set_aside = true;
    for Place(position) in places {
        if log.set_aside(*position)? {
            say(format_args!(
                "{position}: set aside; if it was not decided before, gatebell rejected show {position} prints what is left of it"
            ));
        } else {
            say(format_args!("{position}: nothing is damaged there; it is left as it is"));
            all_set_aside = false;
        }
    }
    Ok(if all_set_aside { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND_OR_FAILED) })
}
