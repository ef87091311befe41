//! What the demo plays on: a data directory with the made-up city in it, the gateway simulator, and in between the
//! very [`Service`] that `gatebell serve` runs. Only the wall clock is another one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gatebell_connectors::data_dir::{DataDir, EngineLock};
use gatebell_connectors::store::tokens::TokenScope;
use gatebell_engine::ports::clock::{Clock, ScaledClock};
use gatebell_engine::runtime::status::Status;
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;
use gatebell_gateway_sim::{GatewaySim, SimConfig, SimLog, Spread};
use secrecy::ExposeSecret as _;

use super::city::{City, CityPlan};
use super::city_files;
use super::morning::{BEGINS, instant};
use super::player::Gate;
use crate::city;
use crate::config::Configuration;
use crate::home::{CityClock, Home};
use crate::http::operations;
use crate::service::Service;

/// Who makes the demo's changes, in the records.
const WHO: &str = "gatebell demo";
/// The account of the gateway is paid for so many messages: nobody should run dry in a demo.
const POINTS: i64 = 10_000_000;

/// How fast the morning runs, and what the gateway allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How many times faster than real time the city's clock runs.
    pub(crate) speed: f64,
    /// Messages a second that the gateway allows, in real time.
    pub(crate) rate_per_s: u32,
    /// And at once, beyond an even flow.
    pub(crate) burst: u32,
    /// Messages a request: so many that fifteen connections carry the rate.
    batch_max: u32,
}

impl Pace {
    /// A gateway that is tight enough for `pupils` at `speed` to make the lane wait at the peak, and no tighter: half
    /// past seven brings about half as much again as it takes.
    pub(crate) fn of(pupils: usize, speed: f64) -> Self {
        // Twelve thousand pupils in a minute: 150 a second.
        #[allow(clippy::cast_precision_loss)]
        let wanted = pupils as f64 / 80.0 * speed / 100.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate_per_s = wanted.ceil().clamp(2.0, 100_000.0) as u32;
        Self {
            speed,
            rate_per_s,
            burst: (rate_per_s / 10).max(1),
            batch_max: rate_per_s.div_ceil(200).min(500),
        }
    }
}

/// Servers for a demo on Kafka and ScyllaDB, each as `host:port`.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) kafka: String,
    pub(crate) cql: String,
}

/// The made-up city, imported, and the gateway simulator that its configuration names.
pub(crate) struct Prepared {
    pub(crate) home: Home,
    configuration: Configuration,
    gateway: GatewaySim,
    lock: EngineLock,
    gate_token: String,
}

/// Writes the city into `dir` (which must be empty or not there), reads it back, and imports it; on `servers`, where there
/// are any, under a name that no other demo has.
///
/// # Errors
/// When the directory has something in it, or cannot be written; when a server does not answer.
pub(crate) async fn prepare(
    city: &City,
    dir: &Path,
    term: &Term,
    setting: (CityPlan, Pace, Option<&Servers>),
) -> anyhow::Result<Prepared> {
    let (plan, pace, servers) = setting;
    if dir.exists() && std::fs::read_dir(dir).with_context(|| dir.display().to_string())?.next().is_some() {
        bail!(
            "{} is not empty: the demo makes a city of its own and needs a directory of its own",
            dir.display()
        );
    }
    let directory = DataDir::open(dir)?;
    let lock = directory.lock_engine()?;
    let city_dir = dir.join("city");
    city_files::write(city, &city_dir)?;
    let reading = city::read(&city_dir, term.time_zone(), instant(BEGINS));
    if let Some(mistake) = reading.findings.mistakes.first() {
        bail!("the made-up city has a mistake, which is a defect of the demo: {mistake}");
    }
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let gateway = GatewaySim::start(simulator(plan.seed, pace), loopback).await?;
    let configuration = configuration(dir, &gateway, plan.pupils, pace, servers)?;
    let (home, gate_token) = tokio::task::block_in_place(|| {
        Home::prepare_for_start(&configuration, CityClock::MadeUp)?;
        let home = Home::of(&configuration, directory, CityClock::MadeUp)?;
        let registry = home.registry()?;
        registry.mark_made_up()?;
        registry.apply(reading.entries, Timestamp::MIN, WHO)?;
        let (_, token) = home.tokens()?.add(&TokenScope::City, "the demo's readers", WHO, instant(BEGINS))?;
        anyhow::Ok((home, token.expose_secret().to_owned()))
    })?;
    Ok(Prepared { home, configuration, gateway, lock, gate_token })
}

