//! The queue of one partition inside librdkafka, read a batch at a time.
//!
//! The one place of the Kafka log that calls librdkafka directly: the safe interface reads message by message, at twice
//! the cost. Because each partition has a queue of its own, a partition whose shard is full is simply not read, and keeps
//! what librdkafka has fetched; pausing would throw that away and fetch it again.

#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use rdkafka::bindings as native;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::member::Member;
use super::waker::Waker;

/// The queue. It stays with the thread that opened it.
pub(super) struct PartitionQueue {
    queue: NonNull<native::rd_kafka_queue_t>,
    /// librdkafka calls it until the queue is closed.
    waker: Arc<Waker>,
    member: Arc<Member>,
    topic: CString,
    partition: i32,
    /// Room for the messages of one read, kept to be used again.
    room: Vec<*mut native::rd_kafka_message_t>,
}

impl PartitionQueue {
    /// Takes the partition's messages out of the member's own queue. `waker` is called when there are some after there were
    /// none. The partition must be assigned and its fetching begun: the beginning sets the queue back.
    pub(super) fn open(
        member: &Arc<Member>,
        topic: &str,
        partition: i32,
        batch_taps_max: usize,
        waker: &Arc<Waker>,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives at least as long as `member`, which the result holds.
        let queue = unsafe {
            native::rd_kafka_queue_get_partition(member.client().native_ptr(), topic.as_ptr(), partition)
        };
        let queue = NonNull::new(queue)?;
        let opened = Self {
            queue,
            waker: Arc::clone(waker),
            member: Arc::clone(member),
            topic,
            partition,
            room: vec![ptr::null_mut(); batch_taps_max.max(1)],
        };
        // SAFETY: the queue is ours until it is destroyed on drop, which ends the calls before the waker goes.
        unsafe {
            native::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            let opaque = Arc::as_ptr(&opened.waker).cast_mut().cast::<c_void>();
            native::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(wake), opaque);
        }
        Some(opened)
    }

    /// What has been fetched, up to the size of a batch; it does not wait.
    pub(super) fn read(&mut self) -> Messages<'_> {
        // SAFETY: the queue is open, and `room` is as long as it is said to be.
        let count = unsafe {
            native::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                0,
                self.room.as_mut_ptr(),
                self.room.len(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0).min(self.room.len());
        Messages { messages: self.room.get_mut(..count).unwrap_or_default() }
    }

    /// The offset that the next record written would get, as the last fetch said.
    pub(super) fn end(&self) -> Option<u64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is alive, the name ends with a nought, and both places may be written to.
        let answer = unsafe {
            native::rd_kafka_get_watermark_offsets(
                self.member.client().native_ptr(),
                self.topic.as_ptr(),
                self.partition,
                &raw mut low,
                &raw mut high,
            )
        };
        let known = answer == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        u64::try_from(high).ok().filter(|_| known)
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: `open` took the queue, and nobody else gives it back. No call to the waker begins after the first line.
        unsafe {
            native::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            native::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Called by librdkafka's threads.
unsafe extern "C" fn wake(_: *mut native::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the waker of an open queue, which holds it.
    let waker = unsafe { &*opaque.cast_const().cast::<Waker>() };
    waker.wake();
}

/// The messages of one read, given back to librdkafka when dropped.
pub(super) struct Messages<'a> {
    messages: &'a mut [*mut native::rd_kafka_message_t],
}

/// A message, as it lies in librdkafka's memory.
pub(super) struct Message<'a> {
    pub(super) offset: i64,
    /// Milliseconds since 1970; negative when the record has none.
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
}

impl Messages<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Message<'_>, RDKafkaErrorCode>> {
        self.messages.iter().map(|message| {
            // SAFETY: librdkafka gave the message to us, and it is destroyed no sooner than `self` is.
            unsafe { view(*message) }
        })
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        for message in self.messages.iter_mut() {
            // SAFETY: given to us by the read, and destroyed once: the place is emptied.
            unsafe { native::rd_kafka_message_destroy(*message) };
            *message = ptr::null_mut();
        }
    }
}

/// # Safety
/// `message` must be alive for `'a`.
unsafe fn view<'a>(message: *const native::rd_kafka_message_t) -> Result<Message<'a>, RDKafkaErrorCode> {
    // SAFETY: alive, as the caller promises; its parts live as long as it does.
    unsafe {
        let fields = &*message;
        if fields.err != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(fields.err.into());
        }
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp_ms = native::rd_kafka_message_timestamp(message, &raw mut kind);
        Ok(Message {
            offset: fields.offset,
            timestamp_ms,
            key: bytes(fields.key, fields.key_len),
            value: bytes(fields.payload, fields.len).unwrap_or_default(),
        })
    }
}

/// # Safety
/// `start` is null, or `length` bytes from it on must be alive for `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), length) })
}
