//! Reading what Mitake answers.
//!
//! Owns: the form of the answers to SmSend, SmBulkSend and SmQuery. Promises: no bytes make it panic, and whatever is
//! not certainly a refusal or an acceptance of *our* message is [`SubmitOutcome::Unknown`], since the gateway may have
//! taken it. Leaves to others: what a code means (`status`).
//!
//! A submit is answered by lines, a block for each message: `[clientid]`, `msgid=`, `statuscode=`, at times
//! `Duplicate=Y` and `smsPoint=`, and once `AccountPoint=`. An error of the whole request has a `statuscode=` without a
//! block. A message id may begin with `#` there and does not in callbacks and queries, so the `#` is no part of it.

use std::collections::BTreeMap;

use compact_str::CompactString;
use gatebell_engine::ports::channel::SubmitOutcome;
use gatebell_engine::ports::receipts::ReceiptStatus;

use super::status::{self, OnSubmit, Progress};

/// Longest message id that is taken for one, in characters.
const GATEWAY_ID_LEN_MAX: usize = 64;
/// The block's name where the gateway counts instead of naming ours: the document's own example of SmSend.
const SOLE_BLOCK: &str = "1";

/// The answer to a query about messages that the gateway does not know.
const NOTHING_FOUND: &str = "z";

/// The answer to a submit, taken apart.
#[derive(Debug, Default)]
struct Reply<'a> {
    /// Lines before the first block: of the whole request.
    whole: Block<'a>,
    blocks: BTreeMap<&'a str, Block<'a>>,
    points: Option<i64>,
}

/// What is said of one message.
#[derive(Debug, Default)]
struct Block<'a> {
    gateway_id: Option<&'a str>,
    code: Option<&'a str>,
    is_duplicate: bool,
    /// A field came twice with different values, or a block came twice: nothing is certain.
    is_contradictory: bool,
}

/// What a submit's answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubmitReply {
    /// One a message, in the order asked.
    pub(super) outcomes: Vec<SubmitOutcome>,
    /// What is left on the account, where the answer says it.
    pub(super) points: Option<i64>,
}

/// Reads the answer to a submit of the messages that are called `references`.
pub(super) fn read_submit(body: &[u8], references: &[&str]) -> SubmitReply {
    let text = String::from_utf8_lossy(body);
    let Some(reply) = Reply::parse(&text) else {
        return SubmitReply { outcomes: vec![unknown("unreadable_answer"); references.len()], points: None };
    };
    let outcomes = references.iter().map(|reference| reply.outcome(reference, references.len())).collect();
    SubmitReply { outcomes, points: reply.points }
}

fn unknown(reason: &str) -> SubmitOutcome {
    SubmitOutcome::Unknown { reason: reason.into() }
}

impl<'a> Reply<'a> {
    /// `None` when a line is of no known form: a page of a proxy, half an answer.
    fn parse(text: &'a str) -> Option<Self> {
        let mut reply = Self::default();
        let mut current = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']')?;
                let is_second = reply.blocks.contains_key(name);
                reply.blocks.entry(name).or_default().is_contradictory |= is_second;
                current = Some(name);
                continue;
            }
            let (key, value) = line.split_once('=')?;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return None;
            }
            let block = match current {
                Some(name) => reply.blocks.entry(name).or_default(),
                None => &mut reply.whole,
            };
            match key {
                "msgid" => block.set(|block| &mut block.gateway_id, value),
                "statuscode" => block.set(|block| &mut block.code, value),
                "Duplicate" => block.is_duplicate = value == "Y",
                "AccountPoint" => reply.points = value.parse().ok(),
                _ => {}
            }
        }
        Some(reply)
    }

    fn outcome(&self, reference: &str, messages: usize) -> SubmitOutcome {
        if let Some(block) = self.blocks.get(reference) {
            return block.outcome();
        }
        let is_sole = messages == 1 && self.blocks.len() == 1;
        if let (true, Some(block)) = (is_sole, self.blocks.get(SOLE_BLOCK)) {
            return block.outcome();
        }
        if !self.blocks.is_empty() {
            return unknown("no_result");
        }
        match self.whole.outcome() {
            // Nobody knows which of the messages it means: in other company the innocent ones get through.
            SubmitOutcome::Refused { reason } if messages > 1 => {
                SubmitOutcome::RetryLater { reason, retry_after: None }
            }
            // One id cannot be that of many messages.
            SubmitOutcome::Accepted { .. } if messages > 1 => unknown("no_result"),
            outcome => outcome,
        }
    }
}

impl<'a> Block<'a> {
    fn set(&mut self, field: impl Fn(&mut Self) -> &mut Option<&'a str>, value: &'a str) {
        let value = value.trim();
        let earlier = field(self).replace(value);
        self.is_contradictory |= earlier.is_some_and(|earlier| earlier != value);
    }

