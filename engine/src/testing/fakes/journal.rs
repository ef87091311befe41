//! What happened in a simulated world: how often each thing was reached, and, on order, a time line to read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::locked;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct JournalLine {
    /// Since the world began, on tokio's clock.
    pub at: Duration,
    /// The process that did it; `None`: the world around the processes.
    pub process: Option<u64>,
    /// What, in words.
    pub what: String,
}

impl fmt::Display for JournalLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs_f64();
        match self.process {
            Some(process) => write!(f, "{seconds:>10.3}  p{process:<4} {}", self.what),
            None => write!(f, "{seconds:>10.3}  {:5} {}", "", self.what),
        }
    }
}

#[derive(Default)]
struct State {
    lines: Option<Vec<JournalLine>>,
    reached: BTreeMap<Cow<'static, str>, u64>,
}

/// See the module. Clones share what they hold.
#[derive(Clone)]
pub struct Journal {
    origin: Instant,
    state: Arc<Mutex<State>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { origin: Instant::now(), state: Arc::default() }
    }
}

impl Journal {
    /// Keeps a time line from now on, too.
    pub fn keep_lines(&self) {
        locked(&self.state).lines.get_or_insert_default();
    }

    /// `what` was reached once more.
    pub fn reached(&self, what: impl Into<Cow<'static, str>>) {
        *locked(&self.state).reached.entry(what.into()).or_default() += 1;
    }

    /// Adds a line, where lines are kept.
    pub fn note(&self, process: Option<u64>, what: impl FnOnce() -> String) {
        let at = self.origin.elapsed();
        if let Some(lines) = &mut locked(&self.state).lines {
            lines.push(JournalLine { at, process, what: what() });
        }
    }

    /// How often each thing was reached.
    pub fn tally(&self) -> BTreeMap<Cow<'static, str>, u64> {
        locked(&self.state).reached.clone()
    }

    /// The time line; empty where none is kept.
    pub fn lines(&self) -> Vec<JournalLine> {
        locked(&self.state).lines.clone().unwrap_or_default()
    }
}
