//! A long run on stable Rust: so many inputs for each target, made of its corpus from a seed, with progress.
//!
//! An input that a target does not hold for is written to `artifacts/TARGET/` and ends the run.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use gatebell_fuzz::corpus;
use gatebell_fuzz::mutation::Mutator;
use gatebell_fuzz::targets::{TARGETS, Target};

/// Inputs between two looks at the clock.
const LOOK_EVERY_INPUTS: u64 = 10_000;
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// No input may take longer: it would hold up what is behind it.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);

/// Feeds the targets with inputs made of their corpora
#[derive(Debug, Parser)]
struct Args {
    /// The targets [default: all]
    targets: Vec<String>,
    /// Inputs for each target
    #[arg(long, default_value_t = 100_000)]
    inputs: u64,
    /// What the inputs are made from; another seed makes others
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead: feeds one target with this file, as it was kept, and lets it say what does not hold
    #[arg(long, conflicts_with_all = ["inputs", "seed"])]
    file: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    for name in &args.targets {
        anyhow::ensure!(TARGETS.iter().any(|target| target.name == name), "there is no target {name}");
    }
    if let Some(file) = &args.file {
        return run_file(file, &args.targets);
    }
    let mut out = std::io::stdout().lock();
    for target in TARGETS.iter().filter(|target| is_wanted(target, &args)) {
        let begun = Instant::now();
        let (slowest, failing) = run(target, &args, &mut out)?;
        if let Some(input) = failing {
            let file = keep(target, &input)?;
            writeln!(out, "{}: does not hold for {}", target.name, file.display())?;
            return Ok(ExitCode::FAILURE);
        }
        let seconds = begun.elapsed().as_secs_f64();
        writeln!(
            out,
            "{}: {} inputs in {seconds:.0} s, the slowest in {:.1} ms",
            target.name,
            args.inputs,
            slowest.as_secs_f64() * 1e3
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_file(file: &Path, targets: &[String]) -> anyhow::Result<ExitCode> {
    let target =
        TARGETS.iter().find(|target| targets == [target.name]).context("--file needs its one target")?;
    let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let begun = Instant::now();
    (target.run)(&input);
    println!(
        "{} holds for {}, in {:.1} ms",
        target.name,
        file.display(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(ExitCode::SUCCESS)
}

fn is_wanted(target: &Target, args: &Args) -> bool {
    args.targets.is_empty() || args.targets.iter().any(|name| name == target.name)
}

/// How long the slowest input took, and the input that the target does not hold for.
fn run(
    target: &Target,
    args: &Args,
    out: &mut impl std::io::Write,
) -> anyhow::Result<(Duration, Option<Vec<u8>>)> {
    let inputs = corpus::inputs(target.name).with_context(|| format!("no corpus of {}", target.name))?;
    let mut mutator = Mutator::new(target, &inputs, args.seed);
    let mut slowest = Duration::ZERO;
    let mut told = Instant::now();
    for done in 1..=args.inputs {
        let input = mutator.next_input();
        let begun = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_ok();
        let took = begun.elapsed();
        slowest = slowest.max(took);
        if !held || took > INPUT_TIME_MAX {
            return Ok((slowest, Some(input)));
        }
        if done % LOOK_EVERY_INPUTS == 0 && told.elapsed() > TOLD_EVERY {
            told = Instant::now();
            writeln!(out, "{}: {done} of {} inputs", target.name, args.inputs)?;
        }
    }
    Ok((slowest, None))
}

fn keep(target: &Target, input: &[u8]) -> anyhow::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target.name);
    std::fs::create_dir_all(&directory).context("cannot keep the input")?;
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let file = directory.join(format!("found-{:016x}", hasher.finish()));
    std::fs::write(&file, input).context("cannot keep the input")?;
    Ok(file)
}
