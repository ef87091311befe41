//! What the demo shows while it runs: a bar and live figures on a terminal, a plain line every few seconds without one.
//! Everything goes to standard error; the report alone goes to standard output.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use gatebell_engine::ledger::Event;
use gatebell_engine::notice::{Channel, Passage};
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::runtime::status::{Status, StatusSnapshot};
use gatebell_engine::tap::Outcome;

use super::morning::{BEGINS, ENDS, instant, local_time};
use super::page::count;
use crate::standard_error::say;

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a plain line is written.
const PLAIN: Duration = Duration::from_secs(5);

/// One line about what is being done.
pub(crate) fn step(text: &str) {
    say(format_args!(" · {text}"));
}

/// What is watched.
pub(crate) struct Watched {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) status: Arc<Status>,
    /// Reports that were answered.
    pub(crate) answered: Arc<AtomicU64>,
    /// Reports there will be.
    pub(crate) reports: u64,
}

/// Shows the morning until `stop`.
pub(crate) async fn watch(watched: Watched, stop: CancellationToken) -> anyhow::Result<()> {
    if std::io::stderr().is_terminal() {
        watch_on_terminal(&watched, &stop).await
    } else {
        watch_in_lines(&watched, &stop).await;
        Ok(())
    }
}

async fn watch_on_terminal(watched: &Watched, stop: &CancellationToken) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template(" {prefix}  {bar:60.cyan/dim}  {percent:>3} %\n{msg}")
        .context("the bar's template is wrong")?
        .progress_chars("━━┄");
    let whole = instant(ENDS).since(instant(BEGINS));
    let bar = ProgressBar::new(whole.as_secs()).with_style(style);
    let mut ticks = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let now = watched.clock.now();
        bar.set_prefix(format!("{:.0}", local_time(now)));
        bar.set_position(now.since(instant(BEGINS)).as_secs().min(whole.as_secs()));
        bar.set_message(figures(watched).join("\n"));
    }
    bar.finish();
    Ok(())
}

async fn watch_in_lines(watched: &Watched, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(PLAIN);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let figures = figures(watched);
        let squeezed: Vec<String> =
            figures.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        say(format_args!(" {:.0}  {}", local_time(watched.clock.now()), squeezed.join("; ")));
    }
}

fn figures(watched: &Watched) -> Vec<String> {
    let snapshot = watched.status.snapshot();
    let answered = watched.answered.load(Ordering::Relaxed);
    let outcome = |wanted: Outcome| {
        let found = snapshot.taps.iter().find(|(outcome, _)| *outcome == wanted);
        count(found.map_or(0, |(_, count)| *count))
    };
    let mut lines = vec![format!(
        " taps  {:>7} of {} reported   {:>6} arrivals   {:>5} departures   {:>5} duplicates",
        count(answered),
        count(watched.reports),
        outcome(Outcome::Passage(Passage::Arrival)),
        outcome(Outcome::Passage(Passage::Departure)),
        outcome(Outcome::Duplicate),
    )];
    lines.extend(
        snapshot.lanes.iter().map(|lane| lane_line(&snapshot, lane.channel, lane.queued, lane.state.name())),
    );
    lines
}

fn lane_line(snapshot: &StatusSnapshot, channel: Channel, queued: usize, state: &str) -> String {
    let entries = |event: Event| snapshot.entries.get(&(channel, event)).copied().unwrap_or(0);
    let waiting = count(u64::try_from(queued).unwrap_or(u64::MAX));
    if channel == Channel::Sms {
        return format!(
            " SMS   {:>7} sent   {waiting:>6} waiting   {:>6} delivered   lane {state}",
            count(entries(Event::Submitted)),
            count(entries(Event::Delivered)),
        );
    }
    format!(" {channel:<5} {:>7} sent   {waiting:>6} waiting   lane {state}", count(entries(Event::Accepted)))
}
