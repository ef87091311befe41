//! The `[taps]`, `[callbacks]` and `[metrics]` tables: three HTTP surfaces, each on an address of its own, so
//! that a firewall can tell readers, gateways and operators apart. All speak plain HTTP: TLS ends at a
//! reverse proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::section::Section;

/// Where readers report taps.
#[derive(Debug, Clone)]
pub(crate) struct TapsListener {
    /// Its address.
    pub(crate) listen: SocketAddr,
    /// Connections held open at once.
    pub(crate) connections_max: usize,
    /// Requests being read or written to the log at once; more are told to come back.
    pub(crate) requests_max: usize,
    /// Largest body.
    pub(crate) body_bytes_max: usize,
    /// A request must have arrived whole within this.
    pub(crate) read_timeout: Duration,
}

/// Where SMS gateways deliver receipts.
#[derive(Debug, Clone)]
pub(crate) struct CallbacksListener {
    /// Its address.
    pub(crate) listen: SocketAddr,
    /// Connections held open at once.
    pub(crate) connections_max: usize,
    /// A request must have arrived whole within this.
    pub(crate) read_timeout: Duration,
    /// Who may call; empty: anybody.
    pub(crate) allow: Vec<IpNet>,
    /// Proxies that may speak for somebody else (`X-Forwarded-For`).
    pub(crate) trusted_proxies: Vec<IpNet>,
}

/// Where operators look: `/healthz`, `/readyz`, `/metrics`.
#[derive(Debug, Clone)]
pub(crate) struct MetricsListener {
    /// Its address.
    pub(crate) listen: SocketAddr,
    /// Connections held open at once.
    pub(crate) connections_max: usize,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl TapsListener {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let listener = Self {
            listen: section.address("listen", loopback(8080)),
            connections_max: section.number("connections_max", 1..=100_000, 4096),
            requests_max: section.number("requests_max", 1..=10_000, 64),
            body_bytes_max: section.number("body_bytes_max", 4096..=64 << 20, 4 << 20),
            read_timeout: section.seconds("read_timeout_s", 1..=300, Duration::from_secs(10)),
        };
        section.end();
        listener
    }
}

impl CallbacksListener {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let listener = Self {
            listen: section.address("listen", loopback(8081)),
            connections_max: section.number("connections_max", 1..=100_000, 1024),
            read_timeout: section.seconds("read_timeout_s", 1..=300, Duration::from_secs(10)),
            allow: networks(&mut section, "allow"),
            trusted_proxies: networks(&mut section, "trusted_proxies"),
        };
        section.end();
        listener
    }
}

impl MetricsListener {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let listener = Self {
            listen: section.address("listen", loopback(9090)),
            connections_max: section.number("connections_max", 1..=10_000, 64),
        };
        section.end();
        listener
    }
}

fn networks(section: &mut Section<'_, '_>, key: &str) -> Vec<IpNet> {
    let parse =
        |text: &str| text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    section.texts(key, "an address or a network, such as \"203.0.113.0/24\"", parse).unwrap_or_default()
}
