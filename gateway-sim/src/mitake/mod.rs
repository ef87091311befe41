//! Mitake's protocol: SmSend, SmBulkSend, SmQuery, SmCancel.
//!
//! Owns: reading the request, asking the book, and answering in the document's form, or not at all where fate says so.
//! An HTTP status other than 200 is never the gateway's own.

mod fields;
mod status;

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::Timestamp;

use self::fields::{Fields, Submission};
use self::status::Code;
pub(crate) use self::status::word;
use crate::MITAKE_PATH;
use crate::book::{Book, NewMessage};
use crate::config::Account;
use crate::fate::{Dice, ReceiptPlan, RequestFate, SubmitFate};
use crate::receipts::Callback;
use crate::server::Sim;
use crate::stamp;

/// Most message ids of SmQuery and SmCancel.
const IDS_MAX: usize = 100;
/// Validity where none is given, and the longest one, in seconds.
const VALID_FOR_S_MAX: u64 = 24 * 60 * 60;
/// One in so many message ids is written with a `#`.
const MARKED_ONE_IN: usize = 10;

/// The commands, under both of the provider's paths.
pub(crate) fn routes() -> Router<Arc<Sim>> {
    let mut router = Router::new();
    for base in [MITAKE_PATH, "/b2c/mtk"] {
        router = router
            .route(&format!("{base}/SmSend"), post(sm_send))
            .route(&format!("{base}/SmBulkSend"), post(sm_bulk_send))
            .route(&format!("{base}/SmQuery"), post(sm_query))
            .route(&format!("{base}/SmCancel"), post(sm_cancel));
    }
    router
}

async fn sm_send(State(sim): State<Arc<Sim>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let query = Fields::parse(query.unwrap_or_default().as_bytes());
    let form = Fields::parse(&body);
    let submission = Submission::of_form(&form, query.declares_utf8("CharsetURL"));
    submit(&sim, form.get("username"), form.get("password"), Ok(vec![submission])).await
}

async fn sm_bulk_send(State(sim): State<Arc<Sim>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let query = Fields::parse(query.unwrap_or_default().as_bytes());
    let submissions = fields::read_bulk(&body, query.declares_utf8("Encoding_PostIn"));
    submit(&sim, query.get("username"), query.get("password"), submissions).await
}

/// A request in progress; counted while it lives.
struct InProgress<'a>(&'a Sim);

