//! What the city app's push backend answers.

use std::time::Duration;

use gatebell_connectors::app::fuzzing::read;
use gatebell_engine::ports::channel::SubmitOutcome;

use super::input::first_line;

/// Messages that are asked about at once, at most.
const REFERENCES_MAX: usize = 5;
/// Longest wait that is taken from a backend.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The first line has the references, the rest is the answer. Each message gets one outcome, whatever the order in which
/// they are asked for, and nothing of the answer goes further unchecked.
pub fn app_replies(bytes: &[u8]) {
    let (head, body) = first_line(bytes);
    let head = String::from_utf8_lossy(head);
    let mut references: Vec<&str> = head.split_whitespace().take(REFERENCES_MAX).collect();
    let outcomes = read(body, &references);
    assert_eq!(outcomes.len(), references.len(), "one outcome a message");
    for (reference, outcome) in references.iter().zip(&outcomes) {
        match outcome {
            SubmitOutcome::Accepted { gateway_id, .. } => {
                let is_id = gateway_id.len() <= 64 && gateway_id.bytes().all(|byte| byte.is_ascii_graphic());
                assert!(is_id && !gateway_id.is_empty() || gateway_id == reference);
            }
            SubmitOutcome::Throttled { retry_after } | SubmitOutcome::RetryLater { retry_after, .. } => {
                assert!(retry_after.is_none_or(|wait| wait <= WAIT_MAX));
            }
            _ => {}
        }
    }
    references.reverse();
    let mut again = read(body, &references);
    again.reverse();
    assert_eq!(again, outcomes, "the order of asking does not matter");
}
