//! The program: command line, HTTP surfaces, wiring. The rules are in `gatebell-engine`, the outside in
//! `gatebell-connectors`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
