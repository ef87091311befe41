//! The accounts of a morning, compared: what readers were thanked for, what the ledger says, what the gateway took and what
//! is billed. A crash may make the gateway see a message twice, under one reference; nothing else may show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gatebell_gateway_sim::{Faults, Receipts, SimConfig, SimLog};
use serde_json::Value;

use crate::morning::Reported;
use crate::process::Station;
use crate::town::phone;
use crate::{entries, gentle};

/// Ends of a notice.
const ENDS: [&str; 5] = ["delivered", "accepted", "failed", "expired", "suppressed"];

/// A gateway that refuses some messages, loses answers before and after it has taken a message, fails to deliver some, and
/// repeats, shuffles and loses receipts.
pub(crate) fn nasty() -> SimConfig {
    let gentle = gentle();
    SimConfig {
        faults: Faults {
            refused: 0.02,
            retry_later: 0.03,
            no_answer: 0.02,
            taken_no_answer: 0.05,
            taken_rubbish: 0.02,
            taken_cut_off: 0.02,
            hang_ms: 200,
            ..gentle.faults.clone()
        },
        receipts: Receipts {
            failed: 0.03,
            lost: 0.02,
            early: 0.2,
            repeated: 0.3,
            out_of_order: 0.2,
            ..gentle.receipts.clone()
        },
        ..gentle
    }
}

/// What is equal, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accounts {
    taps_acknowledged: usize,
    reports_repeated: usize,
    messages: usize,
    delivered: usize,
    failed: usize,
    refused: usize,
    pushes: usize,
    /// Messages that the gateway saw more than once, under one reference: their attempt was in doubt.
    in_doubt: usize,
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} taps acknowledged ({} reports repeated), {} SMS at the gateway: {} delivered, charged and billed, {} failed, \
             {} refused before; {} in doubt and submitted again under their reference; {} pushes",
            self.taps_acknowledged,
            self.reports_repeated,
            self.messages,
            self.delivered,
            self.failed,
            self.refused,
            self.in_doubt,
            self.pushes
        )
    }
}

/// Every notice of `pupils` has its end, and whatever was delivered is charged.
pub(crate) fn are_settled(ledger: &[Value], pupils: usize) -> bool {
    let ended: BTreeSet<_> = ledger.iter().filter(|line| is_end(line)).map(notice).collect();
    ended.len() >= 2 * pupils && entries(ledger, "charged").len() >= entries(ledger, "delivered").len()
}

/// Waits until everything is settled, then takes down ledger and bill of `station`.
pub(crate) async fn books_when_settled(station: &Station, pupils: usize) -> Books {
    let ledger = station.until_ledger("every end", |ledger| are_settled(ledger, pupils)).await;
    station.assert_recounted();
    let billed = station.bill().iter().map(|line| line["delivered"].as_u64().unwrap()).sum();
    Books { ledger, billed }
}

/// Ledger and bill, when all is over.
pub(crate) struct Books {
    ledger: Vec<Value>,
    billed: u64,
}

impl Books {
    /// Holds them against what readers `reported` and what the gateway has `taken`, of `pupils` who passed once each.
    pub(crate) fn compared(&self, pupils: usize, reported: &Reported, taken: &SimLog) -> Accounts {
        let acknowledged: BTreeSet<&str> =
            reported.acknowledged.iter().map(|tap| tap["card"].as_str().unwrap()).collect();
        assert_eq!(acknowledged.len(), pupils, "every pupil's taps were acknowledged");
        let (sms, push) = (self.ends_by_pupil("sms"), self.ends_by_pupil("app"));
        assert_eq!(
            (sms.len(), push.len()),
            (pupils, pupils),
            "every acknowledged passage was told, or tried to be"
        );
        assert!(push.values().all(|end| end["entry"] == "accepted"), "{push:#?}");

        let messages: BTreeMap<&str, bool> =
            taken.messages.iter().map(|message| (message.msgid.as_str(), message.is_delivered())).collect();
        let recorded: BTreeMap<&str, bool> = sms
            .values()
            .filter_map(|end| Some((end["gateway_id"].as_str()?, end["entry"] == "delivered")))
            .collect();
        assert_eq!(
            messages, recorded,
            "the gateway's messages are the ledger's, and so is what became of them"
        );
        let phones: BTreeSet<&str> = taken.messages.iter().map(|message| message.dstaddr.as_str()).collect();
        assert_eq!(phones.len(), taken.messages.len(), "no phone got two messages");
        for (pupil, end) in &sms {
            let number: usize = pupil.trim_start_matches('P').parse().unwrap();
            assert_eq!(
                end["gateway_id"].is_string(),
                phones.contains(phone(number).as_str()),
                "a message was taken exactly where the ledger says so: {end}"
            );
        }
        assert_eq!(
            taken.counts.overruns, 0,
            "nobody is faster than the gateway allows; a fresh limiter starts empty"
        );

        let delivered: BTreeSet<&str> = entries(&self.ledger, "delivered").into_iter().map(notice).collect();
        let charges = entries(&self.ledger, "charged");
        let charged: BTreeSet<&str> = charges.iter().map(|line| notice(line)).collect();
        assert_eq!(charges.len(), charged.len(), "at most one charge a notice");
        assert_eq!(charged, delivered, "what is charged is what was delivered");
        assert_eq!(self.billed, delivered.len() as u64, "the bill is the charges");
        Accounts {
            taps_acknowledged: reported.acknowledged.len(),
            reports_repeated: reported.repeated,
            messages: messages.len(),
            delivered: delivered.len(),
            failed: messages.len() - delivered.len(),
            refused: pupils - messages.len(),
            pushes: push.len(),
            in_doubt: taken.messages.iter().filter(|message| message.submits > 1).count(),
        }
    }

    /// How each pupil's notice by `channel` ended.
    fn ends_by_pupil(&self, channel: &str) -> BTreeMap<&str, &Value> {
        let mut ends = BTreeMap::new();
        for end in self.ledger.iter().filter(|line| line["channel"] == channel && is_end(line)) {
            let before = ends.insert(end["pupil"].as_str().unwrap(), end);
            assert!(before.is_none(), "two ends of one passage: {before:?} and {end}");
        }
        ends
    }
}

fn is_end(line: &Value) -> bool {
    ENDS.contains(&line["entry"].as_str().unwrap())
}

fn notice(line: &Value) -> &str {
    line["notice"].as_str().unwrap()
}
