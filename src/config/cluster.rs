//! The `[kafka]`, `[scylla]` and `[cluster]` tables: one city shared by many processes.
//!
//! Without them the city lives in one data directory. With them taps, registry and receipts are topics, the ledger and
//! the bill are tables, and any number of processes up to `processes_max` share the work. The three come together.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use gatebell_engine::ports::seats::SEATS_MAX;

use super::lanes::LaneLimits;
use super::secret::SecretSource;
use super::section::Section;

/// Seconds in a day.
const DAY_S: u64 = 86_400;
/// Decisions look at today and yesterday; taps are kept at least so many days.
const RETENTION_DAYS_MIN: u32 = 3;

/// Where a city lives that outgrew one machine.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// Taps, registry, receipts.
    pub(crate) kafka: Kafka,
    /// Ledger, claims, charges.
    pub(crate) scylla: Scylla,
    /// Processes that may send at once; each gets the same share of every gateway's rate, burst and window.
    pub(crate) processes_max: NonZeroU32,
    /// The key that seals names and addresses in the topics; the same for all processes.
    pub(crate) contact_key: SecretSource,
}

/// The `[kafka]` table.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    /// `host:port`, with commas between.
    pub(crate) bootstrap: String,
    /// What the topics' names begin with.
    pub(crate) topic_prefix: String,
    /// The consumer group of the engine.
    pub(crate) group: String,
    /// Partitions of the taps, when their topic is made.
    pub(crate) partitions: NonZeroU32,
    /// Copies of each record, when a topic is made. From three on, topics that are there must ask two for each record.
    pub(crate) replication: NonZeroU32,
    /// How long taps, receipts and rejected records are kept, when a topic is made.
    pub(crate) retention: Duration,
    /// A process that is silent for so long loses its partitions.
    pub(crate) session_timeout: Duration,
    /// How the brokers are spoken to.
    pub(crate) security: KafkaSecurity,
}

/// How brokers are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KafkaSecurity {
    /// In the clear.
    None,
    /// TLS.
    Tls(TlsFiles),
    /// SASL/SCRAM, with or without TLS.
    Scram {
        /// The user.
        user: String,
        /// The password.
        password: SecretSource,
        /// `sha-256` or `sha-512`.
        hash: ScramHash,
        /// Over TLS, unless in the clear.
        tls: Option<TlsFiles>,
    },
}

/// The hash of SASL/SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

/// PEM files for TLS; without one, what the system has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Who is trusted.
    pub(crate) authorities: Option<PathBuf>,
    /// The client's certificate.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
}

/// The `[scylla]` table.
#[derive(Debug, Clone)]
pub(crate) struct Scylla {
    /// `host:port` of some nodes.
    pub(crate) nodes: Vec<String>,
    /// The keyspace.
    pub(crate) keyspace: String,
    /// The datacentre whose majority decides.
    pub(crate) datacenter: String,
    /// Copies of every row by datacentre, when the keyspace is made.
    pub(crate) replication: BTreeMap<String, u8>,
    /// User and password, where the store asks for them.
    pub(crate) credentials: Option<(String, SecretSource)>,
    /// Whether `serve` brings the tables up to date itself: for trials. Else `gatebell store migrate` does.
    pub(crate) migrate_at_start: bool,
}

impl Cluster {
    /// Reads the three tables; `None` when none is there, or one has a mistake.
    pub(super) fn read(top: &mut Section<'_, '_>) -> Option<Self> {
        let tables = ["kafka", "scylla", "cluster"];
        let present: Vec<&str> = tables.into_iter().filter(|table| top.table(table).is_there()).collect();
        if present.is_empty() {
            return None;
        }
        for table in tables.into_iter().filter(|table| !present.contains(table)) {
            top.missing(table, "a table: [kafka], [scylla] and [cluster] come together");
        }
        let kafka = Kafka::read(top.table("kafka"));
        let scylla = Scylla::read(top.table("scylla"));
        let mut cluster = top.table("cluster");
        let processes_max = at_least_one(&mut cluster, "processes_max", SEATS_MAX, 3);
        let contact_key = cluster.secret("contact_key");
        if contact_key.is_none() {
            cluster
                .missing("contact_key_file", "contact_key_file names a file, or contact_key_env a variable");
        }
        cluster.end();
        Some(Self { kafka: kafka?, scylla: scylla?, processes_max, contact_key: contact_key? })
    }

    /// Whether `serve` makes the key that should be in `source`: in a trial it makes those that are missing.
    pub(crate) fn makes(&self, source: &SecretSource) -> bool {
        self.scylla.migrate_at_start && matches!(source, SecretSource::File(file) if !file.exists())
    }

    /// Every secret that the tables name, and whose it is.
    pub(crate) fn secrets(&self) -> Vec<(String, &SecretSource)> {
        let mut secrets = vec![("contact key".to_owned(), &self.contact_key)];
        if let KafkaSecurity::Scram { password, .. } = &self.kafka.security {
            secrets.push(("password of Kafka".to_owned(), password));
        }
        secrets.extend(
            self.scylla.credentials.iter().map(|(_, source)| ("password of ScyllaDB".to_owned(), source)),
        );
        secrets
    }

