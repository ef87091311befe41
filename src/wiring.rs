//! Wiring: which connector stands behind which port.
//!
//! The engine names no connector, and no connector another; here they meet, by what the configuration says.
//! Owns the way of secrets from where they lie to who needs them, and promises that all that cannot be had
//! are named at once. What is served to the outside is the business of `http`; when things start and stop,
//! that of `serve`.

mod secrets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gatebell_connectors::app::{self, AppConnector, AppSettings};
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::registry::RegistryStore;
use gatebell_connectors::sms::callback_address::{CallbackAddresses, CallbackKeys};
use gatebell_connectors::sms::mitake::{self, MitakeConnector, MitakeSettings};
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::OwnerToken;
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile};
use gatebell_engine::ports::clock::{Clock, SystemClock};
use gatebell_engine::ports::ledger::Ledger;
use gatebell_engine::ports::message_ids::MessageIds;
use gatebell_engine::ports::receipts::ReceiptLog;
use gatebell_engine::ports::tap_log::TapIntake;
use gatebell_engine::registry::Entry;
use gatebell_engine::runtime::{Engine, Ports, Settings};
use gatebell_engine::template::Templates;
use gatebell_engine::term::Term;
use metrics::gauge;
use secrecy::SecretString;
use url::Url;

use crate::config::{AppBackend, CallbackAddress, Configuration, LaneLimits, MitakeGateway};
use crate::home::Home;
use secrets::Secrets;

/// The lane of the city's app.
const APP_LANE: &str = "app";
/// How long a clean stop waits for answers that are on the wire; then they stay in doubt.
const STOP_DRAIN: Duration = Duration::from_secs(5);

/// A process's parts, put together and not yet running.
pub(crate) struct Wired {
    /// The engine between its ports.
    pub(crate) engine: Engine,
    /// Takes taps.
    pub(crate) intake: Arc<dyn TapIntake>,
    /// Takes receipts.
    pub(crate) receipts: Arc<dyn ReceiptLog>,
    /// Knows what was submitted.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The keys that sign callback addresses, by lane.
    pub(crate) callback_keys: BTreeMap<LaneName, CallbackKeys>,
    /// What message ids stand for, of the lanes that are called back by account.
    pub(crate) message_ids: BTreeMap<LaneName, Arc<dyn MessageIds>>,
}

/// What the wiring is told beside the configuration.
pub(crate) struct Surroundings<'a> {
    /// Where the city lives.
    pub(crate) home: &'a Home,
    /// The term.
    pub(crate) term: Term,
    /// Where receipts are listened for.
    pub(crate) callbacks: SocketAddr,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// Opens what the city lives on, and puts the engine between that and the configured lanes. Blocks.
///
/// # Errors
/// When a file cannot be opened or a server reached, a secret cannot be had, a lane cannot be set up or is missing, or a text
/// does not fit.
pub(crate) fn wire(configuration: &Configuration, surroundings: Surroundings<'_>) -> anyhow::Result<Wired> {
    let Surroundings { home, term, callbacks, clock } = surroundings;
    let mut secrets = Secrets::fetch(configuration, home.directory())?;
    let owner = owner()?;
    let backing = home.backing(configuration, owner, Arc::clone(&clock))?;
    let registry = home.registry()?;
    let made_up_city = registry.is_made_up()?;
    let mut channels: Vec<Arc<dyn ChannelConnector>> = Vec::new();
    for gateway in &configuration.gateways {
        let city = CityOfLanes { made_up_city, shared_by: backing.shared_by, clock: Arc::clone(&clock) };
        let connector = mitake_connector(gateway, &mut secrets, callbacks, city)
            .with_context(|| format!("cannot set up the gateway {}", gateway.name))?;
        channels.push(Arc::new(connector));
    }
    if let Some(backend) = &configuration.app {
        let city = CityOfLanes { made_up_city, shared_by: backing.shared_by, clock: Arc::clone(&clock) };
        let connector = app_connector(backend, &mut secrets, city).context("cannot set up the city's app")?;
        channels.push(Arc::new(connector));
    }

    for profile in channels.iter().map(|connector| connector.profile()) {
        let rate = gauge!("gatebell_lane_rate_per_second", "lane" => profile.name.to_string());
        // This process's share.
        rate.set(f64::from(profile.rate_per_s) / f64::from(profile.shared_by.get()));
    }

    let settings = Settings {
        term: Arc::new(term),
        templates: Arc::new(templates(configuration, Some(&*registry))?),
        owner,
        pupils_expected: configuration.city.pupils_expected,
        stop_drain: STOP_DRAIN,
    };
    let ports = Ports {
        tap_log: backing.tap_log,
        ledger: Arc::clone(&backing.ledger),
        receipts: Arc::clone(&backing.receipts),
        message_ids: backing.message_ids.clone(),
        rejected: Arc::clone(&backing.rejected),
        registry: backing.registry,
        seats: backing.seats,
        channels,
        clock,
    };
    Ok(Wired {
        engine: Engine::new(settings, ports)?,
        intake: backing.intake,
        receipts: backing.receipts,
        ledger: backing.ledger,
        callback_keys: secrets.callback_keys,
        message_ids: backing.message_ids,
    })
}

