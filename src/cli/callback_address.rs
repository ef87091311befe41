//! `gatebell callback-address`: the one address that a provider calls for a whole account, for whoever registers it there.
//!
//! Who knows it may report receipts, so it is printed here, on request, and nowhere else.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use gatebell_connectors::data_dir::DataDir;
use gatebell_engine::ids::LaneName;
use secrecy::ExposeSecret as _;

use super::Globals;
use crate::wiring::account_callback_address;

/// Prints the address that a provider is to have on record for the receipts of an account, whose gateway has
/// `callback_address = "account"`. Keep it as a secret: who knows it may report receipts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The gateway, by its name in the configuration
    gateway: LaneName,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let configuration = globals.configuration()?;
    let named = configuration.gateways.iter().find(|gateway| gateway.name == args.gateway);
    let gateway = named.with_context(|| format!("no gateway {} is configured", args.gateway))?;
    // Without a configured key it is the one in the data directory, made now where `serve` has not made it yet.
    let directory = DataDir::open(&globals.data_dir()?)?;
    let address = account_callback_address(&configuration, gateway, &directory)?;
    writeln!(std::io::stdout(), "{}", address.expose_secret())?;
    Ok(ExitCode::SUCCESS)
}
