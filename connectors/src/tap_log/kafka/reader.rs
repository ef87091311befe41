//! The reading side of the log, as the engine sees it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::{TapLog, TapLogEvent};
use gatebell_engine::time::Timestamp;
use rdkafka::consumer::Consumer;
use tokio::sync::oneshot;

use super::PORT;
use super::commits::{Commits, Request};
use super::handover::{Handed, Handover};
use super::member::{self, Member, in_protocol};
use super::offset_copy::OffsetCopy;
use super::polling::{Command, Polling};
use super::questions::Questions;
use super::settled::Settled;
use super::waker::Waker;
use crate::kafka::{Cluster, KafkaSettings};

/// The longest wait for a commit or for a place to read from.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest wait for the copy of the offsets.
const COPY_MAX: Duration = Duration::from_secs(10);
/// The longest wait for the threads at the end.
const END_MAX: Duration = Duration::from_secs(5);
/// The longest wait for a nudge; see [`KafkaTapLog::nudge`].
const NUDGE_MAX: Duration = Duration::from_secs(1);
/// How long a question about committed offsets rests after it failed.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Reads the taps as a member of the consumer group. Dropping it leaves the group at once.
pub struct KafkaTapLog {
    name: String,
    copy: Option<Arc<dyn OffsetCopy>>,
    member: Arc<Member>,
    topic: String,
    questions: Questions,
    handover: Arc<Handover>,
    settled: Arc<Settled>,
    waker: Arc<Waker>,
    commands: mpsc::Sender<Command>,
    has_joined: bool,
    requests: mpsc::Sender<Request>,
    threads: Vec<JoinHandle<()>>,
    /// Assigned partitions whose committed offsets are still to be asked, and with which assignment they came.
    unasked: VecDeque<(u32, u64)>,
    asking: Option<Asking>,
    /// No question before this moment.
    rest_until: Option<tokio::time::Instant>,
    copying: Option<tokio::task::JoinHandle<()>>,
}

/// A question about one partition's committed offset.
struct Asking {
    partition: u32,
    assignment: u64,
    answer: BoxFuture<'static, Result<Option<u64>, PortError>>,
}