/// What would keep [`wire`] from setting the lanes and texts up, all at once. Nothing is made or sent; without a `registry`
/// there is no city yet.
pub(crate) fn troubles(configuration: &Configuration, registry: Option<&dyn RegistryStore>) -> Vec<String> {
    let (mut secrets, mut troubles) = Secrets::gather(configuration, None);
    let made_up_city = registry.map_or(Ok(false), RegistryStore::is_made_up);
    let made_up_city = made_up_city.unwrap_or_else(|error| {
        troubles.push(error.to_string());
        false
    });
    let shared_by = configuration.cluster.as_ref().map_or(NonZeroU32::MIN, |cluster| cluster.processes_max);
    let city = CityOfLanes { made_up_city, shared_by, clock: Arc::new(SystemClock::new()) };
    let callbacks = configuration.callbacks.listen;
    for gateway in &configuration.gateways {
        if !secrets.has_account(&gateway.name) {
            continue;
        }
        let connector = mitake_connector(gateway, &mut secrets, callbacks, city.clone());
        troubles.extend(connector.err().map(|error| format!("gateway {}: {error:#}", gateway.name)));
    }
    if let Some(backend) = configuration.app.as_ref().filter(|_| secrets.app_key.is_some()) {
        let connector = app_connector(backend, &mut secrets, city);
        troubles.extend(connector.err().map(|error| format!("app: {error:#}")));
    }
    troubles.extend(templates(configuration, registry).err().map(|error| format!("{error:#}")));
    troubles
}

/// What every lane is told of its city.
#[derive(Clone)]
struct CityOfLanes {
    /// Whether it is a made-up one: then nothing goes beyond this machine.
    made_up_city: bool,
    /// Processes that share the lanes' limits.
    shared_by: NonZeroU32,
    /// Time.
    clock: Arc<dyn Clock>,
}

fn mitake_connector(
    gateway: &MitakeGateway,
    secrets: &mut Secrets,
    callbacks: SocketAddr,
    city: CityOfLanes,
) -> anyhow::Result<MitakeConnector> {
    let own = mitake::profile(gateway.name.clone(), gateway.limits.rate_per_s);
    let profile = LaneProfile {
        gives_receipts: gateway.receipts,
        poll_after: gateway.receipts.then_some(gateway.poll_after),
        ..limited(own, &gateway.limits, city.shared_by)
    };
    let (username, password) = secrets.account(&gateway.name)?;
    let keys = secrets.callback_keys.get(&gateway.name);
    let addresses = keys.map(|keys| callback_addresses(gateway, keys, callbacks)).transpose()?.flatten();
    // An account's address is on record with the provider.
    let callbacks = addresses.filter(|_| gateway.callback_address == CallbackAddress::OfMessage);
    let endpoint = gateway.url.to_string();
    let made_up_city = city.made_up_city;
    let settings = MitakeSettings { profile, endpoint, username, password, callbacks, made_up_city };
    Ok(MitakeConnector::new(settings, city.clock)?)
}

