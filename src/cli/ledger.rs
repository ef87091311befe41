//! `gatebell ledger export`: the ledger's entries in the public format.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::ensure;
use gatebell_engine::ids::PupilId;
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::time::{Day, Timestamp};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Globals;
use crate::statement::OrderBook;

/// Looks into the ledger.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LedgerCommand {
    /// Print every entry about notices of some days, as NDJSON in the order written
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// First day, such as 2025-09-08
    #[arg(long, value_name = "DAY")]
    from: Day,
    /// Last day
    #[arg(long, value_name = "DAY")]
    to: Day,
    /// Only entries about this pupil
    #[arg(long, value_name = "PUPIL")]
    pupil: Option<PupilId>,
    /// Term whose time zone the times are printed in: a name or a file [default: the one that is served]
    #[arg(long)]
    term: Option<String>,
}

/// An entry as the public format has it. No phone number, no name.
#[derive(Debug, Serialize)]
struct ExportedEntry<'a> {
    notice: String,
    pupil: &'a str,
    guardian: &'a str,
    channel: &'static str,
    kind: &'static str,
    day: Day,
    at: String,
    entry: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    match &args.command {
        LedgerCommand::Export(export_args) => export(export_args, globals),
    }
}

fn export(args: &ExportArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    ensure!(args.from <= args.to, "--from {} is after --to {}", args.from, args.to);
    let home = globals.home()?;
    let term = globals.term_of(&home, args.term.as_deref())?;
    let zone = term.time_zone();
    let books = home.books()?;
    let days = args.from..=args.to;

    let mut out = BufWriter::new(std::io::stdout().lock());
    match &args.pupil {
        Some(pupil) => {
            let entries = books.entries_of_pupil(days, pupil)?;
            if entries.is_empty() {
                ensure!(OrderBook::of(&home)?.has_pupil(pupil), "no pupil {pupil} on record");
            }
            for entry in entries {
                print(&entry, zone, &mut out)?;
            }
        }
        None => {
            for entry in books.entries(days)? {
                print(&entry?, zone, &mut out)?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(entry: &LedgerEntry, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let exported = ExportedEntry {
        notice: entry.notice.to_string(),
        pupil: entry.pupil.as_str(),
        guardian: entry.guardian.as_str(),
        channel: entry.channel.name(),
        kind: entry.kind.name(),
        day: entry.day,
        at: in_city(entry.at, zone),
        entry: entry.event.name(),
        time: in_city(entry.time, zone),
        order: entry.order.as_ref().map(|order| order.as_str()),
        gateway: entry.gateway.as_ref().map(|lane| lane.as_str()),
        gateway_id: entry.gateway_id.as_deref(),
        reason: entry.reason.as_deref(),
    };
    serde_json::to_writer(&mut *out, &exported).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// RFC 3339 with milliseconds in the city's offset. Instants beyond the calendar, which no tap has, stay in
/// UTC.
fn in_city(at: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(instant) => {
            let offset = zone.to_offset(instant);
            format!("{:.3}", instant.display_with_offset(offset))
        }
        Err(_) => at.to_string(),
    }
}
