//! What all parts on Kafka have in common: how its clients are set up, and which topics there are.
//!
//! Owns the settings ([`KafkaSettings`]), security, the topics' names, their making and the checks at the start
//! ([`prepare_topics`]), and where librdkafka's own log lines go. The tap log, the registry and the receipts make their own
//! clients from these settings.

#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod log_lines;
mod settings;
#[cfg(test)]
mod tests;
mod topics;

pub use log_lines::TracingContext;
pub use settings::{KafkaSettings, ScramMechanism, Security, Tls};
pub use topics::{Cluster, existing_topics, prepare_topics};

/// Why a broker and a client do not come to terms. What exactly they said is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of the user.
    #[error("user or password is wrong, or the user has no password of this hash (scram_hash)")]
    Credentials,
    /// Of the connection.
    #[error(
        "TLS fails: the broker's certificate is not vouched for by tls_authorities (without it, by the system's), or is \
         another host's, or the listener does not speak TLS, or asks for a certificate of ours"
    )]
    Tls,
}

/// Why Kafka cannot be used as it is set up. Stops the start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KafkaSetupError {
    /// TLS or SCRAM was asked for, and this program cannot speak it.
    #[error(
        "this gatebell was built without TLS and SCRAM for Kafka (--no-default-features): build it with the feature \
         kafka-tls, or use a listener without security"
    )]
    NoTls,
    /// librdkafka refuses a setting.
    #[error("the Kafka client cannot be set up: {cause}")]
    Client {
        /// What it says.
        cause: String,
    },
    /// No broker answers.
    #[error(
        "no answer from Kafka at {bootstrap}: {cause}; is it running, and are address and security right?"
    )]
    NoAnswer {
        /// The addresses asked.
        bootstrap: String,
        /// What the client says.
        cause: String,
    },
    /// A broker answers, and there is no talking to it.
    #[error("Kafka at {bootstrap} and this program cannot agree: {cause}")]
    Refused {
        /// The addresses asked.
        bootstrap: String,
        /// What to look at.
        cause: Refusal,
    },
    /// The broker makes no topic.
    #[error("cannot make the topic {topic}: {cause}; make it by hand, or allow this user to create topics")]
    NotMade {
        /// The topic.
        topic: String,
        /// What the broker says.
        cause: String,
    },
    /// A topic is needed that nobody made.
    #[error("there is no topic {topic}: run gatebell store migrate, or check the topic prefix")]
    Missing {
        /// The topic.
        topic: String,
    },
    /// A topic is set up in a way that would lose or misplace something.
    #[error("the topic {topic} has {found}, and must have {needed}: {remedy}")]
    Unfit {
        /// The topic.
        topic: String,
        /// What it has.
        found: String,
        /// What it must have.
        needed: String,
        /// What to do.
        remedy: String,
    },
}
