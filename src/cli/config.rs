//! `gatebell config`: checks the configuration before a start depends on it, and shows the commented built-in
//! one.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;

use super::Globals;
use crate::config::{self, Configuration};

/// What to do with the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check the configuration, its secrets and its term: every mistake at once, with line and caret
    Check,
    /// Print the commented built-in configuration, to begin one's own with
    Show,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    match args.action {
        Action::Check => {
            let configuration = globals.configuration()?;
            let troubles = secrets_that_cannot_be_had(&configuration);
            if !troubles.is_empty() {
                return Err(anyhow!("{}", troubles.join("\n")).context("some secrets cannot be had"));
            }
            globals.load_term(None)?;
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

fn secrets_that_cannot_be_had(configuration: &Configuration) -> Vec<String> {
    let tried = configuration.secrets().into_iter();
    tried
        .filter_map(|(whose, source)| source.fetch().err().map(|error| format!("{whose}: {error}")))
        .collect()
}
