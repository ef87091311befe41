//! The command line: one file a command.
//!
//! A command is a file here with an `Args` (its help is what the user reads) and a `run(&Args, &Globals) ->
//! anyhow::Result<ExitCode>`, and one line each in [`Command`] and [`Command::run`]. Results go to standard
//! output with `writeln!`, everything else to standard error. Here is what all of them share: the global
//! options, how errors are shown, and the exit codes.

mod bill;
mod callback_address;
mod card;
mod check;
mod config;
mod data;
mod days;
mod demo;
mod gateway_sim;
mod import;
mod ledger;
mod notices;
mod operator;
mod order;
mod protect;
mod recount;
mod registry_change;
mod rejected;
mod replay;
mod serve;
mod store;
mod term;
mod term_choice;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use gatebell_connectors::data_dir::DataDir;
use gatebell_engine::time::Timestamp;

use crate::config::{Configuration, ConfigurationMistakes, Draft};
use crate::home::{CityClock, Home};
use crate::start_check;
use term_choice::ReadTerm;

/// The command found what it looks for (mistakes, differences), or failed.
pub(crate) const EXIT_FOUND_OR_FAILED: u8 = 1;

/// Where data is kept when nothing else is said: in the working directory.
const DATA_DIR_DEFAULT: &str = "data";

/// Tells parents at once that their child has passed the school gate, and bills it to the cent.
#[derive(Debug, Parser)]
#[command(name = "gatebell", version, propagate_version = true)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Names the configuration file where `--config` does not.
const CONFIG_VARIABLE: &str = "GATEBELL_CONFIG";

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Globals {
    /// Configuration file (TOML); without one, the defaults for a trial on this machine [env: GATEBELL_CONFIG]
    // The variable is read here and not by clap, which would hand it to `gateway-sim --config` too: another file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory: all of a city on one machine, or what this process has of its own when the city is on Kafka and
    /// ScyllaDB [default: the configuration's, else `data`]
    #[arg(long, global = true, value_name = "DIR", env = "GATEBELL_DATA")]
    data: Option<PathBuf>,
}

impl Globals {
    /// The configuration: the file named by `--config` or `GATEBELL_CONFIG`, else the built-in one.
    ///
    /// # Errors
    /// When the file cannot be read, or with every mistake in it at once.
    pub(crate) fn configuration(&self) -> anyhow::Result<Configuration> {
        Ok(self.draft()?.whole()?)
    }

    /// The data directory that was named by `--data` or the environment, if any.
    pub(crate) fn data_named(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// The data directory: the option, else the environment, else the configuration, else `data`. It need not
    /// exist.
    ///
    /// # Errors
    /// As [`Globals::configuration`], which is read only when it decides.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.data {
            return Ok(dir.clone());
        }
        let configured =
            self.configuration().context("cannot tell the data directory; --data names one")?.data;
        Ok(configured.unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT)))
    }

    /// Where the city lives, which must be there already: a new directory would hold none.
    ///
    /// # Errors
    /// As [`Globals::configuration`]; when there is no data directory, or a secret of a shared city cannot be had.
    pub(crate) fn home(&self) -> anyhow::Result<Home> {
        let configuration = self.configuration()?;
        let path = self.data_dir()?;
        // In a shared city it only holds what a process has of its own.
        let directory =
            if configuration.cluster.is_some() { DataDir::open(&path)? } else { DataDir::existing(&path)? };
        Home::of(&configuration, directory, CityClock::Real)
    }

    /// What `gatebell serve` would start with: the configuration, and `term` or else the configured one.
    ///
    /// # Errors
    /// Everything that would keep it from starting, at once.
    pub(crate) fn checked_start(&self, term: Option<&str>) -> anyhow::Result<(Configuration, ReadTerm)> {
        let draft = self.draft();
        let configured = draft.as_ref().map(|draft| &draft.configuration);
        let data = self.data.clone().or_else(|| configured.ok().and_then(|it| it.data.clone()));
        let data = data.unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT));
        let read = match (term, configured) {
            (Some(term), _) => term_choice::read(term),
            (None, Ok(configuration)) => term_choice::read(&configuration.city.term),
            (None, Err(_)) => Err(anyhow!("cannot tell the term; --term names one")),
        };
        let read = read.and_then(|read| {
            // Without a usable directory nothing is known yet; what is wrong with it is told once, by the check.
            if let (Ok(configuration), Ok(directory)) = (configured, DataDir::existing(&data)) {
                // A shared city may not be there yet, or its keys; it is asked when the start begins to serve.
                if configuration.cluster.is_none() {
                    let home = Home::of(configuration, directory, CityClock::Real)?;
                    term_choice::refuse_other_meaning(&home, &read.term)?;
                }
            }
            Ok(read)
        });
        Ok(start_check::checked(draft, read, &data)?)
    }

    fn draft(&self) -> anyhow::Result<Draft> {
        let from_environment =
            || std::env::var_os(CONFIG_VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from);
        match self.config.clone().or_else(from_environment) {
            Some(file) => Configuration::draft(&file),
            None => Ok(Configuration::built_in()),
        }
    }
}