/// The address to put on record with the provider for `gateway`, whose receipts come to one address of the whole account.
///
/// # Errors
/// When it is set up otherwise, or its key cannot be had.
pub(crate) fn account_callback_address(
    configuration: &Configuration,
    gateway: &MitakeGateway,
    directory: &DataDir,
) -> anyhow::Result<SecretString> {
    let by_account = gateway.callback_address == CallbackAddress::OfAccount;
    ensure!(by_account, "gateway {} has callback_address = \"message\": each has its own", gateway.name);
    let url = gateway.callback_url.as_ref();
    ensure!(url.and_then(Url::port) != Some(0), "gateway {}: the port of callback_url is 0", gateway.name);
    let keys = secrets::callback_keys(gateway.callback_key.as_ref(), Some(directory))?;
    let keys = keys.context("its callback key was fetched")?;
    let addresses = callback_addresses(gateway, &keys, configuration.callbacks.listen)?;
    Ok(addresses.context("no receipts come: receipts and callback_url")?.of_account())
}

/// The addresses that `gateway` may call; `None`: it calls none.
fn callback_addresses(
    gateway: &MitakeGateway,
    keys: &CallbackKeys,
    listening: SocketAddr,
) -> anyhow::Result<Option<CallbackAddresses>> {
    let Some(url) = gateway.callback_url.as_ref().filter(|_| gateway.receipts) else { return Ok(None) };
    let base = with_port(url, listening.port());
    Ok(Some(CallbackAddresses::new(base.as_str(), mitake::PROTOCOL, &gateway.name, keys.clone())?))
}

/// `url` with `listening`, where its own port is 0: "the one that the system chose".
fn with_port(url: &Url, listening: u16) -> Url {
    let mut url = url.clone();
    if url.port() == Some(0) {
        url.set_port(Some(listening)).ok();
    }
    url
}

fn app_connector(
    backend: &AppBackend,
    secrets: &mut Secrets,
    city: CityOfLanes,
) -> anyhow::Result<AppConnector> {
    let name = LaneName::new(APP_LANE).context("the app's lane")?;
    let profile = limited(app::profile(name, backend.limits.rate_per_s), &backend.limits, city.shared_by);
    let key = secrets.app_key.take().context("the app's key was fetched")?;
    let endpoint = backend.url.to_string();
    let made_up_city = city.made_up_city;
    Ok(AppConnector::new(AppSettings { profile, endpoint, key, made_up_city }, city.clock)?)
}

fn limited(profile: LaneProfile, limits: &LaneLimits, shared_by: NonZeroU32) -> LaneProfile {
    LaneProfile {
        rate_per_s: limits.rate_per_s,
        burst: limits.burst,
        window: limits.window,
        shared_by,
        batch_max: limits.batch_max,
        queue_max: limits.queue_max,
        submit_timeout: limits.submit_timeout,
        ..profile
    }
}

/// The texts, fitted to what the gateway adds and to the longest name of a school.
fn templates(
    configuration: &Configuration,
    registry: Option<&dyn RegistryStore>,
) -> anyhow::Result<Templates> {
    let templates = match &configuration.city.texts {
        Some(directory) => {
            Templates::parse(&text_file(directory, "zh-TW.toml")?, &text_file(directory, "en.toml")?)
                .with_context(|| format!("the texts in {} have mistakes", directory.display()))?
        }
        None => Templates::built_in(),
    };
    let mut longest_place = String::new();
    if let Some(registry) = registry {
        registry.for_each("school", &mut |entry| {
            if let Entry::School(school) = entry
                && school.name.encode_utf16().count() > longest_place.encode_utf16().count()
            {
                longest_place = school.name.to_string();
            }
        })?;
    }
    let affix_units = configuration
        .gateways
        .iter()
        .map(|gateway| gateway.text_before.encode_utf16().count() + gateway.text_after.encode_utf16().count())
        .max()
        .unwrap_or(0);
    templates.fitted(&longest_place, affix_units).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n")).context("the texts do not fit one SMS")
    })
}

fn text_file(directory: &Path, name: &str) -> anyhow::Result<String> {
    let file = directory.join(name);
    std::fs::read_to_string(&file).with_context(|| format!("cannot read the texts {}", file.display()))
}

/// Whoever restarts is another owner of claims.
fn owner() -> anyhow::Result<OwnerToken> {
    let mut bytes = [0; size_of::<u128>()];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(OwnerToken(u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_callback_url_with_port_zero_gets_the_port_that_is_listened_on() {
        for (configured, used) in [
            ("http://127.0.0.1:0", "http://127.0.0.1:8081/"),
            ("http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x"),
            ("https://gatebell.example/", "https://gatebell.example/"),
        ] {
            assert_eq!(with_port(&Url::parse(configured).unwrap(), 8081).as_str(), used);
        }
    }
}
