//! The running engine: drives shards and lanes between the ports.
//!
//! Tasks, and who owns what:
//!
//! | task | owns | file |
//! |---|---|---|
//! | dispatcher | the tap log; what is committed | [`shards`] |
//! | one a partition | its shard's day state | [`shards`] |
//! | one a lane | its queue, limiter and window | [`lanes`], [`sending`] |
//! | one a partition, too | the place in its receipts | [`receipts`] |
//! | one a lane with receipts | asking the gateway | [`polling`] |
//! | one a lane whose receipts name no notice | finding the notice | [`placing`] |
//! | registry follower | the registry feed | [`registry`] |
//! | rejecting | the way to the rejected log | [`rejecting`] |
//! | seat keeper | this process's seat | [`seat`] |
//!
//! Shared are the index (concurrent by itself), one [`Tenure`](tenure::Tenure) a partition, and figures. Every queue has a
//! limit; where one is full its producer waits, and nothing is dropped. All tasks belong to [`Engine::run`]: when that
//! future is dropped they end at once, which is what a crash looks like from inside.

mod charging;
mod holdings;
#[cfg(test)]
mod lane_fixture;
mod lanes;
mod last_look;
mod pending;
mod placing;
mod polling;
mod receipts;
mod recovery;
mod registry;
mod rejecting;
mod seat;
mod sending;
mod settling;
mod shard_task;
mod shards;
pub mod status;
mod tasks;
mod tenure;
mod unsettled;
pub mod vitals;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::ids::LaneName;
use crate::index::RegistryIndex;
use crate::ledger::OwnerToken;
use crate::notice::Channel;
use crate::ports::PortError;
use crate::ports::channel::ChannelConnector;
use crate::ports::clock::Clock;
use crate::ports::ledger::Ledger;
use crate::ports::message_ids::MessageIds;
use crate::ports::receipts::ReceiptLog;
use crate::ports::registry_feed::RegistryFeed;
use crate::ports::rejected::RejectedLog;
use crate::ports::seats::Seats;
use crate::ports::tap_log::TapLog;
use crate::template::Templates;
use crate::term::Term;
use holdings::Holdings;
use lanes::Lane;
use pending::{LaneIntakes, Pending};
use placing::PlacingContext;
use receipts::ReceiptContext;
use registry::RegistryFollower;
use seat::SeatContext;
use sending::LaneContext;
use settling::Settling;
use shards::{Dispatcher, ShardContext};
use status::Status;
pub use tasks::TaskWrap;
use tasks::Tasks;
use vitals::Vitals;

/// Wait before a port that failed is asked again, in real time.
const PORT_RETRY: Duration = Duration::from_millis(500);

/// What the engine works between.
pub struct Ports {
    /// Taps.
    pub tap_log: Box<dyn TapLog>,
    /// Entries, claims, charges.
    pub ledger: Arc<dyn Ledger>,
    /// What gateways say.
    pub receipts: Arc<dyn ReceiptLog>,
    /// What the message ids of a lane's gateway stand for: of those lanes only whose gateway's receipts name nothing else.
    pub message_ids: BTreeMap<LaneName, Arc<dyn MessageIds>>,
    /// What is no tap.
    pub rejected: Arc<dyn RejectedLog>,
    /// Who is owed what.
    pub registry: Box<dyn RegistryFeed>,
    /// This process's share of the gateways' rates.
    pub seats: Arc<dyn Seats>,
    /// One connector a channel on offer.
    pub channels: Vec<Arc<dyn ChannelConnector>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// How the engine is set up.
#[derive(Clone)]
pub struct Settings {
    /// The term.
    pub term: Arc<Term>,
    /// The texts.
    pub templates: Arc<Templates>,
    /// The first tenure of this run of this process, drawn at random; further tenures count on from it.
    pub owner: OwnerToken,
    /// How many pupils to make room for at once.
    pub pupils_expected: usize,
    /// How long a clean stop waits for answers that are on the wire, in real time; then they stay in doubt.
    pub stop_drain: Duration,
}

/// Why the engine cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The term offers a channel that nothing serves.
    #[error(
        "the term offers {channel}, but no lane is configured for it; add one, or take the channel off the term"
    )]
    NoLane {
        /// The channel.
        channel: Channel,
    },
    /// Two connectors serve one channel.
    #[error("two lanes are configured for {channel}; keep one")]
    TwoLanes {
        /// The channel.
        channel: Channel,
    },
    /// A task ended that never should: a defect.
    #[error("the {task} task failed: {cause}")]
    TaskFailed {
        /// Which.
        task: &'static str,
        /// What it said.
        cause: String,
    },
}

