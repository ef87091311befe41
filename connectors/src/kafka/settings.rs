//! The settings of Kafka, and the clients' configuration made of them.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use secrecy::{ExposeSecret, SecretString};

use super::KafkaSetupError;

/// The first wait before a lost broker is tried again; it doubles …
const RECONNECT_FIRST_MS: u32 = 100;
/// … up to this.
const RECONNECT_MAX_MS: u32 = 2_000;

/// Where Kafka is and how it is used. The same for all processes of a city.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Addresses to ask first, `host:port` with commas between.
    pub bootstrap: String,
    /// What the topics' names begin with, such as `gate`.
    pub topic_prefix: String,
    /// The consumer group whose members share the taps.
    pub group: String,
    /// How the brokers are spoken to.
    pub security: Security,
    /// Partitions that the taps get when their topic is made; a topic that is there keeps its own.
    pub partitions: NonZeroU32,
    /// Copies of each record, when a topic is made. With three or more, two must have a record before it counts.
    pub replication: NonZeroU32,
    /// How long taps, receipts and rejected records are kept, when a topic is made.
    pub retention: Duration,
    /// The city is a made-up one: its taps may carry a made-up time of receipt.
    pub made_up_city: bool,
    /// A member of the group that is silent for so long has its partitions given to others; one that is stuck, some seconds
    /// later. The broker allows 6 s to 30 min unless set otherwise.
    pub session_timeout: Duration,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".to_owned(),
            topic_prefix: "gate".to_owned(),
            group: "gatebell".to_owned(),
            security: Security::Plain,
            partitions: NonZeroU32::new(12).expect("twelve is not zero"),
            replication: NonZeroU32::MIN,
            retention: Duration::from_secs(40 * 86_400),
            made_up_city: false,
            session_timeout: Duration::from_secs(10),
        }
    }
}

/// How the brokers are spoken to.
#[derive(Clone, Debug)]
pub enum Security {
    /// In the clear: for a network of one's own.
    Plain,
    /// TLS, with a client certificate where the brokers ask for one.
    Tls(Tls),
    /// A user and a password by SASL/SCRAM.
    Scram {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
        /// The hash.
        mechanism: ScramMechanism,
        /// Over TLS; `None`: in the clear, where others can read the taps, if not the password.
        tls: Option<Tls>,
    },
}

/// Files for TLS, all PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who is trusted; `None`: whom the system trusts.
    pub authorities: Option<PathBuf>,
    /// The client's certificate …
    pub certificate: Option<PathBuf>,
    /// … and its key.
    pub key: Option<PathBuf>,
}

/// The hash of SASL/SCRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl KafkaSettings {
    /// The topic of the taps.
    pub fn taps_topic(&self) -> String {
        format!("{}.taps", self.topic_prefix)
    }

    /// The topic of records that are no taps.
    pub fn rejected_topic(&self) -> String {
        format!("{}.taps.rejected", self.topic_prefix)
    }

    /// The topic of the registry's changes.
    pub fn registry_topic(&self) -> String {
        format!("{}.registry", self.topic_prefix)
    }

    /// The topic of the receipts.
    pub fn receipts_topic(&self) -> String {
        format!("{}.receipts", self.topic_prefix)
    }

    /// The configuration that every client begins with: addresses and security.
    ///
    /// # Errors
    /// [`KafkaSetupError::NoTls`] when TLS or SCRAM is asked for and this program was built without.
    pub fn client(&self) -> Result<ClientConfig, KafkaSetupError> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "gatebell")
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", RECONNECT_FIRST_MS.to_string())
            .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS.to_string());
        match &self.security {
            Security::Plain => {}
            Security::Tls(tls) => {
                needs_tls()?;
                config.set("security.protocol", "ssl");
                set_tls(&mut config, tls);
            }
            Security::Scram { user, password, mechanism, tls } => {
                needs_tls()?;
                let mechanism = match mechanism {
                    ScramMechanism::Sha256 => "SCRAM-SHA-256",
                    ScramMechanism::Sha512 => "SCRAM-SHA-512",
                };
                config
                    .set("sasl.mechanism", mechanism)
                    .set("sasl.username", user)
                    .set("sasl.password", password.expose_secret());
                match tls {
                    Some(tls) => {
                        config.set("security.protocol", "sasl_ssl");
                        set_tls(&mut config, tls);
                    }
                    None => {
                        config.set("security.protocol", "sasl_plaintext");
                    }
                }
            }
        }
        Ok(config)
    }

    /// The configuration of a consumer that reads by hand, outside the group: it commits nothing, sees no record of an
    /// open or aborted transaction, and is not slowed down by its own queue.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub fn consumer(&self) -> Result<ClientConfig, KafkaSetupError> {
        let mut config = self.client()?;
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // The default of a second stalls a reader whose worker is the slower part.
            .set("fetch.queue.backoff.ms", "5");
        Ok(config)
    }

    /// The configuration of a producer that loses and doubles nothing: acknowledged by all replicas, idempotent, keys
    /// placed as Kafka's Java clients place them.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub fn producer(&self) -> Result<ClientConfig, KafkaSetupError> {
        let mut config = self.client()?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2");
        Ok(config)
    }
}

fn needs_tls() -> Result<(), KafkaSetupError> {
    if cfg!(feature = "kafka-tls") { Ok(()) } else { Err(KafkaSetupError::NoTls) }
}

fn set_tls(config: &mut ClientConfig, tls: &Tls) {
    let files = [
        ("ssl.ca.location", &tls.authorities),
        ("ssl.certificate.location", &tls.certificate),
        ("ssl.key.location", &tls.key),
    ];
    for (setting, file) in files {
        if let Some(file) = file {
            config.set(setting, file.display().to_string());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn scram() -> KafkaSettings {
        let security = Security::Scram {
            user: "gatebell".to_owned(),
            password: SecretString::from("opensesame"),
            mechanism: ScramMechanism::Sha512,
            tls: Some(Tls { authorities: Some("/etc/kafka/ca.pem".into()), ..Tls::default() }),
        };
        KafkaSettings { security, ..KafkaSettings::default() }
    }

    #[test]
    fn the_password_shows_nowhere() {
        let settings = scram();
        assert!(!format!("{settings:?}").contains("opensesame"));
        if let Ok(config) = settings.client() {
            assert!(!format!("{config:?}").contains("opensesame"));
        }
    }

    #[test]
    #[cfg(not(feature = "kafka-tls"))]
    fn security_that_this_program_cannot_speak_is_a_clear_error() {
        let tls = KafkaSettings { security: Security::Tls(Tls::default()), ..KafkaSettings::default() };
        for settings in [tls, scram()] {
            let refusal = settings.producer().unwrap_err().to_string();
            assert!(refusal.contains("the feature kafka-tls"), "{refusal}");
        }
    }

    #[test]
    #[cfg(feature = "kafka-tls")]
    fn tls_and_scram_are_taken_by_the_client() {
        use rdkafka::producer::BaseProducer;

        let tls = KafkaSettings { security: Security::Tls(Tls::default()), ..KafkaSettings::default() };
        let _producer: BaseProducer = tls.producer().unwrap().create().unwrap();
        let mut settings = scram();
        if let Security::Scram { tls, .. } = &mut settings.security {
            *tls = Some(Tls::default());
        }
        let config = settings.producer().unwrap();
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        let _producer: BaseProducer = config.create().unwrap();
    }
}
