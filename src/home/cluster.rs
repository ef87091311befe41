//! A city on Kafka and ScyllaDB, shared by several processes.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use gatebell_connectors::kafka::{self, KafkaSettings, KafkaSetupError, ScramMechanism, Security, Tls};
use gatebell_connectors::key_file;
use gatebell_connectors::receipts::kafka::KafkaReceiptLog;
use gatebell_connectors::registry::kafka::{KafkaRegistry, KafkaRegistryFeed, Processes};
use gatebell_connectors::registry::{ProcessReports as _, RegistryStore};
use gatebell_connectors::sealing::ContactKey;
use gatebell_connectors::store::books::Books;
use gatebell_connectors::store::cql::books::CqlBooks;
use gatebell_connectors::store::cql::commands::CqlCommands;
use gatebell_connectors::store::cql::ledger::CqlLedger;
use gatebell_connectors::store::cql::message_ids::CqlMessageIds;
use gatebell_connectors::store::cql::offsets::CqlOffsets;
use gatebell_connectors::store::cql::process_reports::CqlProcessReports;
use gatebell_connectors::store::cql::receipt_progress::CqlReceiptProgress;
use gatebell_connectors::store::cql::schema::{self, migrate};
use gatebell_connectors::store::cql::seats::CqlSeats;
use gatebell_connectors::store::cql::session::CqlSession;
use gatebell_connectors::store::cql::settings::{CqlCredentials, CqlSettings, CqlTimeouts};
use gatebell_connectors::store::cql::terms::CqlKnownTerms;
use gatebell_connectors::store::cql::tokens::CqlTokens;
use gatebell_connectors::store::terms::KnownTerms;
use gatebell_connectors::store::tokens::Tokens;
use gatebell_connectors::tap_log::kafka::{IntakeLimits, KafkaRejectedLog, KafkaTapIntake, KafkaTapLog};
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::message_ids::MessageIds;
use gatebell_engine::ports::rejected::RejectedLog;
use gatebell_engine::ports::tap_log::TapIntake;
use tokio::runtime::Runtime;

use super::{Backing, CityClock};
use crate::config::{
    Cluster, Configuration, Kafka, KafkaSecurity, ScramHash, Scylla, SecretSource, TlsFiles,
};

/// Threads that drive the connections of a process to the store: they wait much and work little.
const STORE_THREADS: usize = 2;

/// See the module. Connects when first asked.
pub(crate) struct SharedCity {
    kafka: KafkaSettings,
    cql: CqlSettings,
    contact_key: ContactKey,
    processes_max: NonZeroU32,
    session: OnceLock<Arc<CqlSession>>,
    commands: OnceLock<Arc<CqlCommands>>,
    runtime: StoreRuntime,
}

/// Drives the connections to the store, for as long as anybody uses the city. Ends in the background, since the last user
/// may be an async task, which must not wait.
struct StoreRuntime(Option<Runtime>);

impl StoreRuntime {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(STORE_THREADS)
            .thread_name("store")
            .enable_all()
            .build()
            .context("cannot start the threads for the store")?;
        Ok(Self(Some(runtime)))
    }
}

impl Deref for StoreRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for StoreRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What was made that had been missing.
pub(crate) struct Prepared {
    /// The version that the keyspace had; 0 when it was empty.
    pub(crate) schema_from: i32,
    /// The version that it has now.
    pub(crate) schema_to: i32,
    /// Key files that were made.
    pub(crate) keys: Vec<String>,
}

impl SharedCity {
    /// The city that `configured` names. Nothing is asked of a server yet.
    pub(super) fn of(configured: &Cluster, clock: CityClock) -> anyhow::Result<Self> {
        Ok(Self {
            kafka: kafka_settings(&configured.kafka, clock)?,
            cql: cql_settings(&configured.scylla)?,
            contact_key: contact_key(&configured.contact_key)?,
            processes_max: configured.processes_max,
            session: OnceLock::new(),
            commands: OnceLock::new(),
            runtime: StoreRuntime::start()?,
        })
    }

