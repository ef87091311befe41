//! 三竹 (Mitake): the connector to its HTTP gateway, version 2.14 of the provider's document.
//!
//! Owns: the exchanges with one account. One message leaves by SmSend, more by SmBulkSend; receipts come by callback
//! ([`callback`]) and, where one fails to come, by SmQuery. Promises, beyond those of the port: at most
//! [`CONNECTIONS_MAX`] connections, TLS 1.2 or later, UTF-8 declared (the gateway's default is Big5 and it would garble
//! every name), credentials in no error and no log. Leaves to others: rate, retries, and whether a message may be sent.
//!
//! The gateway recognises a repeated `clientid` for twelve hours, so an attempt in doubt is sent again under the same
//! reference and answered with the id of the first time.

pub mod callback;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod reply;
mod request;
mod status;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use compact_str::CompactString;
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::channel::{ChannelConnector, LaneProfile, Message, SubmitOutcome};
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::receipts::Receipt;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};

use self::request::Line;
use super::callback_address::CallbackAddresses;
use crate::outbound::{Answer, EndpointError, Exchange, Limits, Outbound};

/// The protocol's name in callback addresses and in configuration.
pub const PROTOCOL: &str = "mitake";
/// Most connections at once that the gateway allows.
pub const CONNECTIONS_MAX: usize = 15;
/// Most messages in one SmBulkSend.
pub const BATCH_MAX: usize = 500;
/// Most message ids in one SmQuery.
const QUERY_IDS_MAX: usize = 100;
/// For how long the gateway recognises a repeated reference.
const DEDUPLICATES_FOR: Duration = Duration::from_secs(12 * 60 * 60);
/// Longest account name and password, in characters.
const USERNAME_LEN_MAX: usize = 20;
const PASSWORD_LEN_MAX: usize = 24;
/// Time to connect; short, since a message that could not leave may try again at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What one account needs.
#[derive(Debug)]
pub struct MitakeSettings {
    /// Rate, window and limits; [`profile`] gives the gateway's own.
    pub profile: LaneProfile,
    /// What comes before `/SmSend`: `https://{host}/api/mtk`, or `/b2c/mtk` on the b2c site.
    pub endpoint: String,
    /// The account, at most 20 characters.
    pub username: SecretString,
    /// Its password, at most 24 characters.
    pub password: SecretString,
    /// Where the gateway reports what became of messages; `None`: it does not, and is asked.
    pub callbacks: Option<CallbackAddresses>,
    /// Whether the city is a made-up one (demo, load): only a gateway on loopback takes its messages.
    pub made_up_city: bool,
}

/// Why an account cannot be used. Names no value that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MitakeError {
    /// The address is wrong, or not allowed for this city.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No account, or one that the gateway cannot have.
    #[error("the account name must have 1 to {USERNAME_LEN_MAX} characters")]
    Username,
    /// No password, or one that the gateway cannot have.
    #[error("the password must have 1 to {PASSWORD_LEN_MAX} characters")]
    Password,
    /// More submits at once than the gateway allows connections.
    #[error("a window of {0} is outside 1 to {CONNECTIONS_MAX}, the connections that the gateway allows")]
    Window(usize),
    /// A batch that the gateway would not take.
    #[error("a batch of {0} is outside 1 to {BATCH_MAX}, the messages that the gateway takes at once")]
    Batch(usize),
}

/// The gateway's own limits for a lane called `name` that may send `rate_per_s` messages a second; the rate is what the
/// contract with the provider says, and so is a burst above 1.
pub fn profile(name: LaneName, rate_per_s: u32) -> LaneProfile {
    LaneProfile {
        name,
        channel: Channel::Sms,
        rate_per_s,
        burst: 1,
        window: CONNECTIONS_MAX,
        shared_by: NonZeroU32::MIN,
        batch_max: 50,
        queue_max: 500_000,
        submit_timeout: Duration::from_secs(20),
        gives_receipts: true,
        deduplicates_for: Some(DEDUPLICATES_FOR),
        poll_after: Some(Duration::from_secs(15 * 60)),
    }
}

/// The connector to one account.
#[derive(Debug)]
pub struct MitakeConnector {
    profile: LaneProfile,
    outbound: Outbound,
    username: SecretString,
    password: SecretString,
    callbacks: Option<CallbackAddresses>,
    clock: Arc<dyn Clock>,
}

impl MitakeConnector {
    /// Checks `settings`; nothing is sent. `clock` stamps the receipts that polling brings.
    pub fn new(settings: MitakeSettings, clock: Arc<dyn Clock>) -> Result<Self, MitakeError> {
        let MitakeSettings { profile, endpoint, username, password, callbacks, made_up_city } = settings;
        if !(1..=CONNECTIONS_MAX).contains(&profile.window) {
            return Err(MitakeError::Window(profile.window));
        }
        if !(1..=BATCH_MAX).contains(&profile.batch_max) {
            return Err(MitakeError::Batch(profile.batch_max));
        }
        if !(1..=USERNAME_LEN_MAX).contains(&username.expose_secret().chars().count()) {
            return Err(MitakeError::Username);
        }
        if !(1..=PASSWORD_LEN_MAX).contains(&password.expose_secret().chars().count()) {
            return Err(MitakeError::Password);
        }
        let limits = Limits {
            connections_max: profile.window,
            connect_timeout: CONNECT_TIMEOUT.min(profile.submit_timeout),
            exchange_timeout: profile.submit_timeout,
        };
        let outbound = Outbound::open("the Mitake gateway", &endpoint, made_up_city, limits)?;
        Ok(Self { profile, outbound, username, password, callbacks, clock })
    }

