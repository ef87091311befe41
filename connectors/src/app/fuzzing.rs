//! The entrance for fuzzing: what production reads a push backend's answer with.

use gatebell_engine::ports::channel::SubmitOutcome;

/// What a `2xx` with `body` says of the messages that are called `references`, in that order.
pub fn read(body: &[u8], references: &[&str]) -> Vec<SubmitOutcome> {
    super::wire::read(body, references)
}