    /// Makes keyspace, tables and topics where they are missing, and in an empty keyspace the key files that the
    /// configuration names.
    ///
    /// # Errors
    /// When something cannot be made, or this machine has not the keys that the others have.
    pub(crate) fn prepare(
        configured: &Cluster,
        configuration: &Configuration,
        clock: CityClock,
    ) -> anyhow::Result<Prepared> {
        let runtime = StoreRuntime::start()?;
        let cql = cql_settings(&configured.scylla)?;
        let is_in_use = runtime.block_on(schema::version(&cql))? > 0;
        let mut keys = Vec::new();
        let mut make = |source: &SecretSource, remedy: &str| {
            let SecretSource::File(file) = source else { return anyhow::Ok(()) };
            if file.exists() {
                return Ok(());
            }
            if is_in_use {
                let (file, keyspace) = (file.display(), &configured.scylla.keyspace);
                bail!("there is no key file {file}, and the keyspace {keyspace} is in use: {remedy}");
            }
            if make_key(file).with_context(|| format!("cannot make the key file {}", file.display()))? {
                keys.push(file.display().to_string());
            }
            Ok(())
        };
        make(
            &configured.contact_key,
            "copy the file from a machine that has it; another key could not open what is sealed",
        )?;
        for source in configuration.gateways.iter().filter_map(|gateway| gateway.callback_key.as_ref()) {
            make(
                source,
                "copy the file from a machine that has it; if none has, make it by openssl rand -hex 32 with umask 077, \
                 the same for all machines",
            )?;
        }
        contact_key(&configured.contact_key)?;
        // After the keys: what cannot make them must leave an empty keyspace, or it would never make them again.
        let migration = runtime.block_on(migrate(&cql))?;
        if !keys.is_empty() && !migration.is_first {
            tracing::warn!(
                ?keys,
                "made keys while somebody else readied the keyspace: if that was on another machine, use its keys here"
            );
        }
        runtime.block_on(kafka::prepare_topics(&kafka_settings(&configured.kafka, clock)?))?;
        Ok(Prepared { schema_from: migration.from, schema_to: migration.to, keys })
    }

    pub(super) fn name(&self) -> String {
        format!("keyspace {} and the topics {}.*", self.cql.keyspace, self.kafka.topic_prefix)
    }

    /// Whoever stamps taps and changes: for those who write neither, and before it is known whether the city is made up.
    fn whoever_stamps(&self) -> KafkaSettings {
        KafkaSettings { made_up_city: true, ..self.kafka.clone() }
    }

    fn session(&self) -> anyhow::Result<Arc<CqlSession>> {
        if let Some(session) = self.session.get() {
            return Ok(Arc::clone(session));
        }
        let session = self.runtime.block_on(CqlSession::open(&self.cql))?;
        Ok(Arc::clone(self.session.get_or_init(|| session)))
    }

    fn reports(&self) -> anyhow::Result<Arc<CqlProcessReports>> {
        Ok(Arc::new(self.runtime.block_on(CqlProcessReports::new(self.session()?))?))
    }

    pub(super) fn engine_is_running(&self) -> anyhow::Result<bool> {
        let reports = self.reports()?;
        Ok(!self.runtime.block_on(reports.live())?.is_empty())
    }