    /// Points left on the account: for operators, and to try a new account without sending anything.
    pub async fn balance(&self) -> Result<i64, PortError> {
        let body = self.ask(&[]).await?;
        let points = reply::read_balance(&body).map_err(|refusal| self.port_error(refusal))?;
        self.show_points(Some(points));
        Ok(points)
    }

    async fn send(&self, lines: &[Line<'_>]) -> Vec<SubmitOutcome> {
        let (username, password) = (self.username.expose_secret(), self.password.expose_secret());
        let request = match lines {
            [line] => self
                .outbound
                .post_below("SmSend")
                .query(&[("CharsetURL", "UTF8")])
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(line.form(username, password)),
            // Only here the document puts the credentials into the query, and calls the character set by another name.
            lines => self
                .outbound
                .post_below("SmBulkSend")
                .query(&[("username", username), ("password", password), ("Encoding_PostIn", "UTF8")])
                .header(reqwest::header::CONTENT_TYPE, "text/plain")
                .body(request::bulk_body(lines)),
        };
        let answer = match self.outbound.exchange(request).await {
            Exchange::Answer(answer) => answer,
            Exchange::NotSent(reason) => {
                return vec![SubmitOutcome::NotSent { reason: reason.into() }; lines.len()];
            }
            Exchange::Unknown(reason) => {
                return vec![SubmitOutcome::Unknown { reason: reason.into() }; lines.len()];
            }
        };
        if let Some(outcome) = http_refusal(&answer) {
            return vec![outcome; lines.len()];
        }
        let references: Vec<&str> = lines.iter().map(Line::reference).collect();
        let reply = reply::read_submit(&answer.body, &references);
        self.show_points(reply.points);
        reply.outcomes
    }

    /// SmQuery about `gateway_ids`, or about the balance when there are none.
    async fn ask(&self, gateway_ids: &[&str]) -> Result<Vec<u8>, PortError> {
        let request = self
            .outbound
            .post_below("SmQuery")
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(request::query_form(
                self.username.expose_secret(),
                self.password.expose_secret(),
                gateway_ids,
            ));
        match self.outbound.exchange(request).await {
            Exchange::Answer(answer) if answer.status == StatusCode::OK => Ok(answer.body),
            Exchange::Answer(answer) => Err(self.port_error(format_args!(
                "the gateway answered the query with HTTP {}",
                answer.status.as_u16()
            ))),
            Exchange::NotSent(reason) | Exchange::Unknown(reason) => {
                Err(self.port_error(format_args!("the gateway did not answer the query ({reason})")))
            }
        }
    }

    fn port_error(&self, cause: impl std::fmt::Display) -> PortError {
        PortError::new("channel", format_args!("{}: {cause}", self.profile.name))
    }

    fn show_points(&self, points: Option<i64>) {
        if let Some(points) = points {
            let gauge =
                metrics::gauge!("gatebell_gateway_points", "lane" => self.profile.name.as_str().to_owned());
            // A balance is far below 2^53.
            gauge.set(points as f64);
        }
    }
}

/// What an answer other than `200` means: the gateway itself always answers `200`, so something else did, or the address
/// is wrong.
fn http_refusal(answer: &Answer) -> Option<SubmitOutcome> {
    let status = answer.status;
    if status == StatusCode::OK {
        return None;
    }
    let reason: CompactString = compact_str::format_compact!("http_{}", status.as_u16());
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Some(SubmitOutcome::Throttled { retry_after: answer.retry_after });
    }
    if status.is_client_error() || status.is_redirection() {
        return Some(SubmitOutcome::GatewayDown { reason });
    }
    Some(SubmitOutcome::Unknown { reason })
}

#[async_trait]
impl ChannelConnector for MitakeConnector {
    fn profile(&self) -> &LaneProfile {
        &self.profile
    }

