//! The command line: one file a command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Tells parents at once that their child has passed the school gate, and bills it to the cent.
#[derive(Debug, Parser)]
#[command(name = "gatebell", version, propagate_version = true)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Globals {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "GATEBELL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory of the embedded log and store
    #[arg(long, global = true, value_name = "DIR", env = "GATEBELL_DATA")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {}

/// Reads the command line and runs the command. Exit code 0: done; 1: the command found what it looks for (mistakes,
/// differences) or failed; 2: the command line is wrong.
pub(crate) fn main() -> ExitCode {
    let line = CommandLine::parse();
    let _globals = line.globals;
    match line.command {}
}
