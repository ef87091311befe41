//! A city in one data directory: log, registry and store are files in it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::registry::RegistryStore;
use gatebell_connectors::store::books::Books;
use gatebell_connectors::store::embedded::books::EmbeddedBooks;
use gatebell_connectors::store::embedded::registry::EmbeddedRegistry;
use gatebell_connectors::store::embedded::registry_feed::EmbeddedRegistryFeed;
use gatebell_connectors::store::embedded::store_db::EmbeddedStore;
use gatebell_connectors::store::embedded::terms::EmbeddedKnownTerms;
use gatebell_connectors::store::embedded::tokens::EmbeddedTokens;
use gatebell_connectors::store::terms::KnownTerms;
use gatebell_connectors::store::tokens::Tokens;
use gatebell_connectors::tap_log::embedded::{self as tap_log, EmbeddedRejectedLog, TapLogSettings};
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::message_ids::MessageIds;
use gatebell_engine::ports::rejected::RejectedLog;
use gatebell_engine::ports::seats::OnlySeat;
use gatebell_engine::ports::tap_log::TapIntake;

use super::Backing;
use crate::config::Configuration;

pub(super) fn registry(directory: &DataDir) -> anyhow::Result<Arc<dyn RegistryStore>> {
    Ok(Arc::new(EmbeddedRegistry::open(directory)?))
}

pub(super) fn books(directory: &DataDir) -> anyhow::Result<Arc<dyn Books>> {
    Ok(Arc::new(EmbeddedBooks::open(directory)?))
}

pub(super) fn terms(directory: &DataDir) -> Arc<dyn KnownTerms> {
    Arc::new(EmbeddedKnownTerms::of(directory))
}

pub(super) fn tokens(directory: &DataDir) -> anyhow::Result<Arc<dyn Tokens>> {
    Ok(Arc::new(EmbeddedTokens::open(directory)?))
}

pub(super) fn rejected(directory: &DataDir) -> anyhow::Result<Arc<dyn RejectedLog>> {
    Ok(Arc::new(EmbeddedRejectedLog::open(directory, None)?))
}

pub(super) fn intake(
    directory: &DataDir,
    configuration: &Configuration,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn TapIntake>> {
    let (_, intake) = tap_log::open(directory, &tap_log_settings(configuration), clock)?;
    Ok(Arc::new(intake))
}

pub(super) fn backing(
    directory: &DataDir,
    configuration: &Configuration,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Backing> {
    let store = EmbeddedStore::open(directory)?;
    let log_settings = tap_log_settings(configuration);
    let (log, intake) = tap_log::open(directory, &log_settings, clock)?;
    let message_ids = configuration.lanes_called_by_account().map(|lane| {
        let ids: Arc<dyn MessageIds> = store.message_ids(lane);
        (lane.clone(), ids)
    });
    Ok(Backing {
        message_ids: message_ids.collect(),
        tap_log: Box::new(log),
        intake: Arc::new(intake),
        ledger: store.ledger(),
        receipts: store.receipts(),
        rejected: Arc::new(EmbeddedRejectedLog::open(directory, log_settings.keep)?),
        registry: Box::new(EmbeddedRegistryFeed::open(directory)?),
        seats: Arc::new(OnlySeat),
        shared_by: NonZeroU32::MIN,
    })
}

fn tap_log_settings(configuration: &Configuration) -> TapLogSettings {
    let configured = &configuration.tap_log;
    TapLogSettings {
        partitions: NonZeroU32::new(configured.partitions).unwrap_or(NonZeroU32::MIN),
        queue_taps_max: configured.queue_taps_max,
        keep: Some(Duration::from_secs(u64::from(configured.retention_days) * 86_400)),
        ..TapLogSettings::default()
    }
}
