//! `gatebell demo`: a made-up city, and a school morning in it.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{EXIT_FOUND_OR_FAILED, Globals, tokio_runtime};
use crate::demo::city::{City, CityPlan};
use crate::demo::city_files;
use crate::demo::morning::Morning;
use crate::demo::page::Page;
use crate::demo::performance::{self, Plan, Verdict};
use crate::demo::stage::Servers;
use crate::standard_error::say;

/// Readers collect what they read for so long before they send it: a morning in a file is as one at real speed.
const COLLECT_MS: i64 = 2_000;
/// The term that the demo plays in.
const TERM: &str = "114-1";
/// A district's worth of schools.
const SCHOOLS: usize = 20;
/// What a process returns that was stopped by Ctrl-C.
const EXIT_STOPPED: u8 = 130;

/// Play a school morning in a made-up city, with the real engine against the gateway simulator, and tell what happened.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Pupils in the city
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(100..=200_000))]
    pupils: u32,
    /// Decides everything that is drawn: people, taps, and the gateway's faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many times faster than real time the city's clock runs; 100 plays the morning in a minute
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=600))]
    speed: u32,
    /// Play on a real Kafka instead of the embedded log; without an address, on the one of dev/services. Topics and keyspace
    /// of the run, demo_…, stay, as the directory does, for the commands that the report names; drop them by hand
    #[arg(
        long,
        value_name = "HOST:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:19092",
        requires = "cql"
    )]
    kafka: Option<String>,
    /// And on a real CQL store (ScyllaDB or Cassandra); without an address, on the one of dev/services
    #[arg(
        long,
        value_name = "HOST:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:19042",
        requires = "kafka"
    )]
    cql: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write a made-up city as a city directory, for trials and load tests
    City(CityArgs),
}

/// Which city, and where it goes.
#[derive(Debug, clap::Args)]
struct CityArgs {
    /// Directory to write to; made when it is not there
    dir: PathBuf,
    /// Pupils
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(1..=CityPlan::PUPILS_MAX as i64))]
    pupils: u32,
    /// Schools
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=CityPlan::SCHOOLS_MAX as i64))]
    schools: u32,
    /// Decides everything that is drawn: the same seed gives the same city
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the taps of the first morning of term 114-1, for gatebell replay
    #[arg(long, value_name = "FILE")]
    taps: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match &args.what {
        Some(What::City(city)) => write_city(city),
        None => play(args, globals),
    }
}

fn play(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let term = globals.load_term(Some(TERM))?;
    let plan = Plan {
        city: CityPlan { schools: SCHOOLS, pupils: args.pupils as usize, seed: args.seed },
        speed: f64::from(args.speed),
        data: match globals.data_named() {
            Some(dir) => dir.to_owned(),
            None => fresh_dir()?,
        },
        servers: args.kafka.clone().zip(args.cql.clone()).map(|(kafka, cql)| Servers { kafka, cql }),
    };
    let mut page = Page::default();
    let runtime = tokio_runtime()?;
    let verdict = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        performance::perform(&plan, term, &mut page, stop).await
    })?;
    let mut output = std::io::stdout().lock();
    write!(output, "{}", page.text())?;
    Ok(match verdict {
        Verdict::Holds => ExitCode::SUCCESS,
        Verdict::Differs(differing) => {
            writeln!(output, "\n   {differing} of these do not hold")?;
            ExitCode::from(EXIT_FOUND_OR_FAILED)
        }
        Verdict::Stopped => {
            say(format_args!("stopped; what was played so far is in {}", plan.data.display()));
            ExitCode::from(EXIT_STOPPED)
        }
    })
}

/// A directory of its own for this run. It stays, so that the commands that the report names find something.
fn fresh_dir() -> anyhow::Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("gatebell-demo-").tempdir();
    Ok(dir.context("cannot make a temporary directory; --data names another one")?.keep())
}

async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
}

fn write_city(args: &CityArgs) -> anyhow::Result<ExitCode> {
    let plan = CityPlan { schools: args.schools as usize, pupils: args.pupils as usize, seed: args.seed };
    let city = City::generate(plan);
    city_files::write(&city, &args.dir)?;
    let mut output = std::io::stdout().lock();
    writeln!(
        output,
        "{}: a made-up city with {} schools, {} pupils, {} guardians, {} SMS orders",
        args.dir.display(),
        city.schools.len(),
        city.pupils.len(),
        city.families.guardians.len(),
        city.families.orders.len(),
    )?;
    if let Some(file) = &args.taps {
        let morning = Morning::draw(&city, args.seed, COLLECT_MS);
        write_taps(&morning, file)?;
        writeln!(output, "{}: {} taps of its first morning", file.display(), morning.expected.sent)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_taps(morning: &Morning, path: &Path) -> anyhow::Result<()> {
    let file = fs::File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut writer = BufWriter::new(file);
    let mut write = || -> std::io::Result<()> {
        for upload in &morning.uploads {
            for line in upload.replay_lines() {
                writeln!(writer, "{line}")?;
            }
        }
        writer.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