    fn outcome(&self) -> SubmitOutcome {
        if self.is_contradictory {
            return unknown("contradictory_answer");
        }
        let Some(code) = self.code else {
            return unknown("no_status");
        };
        let Some(status) = status::of(code) else {
            return unknown("unlisted_status");
        };
        let reason = CompactString::const_new(status.code);
        match status.on_submit {
            OnSubmit::Taken => match self.gateway_id.and_then(gateway_id) {
                Some(gateway_id) => SubmitOutcome::Accepted { gateway_id, duplicate: self.is_duplicate },
                None => unknown("no_gateway_id"),
            },
            OnSubmit::RetryLater => SubmitOutcome::RetryLater { reason, retry_after: None },
            OnSubmit::Throttled => SubmitOutcome::Throttled { retry_after: None },
            OnSubmit::StopGateway => SubmitOutcome::GatewayDown { reason },
            OnSubmit::Permanent => SubmitOutcome::Refused { reason },
        }
    }
}

/// The gateway's id of a message, without the `#`; `None` when it cannot be one.
pub(super) fn gateway_id(text: &str) -> Option<CompactString> {
    let id = text.trim();
    let id = id.strip_prefix('#').unwrap_or(id);
    let is_id = !id.is_empty()
        && id.len() <= GATEWAY_ID_LEN_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_id.then(|| CompactString::new(id))
}

/// What a code says of a message that the gateway has.
pub(super) fn receipt_status(code: &str) -> Option<ReceiptStatus> {
    let status = status::of(code)?;
    Some(match status.progress? {
        Progress::Underway => ReceiptStatus::Underway,
        Progress::Delivered => ReceiptStatus::Delivered,
        Progress::Failed => ReceiptStatus::Failed { reason: CompactString::const_new(status.code) },
    })
}

/// Why a query was not answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryRefusal {
    /// The gateway said why.
    #[error("the gateway refused the query with status {0}")]
    Status(&'static str),
    /// Something else answered.
    #[error("the gateway's answer to the query is unreadable")]
    Unreadable,
}

/// Reads SmQuery's answer: `msgid`, code and time a line, separated by tabs, in any order. Messages that it does not
/// know are left out.
pub(super) fn read_query(body: &[u8]) -> Result<Vec<(CompactString, ReceiptStatus)>, QueryRefusal> {
    let text = String::from_utf8_lossy(body);
    let mut said = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some((id, rest)) = line.split_once('\t') else {
            match query_refusal(line) {
                QueryRefusal::Status(NOTHING_FOUND) => continue,
                refusal => return Err(refusal),
            }
        };
        let Some(id) = gateway_id(id) else {
            return Err(QueryRefusal::Unreadable);
        };
        let code = rest.split('\t').next().unwrap_or_default().trim();
        if let Some(status) = receipt_status(code) {
            said.push((id, status));
        }
    }
    Ok(said)
}

/// Reads SmQuery's answer to a query without message ids: the points left.
pub(super) fn read_balance(body: &[u8]) -> Result<i64, QueryRefusal> {
    let text = String::from_utf8_lossy(body);
    let line = text.trim();
    match line.strip_prefix("AccountPoint=").map(|points| points.trim().parse()) {
        Some(Ok(points)) => Ok(points),
        _ => Err(query_refusal(line)),
    }
}