    async fn submit(&self, messages: &[Message]) -> Vec<SubmitOutcome> {
        let checked: Vec<Result<Line<'_>, SubmitOutcome>> =
            messages.iter().map(|message| Line::check(message, self.callbacks.as_ref())).collect();
        let mut outcomes = Vec::with_capacity(checked.len());
        let mut lines = Vec::with_capacity(checked.len());
        for check in checked {
            match check {
                Ok(line) => {
                    lines.push((outcomes.len(), line));
                    outcomes.push(SubmitOutcome::NotSent { reason: "not_tried".into() });
                }
                Err(outcome) => outcomes.push(outcome),
            }
        }
        let (places, lines): (Vec<usize>, Vec<Line<'_>>) = lines.into_iter().unzip();
        if !lines.is_empty() {
            for (place, outcome) in places.into_iter().zip(self.send(&lines).await) {
                outcomes[place] = outcome;
            }
        }
        outcomes
    }

    async fn query(&self, submitted: &[LedgerEntry]) -> Result<Vec<Receipt>, PortError> {
        let known: HashMap<&str, &LedgerEntry> =
            submitted.iter().filter_map(|entry| Some((entry.gateway_id.as_deref()?, entry))).collect();
        let gateway_ids: Vec<&str> =
            submitted.iter().filter_map(|entry| entry.gateway_id.as_deref()).collect();
        let mut receipts = Vec::with_capacity(gateway_ids.len());
        for ids in gateway_ids.chunks(QUERY_IDS_MAX) {
            let body = self.ask(ids).await?;
            let said = reply::read_query(&body).map_err(|refusal| self.port_error(refusal))?;
            let arrived = self.clock.now();
            for (gateway_id, status) in said {
                let Some(entry) = known.get(gateway_id.as_str()) else { continue };
                receipts.push(Receipt {
                    lane: self.profile.name.clone(),
                    notice: entry.notice,
                    position: entry.position,
                    gateway_id,
                    status,
                    arrived,
                });
            }
        }
        Ok(receipts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use gatebell_engine::ids::{GuardianId, LogPosition, NoticeId, Personal, PupilId};
    use gatebell_engine::ledger::ClientReference;
    use gatebell_engine::notice::{Language, NoticeKind};
    use gatebell_engine::ports::clock::SystemClock;
    use gatebell_engine::time::Timestamp;

    use super::*;

    /// A message about notice `number`.
    pub(super) fn message(number: u128, phone: &str, text: &str) -> Message {
        let notice = NoticeId::from_u128(number);
        Message {
            notice,
            position: LogPosition { partition: 0, offset: 1 },
            reference: ClientReference::new(notice, 1),
            address: Personal::new(phone),
            text: Personal::new(text),
            language: Language::ZhTw,
            kind: NoticeKind::Arrival,
            pupil: PupilId::new("P1").unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            at: Timestamp::from_millis(0),
            valid_for: Duration::from_secs(3600),
        }
    }

    fn settings() -> MitakeSettings {
        MitakeSettings {
            profile: profile(LaneName::new("mitake").unwrap(), 100),
            endpoint: "https://smsapi.mitake.com.tw/api/mtk".to_owned(),
            username: SecretString::from("hunter1"),
            password: SecretString::from("hunter2"),
            callbacks: None,
            made_up_city: false,
        }
    }

    fn refusal(settings: MitakeSettings) -> MitakeError {
        MitakeConnector::new(settings, Arc::new(SystemClock::new())).unwrap_err()
    }

    #[test]
    fn settings_beyond_the_gateways_limits_are_refused() {
        let mut wide = settings();
        wide.profile.window = 16;
        assert_eq!(refusal(wide), MitakeError::Window(16));
        let mut large = settings();
        large.profile.batch_max = 501;
        assert_eq!(refusal(large), MitakeError::Batch(501));
        assert_eq!(refusal(MitakeSettings { username: "".into(), ..settings() }), MitakeError::Username);
        assert_eq!(
            refusal(MitakeSettings { password: "p".repeat(25).into(), ..settings() }),
            MitakeError::Password
        );
        let made_up = refusal(MitakeSettings { made_up_city: true, ..settings() });
        assert_eq!(made_up, MitakeError::Endpoint(EndpointError::MadeUpCity("the Mitake gateway")));
    }

    #[test]
    fn credentials_are_in_no_debug_output() {
        let local = MitakeSettings { endpoint: "http://127.0.0.1:1/api/mtk".to_owned(), ..settings() };
        let connector = MitakeConnector::new(local, Arc::new(SystemClock::new())).unwrap();
        let printed = format!("{connector:?} {:?}", settings());
        assert!(!printed.contains("hunter"), "{printed}");
    }

    #[test]
    fn what_is_not_the_gateways_own_answer_stops_it_or_leaves_a_doubt() {
        let meaning = |status: u16, retry_after: Option<Duration>| {
            http_refusal(&Answer { status: StatusCode::from_u16(status).unwrap(), retry_after, body: vec![] })
        };
        let down = |reason: &str| Some(SubmitOutcome::GatewayDown { reason: reason.into() });
        let unknown = |reason: &str| Some(SubmitOutcome::Unknown { reason: reason.into() });
        let wait = Some(Duration::from_secs(7));
        assert_eq!(meaning(200, None), None);
        assert_eq!(meaning(302, None), down("http_302"));
        assert_eq!(meaning(403, None), down("http_403"));
        assert_eq!(meaning(404, None), down("http_404"));
        assert_eq!(meaning(429, wait), Some(SubmitOutcome::Throttled { retry_after: wait }));
        assert_eq!(meaning(502, None), unknown("http_502"));
        assert_eq!(meaning(503, None), unknown("http_503"));
        assert_eq!(meaning(204, None), unknown("http_204"));
    }
}
