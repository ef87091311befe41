//! `gatebell store`: readies what a shared city lives on.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::Globals;
use crate::home::{CityClock, SharedCity};

/// What to do with the store.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make keyspace, tables and topics, or bring the tables to this program's version; in an empty keyspace, the key files
    /// too. Run it before an upgrade is started; again, it changes nothing
    Migrate,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Migrate => migrate(globals),
    }
}

fn migrate(globals: &Globals) -> anyhow::Result<ExitCode> {
    let configuration = globals.configuration()?;
    let Some(cluster) = &configuration.cluster else {
        bail!(
            "the configuration names no [scylla]: an embedded store brings itself up to date; for Kafka and ScyllaDB begin \
             with config/kafka-scylla.toml"
        );
    };
    let prepared =
        SharedCity::prepare(cluster, &configuration, CityClock::Real).context("cannot ready the store")?;
    let mut out = std::io::stdout().lock();
    let keyspace = &cluster.scylla.keyspace;
    if prepared.schema_from == prepared.schema_to {
        writeln!(out, "keyspace {keyspace} has version {} already", prepared.schema_to)?;
    } else {
        writeln!(out, "keyspace {keyspace}: version {} to {}", prepared.schema_from, prepared.schema_to)?;
    }
    for key in &prepared.keys {
        writeln!(out, "made the key {key}: copy it to every machine, and keep a copy apart from the store")?;
    }
    writeln!(out, "topics {}.* are there", cluster.kafka.topic_prefix)?;
    Ok(ExitCode::SUCCESS)
}
