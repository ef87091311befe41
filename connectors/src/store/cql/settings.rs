//! How the store is reached: addresses, keyspace, copies, credentials, time-outs.

use std::collections::BTreeMap;
use std::time::Duration;

use gatebell_engine::ports::PortError;
use secrecy::SecretString;

/// Longest keyspace name that both ScyllaDB and Cassandra take, in characters.
const KEYSPACE_LEN_MAX: usize = 48;

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct CqlSettings {
    /// `host:port` of some nodes; the others are found through them.
    pub contact_points: Vec<String>,
    /// The keyspace: lower-case letters, digits and `_`, a letter first, at most 48.
    pub keyspace: String,
    /// The datacentre that is spoken to, and whose majority decides.
    pub local_datacenter: String,
    /// Copies of every row by datacentre; used when `migrate` creates the keyspace.
    pub replication: BTreeMap<String, u8>,
    /// User and password, where the store asks for them.
    pub credentials: Option<CqlCredentials>,
    /// How long each class of request may take.
    pub timeouts: CqlTimeouts,
}

/// Who the store takes us for.
#[derive(Clone, Debug)]
pub struct CqlCredentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretString,
}

/// How long each class of request may take, the driver's own retries included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CqlTimeouts {
    /// Opening a connection.
    pub connect: Duration,
    /// Reading rows.
    pub read: Duration,
    /// Writing rows.
    pub write: Duration,
    /// Compare-and-set and serial reads: several rounds between the replicas.
    pub swap: Duration,
}

impl Default for CqlTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), read: seconds(5), write: seconds(5), swap: seconds(5) }
    }
}

impl CqlSettings {
    /// Whether the settings can be used at all; the first mistake otherwise.
    pub fn check(&self) -> Result<(), PortError> {
        if self.contact_points.is_empty() {
            return Err(PortError::new("store", "no contact point is given"));
        }
        if !is_keyspace_name(&self.keyspace) {
            return Err(PortError::new(
                "store",
                format_args!(
                    "keyspace {:?}: must be a lower-case letter and then lower-case letters, digits or `_`, at most 48 together",
                    self.keyspace
                ),
            ));
        }
        let datacenters = self.replication.keys().chain([&self.local_datacenter]);
        if let Some(name) = datacenters.into_iter().find(|name| !is_datacenter_name(name)) {
            return Err(PortError::new(
                "store",
                format_args!("datacentre {name:?}: must be letters, digits, `-`, `_` or `.`"),
            ));
        }
        if self.replication.get(&self.local_datacenter).is_none_or(|copies| *copies == 0) {
            return Err(PortError::new(
                "store",
                format_args!("replication: says no copy for the local datacentre {}", self.local_datacenter),
            ));
        }
        Ok(())
    }
}

fn is_keyspace_name(name: &str) -> bool {
    name.len() <= KEYSPACE_LEN_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_datacenter_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> CqlSettings {
        CqlSettings {
            contact_points: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "gatebell".to_owned(),
            local_datacenter: "datacenter1".to_owned(),
            replication: BTreeMap::from([("datacenter1".to_owned(), 3)]),
            credentials: None,
            timeouts: CqlTimeouts::default(),
        }
    }

    #[test]
    fn a_mistake_is_told_before_anything_is_connected() {
        settings().check().expect("these can be used");
        let with = |change: fn(&mut CqlSettings)| {
            let mut changed = settings();
            change(&mut changed);
            changed.check().expect_err("these cannot").to_string()
        };
        for (error, told) in [
            (with(|settings| settings.contact_points.clear()), "contact point"),
            (with(|settings| settings.keyspace = "Gatebell".to_owned()), "keyspace"),
            (with(|settings| settings.keyspace = "a\"; DROP".to_owned()), "keyspace"),
            (with(|settings| settings.keyspace = "a".repeat(49)), "keyspace"),
            (with(|settings| settings.local_datacenter = "o'clock".to_owned()), "datacentre"),
            (with(|settings| settings.replication.clear()), "no copy"),
        ] {
            assert!(error.contains(told), "{error}");
        }
    }
}
