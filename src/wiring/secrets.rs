//! Secrets on their way from where they lie to the connectors that need them.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::key_file;
use gatebell_connectors::sms::callback_address::CallbackKeys;
use gatebell_engine::ids::LaneName;
use gatebell_gateway_sim::{SIMULATOR_APP_KEY, SIMULATOR_PASSWORD, SIMULATOR_USERNAME};
use secrecy::SecretString;

use crate::config::{Account, Configuration, MitakeGateway, SecretSource};

/// Where the key for callback addresses is kept that we make ourselves, in the data directory.
const CALLBACK_KEY_FILE: &str = "callback.key";

/// Every secret that the configuration names.
pub(super) struct Secrets {
    accounts: BTreeMap<LaneName, (SecretString, SecretString)>,
    /// The keys that sign callback addresses.
    pub(super) callback_keys: BTreeMap<LaneName, CallbackKeys>,
    /// The key that signs requests to the app's backend.
    pub(super) app_key: Option<SecretString>,
}

impl Secrets {
    /// Fetches them all, or says of each one that cannot be had why.
    pub(super) fn fetch(configuration: &Configuration, directory: &DataDir) -> anyhow::Result<Self> {
        let (secrets, troubles) = Self::gather(configuration, Some(directory));
        if troubles.is_empty() {
            return Ok(secrets);
        }
        Err(anyhow!("{}", troubles.join("\n")).context("some secrets cannot be had"))
    }

    /// Those that can be had, and of each other one why it cannot. Without a directory, keys that we make ourselves are
    /// left out.
    pub(super) fn gather(configuration: &Configuration, directory: Option<&DataDir>) -> (Self, Vec<String>) {
        let mut secrets = Self { accounts: BTreeMap::new(), callback_keys: BTreeMap::new(), app_key: None };
        let mut troubles = Vec::new();
        let mut note = |whose: String, trouble: anyhow::Error| troubles.push(format!("{whose}: {trouble:#}"));
        let cluster = configuration.cluster.as_ref();
        let is_made_later = |source: &SecretSource| cluster.is_some_and(|cluster| cluster.makes(source));
        for (whose, source) in cluster.iter().flat_map(|cluster| cluster.secrets()) {
            if let Err(trouble) = source.fetch()
                && !is_made_later(source)
            {
                note(whose, trouble.into());
            }
        }
        for gateway in &configuration.gateways {
            match account(gateway) {
                Ok(account) => drop(secrets.accounts.insert(gateway.name.clone(), account)),
                Err(trouble) => note(format!("password of gateway {}", gateway.name), trouble),
            }
            if gateway.callback_key.as_ref().is_some_and(is_made_later) {
                continue;
            }
            match callback_keys(gateway.callback_key.as_ref(), directory) {
                Ok(keys) => secrets.callback_keys.extend(keys.map(|keys| (gateway.name.clone(), keys))),
                Err(trouble) => note(format!("callback key of gateway {}", gateway.name), trouble),
            }
        }
        if let Some(app) = &configuration.app {
            match fetched(&app.key, SIMULATOR_APP_KEY) {
                Ok(key) => secrets.app_key = Some(key),
                Err(trouble) => note("key of the app".to_owned(), trouble),
            }
        }
        (secrets, troubles)
    }

    /// Whether name and password at the gateway called `lane` could be had.
    pub(super) fn has_account(&self, lane: &LaneName) -> bool {
        self.accounts.contains_key(lane)
    }

    /// Name and password at the gateway called `lane`; to be taken once.
    pub(super) fn account(&mut self, lane: &LaneName) -> anyhow::Result<(SecretString, SecretString)> {
        self.accounts.remove(lane).context("its account was fetched")
    }
}

fn account(gateway: &MitakeGateway) -> anyhow::Result<(SecretString, SecretString)> {
    let username = gateway.username.as_deref().unwrap_or(SIMULATOR_USERNAME);
    Ok((SecretString::from(username), fetched(&gateway.password, SIMULATOR_PASSWORD)?))
}

fn fetched(account: &Account, of_the_simulator: &str) -> anyhow::Result<SecretString> {
    match account {
        Account::Simulator => Ok(SecretString::from(of_the_simulator)),
        Account::Real(source) => Ok(source.fetch()?),
    }
}

/// The keys in `configured`, else those that are kept in `directory`, made there where there are none.
pub(super) fn callback_keys(
    configured: Option<&SecretSource>,
    directory: Option<&DataDir>,
) -> anyhow::Result<Option<CallbackKeys>> {
    let text = match (configured, directory) {
        (Some(source), _) => source.fetch()?,
        (None, None) => return Ok(None),
        (None, Some(directory)) => {
            let file = directory.path().join(CALLBACK_KEY_FILE);
            key_file::make(&file).with_context(|| format!("cannot make the key {}", file.display()))?;
            SecretSource::File(file).fetch()?
        }
    };
    Ok(Some(CallbackKeys::parse(&text)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_callback_key_is_made_once_and_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(parent.path()).unwrap();
        callback_keys(None, Some(&directory)).unwrap();
        let file = parent.path().join(CALLBACK_KEY_FILE);
        let made = std::fs::read(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        callback_keys(None, Some(&directory)).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), made, "addresses that are on their way stay good");
    }
}
