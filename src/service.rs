//! The running service: the engine between its ports, the HTTP surfaces before it, and the small tasks beside it.
//!
//! Owns the order of start and stop. Start: listen, wire, then run. Stop: no more taps first, then the engine drains
//! what is on the wire and commits what is settled, while receipts are still taken; all within a bound. Who decides
//! when to stop, and by which clock the city lives, is the caller's: `serve` has signals and the machine's clock, the
//! demo a morning that runs faster.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::TapIntake;
use gatebell_engine::runtime::EngineError;
use gatebell_engine::runtime::status::Status;
use gatebell_engine::term::Term;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Configuration;
use crate::home::Home;
use crate::http::callbacks::{self, CallbackPorts, Callers};
use crate::http::operations::{self, Missing};
use crate::http::reporters::StoredReporters;
use crate::http::taps::{self, IntakeHealth, TapsLimits};
use crate::http::{Addresses, Listeners};
use crate::settling::keep_settling;
use crate::wiring::{self, Surroundings};

/// The longest that the engine may take to stop; then the process ends without it.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(20);
/// How often figures are brought up to date, and old ones let go.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// Everything that runs, and the ways to stop it.
pub(crate) struct Service {
    addresses: Addresses,
    status: Arc<Status>,
    stop_taps: CancellationToken,
    stop_engine: CancellationToken,
    stop_rest: CancellationToken,
    /// Cancelled when any of the tasks ends, in whatever way.
    ended: CancellationToken,
    taps: JoinHandle<()>,
    engine: JoinHandle<Result<(), EngineError>>,
    rest: [JoinHandle<()>; 4],
}

impl Service {
    /// Starts everything at `home`, the lock of whose directory the caller holds.
    ///
    /// # Errors
    /// When an address is taken, a file cannot be opened, a secret cannot be had, or a lane cannot be set up.
    pub(crate) async fn start(
        configuration: &Configuration,
        home: &Home,
        term: Term,
        clock: Arc<dyn Clock>,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(configuration).await?;
        let addresses = listeners.addresses();
        let billed_term = term.clone();
        let callbacks = addresses.callbacks;
        let surroundings = Surroundings { home, term, callbacks, clock: Arc::clone(&clock) };
        // Servers and files are asked; nothing else runs yet.
        let (wired, tokens) = tokio::task::block_in_place(|| {
            anyhow::Ok((wiring::wire(configuration, surroundings)?, home.tokens()?))
        })?;

        let status = wired.engine.status();
        let health = Arc::new(IntakeHealth::default());
        let reporters = StoredReporters::new(tokens, wired.engine.index(), Arc::clone(&status));
        let limits = TapsLimits {
            requests_max: configuration.taps.requests_max,
            body_bytes_max: configuration.taps.body_bytes_max,
            read_timeout: configuration.taps.read_timeout,
        };
        let intake = Arc::clone(&wired.intake);
        let taps_router = taps::router(wired.intake, Arc::new(reporters), Arc::clone(&health), limits);
        let callbacks_router = callbacks::router(CallbackPorts {
            receipts: wired.receipts,
            ledger: wired.ledger,
            clock: Arc::clone(&clock),
            keys: wired.callback_keys,
            message_ids: wired.message_ids,
            callers: Callers {
                allow: configuration.callbacks.allow.clone(),
                trusted_proxies: configuration.callbacks.trusted_proxies.clone(),
            },
        });
        let operations_router = operations_router(Arc::clone(&status), health, metrics.clone());
        let (stop_taps, stop_engine) = (CancellationToken::new(), CancellationToken::new());
        let (stop_rest, ended) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self {
            taps: spawn_telling(&ended, listeners.taps.serve(taps_router, stop_taps.clone())),
            engine: spawn_telling(&ended, wired.engine.run(stop_engine.clone())),
            rest: [
                spawn_telling(&ended, listeners.callbacks.serve(callbacks_router, stop_rest.clone())),
                spawn_telling(&ended, listeners.metrics.serve(operations_router, stop_rest.clone())),
                spawn_telling(&ended, keep_metrics(metrics, intake, stop_rest.clone())),
                spawn_telling(&ended, keep_settling(home.clone(), billed_term, clock, stop_rest.clone())),
            ],
            addresses,
            status,
            ended,
            stop_taps,
            stop_engine,
            stop_rest,
        })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the engine says of itself.
    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Waits until something ends by itself; then the rest is to be stopped.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// When something failed or had ended by itself, or the engine takes too long.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let ended_by_itself = self.ended.is_cancelled();
        self.stop_taps.cancel();
        let taps = self.taps.await;
        self.stop_engine.cancel();
        let Ok(engine) = tokio::time::timeout(ENGINE_STOP_MAX, self.engine).await else {
            bail!("the engine did not stop within {} s", ENGINE_STOP_MAX.as_secs());
        };
        self.stop_rest.cancel();
        let mut rest = Vec::new();
        for task in self.rest {
            rest.push(task.await);
        }
        engine.context("the engine failed")?.context("the engine failed")?;
        taps.context("the listener for taps failed")?;
        rest.into_iter().collect::<Result<(), _>>().context("a listener failed")?;
        ensure!(!ended_by_itself, "something ended that nobody had told to");
        Ok(())
    }
}

/// Spawns `task`; `ended` is cancelled when it ends, also by a panic.
fn spawn_telling<T: Send + 'static>(
    ended: &CancellationToken,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let telling = ended.clone().drop_guard();
    tokio::spawn(async move {
        let output = task.await;
        drop(telling);
        output
    })
}

fn operations_router(engine: Arc<Status>, health: Arc<IntakeHealth>, metrics: PrometheusHandle) -> Router {
    let readiness = move || {
        let intake = health.trouble().map(|why| Missing { what: "intake", why });
        let engine =
            engine.not_ready().into_iter().map(|missing| Missing { what: missing.what, why: missing.why });
        engine.chain(intake).collect()
    };
    operations::router(Arc::new(readiness), metrics)
}

/// Keeps figures that nobody else does.
async fn keep_metrics(metrics: PrometheusHandle, intake: Arc<dyn TapIntake>, stop: CancellationToken) {
    let waiting = gauge!("gatebell_intake_waiting_taps");
    let mut ticks = tokio::time::interval(METRICS_UPKEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                // Fewer than 2^53 taps fit into memory.
                waiting.set(intake.waiting_taps() as f64);
                metrics.run_upkeep();
            }
        }
    }
}
