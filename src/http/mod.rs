//! The HTTP surfaces, one file each: readers report to [`taps`], SMS gateways to [`callbacks`], operators look at
//! [`operations`]. Each is a router of its own on a [`listener`] of its own, so that a firewall can tell them apart.
//! None ends TLS: that is the reverse proxy's.

pub(crate) mod callbacks;
pub(crate) mod listener;
pub(crate) mod operations;
mod tap_batch;
pub(crate) mod taps;
