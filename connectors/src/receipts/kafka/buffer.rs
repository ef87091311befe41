//! What was fetched of one partition and is not settled yet, and what the fetching thread is to do about it.
//!
//! Plain data: the reader and the fetching thread meet here, under one lock.

use std::collections::VecDeque;
use std::sync::Arc;

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::receipts::LoggedReceipt;
use tokio::sync::Notify;

/// Receipts of a partition that are kept ready; then its fetching pauses …
pub(super) const FETCHED_RECEIPTS_MAX: usize = 4_096;
/// … until no more than this are left.
const FETCHED_RECEIPTS_LOW: usize = 1_024;

/// What the fetching thread is to do for a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Fetch from this offset on, whatever was fetched before.
    FetchFrom(u64),
    /// Go on after a pause.
    Resume,
    /// Pause.
    Pause,
    /// Fetch it no more, and forget it.
    Release,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Everything above this sequence was fetched or will be.
    after: u64,
    /// The offset of the next record to be fetched; also the sequence of the last one that was.
    next: u64,
    fetched: VecDeque<LoggedReceipt>,
    is_paused: bool,
    wish: Option<Wish>,
    trouble: Option<PortError>,
    /// Wakes the reader.
    arrived: Arc<Notify>,
}

impl Buffer {
    /// Nothing is fetched, and receipts above `after` are wanted. A sequence is an offset plus one, so `after` is also the
    /// offset of the first of them.
    pub(super) fn new(after: u64) -> Self {
        Self {
            after,
            next: after,
            fetched: VecDeque::new(),
            is_paused: false,
            wish: Some(Wish::FetchFrom(after)),
            trouble: None,
            arrived: Arc::default(),
        }
    }

    pub(super) fn arrived(&self) -> Arc<Notify> {
        Arc::clone(&self.arrived)
    }

    /// At most `limit` receipts above `after`, as far as they were fetched. They stay until a later call names a sequence
    /// at or above theirs.
    pub(super) fn read(&mut self, after: u64, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        if let Some(trouble) = self.trouble.take() {
            *self = Self { arrived: self.arrived(), ..Self::new(after) };
            return Err(trouble);
        }
        let is_released = self.wish == Some(Wish::Release);
        if is_released || !(self.after..=self.next).contains(&after) {
            *self = Self { arrived: self.arrived(), ..Self::new(after) };
        }
        self.after = after;
        while self.fetched.front().is_some_and(|first| first.sequence <= after) {
            self.fetched.pop_front();
        }
        if self.is_paused && self.wish.is_none() && self.fetched.len() <= FETCHED_RECEIPTS_LOW {
            self.is_paused = false;
            self.wish = Some(Wish::Resume);
        }
        Ok(self.fetched.iter().take(limit).cloned().collect())
    }

    /// What is to be done now, once.
    pub(super) fn take_wish(&mut self) -> Option<Wish> {
        self.wish.take()
    }

    /// Whether anything is to be done.
    pub(super) fn has_wish(&self) -> bool {
        self.wish.is_some()
    }

    /// The partition is no longer ours.
    pub(super) fn release(&mut self) {
        self.fetched.clear();
        self.wish = Some(Wish::Release);
    }

    /// The record at `offset` was fetched; `None` when it is no receipt.
    pub(super) fn push(&mut self, offset: u64, receipt: Option<LoggedReceipt>) {
        if matches!(self.wish, Some(Wish::FetchFrom(_) | Wish::Release)) {
            // Of an earlier fetch: it will come again, from where it is wanted.
            return;
        }
        if offset < self.next {
            let cause = format!(
                "the partition begins anew at offset {offset}, below the settled {}: its topic was made anew, and its receipts are \
                 not read; end all processes, and forget how far the receipts were settled",
                self.next
            );
            self.fail(PortError::new(super::PORT, cause));
            return;
        }
        self.next = offset + 1;
        self.fetched.extend(receipt);
        if self.fetched.len() >= FETCHED_RECEIPTS_MAX && !self.is_paused && self.wish.is_none() {
            self.is_paused = true;
            self.wish = Some(Wish::Pause);
        }
        self.arrived.notify_waiters();
    }

