//! The rules of a lane, without I/O: who is served next ([`queue`]), how fast ([`limiter`]), and what an answer means
//! ([`attempt`]). The runtime drives them.

pub mod attempt;
pub mod limiter;
pub mod queue;
