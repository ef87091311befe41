//! `gatebell rejected`: records that were no taps to be decided, with their reasons. Works beside a running `serve`.
//!
//! A list shows nothing of what a record holds, since that may be anybody's name; `show` does, when asked for.

use std::io::Write as _;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use comfy_table::{CellAlignment, Table, presets};
use gatebell_engine::decode::decode;
use gatebell_engine::ids::LogPosition;
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::ports::rejected::{RejectedLog, RejectedSummary};
use gatebell_engine::ports::tap_log::{IncomingTap, TapIntake};
use gatebell_engine::tap::RejectReason;

use super::{EXIT_FOUND_OR_FAILED, Globals, tokio_runtime};
use crate::standard_error::say;

/// What to do with rejected records.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the last rejected records: place, time of receipt, reason and size as kept, nothing of what they hold
    List {
        /// How many at most
        #[arg(long, value_name = "RECORDS", default_value_t = 100)]
        limit: usize,
    },
    /// Print what one record holds; of one that is too long for the log of rejected records, what that has kept of it. It
    /// may be personal: mind where it goes
    Show {
        /// Its place in the tap log, as the list has it
        #[arg(value_name = "PARTITION/OFFSET")]
        place: Place,
    },
    /// Report records again, as they are, to be decided as if they were read now
    Resend {
        /// Their places in the tap log
        #[arg(value_name = "PARTITION/OFFSET", required = true)]
        places: Vec<Place>,
    },
}

/// A place in the tap log, such as `3/1207`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) LogPosition);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let position = text.split_once('/').and_then(|(partition, offset)| {
            Some(LogPosition { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        position.map(Self).ok_or_else(|| format!("{text:?} is no place; places are such as 3/1207"))
    }
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    let rejected = home.rejected()?;
    let runtime = tokio_runtime()?;
    match &args.action {
        Action::List { limit } => runtime.block_on(list(&*rejected, *limit)),
        Action::Show { place } => runtime.block_on(show(&*rejected, place.0)),
        Action::Resend { places } => {
            let intake = home.intake(&globals.configuration()?, Arc::new(SystemClock::new()))?;
            runtime.block_on(resend(&*rejected, &*intake, places))
        }
    }
}

async fn list(rejected: &dyn RejectedLog, limit: usize) -> anyhow::Result<ExitCode> {
    let records = rejected.list(limit).await?;
    if records.is_empty() {
        say("no record was rejected");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["place", "received", "reason", "bytes"]);
    for RejectedSummary { position, received, reason, len_bytes } in records {
        table.add_row([
            position.to_string(),
            received.to_string(),
            reason.name().to_owned(),
            len_bytes.to_string(),
        ]);
    }
    if let Some(bytes) = table.column_mut(3) {
        bytes.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(ExitCode::SUCCESS)
}

async fn show(rejected: &dyn RejectedLog, position: LogPosition) -> anyhow::Result<ExitCode> {
    let Some(record) = rejected.read(position).await? else { bail!(no_record(position)) };
    say(format_args!("{position}: received {}, {}", record.received, record.reason.name()));
    let mut out = std::io::stdout().lock();
    out.write_all(&record.value)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

/// Each for itself: what cannot be sent keeps no other back.
async fn resend(
    rejected: &dyn RejectedLog,
    intake: &dyn TapIntake,
    places: &[Place],
) -> anyhow::Result<ExitCode> {
    let mut all_sent = true;
    for Place(position) in places {
        match resend_one(rejected, intake, *position).await? {
            Ok(()) => say(format_args!("{position}: sent again; it is decided by what holds now")),
            Err(refusal) => {
                say(format_args!("{position}: not sent: {refusal}"));
                all_sent = false;
            }
        }
    }
    Ok(if all_sent { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND_OR_FAILED) })
}

/// The inner error says why the record cannot be sent; the outer one is of the logs, and ends the command.
async fn resend_one(
    rejected: &dyn RejectedLog,
    intake: &dyn TapIntake,
    position: LogPosition,
) -> anyhow::Result<Result<(), String>> {
    let Some(record) = rejected.read(position).await? else { return Ok(Err(no_record(position))) };
    let card = match decode(&record.value) {
        Ok(tap) => tap.card,
        Err(RejectReason::Oversize) => return Ok(Err("it is too long to be a tap".to_owned())),
        Err(_) => return Ok(Err("it is still no tap: nobody could tell whose it is".to_owned())),
    };
    let sent = intake.append(vec![IncomingTap { card, value: record.value }]).await;
    sent.with_context(|| format!("cannot send {position} again"))?;
    Ok(Ok(()))
}

fn no_record(position: LogPosition) -> String {
    format!(
        "no record at {position} was rejected, or it is forgotten by now; gatebell rejected list shows them"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    use gatebell_engine::ports::PortError;
    use gatebell_engine::ports::rejected::RejectedRecord;
    use gatebell_engine::ports::tap_log::IntakeError;
    use gatebell_engine::testing::fakes::FakeRejectedLog;
    use gatebell_engine::time::Timestamp;
    use std::sync::Mutex;

    #[test]
    fn places_are_partition_and_offset() {
        assert_eq!("3/1207".parse(), Ok(Place(LogPosition { partition: 3, offset: 1207 })));
        for text in ["3", "3/", "/7", "3/7/9", "-1/7", "3/x"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    /// Takes everything, or nothing.
    #[derive(Default)]
    struct Gate {
        taken: Mutex<Vec<IncomingTap>>,
        closed: bool,
    }

    #[async_trait::async_trait]
    impl TapIntake for Gate {
        async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
            if self.closed {
                return Err(PortError::new("tap log", "closed").into());
            }
            self.taken.lock().unwrap().extend(taps);
            Ok(())
        }

        fn waiting_taps(&self) -> usize {
            0
        }
    }

    async fn log_of(values: &[&'static str]) -> FakeRejectedLog {
        let log = FakeRejectedLog::default();
        let records = (0..).zip(values).map(|(offset, value)| RejectedRecord {
            position: LogPosition { partition: 0, offset },
            received: Timestamp::from_millis(0),
            reason: RejectReason::ClockAhead,
            value: (*value).into(),
        });
        log.append(records.collect()).await.unwrap();
        log
    }

    const TAP: &str = r#"{"card":"04A224B1C23F80","reader":"R1","at":1757288460000}"#;

    #[tokio::test]
    async fn what_is_a_tap_is_sent_again_untouched_and_the_rest_is_told() {
        let (log, gate) = (log_of(&["rubbish", TAP]).await, Gate::default());
        let places = ["0/0", "0/1", "0/2"].map(|place| place.parse().unwrap());
        let exit = resend(&log, &gate, &places).await.unwrap();
        assert_eq!(exit, ExitCode::from(EXIT_FOUND_OR_FAILED));
        let taken = gate.taken.lock().unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(
            (taken[0].card.expose().as_str(), &taken[0].value[..]),
            ("04A224B1C23F80", TAP.as_bytes())
        );
    }

    #[tokio::test]
    async fn a_log_that_takes_nothing_ends_the_command() {
        let gate = Gate { closed: true, ..Gate::default() };
        let error = resend(&log_of(&[TAP]).await, &gate, &["0/0".parse().unwrap()]).await.unwrap_err();
        assert!(format!("{error:#}").contains("cannot send 0/0 again"), "{error:#}");
    }
}
