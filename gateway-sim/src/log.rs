//! What the simulator has seen, for whoever compares it with a ledger.
//!
//! Owns: the records, and writing them as NDJSON, one event a line as it happens: `message` (an SMS was taken),
//! `receipt` (a callback was answered, or given up), `push` (the app backend took a message). They hold phone numbers and
//! texts of a made-up city.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

/// An SMS that the gateway took.
#[derive(Clone, Debug, Serialize)]
pub struct TakenMessage {
    /// The gateway's id, without the `#` that the answer may put before it.
    pub msgid: String,
    /// The sender's reference.
    pub clientid: String,
    /// The account that paid.
    pub account: String,
    /// The phone number as given.
    pub dstaddr: String,
    /// The text as the phone gets it.
    pub smbody: String,
    /// Whether the text was too long and was cut.
    pub cut: bool,
    /// The validity as given.
    pub vldtime: String,
    /// The validity in seconds.
    pub valid_for_s: u64,
    /// When it was taken first.
    pub accepted_at: Timestamp,
    /// How often it was submitted under this reference.
    pub submits: u32,
    /// How it ended, as a `StatusFlag`; `None` while it is on its way.
    pub ended: Option<u8>,
    /// What was told of it.
    pub receipts: Vec<SentReceipt>,
}

impl TakenMessage {
    /// Whether it reached the phone.
    pub fn is_delivered(&self) -> bool {
        self.ended == Some(crate::fate::DELIVERED)
    }
}

/// A callback, once it was answered or given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentReceipt {
    /// What it told.
    pub status_flag: u8,
    /// When it was answered or given up.
    pub at: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// The HTTP status of the last answer; `None` without one.
    pub http_status: Option<u16>,
    /// Whether the answer was as the document says, so that it is not repeated.
    pub acknowledged: bool,
}

/// A message that the app backend took.
#[derive(Clone, Debug, Serialize)]
pub struct TakenPush {
    /// The sender's reference.
    pub reference: String,
    /// The push token.
    pub token: String,
    /// The text.
    pub text: String,
    /// Its language.
    pub language: String,
    /// What it tells.
    pub kind: String,
    /// About whom.
    pub pupil: String,
    /// To whom.
    pub guardian: String,
    /// When the card was read.
    pub at: String,
    /// When it was taken first.
    pub accepted_at: Timestamp,
    /// How often it was submitted under this reference.
    pub submits: u32,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests to the SMS gateway.
    pub requests: u64,
    /// Messages that came within them, repeated ones included.
    pub submitted: u64,
    /// Messages that were recognised as repeated.
    pub duplicates: u64,
    /// Messages beyond the agreed rate.
    pub overruns: u64,
    /// Messages that were answered as throttled, by rate, connections or fate.
    pub throttled: u64,
    /// Most messages that were taken within one second.
    pub peak_per_s: u64,
    /// Most requests at once.
    pub connections_peak: u64,
    /// Requests with a wrong account or password.
    pub unauthorised: u64,
    /// Callbacks sent, repeated ones included.
    pub callbacks: u64,
    /// Callbacks that were not answered as the document says.
    pub callbacks_unanswered: u64,
    /// Requests to the app backend.
    pub app_requests: u64,
    /// Requests to it with a missing, wrong or outdated signature.
    pub signature_failures: u64,
}

/// Everything so far.
#[derive(Clone, Debug, Default)]
pub struct SimLog {
    /// Every SMS taken, in the order taken.
    pub messages: Vec<TakenMessage>,
    /// Every push taken, in the order taken.
    pub pushes: Vec<TakenPush>,
    /// What was counted.
    pub counts: Counts,
}

/// One line of the file.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    Message(&'a TakenMessage),
    Receipt { msgid: &'a str, clientid: &'a str, receipt: &'a SentReceipt },
    Push(&'a TakenPush),
}

/// The file, if one is kept. A file that cannot be written is told once, and the simulator goes on.
#[derive(Debug, Default)]
pub(crate) struct LogFile(Option<File>);

impl LogFile {
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        let mut options = File::options();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(|file| Self(Some(file)))
    }

    pub(crate) fn write(&mut self, event: &Event<'_>) {
        let Some(file) = &mut self.0 else { return };
        let written = serde_json::to_vec(event).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)
        });
        if let Err(error) = written {
            tracing::error!(%error, "the simulator's log cannot be written; it ends here");
            self.0 = None;
        }
    }
}
