//! The program: command line, HTTP surfaces, wiring. The rules are in `gatebell-engine`, the outside in
//! `gatebell-connectors`.
//!
//! A library only so that the fuzz targets can reach its decoders; nothing in it is for others, but [`main`].

// `println!` panics when the reader of a pipe has gone (`gatebell bill | head`): commands write with
// `writeln!` and hand the error up, and `cli` knows a closed pipe from a failure. What goes to standard error
// is said by `standard_error`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod city;
mod cli;
mod config;
mod demo;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod home;
mod http;
mod logs;
mod replay;
mod service;
mod settling;
mod standard_error;
mod start_check;
mod statement;
mod wiring;

use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // With more than one provider compiled in, a TLS client panics unless one is chosen before it is built.
    // It fails only when one was chosen already.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    cli::main()
}