impl fmt::Debug for KafkaTapLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTapLog").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KafkaTapLog {
    /// Opens the log; the first [`next`](TapLog::next) joins the group. `clock` dates confirmations; `copy` keeps the committed offsets a second time.
    ///
    /// # Errors
    /// When the brokers do not answer, or a partition ends below what was committed of it: then its topic was made anew, and
    /// what is in it would pass for settled.
    pub async fn open(
        settings: &KafkaSettings,
        cluster: &Cluster,
        clock: Arc<dyn Clock>,
        copy: Option<Arc<dyn OffsetCopy>>,
    ) -> Result<Self, PortError> {
        let topic = settings.taps_topic();
        let questions = Questions::new(settings, &topic)?;
        for partition in 0..cluster.partitions {
            committed(questions.clone(), copy.clone(), partition).await?;
        }
        let waker = Arc::new(Waker::default());
        let member = member::woken_by(member::client(settings, &topic)?, &waker);
        let handover = Arc::new(Handover::new(Arc::clone(&waker)));
        let settled = Arc::new(Settled::default());
        let (commands, inbox) = mpsc::channel();
        let (requests, asked) = mpsc::channel();
        let polling = Polling {
            member: Arc::clone(&member),
            topic: topic.clone(),
            partitions: cluster.partitions,
            handover: Arc::clone(&handover),
            settled: Arc::clone(&settled),
            commands: inbox,
            waker: Arc::clone(&waker),
        };
        let commits = Commits {
            member: Arc::clone(&member),
            topic: topic.clone(),
            settled: Arc::clone(&settled),
            handover: Arc::clone(&handover),
            clock,
            requests: asked,
        };
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let no_thread = |cause| PortError::new(PORT, format_args!("cannot start a thread: {cause}"));
            thread::Builder::new().name(name.to_owned()).spawn(run).map_err(no_thread)
        };
        let threads = vec![
            start("kafka-commits", Box::new(move || commits.run()))?,
            start("kafka-polling", Box::new(move || polling.run()))?,
        ];
        Ok(Self {
            name: cluster.log_name(&topic),
            copy,
            member,
            topic,
            questions,
            handover,
            settled,
            waker,
            commands,
            has_joined: false,
            requests,
            threads,
            unasked: VecDeque::new(),
            asking: None,
            rest_until: None,
            copying: None,
        })
    }

    /// Begins the next question about a committed offset, unless one is underway.
    fn ask(&mut self) {
        if self.asking.is_some() {
            return;
        }
        if let Some((partition, assignment)) = self.unasked.pop_front() {
            let answer = Box::pin(committed(self.questions.clone(), self.copy.clone(), partition));
            self.asking = Some(Asking { partition, assignment, answer });
        }
    }

    /// Makes librdkafka fetch the partition now. Its thread for a broker looks at partitions that were resumed only once a
    /// second unless something else is to be sent there, so something is: a new owner has no second to lose. Nor does it
    /// wait for the answer: the broker answers a fetch that is under way first, and that waits for records.
    fn nudge(&self, partition: u32) {
        let (member, topic) = (Arc::clone(&self.member), self.topic.clone());
        tokio::task::spawn_blocking(move || {
            // The answer says nothing new, and without one the fetch begins a second later.
            let _ = member.fetch_watermarks(&topic, in_protocol(partition), NUDGE_MAX);
        });
    }

    /// What the engine is told of an answer; `None` when the partition has gone meanwhile.
    fn answered(
        &mut self,
        asked: &Asking,
        answer: Result<Option<u64>, PortError>,
    ) -> Result<Option<TapLogEvent>, PortError> {
        match answer {
            Ok(committed) => {
                let is_ours = self.settled.found(asked.partition, asked.assignment, committed);
                Ok(is_ours.then_some(TapLogEvent::Assigned { partition: asked.partition, committed }))
            }
            Err(cause) => {
                self.unasked.push_back((asked.partition, asked.assignment));
                self.rest_until = Some(tokio::time::Instant::now() + ASK_AGAIN);
                Err(cause)
            }
        }
    }

    /// What the engine is told of what the thread handed over; `None` when it is nothing to be told yet.
    fn told(&mut self, handed: Handed) -> Result<Option<TapLogEvent>, PortError> {
        Ok(Some(match handed {
            Handed::Assigned { partitions, assignment } => {
                self.unasked.extend(partitions.into_iter().map(|partition| (partition, assignment)));
                return Ok(None);
            }
            Handed::Revoked(partitions) => {
                self.forget(&partitions);
                TapLogEvent::Revoked { partitions }
            }
            Handed::Lost(partitions) => {
                self.forget(&partitions);
                TapLogEvent::Lost { partitions }
            }
            Handed::Confirmed(asked_at) => TapLogEvent::Confirmed { asked_at },
            Handed::Trouble(cause) => return Err(cause),
            Handed::Batch { partition, records, end } => TapLogEvent::Batch { partition, records, end },
        }))
    }

    /// Asks no more about partitions that go.
    fn forget(&mut self, partitions: &[u32]) {
        self.unasked.retain(|(partition, _)| !partitions.contains(partition));
        if self.asking.as_ref().is_some_and(|asking| partitions.contains(&asking.partition)) {
            self.asking = None;
        }
    }

    /// Copies commits to the store, unless it is still busy with earlier ones; nobody waits for it.
    fn copy(&mut self, settled: &[(u32, u64)]) {
        let Some(copy) = self.copy.clone() else { return };
        if self.copying.as_ref().is_some_and(|copying| !copying.is_finished()) {
            return;
        }
        let settled = settled.to_vec();
        self.copying = Some(tokio::spawn(async move {
            let all = futures::future::try_join_all(
                settled.iter().map(|(partition, offset)| copy.commit(*partition, *offset)),
            );
            let failed = match tokio::time::timeout(COPY_MAX, all).await {
                Ok(Ok(_)) => return,
                Ok(Err(cause)) => cause.to_string(),
                Err(_) => format!("no answer within {COPY_MAX:?}"),
            };
            metrics::counter!("gatebell_port_errors_total", "port" => "offset copy").increment(1);
            tracing::warn!(
                cause = failed,
                "the committed offsets were not copied to the store; the next ones will be"
            );
        }));
    }
}