impl<'a> InProgress<'a> {
    /// `None` when there are too many.
    fn enter(sim: &'a Sim) -> Option<Self> {
        let at_once = sim.enter();
        let guard = Self(sim);
        let mut book = sim.book();
        book.counts.requests += 1;
        book.counts.connections_peak = book.counts.connections_peak.max(at_once as u64);
        (at_once <= sim.config.limits.connections_max).then_some(guard)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

async fn submit(
    sim: &Sim,
    username: &str,
    password: &str,
    submissions: Result<Vec<Submission>, Code>,
) -> Response {
    let messages = submissions.as_ref().map_or(1, Vec::len);
    let Some(_in_progress) = InProgress::enter(sim) else {
        sim.book().counts.throttled += messages as u64;
        return lone(Code::TooManyConnections.as_str());
    };
    let account = match authenticate(sim, username, password) {
        Ok(account) => account,
        Err(code) => return lone(code),
    };
    let submissions = match submissions {
        Ok(submissions) if !submissions.is_empty() => submissions,
        Ok(_) => return lone(Code::WrongParameter.as_str()),
        Err(code) => return lone(code.as_str()),
    };
    let name = submissions.first().map_or(String::new(), name_of);
    let earlier = sim.book().attempt(&format!("request {name}"));
    let mut dice = Dice::new(sim.config.seed, "request", &name, earlier);
    let fate = RequestFate::draw(&mut dice, &sim.config.faults);
    let latency = dice.time(sim.config.latency);
    if fate == RequestFate::NoAnswer {
        sim.hang(sim.config.faults.hang_ms).await;
        return cut_off(Bytes::new());
    }
    let answer = take_all(sim, account, &submissions, &mut dice);
    sim.pause(latency).await;
    match fate {
        RequestFate::Answered | RequestFate::NoAnswer => text(answer),
        RequestFate::TakenNoAnswer => {
            sim.hang(sim.config.faults.hang_ms).await;
            cut_off(Bytes::new())
        }
        RequestFate::TakenRubbish => text("<html><body><h1>Bad Gateway</h1></body></html>".to_owned()),
        RequestFate::TakenCutOff => {
            let half = answer.len() / 2;
            cut_off(Bytes::copy_from_slice(answer.as_bytes().get(..half).unwrap_or_default()))
        }
    }
}

/// What fate calls a message: its reference, else what it says to whom.
fn name_of(submission: &Submission) -> String {
    if submission.clientid.is_empty() {
        return format!("{} {}", submission.dstaddr, submission.smbody);
    }
    submission.clientid.clone()
}

fn authenticate<'a>(sim: &'a Sim, username: &str, password: &str) -> Result<&'a Account, &'a str> {
    let refused = |code: Code| {
        sim.book().counts.unauthorised += 1;
        Err(code.as_str())
    };
    if username.is_empty() {
        return refused(Code::NoUsername);
    }
    if password.is_empty() {
        return refused(Code::NoPassword);
    }
    let is_it = |account: &&Account| account.username == username && account.password == password;
    match sim.config.accounts.iter().find(is_it) {
        Some(account) if !account.status.is_empty() => Err(&account.status),
        Some(account) => Ok(account),
        None => refused(Code::WrongCredentials),
    }
}

/// Decides about each message and writes the answer.
fn take_all(sim: &Sim, account: &Account, submissions: &[Submission], dice: &mut Dice) -> String {
    let mut book = sim.book();
    book.counts.submitted += submissions.len() as u64;
    let takes_overruns = !sim.config.limits.enforce;
    let overrun = book.rate.count(submissions.len(), Instant::now(), takes_overruns);
    book.counts.overruns += overrun as u64;
    if overrun > 0 && !takes_overruns {
        book.counts.throttled += submissions.len() as u64;
        return format!("statuscode={}\r\n", Code::TooManyConnections.as_str());
    }
    let mut blocks: Vec<String> =
        submissions.iter().map(|submission| take(sim, &mut book, account, submission)).collect();
    // The document promises no order.
    for position in (1..blocks.len()).rev() {
        blocks.swap(position, dice.below(position + 1));
    }
    let mut answer = blocks.concat();
    let _ = write!(answer, "AccountPoint={}\r\n", book.points(&account.username));
    answer
}

/// Takes one message or not: its block of the answer.
fn take(sim: &Sim, book: &mut Book, account: &Account, submission: &Submission) -> String {
    let name = if submission.clientid.is_empty() { "1" } else { &submission.clientid };
    let refusal = |code: Code| format!("[{name}]\r\nstatuscode={}\r\n", code.as_str());
    let (now, instant) = (Timestamp::now(), Instant::now());
    if let Some((index, message)) = book.repeated(&account.username, &submission.clientid, now) {
        let msgid = marked(&message.msgid);
        let code = if book.is_scheduled(index, instant) { Code::Scheduled } else { Code::AtCarrier };
        return format!("[{name}]\r\nmsgid={msgid}\r\nstatuscode={}\r\nDuplicate=Y\r\n", code.as_str());
    }
    if let Err(code) = submission.check() {
        return refusal(code);
    }
    let valid_for = match valid_for(&submission.vldtime, now) {
        Ok(valid_for) => valid_for,
        Err(code) => return refusal(code),
    };
    let not_before = match delay(&submission.dlvtime, now) {
        Ok(delay) => delay.map(|delay| instant + delay),
        Err(code) => return refusal(code),
    };
    if book.points(&account.username) <= 0 {
        return refusal(Code::NoPoints);
    }
    if book.is_full() {
        return refusal(Code::OutOfService);
    }
    let fate_name = name_of(submission);
    let earlier = book.attempt(&fate_name);
    match SubmitFate::draw(&mut Dice::new(sim.config.seed, "submit", &fate_name, earlier), &sim.config.faults)
    {
        SubmitFate::Taken => {}
        SubmitFate::Refused => return refusal(Code::WrongNumber),
        SubmitFate::RetryLater => return refusal(Code::Suspended),
        SubmitFate::Stopped => return refusal(Code::NoPoints),
        SubmitFate::Throttled => {
            book.counts.throttled += 1;
            return refusal(Code::TooManyConnections);
        }
    }
    let new = NewMessage {
        account: &account.username,
        clientid: &submission.clientid,
        dstaddr: &submission.dstaddr,
        smbody: &submission.smbody,
        vldtime: &submission.vldtime,
        valid_for,
        not_before,
        long_sms: account.long_sms,
    };
    let index = book.take(&new, now);
    let mut dice = Dice::new(sim.config.seed, "receipts", &fate_name, 0);
    let plan = ReceiptPlan::draw(&mut dice, &sim.config.receipts, valid_for);
    let code = if not_before.is_some() { Code::Scheduled } else { Code::AtCarrier };
    let own = &account.callback_address;
    let address = if own.is_empty() { &submission.response } else { own };
    sim.plan(Callback::all_of(index, address, not_before.unwrap_or(instant), &plan));
    let msgid = book.message(index).map_or(String::new(), |message| marked(&message.msgid));
    format!("[{name}]\r\nmsgid={msgid}\r\nstatuscode={}\r\n", code.as_str())
}

/// The document shows ids with a `#` in answers and without it in callbacks and queries.
fn marked(msgid: &str) -> String {
    let number: usize = msgid.parse().unwrap_or(0);
    if number.is_multiple_of(MARKED_ONE_IN) { format!("#{msgid}") } else { msgid.to_owned() }
}

fn valid_for(vldtime: &str, now: Timestamp) -> Result<Duration, Code> {
    if vldtime.is_empty() || vldtime == "0" {
        return Ok(Duration::from_secs(VALID_FOR_S_MAX));
    }
    match stamp::seconds_from(now, vldtime).map(u64::try_from) {
        Some(Ok(seconds)) if seconds > 0 => Ok(Duration::from_secs(seconds.min(VALID_FOR_S_MAX))),
        Some(_) => Err(Code::Overdue),
        None => Err(Code::WrongParameter),
    }
}

fn delay(dlvtime: &str, now: Timestamp) -> Result<Option<Duration>, Code> {
    if dlvtime.is_empty() {
        return Ok(None);
    }
    let seconds = stamp::seconds_from(now, dlvtime).ok_or(Code::WrongParameter)?;
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs))
}

