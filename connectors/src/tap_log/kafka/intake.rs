//! The writing side of the log: an idempotent producer, and a bounded queue before it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::{IncomingTap, IntakeError, TapIntake};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use tokio::sync::oneshot;

use super::super::room::{Room, Waiting};
use super::PORT;
use crate::kafka::{KafkaSettings, log_lines};

/// What may wait for the brokers.
#[derive(Clone, Copy, Debug)]
pub struct IntakeLimits {
    /// Taps that wait; more are refused until there is room.
    pub queue_taps_max: usize,
    /// Bytes of taps that wait.
    pub queue_bytes_max: usize,
    /// After this long without all replicas' acknowledgement a tap counts as not taken.
    pub delivery_max: Duration,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self { queue_taps_max: 200_000, queue_bytes_max: 64 << 20, delivery_max: Duration::from_secs(10) }
    }
}

type TapProducer = ThreadedProducer<Deliveries>;

/// Takes taps into the topic. Cheap to clone; clones share the queue.
#[derive(Clone)]
pub struct KafkaTapIntake {
    inner: Arc<Inner>,
}

struct Inner {
    settings: KafkaSettings,
    topic: String,
    limits: IntakeLimits,
    clock: Arc<dyn Clock>,
    /// Made anew after an error from which an idempotent producer cannot recover.
    producer: Mutex<Arc<TapProducer>>,
    waiting: Arc<Waiting>,
}

impl fmt::Debug for KafkaTapIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTapIntake").field("topic", &self.inner.topic).finish_non_exhaustive()
    }
}

impl KafkaTapIntake {
    /// Makes the producer; it connects with the first tap. `clock` stamps the taps of a made-up city.
    ///
    /// # Errors
    /// When the settings make no producer.
    pub fn new(
        settings: &KafkaSettings,
        limits: IntakeLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PortError> {
        let producer = Mutex::new(Arc::new(producer(settings, &limits)?));
        let inner = Inner {
            settings: settings.clone(),
            topic: settings.taps_topic(),
            limits,
            clock,
            producer,
            waiting: Waiting::new(limits.queue_taps_max, limits.queue_bytes_max),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn producer(settings: &KafkaSettings, limits: &IntakeLimits) -> Result<TapProducer, PortError> {
    let mut config = settings.producer().map_err(|cause| PortError::new(PORT, cause))?;
    let bytes_kib = (limits.queue_bytes_max / 1024).max(1).saturating_mul(2);
    config
        .set("message.timeout.ms", limits.delivery_max.as_millis().max(1).to_string())
        // Our own count refuses first: half a batch must not get in.
        .set(
            "queue.buffering.max.messages",
            limits.queue_taps_max.saturating_mul(2).clamp(1_000, 10_000_000).to_string(),
        )
        .set("queue.buffering.max.kbytes", bytes_kib.clamp(65_536, 2_097_151).to_string());
    config.create_with_context(Deliveries).map_err(|cause| PortError::new(PORT, cause))
}

impl Inner {
    /// The producer in use. One that has failed for good is replaced.
    fn producer(&self) -> Result<Arc<TapProducer>, PortError> {
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cause, _)) = current.client().fatal_error() {
            tracing::warn!(%cause, "the producer of taps cannot go on: making a new one");
            *current = Arc::new(producer(&self.settings, &self.limits)?);
        }
        Ok(Arc::clone(&current))
    }
}

#[async_trait]
impl TapIntake for KafkaTapIntake {
    fn waiting_taps(&self) -> usize {
        self.inner.waiting.taps()
    }

    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
        if taps.is_empty() {
            return Ok(());
        }
        let room = self.inner.waiting.reserve(&taps).ok_or(IntakeError::Full)?;
        let producer = self.inner.producer()?;
        let (answer, delivered) = oneshot::channel();
        let batch = Arc::new(Batch {
            left: AtomicUsize::new(taps.len()),
            failed: Mutex::new(None),
            answer: Mutex::new(Some(answer)),
            _room: room,
        });
        let stamp_ms = self.inner.settings.made_up_city.then(|| self.inner.clock.now().as_millis());
        for (queued, tap) in taps.iter().enumerate() {
            let key = tap.card.expose();
            let mut record = BaseRecord::with_opaque_to(&self.inner.topic, Arc::clone(&batch))
                .key(key.as_bytes())
                .payload(&tap.value[..]);
            record.timestamp = stamp_ms;
            if let Err((cause, _)) = producer.send(record) {
                batch.fail(cause);
                batch.land(taps.len() - queued);
                break;
            }
        }
        drop(batch);
        match delivered.await {
            Ok(None) => Ok(()),
            Ok(Some(cause)) if cause.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                Err(IntakeError::Full)
            }
            Ok(Some(cause)) => {
                Err(PortError::new(PORT, format_args!("the brokers did not take the taps: {cause}")).into())
            }
            Err(_) => Err(PortError::new(PORT, "the producer has ended").into()),
        }
    }
}

/// The taps of one call, on their way.
#[derive(Debug)]
struct Batch {
    left: AtomicUsize,
    failed: Mutex<Option<KafkaError>>,
    answer: Mutex<Option<oneshot::Sender<Option<KafkaError>>>>,
    _room: Room,
}

impl Batch {
    fn fail(&self, cause: KafkaError) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
    }

    /// So many taps have been answered; with the last one, so is the call.
    fn land(&self, taps: usize) {
        if self.left.fetch_sub(taps, Ordering::AcqRel) > taps {
            return;
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Whoever asked may have gone.
            let _ = answer.send(failed);
        }
    }
}

/// Hears what became of each tap.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_lines::pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_lines::pass_on_error(&error, reason);
    }

    fn stats(&self, _: Statistics) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        if let Err((cause, _)) = result {
            batch.fail(cause.clone());
        }
        batch.land(1);
    }
}