/// What was committed of the partition, by the group or else by the copy.
async fn committed(
    questions: Questions,
    copy: Option<Arc<dyn OffsetCopy>>,
    partition: u32,
) -> Result<Option<u64>, PortError> {
    let of_group = questions.committed(vec![partition]).await?.into_iter().next().flatten();
    let committed = match (of_group, copy) {
        (Some(offset), _) => Some(offset),
        (None, Some(copy)) => copy.committed(partition).await?,
        (None, None) => None,
    };
    let Some(offset) = committed else { return Ok(None) };
    let (first, end) = questions.bounds(partition).await?;
    if offset > end {
        return Err(PortError::new(
            PORT,
            format_args!(
                "partition {partition} ends at {end}, but everything below {offset} was committed as settled: its topic \
                 was made anew or has lost records, and the taps in it would pass for settled; use another topic prefix"
            ),
        ));
    }
    if offset < first {
        tracing::error!(
            partition,
            committed = offset,
            first,
            "records that were not settled yet have been deleted: keep them longer (retention.ms)"
        );
    }
    Ok(Some(offset))
}

async fn answer_within<T>(
    what: &str,
    answer: oneshot::Receiver<Result<T, PortError>>,
) -> Result<T, PortError> {
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(PortError::new(PORT, format_args!("{what}: the thread has ended"))),
        Err(_) => Err(PortError::new(PORT, format_args!("{what}: no answer within {ANSWER_MAX:?}"))),
    }
}

#[async_trait]
impl TapLog for KafkaTapLog {
    fn name(&self) -> &str {
        &self.name
    }

    async fn next(&mut self) -> Result<TapLogEvent, PortError> {
        if !self.has_joined {
            // Not before: a member that nobody asks for events would keep its partitions from those that work.
            self.has_joined = true;
            let _ = self.commands.send(Command::Join);
            self.waker.wake();
        }
        loop {
            if let Some(handed) = self.handover.take() {
                match self.told(handed)? {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            if self.rest_until.is_none() {
                self.ask();
            }
            let (asking, rest_until) = (&mut self.asking, self.rest_until);
            let answer = async {
                match asking {
                    Some(asking) => (&mut asking.answer).await,
                    None => std::future::pending().await,
                }
            };
            let rested = async {
                match rest_until {
                    Some(moment) => tokio::time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.handover.changed() => {}
                answer = answer => {
                    let Some(asked) = self.asking.take() else { continue };
                    if let Some(event) = self.answered(&asked, answer)? {
                        return Ok(event);
                    }
                }
                () = rested => self.rest_until = None,
            }
        }
    }

    async fn received_at(&mut self, partition: u32, offset: u64) -> Result<Option<Timestamp>, PortError> {
        self.questions.received_at(partition, offset).await
    }

    async fn rewind(&mut self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError> {
        let offset = self.questions.first_from(partition, from).await?;
        let (answer, answered) = oneshot::channel();
        // If the thread has ended, it drops the question, and that is the answer.
        let _ = self.commands.send(Command::Seek { partition, offset, answer });
        self.waker.wake();
        answer_within("putting a partition elsewhere", answered).await?;
        self.nudge(partition);
        Ok(offset)
    }

    fn pause(&mut self, partition: u32) {
        self.handover.pause(partition, true);
    }

    fn resume(&mut self, partition: u32) {
        self.handover.pause(partition, false);
    }

    async fn commit(&mut self, settled: &[(u32, u64)]) -> Result<(), PortError> {
        let foreign = self.settled.settle(settled);
        let (answer, answered) = oneshot::channel();
        let _ = self.requests.send(Request::Commit(answer));
        answer_within("a commit", answered).await?;
        if !foreign.is_empty() {
            let cause =
                format_args!("partitions {foreign:?} are not this process's: nothing was committed of them");
            return Err(PortError::new(PORT, cause));
        }
        self.copy(settled);
        Ok(())
    }

    async fn leave(&mut self) {
        self.unasked.clear();
        self.asking = None;
        self.rest_until = None;
        if !std::mem::take(&mut self.has_joined) {
            return;
        }
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Leave(answer));
        self.waker.wake();
        if let Err(cause) = answer_within("leaving the group", answered).await {
            tracing::warn!(%cause, "the group will notice by itself");
        }
    }
}

impl Drop for KafkaTapLog {
    fn drop(&mut self) {
        if let Some(copying) = self.copying.take() {
            copying.abort();
        }
        let _ = self.requests.send(Request::Stop);
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
        let deadline = Instant::now() + END_MAX;
        for ending in self.threads.drain(..) {
            while !ending.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            if !ending.is_finished() {
                tracing::warn!(
                    "leaving the group takes longer than {END_MAX:?}: the group will notice by itself"
                );
            } else if ending.join().is_err() {
                tracing::error!("a thread of the tap log has panicked");
            }
        }
    }
}
