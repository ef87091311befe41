//! `gatebell replay`: what would have happened to the taps of a file, and why.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};

use super::{EXIT_FOUND_OR_FAILED, Globals, check};
use crate::city;
use crate::replay::{Summary, replay};

/// Runs the rules over a file of taps: one line of JSON a record says what becomes of it and which notices it makes.
/// Sends nothing and stores nothing. A summary goes to standard error.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The city directory (CSV files)
    #[arg(long, value_name = "DIR")]
    city: PathBuf,
    /// The term whose rules are run: a name or a file [default: the configuration's]
    #[arg(long)]
    term: Option<String>,
    /// The taps: NDJSON, or CSV when the name ends in .csv
    #[arg(long, value_name = "FILE")]
    taps: PathBuf,
    /// Where the outcomes go [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    ensure!(args.city.is_dir(), "there is no city directory {}", args.city.display());
    ensure!(args.taps.exists(), "there is no file {}", args.taps.display());
    let term = globals.load_term(args.term.as_deref())?;
    let reading = city::read(&args.city, term.time_zone(), super::now());
    if !reading.findings.mistakes.is_empty() {
        let mut errors = BufWriter::new(std::io::stderr().lock());
        check::print_findings(&reading.findings, &mut errors)?;
        let summary = check::summary(&reading.findings);
        writeln!(errors, "error: the city directory {} cannot be used: {summary}", args.city.display())?;
        errors.flush()?;
        return Ok(ExitCode::from(EXIT_FOUND_OR_FAILED));
    }

    let summary = match &args.out {
        Some(path) => {
            let file = create(path, args)?;
            let mut out = BufWriter::new(file);
            let summary = replay(term, reading.entries, &args.taps, &mut out)?;
            flush(&mut out, summary).with_context(|| format!("cannot write {}", path.display()))?
        }
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            let summary = replay(term, reading.entries, &args.taps, &mut out)?;
            flush(&mut out, summary)?
        }
    };
    write!(std::io::stderr(), "{summary}")?;
    Ok(ExitCode::SUCCESS)
}

fn flush(out: &mut impl Write, summary: Summary) -> std::io::Result<Summary> {
    out.flush()?;
    Ok(summary)
}

/// Opens the file of outcomes, which must be none of those that are read.
fn create(path: &Path, args: &Args) -> anyhow::Result<File> {
    let read = city::file_names().map(|name| args.city.join(name)).chain([args.taps.clone()]);
    for input in read {
        if is_same_file(path, &input) {
            bail!("the outcomes would overwrite {}: name another file with --out", input.display());
        }
    }
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether both names lead to one file, by whatever links.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|it| (it.dev(), it.ino()));
    identity(a).is_some_and(|a| identity(b) == Some(a))
}
