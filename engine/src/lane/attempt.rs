//! What a gateway's answer means for a notice: retried, in doubt, or ended.
//!
//! The attempt number rises only after a definite refusal of an SMS; an attempt in doubt keeps its reference, so that a
//! gateway that deduplicates recognises it. A free channel keeps one reference from the first request to the last: no claim
//! remembers its attempts, so after a crash only the first reference is known again.

use std::time::Duration;

use compact_str::CompactString;

use crate::ledger::ClientReference;
use crate::ports::channel::SubmitOutcome;

/// What to do with a notice after an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NextStep {
    /// The gateway has it.
    Submitted {
        /// The gateway's own id.
        gateway_id: CompactString,
    },
    /// It ends as failed.
    Fail {
        /// The gateway's code or a fixed word.
        reason: CompactString,
    },
    /// Certainly not taken: try again later under a new attempt.
    RetryAnew {
        /// How long to wait, in real time.
        delay: Duration,
        /// What the whole lane should do meanwhile.
        lane: LanePause,
        /// The gateway's code or a fixed word.
        reason: CompactString,
    },
    /// Try again later under the same reference: it was never used, or nobody knows whether it was, so that a refusal of
    /// a repeated request says nothing about the first one; or the channel has only one.
    RetrySame {
        /// How long to wait, in real time.
        delay: Duration,
        /// What the whole lane should do meanwhile.
        lane: LanePause,
        /// A fixed word.
        reason: CompactString,
    },
    /// Nobody knows: try again later under the same reference.
    InDoubt {
        /// How long to wait, in real time.
        delay: Duration,
        /// A fixed word.
        reason: CompactString,
    },
}

/// What the lane does after an answer that concerns more than one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LanePause {
    /// Goes on.
    None,
    /// Sends nothing for so long: the gateway said it was too fast.
    Throttled(Duration),
    /// Sends nothing for so long, then tries a single message: the gateway takes nothing, or cannot be reached.
    Down(Duration),
}

/// First wait after a passing trouble; doubles with each try.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between two tries of one message.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Wait of a lane that was too fast, where the gateway names none.
const THROTTLED_WAIT: Duration = Duration::from_millis(500);
/// Longest wait that a gateway may ask for; more would outlast every notice.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(600);
/// First wait of a lane whose gateway takes nothing; doubles up to [`BACKOFF_MAX`].
const DOWN_FIRST: Duration = Duration::from_secs(2);

/// `first` doubled `tries` times, at most [`BACKOFF_MAX`].
fn backoff(first: Duration, tries: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(tries).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

/// The notice that was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The attempt, from 1.
    pub attempt: u32,
    /// Requests made for this notice before.
    pub tries: u32,
    /// Whether an earlier request of this attempt may have reached the gateway.
    pub in_doubt: bool,
    /// Whether a claim remembers the attempt, so that a next one may have a reference of its own.
    pub is_claimed: bool,
    /// Answers in a row that said the gateway was down.
    pub down_streak: u32,
}

/// What `outcome` means for the notice.
pub fn after_answer(outcome: SubmitOutcome, standing: Standing) -> NextStep {
    match definite(outcome, standing) {
        // Only this request was refused; what became of the attempt's first request is still unknown. And what has no
        // claim keeps its reference whatever happens.
        NextStep::RetryAnew { delay, lane, reason } if standing.in_doubt || !standing.is_claimed => {
            NextStep::RetrySame { delay, lane, reason }
        }
        step => step,
    }
}