/// The engine, ready to run.
pub struct Engine {
    settings: Settings,
    ports: Ports,
    index: Arc<RegistryIndex>,
    vitals: Arc<Vitals>,
    status: Arc<Status>,
    wrap: Option<TaskWrap>,
}

impl Engine {
    /// Checks that every channel on offer has exactly one lane.
    pub fn new(settings: Settings, ports: Ports) -> Result<Self, EngineError> {
        let served: Vec<Channel> =
            ports.channels.iter().map(|connector| connector.profile().channel).collect();
        for channel in &settings.term.channels {
            match served.iter().filter(|served| *served == channel).count() {
                0 => return Err(EngineError::NoLane { channel: *channel }),
                1 => {}
                _ => return Err(EngineError::TwoLanes { channel: *channel }),
            }
        }
        let index = Arc::new(RegistryIndex::new(Arc::clone(&settings.term), settings.pupils_expected));
        let vitals = Arc::new(Vitals::new(Arc::clone(&ports.clock)));
        let lanes = ports.channels.iter().map(|connector| {
            let profile = connector.profile();
            (profile.name.clone(), profile.channel)
        });
        let status = Arc::new(Status::new(Arc::clone(&vitals), lanes));
        Ok(Self { settings, ports, index, vitals, status, wrap: None })
    }

    /// Runs each task inside of what `wrap` makes of it; [`run`](Self::run) itself is its caller's to wrap. For simulations,
    /// which stop a whole process for a while.
    #[must_use]
    pub fn with_tasks_inside(self, wrap: TaskWrap) -> Self {
        Self { wrap: Some(wrap), ..self }
    }

    /// Readiness and figures.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// The index, for whoever needs to know what the engine knows (the HTTP surface asks which school a reader is of).
    pub fn index(&self) -> Arc<RegistryIndex> {
        Arc::clone(&self.index)
    }

    /// Runs until `stop`, then stops cleanly: what is queued is dropped (the log still owes it), what is on the wire is
    /// awaited for at most [`Settings::stop_drain`], and what is settled is committed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), EngineError> {
        let Self { settings, ports, index, vitals, status, wrap } = self;
        let mut follower = RegistryFollower {
            feed: ports.registry,
            index: Arc::clone(&index),
            term: Arc::clone(&settings.term),
            clock: Arc::clone(&ports.clock),
            vitals: Arc::clone(&vitals),
            status: Arc::clone(&status),
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = follower.load() => {}
        }

        // Two stages: lanes outlive the shards that feed them, the services outlive the lanes that use them.
        let stop_lanes = CancellationToken::new();
        let stop_services = CancellationToken::new();
        let mut lanes = Tasks::inside(wrap.clone());
        let mut services = Tasks::inside(wrap.clone());
        services.spawn(follower.run(stop_services.clone()));
        let seat = SeatContext {
            seats: ports.seats,
            clock: Arc::clone(&ports.clock),
            vitals: Arc::clone(&vitals),
            status: Arc::clone(&status),
        };
        let vitals_of_seat = Arc::clone(&vitals);
        services.spawn(seat::run(seat, stop_services.clone()));

