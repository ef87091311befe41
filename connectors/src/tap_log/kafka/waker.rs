//! Wakes the thread that polls Kafka.

use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::Duration;

/// A call between two waits is not lost: the next wait ends at once.
#[derive(Debug, Default)]
pub(super) struct Waker {
    thread: OnceLock<Thread>,
}

impl Waker {
    /// The calling thread is the one to be woken.
    pub(super) fn attach(&self) {
        self.thread.get_or_init(thread::current);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Waits for a call, or for `most`. By the attached thread.
    pub(super) fn wait(&self, most: Duration) {
        thread::park_timeout(most);
    }
}