/// The simulator as the demo wants it: no milder than in its own file, but quicker with receipts, so that nobody waits
/// for them.
pub(crate) fn simulator(seed: u64, pace: Pace) -> SimConfig {
    let mut config = SimConfig { seed, ..SimConfig::default() };
    for account in &mut config.accounts {
        account.points = POINTS;
    }
    config.limits.rate_per_s = pace.rate_per_s;
    config.limits.burst = pace.burst;
    config.faults.hang_ms = 4_000;
    config.receipts.delay = Spread { median_ms: 700, p99_ms: 2_500 };
    config.receipts.late_ms = 3_000;
    // Requests are signed by the city's clock, which is not this machine's.
    config.app.clock_tolerance_s = u32::MAX;
    config
}

/// The service's configuration against the simulator, as a file beside the data.
fn configuration(
    dir: &Path,
    sim: &GatewaySim,
    pupils: usize,
    pace: Pace,
    servers: Option<&Servers>,
) -> anyhow::Result<Configuration> {
    let Pace { rate_per_s, burst, batch_max, .. } = pace;
    let text = format!(
        r#"# What the demo ran with.
data = "{data}"

[city]
term = "114-1"
pupils_expected = {pupils}

[taps]
listen = "127.0.0.1:0"

[callbacks]
listen = "127.0.0.1:0"

[metrics]
listen = "127.0.0.1:0"

[[gateway]]
name = "mitake"
kind = "mitake"
url = "{sms}"
simulator = true
rate_per_s = {rate_per_s}
burst = {burst}
batch_max = {batch_max}
submit_timeout_s = 2
poll_after_s = 10
callback_url = "http://127.0.0.1:0"
{callback_key}
[app]
url = "{app}"
simulator = true
submit_timeout_s = 2
{shared}"#,
        shared = servers.map(|servers| shared_tables(dir, servers)).transpose()?.unwrap_or_default(),
        callback_key = servers
            .map(|_| format!("callback_key_file = \"{}/callback.key\"\n", dir.display()))
            .unwrap_or_default(),
        data = dir.display(),
        sms = sim.mitake_url(),
        app = sim.app_url(),
    );
    let file = dir.join("gatebell.toml");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Configuration::draft(&file)?.whole()?)
}

/// The tables that make the city a shared one, of this one process.
fn shared_tables(dir: &Path, servers: &Servers) -> anyhow::Result<String> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    let name = format!("demo_{}", hex::encode(bytes));
    Ok(format!(
        r#"
[kafka]
bootstrap = "{kafka}"
topic_prefix = "{name}"
group = "{name}"
partitions = 4
replication = 1

[scylla]
nodes = ["{cql}"]
keyspace = "{name}"
datacenter = "datacenter1"
replication = 1
migrate_at_start = true

[cluster]
processes_max = 1
contact_key_file = "{data}/contact.key"
"#,
        kafka = servers.kafka,
        cql = servers.cql,
        data = dir.display(),
    ))
}

/// Everything that runs.
pub(crate) struct Stage {
    clock: Arc<dyn Clock>,
    gate: Gate,
    gateway: GatewaySim,
    service: Service,
    /// Held until the service has stopped.
    _lock: EngineLock,
}

impl Stage {
    /// Starts the service. The city's clock starts now.
    ///
    /// # Errors
    /// When a port cannot be had, or a part cannot be set up.
    pub(crate) async fn set(prepared: Prepared, term: Term, pace: Pace) -> anyhow::Result<Self> {
        let Prepared { home, configuration, gateway, lock, gate_token } = prepared;
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(instant(BEGINS), pace.speed));
        let metrics = operations::install_recorder()?;
        let service = Service::start(&configuration, &home, term, Arc::clone(&clock), metrics).await?;
        let gate = Gate { url: format!("http://{}/v1/taps", service.addresses().taps), token: gate_token };
        Ok(Self { clock, gate, gateway, service, _lock: lock })
    }

    /// The city's clock.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// What the engine says of itself.
    pub(crate) fn status(&self) -> Arc<Status> {
        self.service.status()
    }

    /// Where readers report.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Where operators look while it runs.
    pub(crate) fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.service.addresses().metrics)
    }

    /// Whether nothing waits to be decided or sent.
    pub(crate) fn is_idle(&self) -> bool {
        let snapshot = self.status().snapshot();
        snapshot.lag == 0 && snapshot.lanes.iter().all(|lane| lane.queued == 0 && lane.in_flight == 0)
    }

    /// Whether the gateway has no message on its way and no receipt to tell.
    pub(crate) async fn gateway_has_told_everything(&self) -> bool {
        self.gateway.settled(Duration::ZERO).await
    }

    /// Stops the service, then the gateway, whose log it gives.
    ///
    /// # Errors
    /// When the service failed, now or before.
    pub(crate) async fn strike(self) -> anyhow::Result<SimLog> {
        let Self { gateway, service, .. } = self;
        service.stop().await?;
        Ok(gateway.stop().await)
    }
}
