//! Calling out over HTTP: what every gateway and backend connector needs.
//!
//! Owns: which endpoints may be called at all (encrypted, and nothing but loopback for a made-up city), one HTTP client
//! with a limit of connections, and the one question that decides whether a message may be sent again: *can the request
//! have left?* Promises: an [`Exchange`] never says `NotSent` when it may have; errors carry no URL, no credential and
//! nothing of a body; no redirects (they would hand message and credentials to somebody else), no proxies from the
//! environment, no retries. Leaves to others: what an answer means.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect};
use tokio::sync::Semaphore;

/// Longest answer that is read, in bytes: a batch of 500 results needs about 50 KiB.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait that an answer's `Retry-After` may ask for, in seconds.
const RETRY_AFTER_S_MAX: u64 = 3600;
/// How long an unused connection is kept.
const IDLE_KEPT: Duration = Duration::from_secs(30);

/// Why an endpoint is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not an HTTP address.
    #[error("the address of {0} must be https://host[:port][/path], without credentials, query or fragment")]
    Form(&'static str),
    /// Personal data would travel in the clear.
    #[error("the address of {0} must begin with https:// (plain http is allowed on loopback only)")]
    NotEncrypted(&'static str),
    /// A made-up city has made-up phone numbers, which belong to real people.
    #[error("this is a made-up city: {0} must be on loopback, so that no real person gets a message")]
    MadeUpCity(&'static str),
    /// The HTTP client could not be set up, such as without root certificates.
    #[error("cannot set up the HTTP client for {what}: {cause}")]
    Client {
        /// Whose client.
        what: &'static str,
        /// Why, in lower case.
        cause: String,
    },
}

/// How an exchange may be limited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// Time to connect.
    pub(crate) connect_timeout: Duration,
    /// Time for the whole exchange, connecting included.
    pub(crate) exchange_timeout: Duration,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// The whole answer is here.
    Answer(Answer),
    /// The request never left; a fixed word says why.
    NotSent(&'static str),
    /// The request may have left; a fixed word says what happened then.
    Unknown(&'static str),
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The header of that name, when it gives seconds.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// One endpoint and the client that calls it.
#[derive(Debug)]
pub(crate) struct Outbound {
    what: &'static str,
    endpoint: Url,
    client: Client,
    connections: Semaphore,
    /// What the last exchange failed of; empty when it did not.
    trouble: Mutex<String>,
}

impl Outbound {
    /// Opens `endpoint`, which error messages call `what`.
    pub(crate) fn open(
        what: &'static str,
        endpoint: &str,
        made_up_city: bool,
        limits: Limits,
    ) -> Result<Self, EndpointError> {
        let endpoint = Url::parse(endpoint).map_err(|_| EndpointError::Form(what))?;
        let is_plain = matches!(endpoint.scheme(), "http" | "https")
            && endpoint.has_host()
            && endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.query().is_none()
            && endpoint.fragment().is_none();
        if !is_plain {
            return Err(EndpointError::Form(what));
        }
        let is_loopback = is_loopback(&endpoint);
        if made_up_city && !is_loopback {
            return Err(EndpointError::MadeUpCity(what));
        }
        let is_encrypted = endpoint.scheme() == "https";
        if !is_encrypted && !is_loopback {
            return Err(EndpointError::NotEncrypted(what));
        }
        let mut builder = Client::builder()
            .user_agent(concat!("gatebell/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .pool_max_idle_per_host(limits.connections_max)
            .pool_idle_timeout(IDLE_KEPT)
            .connect_timeout(limits.connect_timeout)
            .timeout(limits.exchange_timeout);
        if !is_encrypted {
            // Never used there; and a bare machine without root certificates can still run the demo.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let client = builder
            .build()
            .map_err(|error| EndpointError::Client { what, cause: causes(&error.without_url()) })?;
        Ok(Self {
            what,
            endpoint,
            client,
            connections: Semaphore::new(limits.connections_max),
            trouble: Mutex::default(),
        })
    }

    /// A POST to the endpoint itself.
    pub(crate) fn post(&self) -> RequestBuilder {
        self.client.post(self.endpoint.clone())
    }

    /// A POST to `name` below the endpoint.
    pub(crate) fn post_below(&self, name: &str) -> RequestBuilder {
        let mut address = self.endpoint.clone();
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().push(name);
        }
        self.client.post(address)
    }

    /// Sends `request` and reads the answer.
    pub(crate) async fn exchange(&self, request: RequestBuilder) -> Exchange {
        let Ok(_connection) = self.connections.acquire().await else {
            return Exchange::NotSent("closed");
        };
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return self.failed(error),
        };
        let status = response.status();
        let retry_after = retry_after(&response);
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Exchange::Unknown("answer_too_long"),
                Ok(None) => {
                    self.tell("");
                    return Exchange::Answer(Answer { status, retry_after, body });
                }
                Err(error) => return self.failed(error),
            }
        }
    }

    /// Only what failed before the first byte of the request could leave is `NotSent`.
    fn failed(&self, error: reqwest::Error) -> Exchange {
        let error = error.without_url();
        let exchange = if error.is_connect() {
            Exchange::NotSent("no_connection")
        } else if error.is_builder() {
            Exchange::NotSent("bad_request")
        } else if error.is_timeout() {
            Exchange::Unknown("timeout")
        } else {
            Exchange::Unknown("broken_off")
        };
        self.tell(&causes(&error));
        exchange
    }

    /// Logs a cause of trouble when it is another than before: an outage is told once, not with every message.
    fn tell(&self, cause: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *trouble == cause {
            return;
        }
        if cause.is_empty() {
            tracing::info!("{} answers again", self.what);
        } else {
            tracing::warn!(cause, "no answer from {}", self.what);
        }
        trouble.clear();
        trouble.push_str(cause);
    }
}

/// The error and what is behind it, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn is_loopback(endpoint: &Url) -> bool {
    match endpoint.host() {
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds: u64 =
        response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 1,
        connect_timeout: Duration::from_secs(1),
        exchange_timeout: Duration::from_secs(1),
    };

    fn open(endpoint: &str, made_up_city: bool) -> Option<EndpointError> {
        Outbound::open("the gateway", endpoint, made_up_city, LIMITS).err()
    }

    #[test]
    fn a_made_up_city_is_refused_by_everything_that_is_not_on_loopback() {
        for endpoint in
            ["https://smsapi.mitake.com.tw/api/mtk", "http://10.0.0.1/", "https://127.0.0.1.example/"]
        {
            assert_eq!(open(endpoint, true), Some(EndpointError::MadeUpCity("the gateway")), "{endpoint}");
        }
        for endpoint in
            ["http://127.0.0.1:8090/api/mtk", "http://127.8.9.1/", "http://[::1]:1/", "http://localhost/"]
        {
            assert_eq!(open(endpoint, true), None, "{endpoint}");
        }
    }

    #[test]
    fn personal_data_leaves_the_machine_encrypted_only() {
        assert_eq!(open("http://gateway.example/", false), Some(EndpointError::NotEncrypted("the gateway")));
        assert_eq!(open("http://127.0.0.1/", false), None);
    }

    #[test]
    fn addresses_that_hide_something_are_refused_without_being_shown() {
        for endpoint in [
            "gateway",
            "ftp://gateway.example/",
            "https://u:hunter2@g.example/",
            "https://g.example/?p=hunter2",
        ] {
            let error = open(endpoint, false);
            assert_eq!(error, Some(EndpointError::Form("the gateway")), "{endpoint}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
