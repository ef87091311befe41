//! Room before a log: how many taps may wait to be durable, and how many bytes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatebell_engine::ports::tap_log::IncomingTap;

/// What waits, and what may.
#[derive(Debug)]
pub(super) struct Waiting {
    taps: AtomicUsize,
    bytes: AtomicUsize,
    taps_max: usize,
    bytes_max: usize,
}

/// A batch's place among what waits, given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    waiting: Arc<Waiting>,
    taps: usize,
    bytes: usize,
}

impl Waiting {
    /// Nothing waits yet.
    pub(super) fn new(taps_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { taps: AtomicUsize::new(0), bytes: AtomicUsize::new(0), taps_max, bytes_max })
    }

    /// Taps that wait.
    pub(super) fn taps(&self) -> usize {
        self.taps.load(Ordering::Relaxed)
    }

    /// Room for `taps`; `None` when there is not enough. A batch larger than the whole queue is taken when nothing else
    /// waits, or it could never be written.
    pub(super) fn reserve(self: &Arc<Self>, taps: &[IncomingTap]) -> Option<Room> {
        let bytes = taps.iter().map(|tap| tap.value.len()).sum();
        let taps_before = self.taps.fetch_add(taps.len(), Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { waiting: Arc::clone(self), taps: taps.len(), bytes };
        let fits = taps_before.saturating_add(taps.len()) <= self.taps_max
            && bytes_before.saturating_add(bytes) <= self.bytes_max;
        (fits || taps_before == 0).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.taps.fetch_sub(self.taps, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use gatebell_engine::ids::CardNumber;

    fn taps(count: usize, bytes_each: usize) -> Vec<IncomingTap> {
        let card = CardNumber::new("0000000000000001").unwrap();
        vec![IncomingTap { card, value: vec![b'x'; bytes_each].into() }; count]
    }

    #[test]
    fn taps_are_refused_while_there_is_no_room_for_them_or_their_bytes() {
        let waiting = Waiting::new(10, 1_000);
        let nine = waiting.reserve(&taps(9, 10)).unwrap();
        assert!(waiting.reserve(&taps(2, 10)).is_none(), "too many");
        assert!(waiting.reserve(&taps(1, 911)).is_none(), "too large");
        assert_eq!(waiting.taps(), 9, "what was refused takes no room");
        let tenth = waiting.reserve(&taps(1, 910)).unwrap();
        drop((nine, tenth));
        assert_eq!(waiting.taps(), 0);
    }

    #[test]
    fn a_batch_larger_than_the_queue_is_taken_when_nothing_waits() {
        let waiting = Waiting::new(10, 1_000);
        let large = waiting.reserve(&taps(11, 200)).unwrap();
        assert!(waiting.reserve(&taps(1, 1)).is_none());
        drop(large);
        assert!(waiting.reserve(&taps(1, 1)).is_some());
    }
}