    /// The next call of [`read`](Self::read) fails, and the one after it begins anew.
    pub(super) fn fail(&mut self, trouble: PortError) {
        self.trouble = Some(trouble);
        self.arrived.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::ports::receipts::ReceiptStatus;
    use gatebell_engine::testing::contract::receipts::receipt;

    use super::*;

    fn push(buffer: &mut Buffer, offset: u64) {
        let receipt = receipt(offset, ReceiptStatus::Delivered);
        buffer.push(offset, Some(LoggedReceipt { sequence: offset + 1, receipt }));
    }

    fn sequences(buffer: &mut Buffer, after: u64) -> Vec<u64> {
        buffer.read(after, usize::MAX).unwrap().iter().map(|logged| logged.sequence).collect()
    }

    #[test]
    fn receipts_stay_until_a_later_one_is_asked_for() {
        let mut buffer = Buffer::new(3);
        assert_eq!(buffer.take_wish(), Some(Wish::FetchFrom(3)));
        (3..6).for_each(|offset| push(&mut buffer, offset));
        assert_eq!(sequences(&mut buffer, 3), [4, 5, 6]);
        assert_eq!(sequences(&mut buffer, 3), [4, 5, 6]);
        assert_eq!(sequences(&mut buffer, 5), [6]);
        assert_eq!(sequences(&mut buffer, 6), [0; 0]);
        assert!(!buffer.has_wish());
    }

    #[test]
    fn what_is_no_longer_or_not_yet_there_is_fetched_anew() {
        for after in [4, 7] {
            let mut buffer = Buffer::new(3);
            buffer.take_wish();
            (3..6).for_each(|offset| push(&mut buffer, offset));
            assert_eq!(sequences(&mut buffer, 5), [6]);
            assert_eq!(sequences(&mut buffer, after), [0; 0]);
            assert_eq!(buffer.take_wish(), Some(Wish::FetchFrom(after)));
        }
    }

    #[test]
    fn fetching_pauses_while_too_much_waits() {
        let mut buffer = Buffer::new(0);
        buffer.take_wish();
        (0..FETCHED_RECEIPTS_MAX as u64).for_each(|offset| push(&mut buffer, offset));
        assert_eq!(buffer.take_wish(), Some(Wish::Pause));
        push(&mut buffer, FETCHED_RECEIPTS_MAX as u64);
        assert!(!buffer.has_wish(), "once is enough");
        sequences(&mut buffer, (FETCHED_RECEIPTS_MAX - FETCHED_RECEIPTS_LOW) as u64);
        assert!(!buffer.has_wish(), "one above the low mark");
        sequences(&mut buffer, (FETCHED_RECEIPTS_MAX - FETCHED_RECEIPTS_LOW) as u64 + 1);
        assert_eq!(buffer.take_wish(), Some(Wish::Resume));
    }

    #[test]
    fn a_released_partition_begins_anew_when_it_comes_back() {
        let mut buffer = Buffer::new(0);
        buffer.take_wish();
        push(&mut buffer, 0);
        buffer.release();
        assert_eq!(sequences(&mut buffer, 0), [0; 0]);
        assert_eq!(buffer.take_wish(), Some(Wish::FetchFrom(0)));
    }

    /// It passed for a topic that was made anew.
    #[test]
    fn what_an_earlier_fetch_still_brings_is_left_out() {
        let mut buffer = Buffer::new(3);
        push(&mut buffer, 0);
        assert_eq!(buffer.take_wish(), Some(Wish::FetchFrom(3)));
        push(&mut buffer, 3);
        assert_eq!(sequences(&mut buffer, 3), [4]);
        assert_eq!(sequences(&mut buffer, 7), [0; 0]);
        push(&mut buffer, 4);
        assert_eq!(buffer.take_wish(), Some(Wish::FetchFrom(7)));
        push(&mut buffer, 7);
        assert_eq!(sequences(&mut buffer, 7), [8]);
        buffer.release();
        push(&mut buffer, 8);
        assert_eq!(sequences(&mut buffer, 7), [0; 0]);
    }

    #[test]
    fn a_topic_that_was_made_anew_is_an_error() {
        let mut buffer = Buffer::new(5);
        buffer.take_wish();
        push(&mut buffer, 0);
        let error = buffer.read(5, 10).unwrap_err().to_string();
        assert!(error.contains("made anew"), "{error}");
        assert_eq!(buffer.take_wish(), Some(Wish::FetchFrom(5)));
        push(&mut buffer, 1);
        buffer.read(5, 10).unwrap_err();
    }
}