/// A lone code, with or without `statuscode=`.
fn query_refusal(line: &str) -> QueryRefusal {
    let code = line.strip_prefix("statuscode=").unwrap_or(line).trim();
    match status::of(code) {
        Some(status) if status.progress.is_none() => QueryRefusal::Status(status.code),
        _ => QueryRefusal::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn accepted(id: &str, duplicate: bool) -> SubmitOutcome {
        SubmitOutcome::Accepted { gateway_id: id.into(), duplicate }
    }

    fn single(body: &str) -> SubmitOutcome {
        read_submit(body.as_bytes(), &["ref-1"]).outcomes.pop().unwrap()
    }

    #[test]
    fn the_answer_to_one_message_is_read_whichever_way_its_block_is_named() {
        let cases = [
            (
                "[ref-1]\r\nmsgid=#000000013\r\nstatuscode=1\r\nAccountPoint=126\r\n",
                accepted("000000013", false),
            ),
            (
                "[1]\nmsgid=0000000013\nstatuscode=0\nAccountPoint=126\nsmsPoint=1\n",
                accepted("0000000013", false),
            ),
            ("msgid=13\nstatuscode=4", accepted("13", false)),
            ("[ref-1]\nmsgid=13\nstatuscode=1\nDuplicate=Y\n", accepted("13", true)),
            ("[ref-1]\nstatuscode=v\nError=x\n", SubmitOutcome::Refused { reason: "v".into() }),
            ("statuscode=e\n", SubmitOutcome::GatewayDown { reason: "e".into() }),
            ("[1]\nstatuscode=*\n", SubmitOutcome::GatewayDown { reason: "*".into() }),
            ("[ref-1]\nstatuscode=b\n", SubmitOutcome::RetryLater { reason: "b".into(), retry_after: None }),
            ("[ref-1]\nstatuscode=l\n", SubmitOutcome::Throttled { retry_after: None }),
        ];
        for (body, outcome) in cases {
            assert_eq!(single(body), outcome, "{body}");
        }
    }

    #[test]
    fn whatever_leaves_a_doubt_is_unknown() {
        for (body, reason) in [
            ("", "no_status"),
            ("<html><body>502</body></html>", "unreadable_answer"),
            ("[ref-1]\nmsgid=13\nstatusc", "unreadable_answer"),
            ("[ref-1\nstatuscode=v", "unreadable_answer"),
            ("[ref-1]\nmsgid=13\n", "no_status"),
            ("[ref-1]\nstatuscode=1\n", "no_gateway_id"),
            ("[ref-1]\nmsgid=1 3;\nstatuscode=1\n", "no_gateway_id"),
            ("[ref-1]\nmsgid=13\nstatuscode=G\n", "unlisted_status"),
            ("[ref-2]\nmsgid=13\nstatuscode=v\n", "no_result"),
            ("[ref-1]\nmsgid=13\nmsgid=14\nstatuscode=1\n", "contradictory_answer"),
            ("[ref-1]\nmsgid=13\nstatuscode=1\n[ref-1]\nstatuscode=v\n", "contradictory_answer"),
        ] {
            assert_eq!(single(body), unknown(reason), "{body}");
        }
    }

    #[test]
    fn results_of_a_batch_are_matched_by_reference_in_whatever_order() {
        let body = "[c]\r\nmsgid=#3\r\nstatuscode=1\r\n[a]\r\nstatuscode=v\r\n[b]\r\nmsgid=2\r\nstatuscode=1\r\n\
                    Duplicate=Y\r\nAccountPoint=98\r\n";
        let reply = read_submit(body.as_bytes(), &["a", "b", "c", "d"]);
        let expected = vec![
            SubmitOutcome::Refused { reason: "v".into() },
            accepted("2", true),
            accepted("3", false),
            unknown("no_result"),
        ];
        assert_eq!(reply, SubmitReply { outcomes: expected, points: Some(98) });
    }

    #[test]
    fn a_refusal_of_a_whole_batch_condemns_no_single_message() {
        let later = SubmitOutcome::RetryLater { reason: "y".into(), retry_after: None };
        assert_eq!(read_submit(b"statuscode=y", &["a", "b"]).outcomes, vec![later.clone(), later]);
        let down = SubmitOutcome::GatewayDown { reason: "k".into() };
        assert_eq!(read_submit(b"statuscode=k", &["a", "b"]).outcomes, vec![down.clone(), down]);
    }

    #[test]
    fn a_query_is_answered_in_any_order_and_says_what_it_knows() {
        let body = "0002\t8\t20250908073200\r\n#0001\t4\t20250908073105\t1\r\n0003\t1\t\r\n0004\tz\t\r\n";
        let said = read_query(body.as_bytes()).unwrap();
        let expected = vec![
            ("0002".into(), ReceiptStatus::Failed { reason: "8".into() }),
            ("0001".into(), ReceiptStatus::Delivered),
            ("0003".into(), ReceiptStatus::Underway),
        ];
        assert_eq!(said, expected);
        assert_eq!(read_query(b""), Ok(vec![]));
        assert_eq!(read_query(b"statuscode=z\r\n"), Ok(vec![]));
        assert_eq!(read_query(b"statuscode=e\r\n"), Err(QueryRefusal::Status("e")));
        assert_eq!(read_query(b"w"), Err(QueryRefusal::Status("w")));
        assert_eq!(read_query(b"<html>"), Err(QueryRefusal::Unreadable));
        assert_eq!(read_balance(b"AccountPoint=100\r\n"), Ok(100));
        assert_eq!(read_balance(b"AccountPoint=\r\n"), Err(QueryRefusal::Unreadable));
        assert_eq!(read_balance(b"statuscode=k"), Err(QueryRefusal::Status("k")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_every_message_gets_one_outcome(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(read_submit(&body, &["a", "b"]).outcomes.len(), 2);
            let _ = read_query(&body);
            let _ = read_balance(&body);
        }

        /// Lines as the gateway writes them, shuffled and cut anywhere: an acceptance always has the id of that block.
        #[test]
        fn a_cut_answer_never_accepts_with_another_messages_id(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("[a]"), Just("[b]"), Just("msgid=11"), Just("msgid=22"), Just("statuscode=1"),
                    Just("statuscode=v"), Just("Duplicate=Y"), Just("AccountPoint=5"), Just("junk"),
                ],
                0..12,
            ),
            cut in 0usize..200,
        ) {
            let body = lines.join("\r\n");
            let body = body.get(..cut.min(body.len())).unwrap_or(&body);
            let outcomes = read_submit(body.as_bytes(), &["a", "b"]).outcomes;
            for (name, outcome) in ["[a]", "[b]"].iter().zip(outcomes) {
                if let SubmitOutcome::Accepted { gateway_id, .. } = outcome {
                    let block = body.split(name).nth(1).unwrap();
                    let block = block.split('[').next().unwrap();
                    prop_assert!(gateway_id.chars().all(|c| c == '1') || gateway_id.chars().all(|c| c == '2'));
                    let line = format!("msgid={gateway_id}");
                    prop_assert!(block.contains(&line));
                }
            }
        }
    }
}
