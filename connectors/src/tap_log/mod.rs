//! Tap logs: where taps are durable from the moment a reader is told so.

pub mod embedded;
pub mod kafka;
mod room;
