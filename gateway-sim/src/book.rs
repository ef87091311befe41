//! The gateway's books: who may send, what was taken, what it became.
//!
//! Owns: accounts and their points, the messages by id and by reference, the measure of the rate, and the log. One lock,
//! held for look-ups only, never while anything is awaited.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::SimConfig;
use crate::fate::CANCELLED;
use crate::log::{Counts, Event, LogFile, SentReceipt, SimLog, TakenMessage, TakenPush};
use crate::rate::RateMeter;

/// UTF-16 units that one SMS holds.
const SEGMENT_UNITS: usize = 70;

/// All that is known.
#[derive(Debug)]
pub(crate) struct Book {
    points: HashMap<String, i64>,
    messages: Vec<TakenMessage>,
    by_reference: HashMap<String, usize>,
    by_msgid: HashMap<String, usize>,
    scheduled: HashMap<usize, Instant>,
    attempts: HashMap<String, u32>,
    pushes: Vec<TakenPush>,
    push_by_reference: HashMap<String, usize>,
    remember_references: Duration,
    messages_max: usize,
    pub(crate) rate: RateMeter,
    pub(crate) counts: Counts,
    file: LogFile,
}

/// A message to be taken.
pub(crate) struct NewMessage<'a> {
    pub(crate) account: &'a str,
    pub(crate) clientid: &'a str,
    pub(crate) dstaddr: &'a str,
    pub(crate) smbody: &'a str,
    pub(crate) vldtime: &'a str,
    pub(crate) valid_for: Duration,
    /// Not sent before this; `None`: at once.
    pub(crate) not_before: Option<Instant>,
    pub(crate) long_sms: bool,
}

impl Book {
    pub(crate) fn new(config: &SimConfig, file: LogFile, now: Instant) -> Self {
        Self {
            points: config
                .accounts
                .iter()
                .map(|account| (account.username.clone(), account.points))
                .collect(),
            messages: Vec::new(),
            by_reference: HashMap::new(),
            by_msgid: HashMap::new(),
            scheduled: HashMap::new(),
            attempts: HashMap::new(),
            pushes: Vec::new(),
            push_by_reference: HashMap::new(),
            remember_references: Duration::from_secs(u64::from(config.limits.remember_references_h) * 3600),
            messages_max: config.limits.messages_max,
            rate: RateMeter::new(&config.limits, now),
            counts: Counts::default(),
            file,
        }
    }

    /// How often `name` came before; it has come once more now.
    pub(crate) fn attempt(&mut self, name: &str) -> u32 {
        match self.attempts.get_mut(name) {
            Some(attempts) => {
                *attempts += 1;
                *attempts - 1
            }
            None => {
                self.attempts.insert(name.to_owned(), 1);
                0
            }
        }
    }

    /// The message that was taken under `clientid` and is still remembered; it has been submitted once more.
    pub(crate) fn repeated(
        &mut self,
        account: &str,
        clientid: &str,
        now: Timestamp,
    ) -> Option<(usize, &TakenMessage)> {
        let index = *self.by_reference.get(clientid).filter(|_| !clientid.is_empty())?;
        let message = self.messages.get_mut(index)?;
        let age = now.duration_since(message.accepted_at).unsigned_abs();
        if message.account != account || age >= self.remember_references {
            return None;
        }
        message.submits += 1;
        self.counts.duplicates += 1;
        Some((index, message))
    }

    /// Points of an account.
    pub(crate) fn points(&self, account: &str) -> i64 {
        self.points.get(account).copied().unwrap_or(0)
    }

