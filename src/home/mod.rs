//! Where the city lives: in a data directory, or on Kafka and ScyllaDB.
//!
//! Owns everything that differs between the two: which connectors stand behind the engine's ports, and how commands open
//! registry, books and tokens. Whoever asks sees traits only. Every call blocks, and must not be made on a thread that runs
//! async tasks (`block_in_place` and `spawn_blocking` make one that may).

mod cluster;
mod embedded;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Context as _;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::registry::RegistryStore;
use gatebell_connectors::store::books::Books;
use gatebell_connectors::store::terms::KnownTerms;
use gatebell_connectors::store::tokens::Tokens;
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::ledger::Ledger;
use gatebell_engine::ports::message_ids::MessageIds;
use gatebell_engine::ports::receipts::ReceiptLog;
use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::ports::rejected::RejectedLog;
use gatebell_engine::ports::seats::Seats;
use gatebell_engine::ports::tap_log::{TapIntake, TapLog};

use crate::config::Configuration;
pub(crate) use cluster::SharedCity;

/// Whose clock says when a tap was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CityClock {
    /// This machine's, or the brokers'.
    Real,
    /// A made-up one, which runs faster or on another day: only for made-up cities.
    MadeUp,
}

/// A city's home, and this process's own directory.
#[derive(Clone)]
pub(crate) struct Home {
    directory: DataDir,
    shared: Option<Arc<SharedCity>>,
}

/// What an engine works between, apart from its lanes.
pub(crate) struct Backing {
    /// Reads taps.
    pub(crate) tap_log: Box<dyn TapLog>,
    /// Takes taps.
    pub(crate) intake: Arc<dyn TapIntake>,
    /// Entries, claims, charges.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// What gateways say.
    pub(crate) receipts: Arc<dyn ReceiptLog>,
    /// What message ids stand for, of the lanes that are called back by account.
    pub(crate) message_ids: BTreeMap<LaneName, Arc<dyn MessageIds>>,
    /// What is no tap.
    pub(crate) rejected: Arc<dyn RejectedLog>,
    /// Who is owed what.
    pub(crate) registry: Box<dyn RegistryFeed>,
    /// This process's share of the gateways' rates.
    pub(crate) seats: Arc<dyn Seats>,
    /// Processes that share those.
    pub(crate) shared_by: NonZeroU32,
}

impl Home {
    /// The home that `configuration` names, with this process's own things in `directory`.
    ///
    /// # Errors
    /// When a secret cannot be had, or the system gives no threads.
    pub(crate) fn of(
        configuration: &Configuration,
        directory: DataDir,
        clock: CityClock,
    ) -> anyhow::Result<Self> {
        let shared = match &configuration.cluster {
            Some(cluster) => Some(Arc::new(SharedCity::of(cluster, clock)?)),
            None => None,
        };
        Ok(Self { directory, shared })
    }

    /// This process's own directory; without a cluster the city's, too.
    pub(crate) fn directory(&self) -> &DataDir {
        &self.directory
    }

    /// Whether the city is shared by several processes.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// How messages to operators name it.
    pub(crate) fn name(&self) -> String {
        match &self.shared {
            Some(shared) => shared.name(),
            None => self.directory.path().display().to_string(),
        }
    }

    /// Makes whatever is missing and may be made before a start: keyspace, tables, topics and keys of a shared city where
    /// `configuration` says that `serve` does so.
    ///
    /// # Errors
    /// When something cannot be made.
    pub(crate) fn prepare_for_start(configuration: &Configuration, clock: CityClock) -> anyhow::Result<()> {
        let Some(cluster) = configuration.cluster.as_ref().filter(|cluster| cluster.scylla.migrate_at_start)
        else {
            return Ok(());
        };
        SharedCity::prepare(cluster, configuration, clock).map(drop)
    }

    /// Whether a city was ever brought there.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) fn has_city(&self) -> anyhow::Result<bool> {
        if !self.is_shared() && !self.directory.registry().exists() {
            return Ok(false);
        }
        Ok(!self.registry()?.is_empty()?)
    }

    /// Whether there may be books: opening them would make a data directory's.
    pub(crate) fn has_store(&self) -> bool {
        self.is_shared() || self.directory.store().exists()
    }

    /// Whether an engine runs on it just now.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(crate) fn engine_is_running(&self) -> anyhow::Result<bool> {
        match &self.shared {
            Some(shared) => shared.engine_is_running(),
            None => Ok(self.directory.engine_is_running()?),
        }
    }

    /// That there is no city, and what to do.
    pub(crate) fn no_city(&self) -> String {
        format!("there is no city in {}: gatebell import DIR brings one", self.name())
    }

    /// The registry.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn registry(&self) -> anyhow::Result<Arc<dyn RegistryStore>> {
        match &self.shared {
            Some(shared) => shared.registry(),
            None => embedded::registry(&self.directory),
        }
        .context("cannot open the registry")
    }

    /// The books.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(crate) fn books(&self) -> anyhow::Result<Arc<dyn Books>> {
        match &self.shared {
            Some(shared) => shared.books(),
            None => embedded::books(&self.directory),
        }
        .context("cannot open the books")
    }

    /// The terms that the city knows.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(crate) fn terms(&self) -> anyhow::Result<Arc<dyn KnownTerms>> {
        match &self.shared {
            Some(shared) => shared.terms(),
            None => Ok(embedded::terms(&self.directory)),
        }
        .context("cannot open the terms")
    }

    /// The tokens of readers' vendors.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(crate) fn tokens(&self) -> anyhow::Result<Arc<dyn Tokens>> {
        match &self.shared {
            Some(shared) => shared.tokens(),
            None => embedded::tokens(&self.directory),
        }
        .context("cannot open the tokens")
    }

    /// What is no tap.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn rejected(&self) -> anyhow::Result<Arc<dyn RejectedLog>> {
        match &self.shared {
            Some(shared) => shared.rejected(),
            None => embedded::rejected(&self.directory),
        }
        .context("cannot open the rejected records")
    }

    /// The way into the tap log, for commands that report taps themselves.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub(crate) fn intake(
        &self,
        configuration: &Configuration,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<dyn TapIntake>> {
        match &self.shared {
            Some(shared) => shared.intake(configuration, clock),
            None => embedded::intake(&self.directory, configuration, clock),
        }
    }

    /// What the engine of this run, `owner`, works between.
    ///
    /// # Errors
    /// When a part of it cannot be opened.
    pub(crate) fn backing(
        &self,
        configuration: &Configuration,
        owner: OwnerToken,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Backing> {
        match &self.shared {
            Some(shared) => shared.backing(configuration, owner, clock),
            None => embedded::backing(&self.directory, configuration, clock),
        }
    }
}
