//! The HTTP surfaces, one file each: readers report to [`taps`], SMS gateways to [`callbacks`], operators
//! look at [`operations`]. Each is a router of its own on a [`listener`] of its own, so that a firewall can
//! tell them apart. None ends TLS: that is the reverse proxy's.

pub(crate) mod callbacks;
mod figures;
pub(crate) mod listener;
pub(crate) mod operations;
pub(crate) mod reporters;
mod tap_batch;
pub(crate) mod taps;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::config::Configuration;
use listener::{Listener, ListenerLimits};

/// After the stop, requests at work have so long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Operators' requests have no body worth waiting for.
const METRICS_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The three listeners, bound.
pub(crate) struct Listeners {
    /// For readers.
    pub(crate) taps: Listener,
    /// For gateways.
    pub(crate) callbacks: Listener,
    /// For operators.
    pub(crate) metrics: Listener,
}

/// Where a process really listens: with a port of 0 only the system knows.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Addresses {
    /// For readers.
    pub(crate) taps: SocketAddr,
    /// For gateways.
    pub(crate) callbacks: SocketAddr,
    /// For operators.
    pub(crate) metrics: SocketAddr,
}

impl Listeners {
    /// Binds all three.
    ///
    /// # Errors
    /// When an address is taken or not this machine's.
    pub(crate) async fn bind(configuration: &Configuration) -> anyhow::Result<Self> {
        let limits = |connections_max, head_timeout| ListenerLimits {
            connections_max,
            head_timeout,
            drain_timeout: DRAIN_TIMEOUT,
        };
        let Configuration { taps, callbacks, metrics, .. } = configuration;
        Ok(Self {
            taps: Listener::bind("taps", taps.listen, limits(taps.connections_max, taps.read_timeout))
                .await?,
            callbacks: Listener::bind(
                "callbacks",
                callbacks.listen,
                limits(callbacks.connections_max, callbacks.read_timeout),
            )
            .await?,
            metrics: Listener::bind(
                "metrics",
                metrics.listen,
                limits(metrics.connections_max, METRICS_HEAD_TIMEOUT),
            )
            .await?,
        })
    }

    /// Where they really listen.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            taps: self.taps.address(),
            callbacks: self.callbacks.address(),
            metrics: self.metrics.address(),
        }
    }
}
