//! `gatebell recount`: the books derived again from the ledger alone, and where they differ.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use gatebell_engine::recount::Difference;

use super::{EXIT_FOUND_OR_FAILED, Globals};

/// A running engine writes the proof of a delivery and its charge one after the other. What differs between
/// the two is looked at once more after this.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(2);

/// Counts charges and counters again from the ledger's entries alone and prints each difference from what is
/// stored. Exit code 1 when there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The term of days of which only the ledger knows: a name or a file [default: the one that is served]
    #[arg(long)]
    term: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    let term = globals.term_of(&home, args.term.as_deref())?;
    let books = home.books()?;
    let mut differences = books.recount(&term.name)?;
    if !differences.is_empty() && home.engine_is_running()? {
        std::thread::sleep(SECOND_LOOK_AFTER);
        let still: BTreeSet<Difference> = books.recount(&term.name)?.into_iter().collect();
        differences.retain(|difference| still.contains(difference));
    }

    let mut out = std::io::stdout().lock();
    for difference in &differences {
        writeln!(out, "{difference}")?;
    }
    let counters = books.counters()?;
    let messages: u64 = counters.iter().map(|counter| counter.delivered).sum();
    let mut err = std::io::stderr().lock();
    if differences.is_empty() {
        writeln!(err, "no difference: {messages} charged messages under {} orders", counters.len())?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(err, "{} differences between the books and the ledger", differences.len())?;
    Ok(ExitCode::from(EXIT_FOUND_OR_FAILED))
}