async fn sm_query(State(sim): State<Arc<Sim>>, body: Bytes) -> Response {
    let form = Fields::parse(&body);
    let Some(_in_progress) = InProgress::enter(&sim) else {
        return lone(Code::TooManyConnections.as_str());
    };
    let account = match authenticate(&sim, form.get("username"), form.get("password")) {
        Ok(account) => account,
        Err(code) => return lone(code),
    };
    let ids: Vec<&str> = form.get("msgid").split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    let mut dice = Dice::new(sim.config.seed, "query", form.get("msgid"), 0);
    sim.pause(dice.time(sim.config.latency)).await;
    let book = sim.book();
    if ids.is_empty() {
        return text(format!("AccountPoint={}\r\n", book.points(&account.username)));
    }
    if ids.len() > IDS_MAX {
        return lone(Code::TooManyIds.as_str());
    }
    let now = Instant::now();
    let mut lines = Vec::with_capacity(ids.len());
    for id in ids {
        let Some((index, message)) = book.find(&account.username, id) else { continue };
        let status = match message.ended {
            Some(ended) => ended,
            None if book.is_scheduled(index, now) => 0,
            None => 1,
        };
        lines.push(format!("{}\t{status}\t{}\r\n", message.msgid, stamp::write(Timestamp::now())));
    }
    if lines.is_empty() {
        return lone(Code::NothingFound.as_str());
    }
    for position in (1..lines.len()).rev() {
        lines.swap(position, dice.below(position + 1));
    }
    text(lines.concat())
}

async fn sm_cancel(State(sim): State<Arc<Sim>>, body: Bytes) -> Response {
    let form = Fields::parse(&body);
    let Some(_in_progress) = InProgress::enter(&sim) else {
        return lone(Code::TooManyConnections.as_str());
    };
    let account = match authenticate(&sim, form.get("username"), form.get("password")) {
        Ok(account) => account,
        Err(code) => return lone(code),
    };
    let ids: Vec<&str> = form.get("msgid").split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    if ids.is_empty() || ids.len() > IDS_MAX {
        return lone(Code::TooManyIds.as_str());
    }
    let mut book = sim.book();
    let mut answer = String::new();
    for id in ids {
        let found = book.find(&account.username, id).map(|(index, message)| (index, message.ended));
        let status = match found {
            None => Code::NothingFound.as_str().to_owned(),
            Some((_, Some(ended))) => ended.to_string(),
            Some((index, None)) if book.is_scheduled(index, Instant::now()) => {
                book.cancel(index);
                "9".to_owned()
            }
            Some((_, None)) => Code::AtCarrier.as_str().to_owned(),
        };
        let _ = write!(answer, "{id}={status}\r\n");
    }
    text(answer)
}

/// A status of the whole request.
fn lone(code: &str) -> Response {
    text(format!("statuscode={code}\r\n"))
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// An answer that breaks off after `beginning`.
pub(crate) fn cut_off(beginning: Bytes) -> Response {
    let broken: [Result<Bytes, std::io::Error>; 2] =
        [Ok(beginning), Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))];
    let body = Body::from_stream(futures::stream::iter(broken));
    let response: Result<Response, Infallible> = Ok((StatusCode::OK, body).into_response());
    response.into_response()
}
