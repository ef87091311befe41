//! How a shard decides, rule by rule, and against a naive model.

#![allow(clippy::unwrap_used)]

mod gate;
mod model;
mod notices;
mod taps;
