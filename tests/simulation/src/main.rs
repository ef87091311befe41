//! Plays many seeds of the simulation on all cores, or one to read, or finds out what the failure of one needs.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use gatebell_simulation::{Failure, Kind, LONG_RUN_SEEDS, Plan, Played, Run, minimised, play_all};
use indicatif::{ProgressBar, ProgressStyle};

/// How often progress is said where no terminal shows it.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Plays simulated days of the engine, each drawn from a seed: crashes, rebalances, lost ports, bad gateways. Every invariant is
/// checked; exit code 1 when one is breached, or when a long run left something untested.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  cargo run -p gatebell-simulation --release -- --seeds 10000
  cargo run -p gatebell-simulation --release -- --seed 17 --trace
  cargo run -p gatebell-simulation --release -- --seed 17 --minimise")]
struct Arguments {
    /// So many seeds from --from on
    #[arg(long, default_value_t = 1000, conflicts_with = "seed", value_name = "COUNT")]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0, conflicts_with = "seed", value_name = "SEED")]
    from: u64,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print a time line of what happened, in simulated seconds and by process
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With --seed: leave out whatever the failure does not need, and print the command that plays the rest
    #[arg(long, requires = "seed", conflicts_with = "trace")]
    minimise: bool,
    /// Leave these kinds of trouble out
    #[arg(long, value_delimiter = ',', value_name = "KIND,...")]
    without: Vec<Kind>,
    /// At most so many processes at once (a seed has one to three)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    processes: Option<u32>,
    /// Only these moments of the day, as FROM..UNTIL; a moment brings taps, and perhaps a change or a misfortune
    #[arg(long, value_name = "FROM..UNTIL", value_parser = moments)]
    moments: Option<Range<u32>>,
    /// Threads; as many as there are cores
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZeroUsize>,
}

fn moments(text: &str) -> anyhow::Result<Range<u32>> {
    let (from, until) = text.split_once("..").context("expected FROM..UNTIL, such as 12..40")?;
    Ok(from.parse()?..until.parse()?)
}

impl Arguments {
    fn plan(&self, seed: u64) -> Plan {
        Plan {
            without: self.without.iter().copied().collect(),
            processes_max: self.processes.unwrap_or(u32::MAX),
            moments: self.moments.clone().unwrap_or(Plan::ALL_MOMENTS),
            is_traced: self.trace,
            ..Plan::of(seed)
        }
    }
}

fn command(plan: &Plan, then: &str) -> String {
    format!("cargo run -p gatebell-simulation --release -- {plan} {then}")
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let Some(seed) = arguments.seed else { return many(&arguments) };
    let plan = arguments.plan(seed);
    if arguments.minimise { minimise(&plan) } else { Ok(one(plan)) }
}

fn one(plan: Plan) -> ExitCode {
    let played = Played::of(plan.clone());
    played.time_line().iter().for_each(|line| println!("{line}"));
    let breaches = played.breaches();
    if breaches.is_empty() {
        println!("{plan}: every invariant held");
        return ExitCode::SUCCESS;
    }
    breaches.iter().for_each(|breach| println!("{breach}"));
    ExitCode::FAILURE
}

fn minimise(plan: &Plan) -> anyhow::Result<ExitCode> {
    let least = minimised(plan, |smaller| eprintln!("still fails: {smaller}"));
    let Some(least) = least else {
        println!("{plan}: every invariant held");
        return Ok(ExitCode::SUCCESS);
    };
    println!("{}", command(&least, "--trace"));
    Ok(ExitCode::FAILURE)
}

/// Sets `stop` on Ctrl-C; what is being played is played to its end.
fn stop_on_ctrl_c(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn many(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(Arc::clone(&stop))?;
    let threads = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot tell how many cores there are")?,
    };
    let until = arguments.from.checked_add(arguments.seeds).context("--from and --seeds are too large")?;
    let plan = arguments.plan(arguments.from);
    let started = Instant::now();
    let progress = Progress::of(arguments.seeds)?;
    let mut last_said = Instant::now();
    let mut failures_said = 0;
    let run = play_all(&plan, arguments.from..until, threads, &stop, |run| {
        for failure in &run.failures[failures_said..] {
            progress.bar.suspend(|| say(failure, &plan));
        }
        failures_said = run.failures.len();
        progress.bar.set_position(run.seeds);
        progress.bar.set_message(format!("{} failed", run.failures.len()));
        if progress.bar.is_hidden() && last_said.elapsed() >= SAY_EVERY {
            eprintln!("{} of {} seeds, {} failed", run.seeds, arguments.seeds, run.failures.len());
            last_said = Instant::now();
        }
    });
    progress.bar.finish_and_clear();
    Ok(report(&run, arguments, &plan, started.elapsed()))
}

struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn of(seeds: u64) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {msg}, {eta} left")?;
        Ok(Self { bar: ProgressBar::new(seeds).with_style(style) })
    }
}

fn say(failure: &Failure, plan: &Plan) {
    println!("seed {}:", failure.seed);
    failure.breaches.iter().for_each(|breach| println!("  {breach}"));
    let plan = Plan { seed: failure.seed, ..plan.clone() };
    println!("  {}", command(&plan, "--trace"));
}

fn report(run: &Run, arguments: &Arguments, plan: &Plan, took: Duration) -> ExitCode {
    println!("{}", run.coverage);
    let seeds_per_s = run.seeds as f64 / took.as_secs_f64().max(f64::EPSILON);
    let stopped = if run.seeds < arguments.seeds { ", stopped early" } else { "" };
    println!(
        "{} seeds from {} on in {:.1} s ({seeds_per_s:.1} a second){stopped}: {} failed",
        run.seeds,
        arguments.from,
        took.as_secs_f64(),
        run.failures.len()
    );
    if !run.failures.is_empty() {
        let mut failed: Vec<u64> = run.failures.iter().map(|failure| failure.seed).collect();
        failed.sort_unstable();
        println!("failed: {failed:?}");
    }
    // Whoever leaves something out asks for less.
    let is_whole = *plan == Plan::of(plan.seed);
    let untested = if is_whole { run.coverage.never_reached(run.seeds) } else { Vec::new() };
    untested.iter().for_each(|what| println!("no seed reached: {what}"));
    if is_whole && run.seeds < LONG_RUN_SEEDS {
        println!("(only a run of {LONG_RUN_SEEDS} seeds must reach everything)");
    }
    if run.failures.is_empty() && untested.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