    /// What of `limits` cannot be shared by all processes, as `field: rule`.
    pub(super) fn not_shareable(&self, limits: &LaneLimits) -> Option<(&'static str, String)> {
        let processes = self.processes_max.get();
        if limits.burst < processes {
            return Some(("burst", format!("at least {processes}: cluster.processes_max share it")));
        }
        if limits.window < usize::try_from(processes).unwrap_or(usize::MAX) {
            return Some(("window", format!("at least {processes}: cluster.processes_max share it")));
        }
        None
    }
}

impl Kafka {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        if !section.is_there() {
            return None;
        }
        let addresses = "host:port, such as \"127.0.0.1:9092\", with commas between";
        let bootstrap = section.required("bootstrap", addresses, |text| {
            text.split(',').all(|address| is_address(address.trim())).then(|| text.to_owned())
        });
        let name = "1 to 100 letters, digits, dots, dashes and underscores";
        let topic_prefix =
            section.text("topic_prefix", name, topic_name).unwrap_or_else(|| "gate".to_owned());
        let group = section.text("group", name, topic_name).unwrap_or_else(|| "gatebell".to_owned());
        let partitions = at_least_one(&mut section, "partitions", 1024, 12);
        let replication = at_least_one(&mut section, "replication", 7, 3);
        let retention_days = section.number("retention_days", RETENTION_DAYS_MIN..=3650, 30);
        let session_timeout = section.seconds("session_timeout_s", 6..=300, Duration::from_secs(10));
        let security = KafkaSecurity::read(&mut section);
        section.end();
        Some(Self {
            bootstrap: bootstrap?,
            topic_prefix,
            group,
            partitions,
            replication,
            retention: Duration::from_secs(u64::from(retention_days) * DAY_S),
            session_timeout,
            security: security?,
        })
    }
}

impl KafkaSecurity {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let tls = TlsFiles {
            authorities: section.path("tls_authorities"),
            certificate: section.path("tls_certificate"),
            key: section.path("tls_key"),
        };
        let words = "\"none\", \"tls\", \"scram\" or \"scram-tls\"";
        let word = section.text("security", words, |text| {
            ["none", "tls", "scram", "scram-tls"].into_iter().find(|known| *known == text)
        });
        let word = word.unwrap_or("none");
        if !word.ends_with("tls") && tls != TlsFiles::default() {
            for key in ["tls_authorities", "tls_certificate", "tls_key"] {
                section.wrong_field(key, "nothing, unless security is \"tls\" or \"scram-tls\"");
            }
        }
        let user = section.text("user", "a user's name", |text| (!text.is_empty()).then(|| text.to_owned()));
        let password = section.secret("password");
        let hash = section.text("scram_hash", "\"sha-256\" or \"sha-512\"", |text| match text {
            "sha-256" => Some(ScramHash::Sha256),
            "sha-512" => Some(ScramHash::Sha512),
            _ => None,
        });
        if !word.starts_with("scram") {
            section.wrong_field("user", "nothing, unless security is \"scram\" or \"scram-tls\"");
            return Some(if word == "tls" { Self::Tls(tls) } else { Self::None });
        }
        if user.is_none() {
            section.missing("user", "the user's name");
        }
        if password.is_none() {
            section.missing("password_file", "password_file names a file, or password_env a variable");
        }
        Some(Self::Scram {
            user: user?,
            password: password?,
            hash: hash.unwrap_or(ScramHash::Sha512),
            tls: (word == "scram-tls").then_some(tls),
        })
    }
}

impl Scylla {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        if !section.is_there() {
            return None;
        }
        let address = "host:port of a node";
        let nodes = section.texts("nodes", address, |text| is_address(text).then(|| text.to_owned()));
        if nodes.as_ref().is_none_or(Vec::is_empty) {
            section.missing("nodes", "an array of host:port, one or more of the nodes");
        }
        let keyspace = section
            .text("keyspace", "1 to 48 of a-z, 0-9 and _, a letter first", keyspace)
            .unwrap_or_else(|| "gatebell".to_owned());
        let datacenter =
            section.required("datacenter", "the datacentre's name, as nodetool status shows it", |text| {
                (!text.is_empty()).then(|| text.to_owned())
            });
        let copies = section.number("replication", 1..=7, 3);
        let user = section.text("user", "a user's name", |text| (!text.is_empty()).then(|| text.to_owned()));
        let password = section.secret("password");
        if user.is_some() && password.is_none() {
            section.missing("password_file", "password_file names a file, or password_env a variable");
        }
        if user.is_none() && password.is_some() {
            section.missing("user", "the user whose password this is");
        }
        let migrate_at_start = section.truth("migrate_at_start", false);
        section.end();
        let datacenter = datacenter?;
        Some(Self {
            nodes: nodes.filter(|nodes| !nodes.is_empty())?,
            keyspace,
            replication: BTreeMap::from([(datacenter.clone(), copies)]),
            datacenter,
            credentials: user.zip(password),
            migrate_at_start,
        })
    }
}

fn at_least_one(section: &mut Section<'_, '_>, key: &str, most: u32, otherwise: u32) -> NonZeroU32 {
    NonZeroU32::new(section.number(key, 1..=most, otherwise)).unwrap_or(NonZeroU32::MIN)
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|character: char| character.is_whitespace() || character == '@')
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn topic_name(text: &str) -> Option<String> {
    let fits = (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    fits.then(|| text.to_owned())
}

fn keyspace(text: &str) -> Option<String> {
    let fits = (1..=48).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    fits.then(|| text.to_owned())
}
