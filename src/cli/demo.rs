//! `gatebell demo`: a made-up city, and a school morning in it.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::Globals;
use crate::demo::city::{City, CityPlan};
use crate::demo::city_files;
use crate::demo::morning::Morning;

/// Readers collect what they read for so long before they send it: a morning in a file is as one at real speed.
const COLLECT_MS: i64 = 2_000;

/// What to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
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

pub(crate) fn run(args: &Args, _globals: &Globals) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::City(city) => write_city(city),
    }
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
