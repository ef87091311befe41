//! `gatebell import DIR`: a city directory into the registry, as the difference from what stands there.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::registry::{ChangeOrigin, RegistryStore};
use gatebell_engine::registry::{Entry, EntryKey};
use gatebell_engine::time::Timestamp;
use jiff::tz::TimeZone;

use super::registry_change::{By, counts_from, wait};
use super::{EXIT_FOUND_OR_FAILED, Globals, check};
use crate::city;
use crate::city::commanded::{CommandChange, Commanded};
use crate::city::diff::{Difference, Happening, KindDifference};
use crate::city::made_up::{self, MadeUp};
use crate::home::{CityClock, Home};

/// How long an import waits for the running engine: a whole city is read in some seconds.
const WAIT_S_MAX: u64 = 600;

/// Brings a city directory (CSV files) into the store, or the difference when there is a city already: what the directory
/// does not name any more is removed, but for protections and for days that a single command set. A directory with mistakes
/// is not imported at all, nor one that would undo what single commands changed since the last import.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The city directory
    dir: PathBuf,
    /// Only show the difference
    #[arg(long)]
    dry_run: bool,
    /// Also when more than 1 % of the cards, the orders or anything else would be removed
    #[arg(long)]
    allow_removals: bool,
    /// Also when that undoes what single commands changed; days that they set and the directory does not name go, too
    #[arg(long)]
    undo_commands: bool,
    /// The city is a made-up one (demo, load): gateways that are not on loopback refuse its notices. Known of a directory
    /// that gatebell demo city made and nobody changed
    #[arg(long)]
    made_up: bool,
    /// Term whose time zone the city's local times are in: a name or a file [default: the configuration's]
    #[arg(long)]
    term: Option<String>,
    #[command(flatten)]
    by: By,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    ensure!(args.dir.is_dir(), "there is no directory {}", args.dir.display());
    let made_up = args.made_up || is_made_up(&args.dir)?;
    let term = globals.load_term(args.term.as_deref())?;
    let reading = city::read(&args.dir, term.time_zone(), super::now());
    let found = check::summary(&reading.findings);
    if !reading.findings.mistakes.is_empty() {
        let mut errors = BufWriter::new(std::io::stderr().lock());
        check::print_findings(&reading.findings, &mut errors)?;
        writeln!(errors, "error: {} is not imported: {found}", args.dir.display())?;
        errors.flush()?;
        return Ok(ExitCode::from(EXIT_FOUND_OR_FAILED));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    writeln!(out, "{}: {found}", args.dir.display())?;
    if !reading.findings.warnings.is_empty() {
        writeln!(out, "  gatebell check {} prints the warnings", args.dir.display())?;
    }

    let Some((_home, store)) = open_store(args, made_up, globals)? else {
        // Nothing there yet, and a dry run makes nothing.
        let difference =
            Difference::between(reading.entries, super::now(), &Commanded::default(), |_, _| anyhow::Ok(()))?;
        print(&difference, &mut out)?;
        writeln!(out, "dry run: nothing was written")?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    let imported = import(args, made_up, &*store, reading.entries, term.time_zone(), &mut out);
    out.flush()?;
    imported
}

/// Whether the directory at `dir` is known to be made up. One that only was is refused: it may have become a real one.
fn is_made_up(dir: &Path) -> anyhow::Result<bool> {
    match made_up::look(dir)? {
        MadeUp::Unmarked => Ok(false),
        MadeUp::AsMade => Ok(true),
        MadeUp::Changed => bail!(
            "{} was made up, but its files were changed since: import with --made-up if it still is, or delete {}",
            dir.display(),
            dir.join(made_up::MARK).display()
        ),
    }
}

/// The registry, and its home, which must outlive it; `None` when a dry run finds no data directory.
fn open_store(
    args: &Args,
    made_up: bool,
    globals: &Globals,
) -> anyhow::Result<Option<(Home, Arc<dyn RegistryStore>)>> {
    let configuration = globals.configuration()?;
    let path = globals.data_dir()?;
    let is_embedded = configuration.cluster.is_none();
    let directory = match args.dry_run {
        true if is_embedded && !path.exists() => return Ok(None),
        true if is_embedded => DataDir::existing(&path)?,
        _ => DataDir::open(&path)?,
    };
    if args.dry_run && is_embedded && !directory.registry().exists() {
        return Ok(None);
    }
    let home = Home::of(&configuration, directory, CityClock::Real)?;
    let store = home.registry()?;
    if store.is_empty()? {
        ensure!(
            !made_up || !home.engine_is_running()?,
            "a gatebell serve runs on {} and takes its city for a real one: stop it, import, and start it again",
            home.name()
        );
    } else {
        match (made_up, store.is_made_up()?) {
            (true, false) => bail!(
                "the city in {} is a real one, which --made-up would silence: use another one",
                home.name()
            ),
            (false, true) => bail!(
                "the city in {} is a made-up one: import with --made-up, or use another one",
                home.name()
            ),
            _ => {}
        }
    }
    Ok(Some((home, store)))
}

fn import(
    args: &Args,
    made_up: bool,
    store: &dyn RegistryStore,
    entries: Vec<Entry>,
    zone: &TimeZone,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let version = store.version()?;
    let now = super::now();
    let commanded = Commanded { changes: changes_by_commands(store)?, is_undone: args.undo_commands };
    let difference =
        Difference::between(entries, now, &commanded, |kind, mut each| store.for_each(kind, &mut each))?;
    print(&difference, out)?;

    let undoings: Vec<String> = difference.undoings.iter().map(|undoing| undoing.shown(zone)).collect();
    if !undoings.is_empty() && !args.undo_commands {
        out.flush()?;
        return Err(anyhow!("{}", undoings.join("\n")).context(
            "what single commands changed would be undone, and nothing was written: bring the directory up to date, \
             or import with --undo-commands if that is meant",
        ));
    }

    let too_much: Vec<String> = difference
        .removing_too_much()
        .map(|kind| format!("{} of {} entries of kind {}", kind.removed.count, kind.standing, kind.kind))
        .collect();
    if !too_much.is_empty() && !args.allow_removals {
        out.flush()?;
        bail!(
            "more than 1 % would be removed ({}): nothing was written; if that is meant, import with --allow-removals",
            too_much.join(", ")
        );
    }
    if args.dry_run {
        writeln!(out, "dry run: nothing was written")?;
        return Ok(ExitCode::SUCCESS);
    }
    // What the first import brings counts since ever: taps from before it are decided by it, too.
    let counts_from = match version {
        0 => Timestamp::MIN,
        _ => counts_from(store, version, difference.entries.len())?,
    };
    let written = write(args, made_up, store, version, counts_from, difference.entries)?;
    out.flush()?;
    let effect = wait(store, written, counts_from, Duration::from_secs(WAIT_S_MAX))
        .context("the import is written")?;
    let what = if written == version { "nothing to write" } else { "imported" };
    writeln!(out, "{what}; {effect}")?;
    Ok(ExitCode::SUCCESS)
}

/// What single commands changed that no import has taken over.
fn changes_by_commands(store: &dyn RegistryStore) -> anyhow::Result<HashMap<EntryKey, CommandChange>> {
    let standing = store.standing_by_single_commands()?.into_iter();
    let changes = standing.map(|recorded| {
        let change = CommandChange {
            applied: recorded.change.applied,
            written_at: recorded.written_at,
            who: recorded.who,
        };
        (recorded.change.entry.key(), change)
    });
    Ok(changes.collect())
}

/// Writes `entries`, which follow from what stood at `version`; the version of the last change.
fn write(
    args: &Args,
    made_up: bool,
    store: &dyn RegistryStore,
    version: u64,
    counts_from: Timestamp,
    entries: Vec<Entry>,
) -> anyhow::Result<u64> {
    if version == 0 && made_up {
        // Before the first entry, so that no engine ever takes the city for a real one.
        store.mark_made_up()?;
    }
    if entries.is_empty() {
        return Ok(version);
    }
    let written =
        store.apply_to_version(version, entries, counts_from, &args.by.who(), ChangeOrigin::Import)?;
    written.context("somebody else changed the registry meanwhile, and nothing was written: import again")
}

fn print(difference: &Difference, out: &mut impl Write) -> std::io::Result<()> {
    for day in &difference.kept_days {
        writeln!(out, "kept day: {day}, which a single command set and the directory does not name")?;
    }
    if difference.kinds.iter().all(KindDifference::is_empty) {
        return writeln!(out, "no difference from what is there");
    }
    writeln!(out, "{:<14}{:>10}{:>10}{:>10}", "", "added", "changed", "removed")?;
    for kind in &difference.kinds {
        let counts = [&kind.added, &kind.changed, &kind.removed].map(|happening| happening.count);
        writeln!(out, "  {:<12}{:>10}{:>10}{:>10}", kind.kind, counts[0], counts[1], counts[2])?;
    }
    for kind in &difference.kinds {
        // A first import is all additions, of which examples tell nothing.
        let happenings = [("added", &kind.added), ("changed", &kind.changed), ("removed", &kind.removed)];
        for (word, happening) in happenings {
            if kind.standing > 0 || word != "added" {
                print_examples(kind.kind, word, happening, out)?;
            }
        }
    }
    Ok(())
}

fn print_examples(
    kind: &str,
    word: &str,
    happening: &Happening,
    out: &mut impl Write,
) -> std::io::Result<()> {
    for example in &happening.examples {
        writeln!(out, "{word} {kind}: {example}")?;
    }
    let more = happening.count - happening.examples.len();
    if more > 0 {
        writeln!(out, "{word} {kind}: and {more} more")?;
    }
    Ok(())
}