fn definite(outcome: SubmitOutcome, standing: Standing) -> NextStep {
    let Standing { attempt, tries, in_doubt, is_claimed: _, down_streak } = standing;
    let exhausted = attempt >= ClientReference::ATTEMPT_MAX && !in_doubt;
    let fail_exhausted = || NextStep::Fail { reason: CompactString::const_new("attempts_exhausted") };
    match outcome {
        SubmitOutcome::Accepted { gateway_id, duplicate: _ } => NextStep::Submitted { gateway_id },
        SubmitOutcome::Refused { reason } => NextStep::Fail { reason },
        SubmitOutcome::Throttled { .. }
        | SubmitOutcome::RetryLater { .. }
        | SubmitOutcome::GatewayDown { .. }
            if exhausted =>
        {
            fail_exhausted()
        }
        SubmitOutcome::Throttled { retry_after } => {
            let wait = retry_after.unwrap_or(THROTTLED_WAIT).min(ASKED_WAIT_MAX);
            NextStep::RetryAnew {
                delay: wait,
                lane: LanePause::Throttled(wait),
                reason: CompactString::const_new("throttled"),
            }
        }
        SubmitOutcome::RetryLater { reason, retry_after } => {
            let delay = retry_after.unwrap_or_else(|| backoff(BACKOFF_FIRST, tries)).min(ASKED_WAIT_MAX);
            NextStep::RetryAnew { delay, lane: LanePause::None, reason }
        }
        SubmitOutcome::GatewayDown { reason } => {
            let wait = backoff(DOWN_FIRST, down_streak);
            NextStep::RetryAnew { delay: Duration::ZERO, lane: LanePause::Down(wait), reason }
        }
        SubmitOutcome::NotSent { reason } => {
            let wait = backoff(DOWN_FIRST, down_streak);
            NextStep::RetrySame { delay: Duration::ZERO, lane: LanePause::Down(wait), reason }
        }
        SubmitOutcome::Unknown { reason } => {
            NextStep::InDoubt { delay: backoff(BACKOFF_FIRST, tries), reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Standing =
        Standing { attempt: 1, tries: 0, in_doubt: false, is_claimed: true, down_streak: 0 };

    fn word(text: &str) -> CompactString {
        CompactString::new(text)
    }

    #[test]
    fn only_a_definite_refusal_asks_for_a_new_attempt() {
        for (outcome, rises) in [
            (SubmitOutcome::Throttled { retry_after: None }, true),
            (SubmitOutcome::RetryLater { reason: word("a"), retry_after: None }, true),
            (SubmitOutcome::GatewayDown { reason: word("k") }, true),
            (SubmitOutcome::NotSent { reason: word("connect") }, false),
            (SubmitOutcome::Unknown { reason: word("timeout") }, false),
        ] {
            let step = after_answer(outcome.clone(), FIRST);
            assert_eq!(matches!(step, NextStep::RetryAnew { .. }), rises, "{outcome:?}");
        }
    }

    /// A request timed out after the gateway had taken it; its repetition was throttled, and a new attempt under a new
    /// reference sent the message twice.
    #[test]
    fn a_refused_repetition_of_an_attempt_in_doubt_keeps_its_reference() {
        for outcome in [
            SubmitOutcome::Throttled { retry_after: None },
            SubmitOutcome::RetryLater { reason: word("a"), retry_after: None },
            SubmitOutcome::GatewayDown { reason: word("k") },
        ] {
            let step = after_answer(outcome.clone(), Standing { in_doubt: true, ..FIRST });
            assert!(matches!(step, NextStep::RetrySame { .. }), "{outcome:?} became {step:?}");
        }
    }

    /// The app's backend said to try again, got the message under another reference, and took it; after a crash it came
    /// under the first reference once more, and the parent was told twice.
    #[test]
    fn a_free_channel_keeps_its_reference_whatever_the_answer() {
        for outcome in [
            SubmitOutcome::Throttled { retry_after: None },
            SubmitOutcome::RetryLater { reason: word("503"), retry_after: None },
            SubmitOutcome::GatewayDown { reason: word("401") },
        ] {
            let step = after_answer(outcome.clone(), Standing { is_claimed: false, ..FIRST });
            assert!(matches!(step, NextStep::RetrySame { .. }), "{outcome:?} became {step:?}");
        }
    }

    #[test]
    fn waits_double_and_stay_below_a_minute() {
        let waits: Vec<u64> = (0..40)
            .map(|tries| {
                let outcome = SubmitOutcome::Unknown { reason: word("timeout") };
                match after_answer(outcome, Standing { tries, ..FIRST }) {
                    NextStep::InDoubt { delay, .. } => delay.as_secs(),
                    other => panic!("an unknown outcome became {other:?}"),
                }
            })
            .collect();
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 60]);
        assert!(waits[7..].iter().all(|seconds| *seconds == 60));
    }

    #[test]
    fn the_last_attempt_that_a_reference_can_name_ends_the_notice() {
        let outcome = SubmitOutcome::Throttled { retry_after: None };
        let last = Standing { attempt: ClientReference::ATTEMPT_MAX, tries: 9, ..FIRST };
        assert!(matches!(after_answer(outcome, last), NextStep::Fail { .. }));
    }
}
