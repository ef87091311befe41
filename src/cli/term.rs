//! `gatebell term`: makes a term's bill final, or prints what a term was served as.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use gatebell_connectors::store::books::Closing;
use gatebell_engine::billing::closes_from;

use super::{Globals, now};
use crate::cli::operator::operator;
use crate::statement::{self, OrderBook};

/// Closes terms, and shows them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TermCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TermCommand {
    /// Make the bill of a term final; whatever is delivered later becomes an `adjusted` entry and costs
    /// nobody anything
    Close(CloseArgs),
    /// Print the file of a term as it was served
    Show {
        /// Its name
        term: String,
    },
}

#[derive(Debug, clap::Args)]
struct CloseArgs {
    /// The term: a name or a file
    term: String,
    /// Also before seven days have passed since its last service day
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match &args.command {
        TermCommand::Close(close_args) => close(close_args, globals),
        TermCommand::Show { term } => show(term, globals),
    }
}

fn show(name: &str, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    let text = home.terms()?.text(name)?;
    let text = text.with_context(|| format!("no term {name} was ever served on {}", home.name()))?;
    write!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

fn close(args: &CloseArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    let term = globals.term_of(&home, Some(&args.term))?;
    let now = now();
    let closes_from = closes_from(&term);
    let is_early = term.day_of(now) < closes_from;
    if is_early && !args.force {
        bail!("term {} can be closed from {closes_from} on; --force closes it now", term.name);
    }
    let books = home.books()?;
    let orders = OrderBook::of(&home)?;
    let closing = statement::close(&term, &orders, &*books, now, &operator(), is_early)?;

    let mut out = std::io::stdout().lock();
    match closing {
        Closing::Closed { lines } => {
            writeln!(out, "term {} is closed: its {lines} lines are final", term.name)?;
        }
        Closing::ClosedBefore(closed) => {
            let day = term.day_of(closed.at);
            writeln!(
                out,
                "term {} was closed before, on {day} by {}; nothing was changed",
                term.name, closed.by
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