/// One line a command, in the order in which a newcomer needs them.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Play a school morning in a made-up city, and tell what happened
    Demo(demo::Args),
    /// Check a city directory and print every mistake and warning
    Check(check::Args),
    /// Bring a city directory into the store, or the difference from what is there
    Import(import::Args),
    /// Run the rules over a file of taps: what would have happened, and why
    Replay(replay::Args),
    /// Stop every notice about a pupil to a guardian, at once
    Protect(protect::Args),
    /// Lift a protection
    Unprotect(protect::UnprotectArgs),
    /// Make a date a day off or a day of school
    Days(days::Args),
    /// Approve or cancel an SMS order
    Order(order::Args),
    /// Replace a lost or broken card
    Card(card::Args),
    /// Show what was sent about a pupil, when, what became of it, and the fee so far
    Notices(notices::Args),
    /// Print a term's bill
    Bill(bill::Args),
    /// Count the bill again from the ledger alone; exit code 1 when anything differs
    Recount(recount::Args),
    /// Export the ledger
    Ledger(ledger::Args),
    /// Close a term: its bill becomes final
    Term(term::Args),
    /// Ready the keyspace, the tables and the topics of a city on Kafka and ScyllaDB
    Store(store::Args),
    /// Run the engine: take taps, send notices, take receipts
    Serve(serve::Args),
    /// Make, list and revoke the tokens with which readers' vendors report taps
    Token(token::Args),
    /// List, show and send again the records that were no taps
    Rejected(rejected::Args),
    /// Print the address that an SMS provider is to have on record for receipts
    CallbackAddress(callback_address::Args),
    /// Check the files of a data directory for damage, and give damaged taps up
    Data(data::Args),
    /// Check the configuration, or print the commented built-in one
    Config(config::Args),
    /// Run an SMS gateway and an app backend that exist only here, with faults from a seed
    GatewaySim(gateway_sim::Args),
}

impl Command {
    fn run(&self, globals: &Globals) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => demo::run(args, globals),
            Self::Check(args) => check::run(args, globals),
            Self::Import(args) => import::run(args, globals),
            Self::Replay(args) => replay::run(args, globals),
            Self::Protect(args) => protect::run(args, globals),
            Self::Unprotect(args) => protect::run_unprotect(args, globals),
            Self::Days(args) => days::run(args, globals),
            Self::Order(args) => order::run(args, globals),
            Self::Card(args) => card::run(args, globals),
            Self::Notices(args) => notices::run(args, globals),
            Self::Bill(args) => bill::run(args, globals),
            Self::Recount(args) => recount::run(args, globals),
            Self::Ledger(args) => ledger::run(args, globals),
            Self::Term(args) => term::run(args, globals),
            Self::Store(args) => store::run(args, globals),
            Self::Serve(args) => serve::run(args, globals),
            Self::Token(args) => token::run(args, globals),
            Self::Rejected(args) => rejected::run(args, globals),
            Self::CallbackAddress(args) => callback_address::run(args, globals),
            Self::Data(args) => data::run(args, globals),
            Self::Config(args) => config::run(args, globals),
            Self::GatewaySim(args) => gateway_sim::run(args, globals),
        }
    }
}

/// Reads the command line and runs the command. Exit code 0: done; 1: the command found what it looks for
/// (mistakes, differences) or failed; 2: the command line is wrong.
pub(crate) fn main() -> ExitCode {
    let line = CommandLine::parse();
    match line.command.run(&line.globals) {
        Ok(code) => code,
        // `gatebell bill | head`: the reader has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            show(&error);
            ExitCode::from(EXIT_FOUND_OR_FAILED)
        }
    }
}

/// A tokio runtime with a worker a core, for commands that talk to the network or to the engine.
///
/// # Errors
/// When the system gives no threads.
pub(crate) fn tokio_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the worker threads")
}

/// The instant at which a command does its work. Commands are the edge: the rules get the time from here.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let direct = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        // JSON and CSV writers hide the error that they met.
        let in_json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        let in_csv = cause.downcast_ref::<csv::Error>().and_then(|error| match error.kind() {
            csv::ErrorKind::Io(met) => Some(met.kind()),
            _ => None,
        });
        direct.or(in_json).or(in_csv) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// `error: …`, then its causes; mistakes in the configuration with line and caret.
fn show(error: &anyhow::Error) {
    // Where nobody reads any more, there is nobody to tell that it could not be said.
    let _unread = write_error(error, &mut io::stderr().lock());
}

fn write_error(error: &anyhow::Error, out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "error: {error}")?;
    for cause in error.chain().skip(1) {
        // A cause may have a line a mistake.
        for (position, line) in cause.to_string().lines().enumerate() {
            writeln!(out, "  {} {line}", if position == 0 { "because:" } else { "        " })?;
        }
    }
    if let Some(mistakes) = error.chain().find_map(|cause| cause.downcast_ref::<ConfigurationMistakes>()) {
        writeln!(out, "{}", mistakes.drawn())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_known_whoever_met_it() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        for (error, is_closed) in [
            (anyhow::Error::from(closed()), true),
            (anyhow::Error::from(serde_json::Error::io(closed())).context("cannot print the ledger"), true),
            (anyhow::Error::from(csv::Error::from(closed())), true),
            (anyhow::Error::from(serde_json::Error::io(full)), false),
            (anyhow::anyhow!("something else"), false),
        ] {
            assert_eq!(is_closed_pipe(&error), is_closed, "{error:?}");
        }
    }
}