        let settling = Arc::new(Settling::default());
        let holdings = Arc::new(Holdings::default());
        let (unserved, _) = mpsc::channel(1);
        let mut intakes: [mpsc::Sender<Box<Pending>>; Channel::ALL.len()] =
            std::array::from_fn(|_| unserved.clone());
        for connector in ports.channels {
            let profile = connector.profile().clone();
            let Some(lane_status) = status.lane(&profile.name) else { continue };
            let context = Arc::new(LaneContext {
                connector,
                ledger: Arc::clone(&ports.ledger),
                index: Arc::clone(&index),
                term: Arc::clone(&settings.term),
                templates: Arc::clone(&settings.templates),
                clock: Arc::clone(&ports.clock),
                vitals: Arc::clone(&vitals),
                status: Arc::clone(&status),
                lane_status,
                settling: Arc::clone(&settling),
                message_ids: ports.message_ids.get(&profile.name).cloned(),
            });
            let (sender, intake) = pending::intake();
            for (place, channel) in Channel::ALL.iter().enumerate() {
                if *channel == profile.channel {
                    intakes[place] = sender.clone();
                }
            }
            lanes.spawn(Lane::new(Arc::clone(&context), intake, holdings.endings()).run(stop_lanes.clone()));
            if let Some(message_ids) = ports.message_ids.get(&profile.name) {
                let placing = PlacingContext {
                    lane: profile.name.clone(),
                    message_ids: Arc::clone(message_ids),
                    receipts: Arc::clone(&ports.receipts),
                    clock: Arc::clone(&ports.clock),
                    status: Arc::clone(&status),
                };
                services.spawn(placing::run(placing, stop_services.clone()));
            }
            if profile.gives_receipts {
                let receipts = Arc::clone(&ports.receipts);
                services.spawn(polling::run(context, Arc::clone(&holdings), receipts, stop_services.clone()));
            }
        }
        let (rejections, rejected) = rejecting::queue();
        let status_of_rejecting = Arc::clone(&status);
        lanes.spawn(rejecting::run(ports.rejected, status_of_rejecting, rejected, stop_lanes.clone()));
        let receipts = ReceiptContext {
            term: Arc::clone(&settings.term),
            receipts: Arc::clone(&ports.receipts),
            ledger: Arc::clone(&ports.ledger),
            clock: Arc::clone(&ports.clock),
            status: Arc::clone(&status),
            settling,
        };

        let context = Arc::new(ShardContext {
            term: Arc::clone(&settings.term),
            index: Arc::clone(&index),
            ledger: Arc::clone(&ports.ledger),
            clock: Arc::clone(&ports.clock),
            status: Arc::clone(&status),
            vitals: Arc::clone(&vitals),
            holdings,
            receipts: Arc::new(receipts),
            lanes: LaneIntakes::new(intakes),
            rejections,
            room: Notify::new(),
        });
        let mut dispatcher =
            Dispatcher::new(ports.tap_log, Arc::clone(&context), settings.owner, wrap.as_ref());
        status.set_live();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            failed = first_failure(&mut lanes, "lane") => return Err(failed),
            failed = first_failure(&mut services, "service") => return Err(failed),
            // Partitions that come to a process without a seat would wait there until their notices are of no use.
            () = vitals_of_seat.seated() => {}
        }
        let ran = tokio::select! {
            biased;
            failed = first_failure(&mut lanes, "lane") => Err(failed),
            failed = first_failure(&mut services, "service") => Err(failed),
            ran = dispatcher.run(&stop) => ran,
        };
        status.set_stopping();
        ran?;

        tracing::info!("stopping: waiting for what is on the wire");
        dispatcher.stop_shards().await?;
        stop_lanes.cancel();
        if tokio::time::timeout(settings.stop_drain, all_ended(&mut lanes)).await.is_err() {
            tracing::warn!(
                "some requests were not answered in time; they stay in doubt until the next start"
            );
            lanes.shutdown().await;
        }
        dispatcher.commit_settled().await;
        dispatcher.end_all().await;
        // Leaves the log now, so that others take the partitions over.
        drop(dispatcher);
        stop_services.cancel();
        if tokio::time::timeout(settings.stop_drain, all_ended(&mut services)).await.is_err() {
            services.shutdown().await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for a task that ends before it was told to. Never, where none is left: lanes and services that have nothing to do
/// (a gateway that cannot be polled) end early and rightly.
async fn first_failure(tasks: &mut Tasks, task: &'static str) -> EngineError {
    while let Some(ended) = tasks.join_next().await {
        if let Err(cause) = ended {
            return EngineError::TaskFailed { task, cause: cause.to_string() };
        }
    }
    futures::future::pending().await
}

async fn all_ended(tasks: &mut Tasks) {
    while tasks.join_next().await.is_some() {}
}

/// Asks a port until it answers, saying so meanwhile. For facts that must not be lost: an answer of a gateway, a receipt.
async fn retrying<T, F>(status: &Status, what: &'static str, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, PortError>>,
{
    loop {
        match ask().await {
            Ok(answer) => {
                status.recovered(what);
                return answer;
            }
            Err(cause) => {
                status.trouble(what, &cause);
                tokio::time::sleep(PORT_RETRY).await;
            }
        }
    }
}
