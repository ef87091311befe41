//! `gatebell config`: checks the configuration before a start depends on it, and shows the commented built-in
//! one.

use std::io::Write as _;
use std::process::ExitCode;

use super::Globals;
use crate::config;

/// What to do with the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check whatever keeps gatebell serve from starting (configuration, secrets, term, lanes, texts): every mistake at
    /// once, with line and caret
    Check,
    /// Print the commented built-in configuration, to begin one's own with
    Show,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    match args.action {
        Action::Check => {
            let (configuration, _) = globals.checked_start(None)?;
            writeln!(
                output,
                "no mistakes; term {}; data directory {}",
                configuration.city.term,
                globals.data_dir()?.display()
            )?;
        }
        Action::Show => output.write_all(config::BUILT_IN.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