    /// Whether there is room for another message.
    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= self.messages_max
    }

    /// Takes a message, for one point.
    pub(crate) fn take(&mut self, new: &NewMessage<'_>, now: Timestamp) -> usize {
        if let Some(points) = self.points.get_mut(new.account) {
            *points -= 1;
        }
        let index = self.messages.len();
        let msgid = format!("{:010}", index + 1);
        let (smbody, cut) = delivered_text(new.smbody, new.long_sms);
        let message = TakenMessage {
            msgid: msgid.clone(),
            clientid: new.clientid.to_owned(),
            account: new.account.to_owned(),
            dstaddr: new.dstaddr.to_owned(),
            smbody,
            cut,
            vldtime: new.vldtime.to_owned(),
            valid_for_s: new.valid_for.as_secs(),
            accepted_at: now,
            submits: 1,
            ended: None,
            receipts: Vec::new(),
        };
        self.file.write(&Event::Message(&message));
        self.messages.push(message);
        self.by_msgid.insert(msgid, index);
        if !new.clientid.is_empty() {
            self.by_reference.insert(new.clientid.to_owned(), index);
        }
        if let Some(not_before) = new.not_before {
            self.scheduled.insert(index, not_before);
        }
        index
    }

    /// The message at `index`.
    pub(crate) fn message(&self, index: usize) -> Option<&TakenMessage> {
        self.messages.get(index)
    }

    /// The message of `account` called `msgid`, with or without `#`.
    pub(crate) fn find(&self, account: &str, msgid: &str) -> Option<(usize, &TakenMessage)> {
        let index = *self.by_msgid.get(msgid.trim_start_matches('#'))?;
        let message = self.messages.get(index)?;
        (message.account == account).then_some((index, message))
    }

    /// Whether the message at `index` waits for its time.
    pub(crate) fn is_scheduled(&self, index: usize, now: Instant) -> bool {
        self.scheduled.get(&index).is_some_and(|not_before| now < *not_before)
    }

    /// Cancels a message that waits for its time.
    pub(crate) fn cancel(&mut self, index: usize) {
        self.scheduled.remove(&index);
        if let Some(message) = self.messages.get_mut(index) {
            message.ended = Some(CANCELLED);
        }
    }

    /// The message at `index` has ended as `status_flag`, unless it ended before.
    pub(crate) fn end(&mut self, index: usize, status_flag: u8) {
        if let Some(message) = self.messages.get_mut(index) {
            message.ended.get_or_insert(status_flag);
        }
    }

    /// A callback about the message at `index` was answered or given up.
    pub(crate) fn told(&mut self, index: usize, receipt: SentReceipt) {
        if let Some(message) = self.messages.get_mut(index) {
            let event =
                Event::Receipt { msgid: &message.msgid, clientid: &message.clientid, receipt: &receipt };
            self.file.write(&event);
            message.receipts.push(receipt);
        }
    }

    /// The push that was taken under `reference`; it has been submitted once more.
    pub(crate) fn repeated_push(&mut self, reference: &str) -> Option<usize> {
        let index = *self.push_by_reference.get(reference)?;
        self.pushes.get_mut(index)?.submits += 1;
        Some(index)
    }

    /// Takes a push.
    pub(crate) fn take_push(&mut self, push: TakenPush) -> usize {
        self.file.write(&Event::Push(&push));
        let index = self.pushes.len();
        self.push_by_reference.insert(push.reference.clone(), index);
        self.pushes.push(push);
        index
    }

    /// Everything so far.
    pub(crate) fn log(&self) -> SimLog {
        let counts = Counts { peak_per_s: self.rate.peak_per_s() as u64, ..self.counts };
        SimLog { messages: self.messages.clone(), pushes: self.pushes.clone(), counts }
    }
}

/// The text as the phone gets it: an account without long texts gets what fits into one.
fn delivered_text(text: &str, long_sms: bool) -> (String, bool) {
    let units = if text.is_ascii() { 160 } else { SEGMENT_UNITS };
    if long_sms || text.encode_utf16().count() <= units {
        return (text.to_owned(), false);
    }
    let mut room = units;
    let cut: String = text
        .chars()
        .take_while(|character| {
            let fits = character.len_utf16() <= room;
            room = room.saturating_sub(character.len_utf16());
            fits
        })
        .collect();
    (cut, true)
}
