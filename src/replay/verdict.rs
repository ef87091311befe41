//! What became of a record, as one line of JSON in the public format.

use std::io::Write;

use gatebell_engine::notice::Channel;
use gatebell_engine::shard::{Decision, Decisions, Shard};
use gatebell_engine::tap::Outcome;
use serde::Serialize;

#[derive(Serialize)]
struct Verdict<'a> {
    record: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pupil: Option<&'a str>,
    /// There on a passage, and on nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    notices: Option<Vec<VerdictNotice>>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct VerdictNotice {
    guardian: String,
    channel: Channel,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<String>,
}

/// Writes the line for `decision`, one of `decisions`, which `shard` made.
pub(super) fn write(
    shard: &Shard,
    decisions: &Decisions,
    decision: &Decision,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let pupil = shard.pupil(decision);
    let (reason, passage) = match decision.outcome {
        Outcome::Rejected(reason) => (Some(reason.name()), None),
        Outcome::Passage(passage) => (None, Some(passage.name())),
        _ => (None, None),
    };
    let verdict = Verdict {
        record: decision.offset,
        outcome: decision.outcome.name(),
        reason,
        passage,
        pupil: pupil.as_ref().map(|pupil| pupil.as_str()),
        notices: passage.map(|_| notices(shard, decisions, decision)),
    };
    serde_json::to_writer(&mut *out, &verdict)?;
    out.write_all(b"\n")
}

/// Sorted by guardian, then channel, by name.
fn notices(shard: &Shard, decisions: &Decisions, decision: &Decision) -> Vec<VerdictNotice> {
    let mut notices: Vec<VerdictNotice> = decisions
        .notices_of(decision)
        .iter()
        .map(|routed| {
            let notice = shard.notice(decision, routed);
            VerdictNotice {
                guardian: notice.guardian.as_str().to_owned(),
                channel: notice.channel,
                state: routed.start.name(),
                order: notice.order.map(|order| order.as_str().to_owned()),
            }
        })
        .collect();
    notices.sort_unstable();
    notices
}
