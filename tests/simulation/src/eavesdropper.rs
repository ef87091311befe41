//! Listens to what the engine's processes log, for words that must not be said (P1).
//!
//! Keeps the lines that hold one, and nothing of the others.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use gatebell_engine::invariants::predicates::says_none_of;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::city::PERSONAL;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Eavesdropper {
    heard: Arc<Mutex<Vec<String>>>,
}

impl Eavesdropper {
    /// Runs `work`, all of whose log lines are listened to.
    pub(crate) fn listen<T>(&self, work: impl FnOnce() -> T) -> T {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .without_time()
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work)
    }

    /// The lines that say something personal.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<'a> MakeWriter<'a> for Eavesdropper {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Each event is written whole.
impl io::Write for &Eavesdropper {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(event);
        if !says_none_of(&line, PERSONAL) {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim_end().to_owned());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
