//! `gatebell check DIR`: every mistake and warning of a city directory, without storing anything.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;

use super::{EXIT_FOUND_OR_FAILED, Globals};
use crate::city::{self, Findings};

/// Checks a city directory (CSV files): prints every mistake and warning with file, line and column. Exit code 1 when
/// there is a mistake, 0 with warnings only.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The city directory
    dir: PathBuf,
    /// Term whose time zone the city's local times are in: a name or a file [default: the configuration's]
    #[arg(long)]
    term: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    ensure!(args.dir.is_dir(), "there is no directory {}", args.dir.display());
    let term = globals.load_term(args.term.as_deref())?;
    let reading = city::read(&args.dir, term.time_zone(), super::now());

    let mut out = BufWriter::new(std::io::stdout().lock());
    print_findings(&reading.findings, &mut out)?;
    writeln!(out, "{}: {}", args.dir.display(), summary(&reading.findings))?;
    for (kind, count) in reading.counts() {
        writeln!(out, "  {kind:<12} {count}")?;
    }
    out.flush()?;
    let is_clean = reading.findings.mistakes.is_empty();
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND_OR_FAILED) })
}

/// Every mistake, then every warning, one a line.
pub(super) fn print_findings(findings: &Findings, out: &mut impl Write) -> std::io::Result<()> {
    for mistake in &findings.mistakes {
        writeln!(out, "mistake: {mistake}")?;
    }
    for warning in &findings.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// How many there are of each.
pub(super) fn summary(findings: &Findings) -> String {
    let count = |count: usize, word: &str| match count {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    format!("{}, {}", count(findings.mistakes.len(), "mistake"), count(findings.warnings.len(), "warning"))
}
