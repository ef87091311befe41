//! `gatebell replay`: the rules run over a file of taps, as one shard that sends nothing and stores nothing.
//!
//! The file is read in batches, whatever its size and whatever bytes it holds: [`lines`] and [`csv_rows`] cut it into
//! records, [`verdict`] writes what became of each, one JSON object a line, in order. Every record gets exactly one.

mod csv_rows;
mod lines;
mod source;
mod summary;
#[cfg(test)]
mod tests;
mod verdict;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use gatebell_engine::index::RegistryIndex;
use gatebell_engine::ports::tap_log::TapRecord;
use gatebell_engine::registry::{Entry, RegistryChange};
use gatebell_engine::shard::{Decisions, Shard};
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;

use self::source::TapFile;
pub(crate) use self::summary::Summary;

/// Records that are decided together; what a replay holds in memory at a time.
const BATCH_RECORDS_MAX: usize = 1024;

/// The name of the log that a replayed file stands for.
const LOG: &str = "replay";

/// Decides every record of the file `taps` with the registry `entries` and writes what became of it to `out`.
///
/// # Errors
/// When the file cannot be read or `out` not be written. Records that are no taps are no errors.
pub(crate) fn replay(
    term: Term,
    entries: Vec<Entry>,
    taps: &Path,
    out: &mut impl Write,
) -> anyhow::Result<Summary> {
    let file = TapFile::open(taps).with_context(|| format!("cannot read the taps in {}", taps.display()))?;
    decide(term, entries, file, out)
}

/// The same for taps that `input` holds, as CSV or as NDJSON.
#[cfg(feature = "fuzzing")]
pub(crate) fn replay_input(
    term: Term,
    entries: Vec<Entry>,
    (input, is_csv): (impl std::io::BufRead + 'static, bool),
    out: &mut impl Write,
) -> anyhow::Result<Summary> {
    decide(term, entries, TapFile::of(input, is_csv)?, out)
}

fn decide(term: Term, entries: Vec<Entry>, file: TapFile, out: &mut impl Write) -> anyhow::Result<Summary> {
    let term = Arc::new(term);
    let mut run = Run::new(term, entries);
    run.warn_of_header(&file);
    run.decide_all(file, out).with_context(|| format!("stopped at record {}", run.summary.records()))?;
    Ok(run.summary)
}

struct Run {
    term: Arc<Term>,
    shard: Shard,
    batch: Vec<TapRecord>,
    decisions: Decisions,
    summary: Summary,
}

impl Run {
    fn new(term: Arc<Term>, entries: Vec<Entry>) -> Self {
        let pupils = entries.iter().filter(|entry| matches!(entry, Entry::Pupil(_))).count();
        let index = Arc::new(RegistryIndex::new(Arc::clone(&term), pupils));
        for (version, entry) in (1..).zip(entries) {
            index.apply(&RegistryChange { version, applied: Timestamp::MIN, entry });
        }
        Self {
            shard: Shard::new(LOG, 0, Arc::clone(&term), index),
            term,
            batch: Vec::with_capacity(BATCH_RECORDS_MAX),
            decisions: Decisions::default(),
            summary: Summary::default(),
        }
    }

    fn warn_of_header(&mut self, file: &TapFile) {
        if let Some(mistake) = file.header_mistake() {
            self.summary.warn(format!("{mistake}, so every record is malformed"));
        }
    }

    fn decide_all(&mut self, mut file: TapFile, out: &mut impl Write) -> anyhow::Result<()> {
        let mut offset = 0;
        while let Some(record) = file.next_record()? {
            if let Some(received) = record.received {
                let day = self.term.day_of(received);
                self.summary.note_day(offset, day, record.says_received);
            }
            // What cannot be decoded gets the time of nothing: no rule looks at it.
            let received = record.received.unwrap_or(Timestamp::from_millis(0));
            self.batch.push(TapRecord { offset, received, value: record.value });
            offset += 1;
            if self.batch.len() == BATCH_RECORDS_MAX {
                self.decide_batch(out)?;
            }
        }
        self.decide_batch(out)
    }

    fn decide_batch(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        self.decisions.clear();
        self.shard.decide(&self.batch, &mut self.decisions);
        self.batch.clear();
        for decision in &self.decisions.taps {
            self.summary.count(decision.outcome);
            verdict::write(&self.shard, &self.decisions, decision, out)
                .context("cannot write the outcomes")?;
        }
        Ok(())
    }
}

/// One record of a file of taps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayRecord {
    /// What the shard reads: the tap in JSON; or bytes that it rejects for the same reason.
    value: Bytes,
    /// When it was received; `None` when it cannot be decoded.
    received: Option<Timestamp>,
    /// Whether the record itself says when it was received.
    says_received: bool,
}