    pub(super) fn registry(&self) -> anyhow::Result<Arc<dyn RegistryStore>> {
        match self.runtime.block_on(kafka::existing_topics(&self.kafka)) {
            Ok(_) => Ok(Arc::new(self.registry_of_fit_topics()?)),
            // Unfit for a real city: a made-up one's taps and changes may carry a made-up time.
            Err(refusal @ KafkaSetupError::Unfit { .. }) => {
                self.runtime.block_on(kafka::existing_topics(&self.whoever_stamps()))?;
                let registry = self.registry_of_fit_topics()?;
                if registry.is_made_up()? { Ok(Arc::new(registry)) } else { Err(refusal.into()) }
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn registry_of_fit_topics(&self) -> anyhow::Result<KafkaRegistry> {
        let processes = Processes { reports: self.reports()?, runtime: self.runtime.handle().clone() };
        Ok(KafkaRegistry::new(&self.kafka, self.contact_key.clone(), processes)?)
    }

    /// Whether the city in the topics is a made-up one; one that is not there yet is not.
    fn is_made_up(&self) -> anyhow::Result<bool> {
        match self.runtime.block_on(kafka::existing_topics(&self.whoever_stamps())) {
            Ok(_) => Ok(self.registry_of_fit_topics()?.is_made_up()?),
            Err(KafkaSetupError::Missing { .. }) => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    pub(super) fn books(&self) -> anyhow::Result<Arc<dyn Books>> {
        Ok(Arc::new(CqlBooks::open(self.commands()?)?))
    }

    pub(super) fn terms(&self) -> anyhow::Result<Arc<dyn KnownTerms>> {
        Ok(Arc::new(CqlKnownTerms::open(self.commands()?)?))
    }

    pub(super) fn tokens(&self) -> anyhow::Result<Arc<dyn Tokens>> {
        Ok(Arc::new(CqlTokens::open(self.commands()?)?))
    }

    fn commands(&self) -> anyhow::Result<Arc<CqlCommands>> {
        if let Some(commands) = self.commands.get() {
            return Ok(Arc::clone(commands));
        }
        let commands = CqlCommands::open(&self.cql)?;
        Ok(Arc::clone(self.commands.get_or_init(|| commands)))
    }

    pub(super) fn rejected(&self) -> anyhow::Result<Arc<dyn RejectedLog>> {
        self.runtime.block_on(kafka::existing_topics(&self.whoever_stamps()))?;
        Ok(Arc::new(KafkaRejectedLog::new(&self.kafka)?))
    }

    pub(super) fn intake(
        &self,
        configuration: &Configuration,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<dyn TapIntake>> {
        let limits = intake_limits(configuration);
        Ok(Arc::new(KafkaTapIntake::new(&self.kafka, limits, clock)?))
    }

    pub(super) fn backing(
        &self,
        configuration: &Configuration,
        owner: OwnerToken,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Backing> {
        let mut kafka = self.kafka.clone();
        // Known before the topics are judged.
        kafka.made_up_city = kafka.made_up_city || self.is_made_up()?;
        let cluster = self.runtime.block_on(kafka::prepare_topics(&kafka))?;
        let session = self.session()?;
        let reports = self.reports()?;
        let rejected = Arc::new(KafkaRejectedLog::new(&kafka)?);
        let intake = KafkaTapIntake::new(&kafka, intake_limits(configuration), Arc::clone(&clock))?;
        let log = cluster.log_name(&kafka.taps_topic());
        let owner_name = format!("{:032x}", owner.0);
        self.runtime.block_on(async {
            let ledger = CqlLedger::new(Arc::clone(&session), &log).await?;
            let offsets = Arc::new(CqlOffsets::new(Arc::clone(&session), &log).await?);
            let progress = Arc::new(CqlReceiptProgress::new(Arc::clone(&session), &log).await?);
            let mut message_ids: BTreeMap<LaneName, Arc<dyn MessageIds>> = BTreeMap::new();
            for lane in configuration.lanes_called_by_account() {
                let ids = CqlMessageIds::new(Arc::clone(&session), &log, lane).await?;
                message_ids.insert(lane.clone(), Arc::new(ids));
            }
            let seats = CqlSeats::new(session, self.processes_max.get()).await?;
            let feed = KafkaRegistryFeed::new(
                &kafka,
                self.contact_key.clone(),
                reports,
                &owner_name,
                Arc::clone(&clock),
            )?;
            Ok(Backing {
                tap_log: Box::new(KafkaTapLog::open(&kafka, &cluster, clock, Some(offsets)).await?),
                intake: Arc::new(intake),
                ledger: Arc::new(ledger),
                receipts: Arc::new(KafkaReceiptLog::new(&kafka, progress)?),
                message_ids,
                rejected,
                registry: Box::new(feed),
                seats: Arc::new(seats),
                shared_by: self.processes_max,
            })
        })
    }
}

/// Makes a key in `file`, and its folder; `false` where another process has done so in this moment.
fn make_key(file: &Path) -> io::Result<bool> {
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    key_file::make(file)
}

fn contact_key(source: &SecretSource) -> anyhow::Result<ContactKey> {
    let key = source.fetch().context("cannot have the contact key, which all machines of the city share")?;
    ContactKey::parse(&key).with_context(|| format!("there is no contact key in {source}"))
}

fn intake_limits(configuration: &Configuration) -> IntakeLimits {
    IntakeLimits { queue_taps_max: configuration.tap_log.queue_taps_max, ..IntakeLimits::default() }
}

fn kafka_settings(configured: &Kafka, clock: CityClock) -> anyhow::Result<KafkaSettings> {
    Ok(KafkaSettings {
        bootstrap: configured.bootstrap.clone(),
        topic_prefix: configured.topic_prefix.clone(),
        group: configured.group.clone(),
        security: security(&configured.security)?,
        partitions: configured.partitions,
        replication: configured.replication,
        retention: configured.retention,
        made_up_city: clock == CityClock::MadeUp,
        session_timeout: configured.session_timeout,
    })
}

fn security(configured: &KafkaSecurity) -> anyhow::Result<Security> {
    let files = |files: &TlsFiles| Tls {
        authorities: files.authorities.clone(),
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    };
    Ok(match configured {
        KafkaSecurity::None => Security::Plain,
        KafkaSecurity::Tls(tls) => Security::Tls(files(tls)),
        KafkaSecurity::Scram { user, password, hash, tls } => Security::Scram {
            user: user.clone(),
            password: password.fetch().context("the password of Kafka")?,
            mechanism: match hash {
                ScramHash::Sha256 => ScramMechanism::Sha256,
                ScramHash::Sha512 => ScramMechanism::Sha512,
            },
            tls: tls.as_ref().map(files),
        },
    })
}

fn cql_settings(configured: &Scylla) -> anyhow::Result<CqlSettings> {
    let credentials = match &configured.credentials {
        None => None,
        Some((user, password)) => {
            let password = password.fetch().context("the password of ScyllaDB")?;
            Some(CqlCredentials { user: user.clone(), password })
        }
    };
    Ok(CqlSettings {
        contact_points: configured.nodes.clone(),
        keyspace: configured.keyspace.clone(),
        local_datacenter: configured.datacenter.clone(),
        replication: BTreeMap::from_iter(configured.replication.clone()),
        credentials,
        timeouts: CqlTimeouts::default(),
    })
}
