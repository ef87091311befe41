//! Telling what became of messages, by callback.
//!
//! Owns: when each callback is due, repeating it until it is answered as the document says, and how many are under way at
//! once. Waiting callbacks are bounded by the messages that the simulator keeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::fate::{CANCELLED, ReceiptPlan};
use crate::log::SentReceipt;
use crate::mitake::word;
use crate::server::Sim;
use crate::stamp;

/// Longest wait for the answer to a callback.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that will happen to a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Callback {
    due: Instant,
    /// The message, by its place in the book.
    index: usize,
    step: Step,
    tries: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// It ends.
    End(u8),
    /// It is told to the sender's address.
    Tell { status_flag: u8, address: String },
}

impl Callback {
    /// All that `plan` says of the message at `index`, sent at `sent`; `address` may be empty.
    pub(crate) fn all_of(index: usize, address: &str, sent: Instant, plan: &ReceiptPlan) -> Vec<Self> {
        let at = |after: Duration, step: Step| Self { due: sent + after, index, step, tries: 0 };
        let mut steps = vec![at(plan.ends_after, Step::End(plan.end))];
        if !address.is_empty() {
            steps.extend(plan.told.iter().map(|(after, status_flag)| {
                at(*after, Step::Tell { status_flag: *status_flag, address: address.to_owned() })
            }));
        }
        steps
    }
}

/// Runs until `stop`; `open` is how many steps are still to come.
pub(crate) async fn run(
    sim: Arc<Sim>,
    mut planned: mpsc::UnboundedReceiver<Vec<Callback>>,
    open: watch::Sender<usize>,
    stop: CancellationToken,
) {
    let client = match reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(CALLBACK_TIMEOUT)
        .build()
    {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "no callbacks: the HTTP client cannot be set up");
            return;
        }
    };
    let mut waiting: BinaryHeap<Reverse<Callback>> = BinaryHeap::new();
    let mut telling: JoinSet<Option<Callback>> = JoinSet::new();
    loop {
        let has_room = telling.len() < sim.config.receipts.connections_max;
        let next_due = waiting.peek().filter(|_| has_room).map(|Reverse(callback)| callback.due);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(callbacks) = planned.recv() => waiting.extend(callbacks.into_iter().map(Reverse)),
            Some(told) = telling.join_next() => {
                if let Ok(Some(again)) = told {
                    waiting.push(Reverse(again));
                } else {
                    open.send_modify(|open| *open -= 1);
                }
            }
            () = sleep_until(next_due), if next_due.is_some() => {
                let Some(Reverse(callback)) = waiting.pop() else { continue };
                if let Step::End(status_flag) = callback.step {
                    sim.book().end(callback.index, status_flag);
                    open.send_modify(|open| *open -= 1);
                } else {
                    telling.spawn(tell(Arc::clone(&sim), client.clone(), callback));
                }
            }
        }
    }
    telling.shutdown().await;
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Calls back once; gives the callback again when it is to be repeated.
async fn tell(sim: Arc<Sim>, client: reqwest::Client, mut callback: Callback) -> Option<Callback> {
    let Step::Tell { status_flag, address } = &callback.step else { return None };
    let message = sim.book().message(callback.index)?.clone();
    // What is cancelled is told as that, whatever was planned.
    let status_flag = if message.ended == Some(CANCELLED) { CANCELLED } else { *status_flag };
    callback.tries += 1;
    let http_status =
        match callback_url(address, &message.msgid, &message.dstaddr, message.accepted_at, status_flag) {
            Some(url) => call(&client, url, &message.msgid).await,
            None => None,
        };
    let acknowledged = matches!(http_status, Some((200, true)));
    let mut book = sim.book();
    book.counts.callbacks += 1;
    if !acknowledged {
        book.counts.callbacks_unanswered += 1;
        if callback.tries < sim.config.receipts.tries_max {
            callback.due = Instant::now()
                + Duration::from_millis(u64::from(sim.config.receipts.retry_ms)) * callback.tries;
            return Some(callback);
        }
    }
    let http_status = http_status.map(|(status, _)| status);
    let receipt =
        SentReceipt { status_flag, at: Timestamp::now(), tries: callback.tries, http_status, acknowledged };
    book.told(callback.index, receipt);
    None
}

/// The address with the report as its query.
fn callback_url(address: &str, msgid: &str, dstaddr: &str, sent: Timestamp, status_flag: u8) -> Option<Url> {
    let mut url = Url::parse(address).ok()?;
    // 0 or 1, as the document has it: it says nothing of the message.
    let statuscode = if status_flag.is_multiple_of(2) { "0" } else { "1" };
    url.query_pairs_mut()
        .append_pair("msgid", msgid)
        .append_pair("dstaddr", dstaddr)
        .append_pair("dlvtime", &stamp::write(sent))
        .append_pair("donetime", &stamp::write(Timestamp::now()))
        .append_pair("statusstr", word(status_flag))
        .append_pair("statuscode", statuscode)
        .append_pair("StatusFlag", &status_flag.to_string());
    Some(url)
}

/// The HTTP status, and whether the answer is the one of the document.
async fn call(client: &reqwest::Client, url: Url, msgid: &str) -> Option<(u16, bool)> {
    let response = client.get(url).send().await.ok()?;
    let status = response.status().as_u16();
    let body = response.text().await.ok()?;
    Some((status, body == format!("magicid=sms_gateway_rpack\nmsgid={msgid}\n")))
}
