//! `GET /v1/callbacks/mitake/{lane}/{segment}`: SMS gateways tell what became of a message.
//!
//! Promises: the gateway gets its `200` only once the receipt is durable, so that it keeps repeating what we
//! could not keep; a receipt is taken only from an address that we signed for its lane, notice and phone,
//! only from an address that may call, and only under the message id that the submit was answered with, where
//! that is known already. Of a gateway that calls one address for its whole account the notice is found by that id; a receipt
//! that comes before its id is parked, which is as durable. Anything else is refused and counted. Paths and queries hold phone numbers and
//! signatures: nothing of them is logged (P1). What a receipt means for the notice is the engine's business.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, routing::get};
use gatebell_connectors::sms::callback_address::{CallbackKeys, CallbackSegment};
use gatebell_connectors::sms::mitake::callback::{self, Accepted};
use gatebell_engine::ids::LaneName;
use gatebell_engine::ledger::Event;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::ledger::Ledger;
use gatebell_engine::ports::message_ids::{MessageIds, UnplacedReceipt};
use gatebell_engine::ports::receipts::{Receipt, ReceiptLog, ReceiptStatus};
use ipnet::IpNet;
use metrics::counter;

use super::listener::Peer;

/// When the gateway may come back while receipts cannot be kept.
const RETRY_S: u16 = 5;
/// Most hops of `X-Forwarded-For` that are looked at.
const HOPS_MAX: usize = 16;

/// Who may call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callers {
    /// The gateways; empty: anybody.
    pub(crate) allow: Vec<IpNet>,
    /// Proxies whose word on who calls is taken.
    pub(crate) trusted_proxies: Vec<IpNet>,
}

impl Callers {
    /// Whether who calls from `peer` may: where that is a trusted proxy, the nearest hop before it that is
    /// none.
    fn may_call(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        if self.allow.is_empty() {
            return true;
        }
        let mut caller = peer.to_canonical();
        let forwarded = headers.get_all("x-forwarded-for").into_iter();
        let named: Vec<&str> =
            forwarded.filter_map(|hops| hops.to_str().ok()).flat_map(|hops| hops.split(',')).collect();
        for hop in named.iter().rev().take(HOPS_MAX) {
            if !contains(&self.trusted_proxies, caller) {
                break;
            }
            let Ok(before) = hop.trim().parse::<IpAddr>() else { return false };
            caller = before.to_canonical();
        }
        contains(&self.allow, caller)
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// What the surface works with.
pub(crate) struct CallbackPorts {
    /// Where receipts are kept.
    pub(crate) receipts: Arc<dyn ReceiptLog>,
    /// What was submitted, and under which message id.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// When they arrive.
    pub(crate) clock: Arc<dyn Clock>,
    /// The keys that signed the addresses, by lane.
    pub(crate) keys: BTreeMap<LaneName, CallbackKeys>,
    /// What message ids stand for, of the lanes that are called back by account.
    pub(crate) message_ids: BTreeMap<LaneName, Arc<dyn MessageIds>>,
    /// Who may call.
    pub(crate) callers: Callers,
}

/// Why a callback is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("not allowed from this address")]
    Caller,
    #[error("no such callback")]
    Lane,
    #[error(transparent)]
    NotGenuine(#[from] callback::CallbackRefusal),
    #[error("the message id is not the one of the submit")]
    MessageId,
    #[error("receipts cannot be kept just now")]
    NotKept(#[from] PortError),
}

impl Refusal {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Lane => "lane",
            Self::NotGenuine(refusal) => refusal.reason(),
            Self::MessageId => "message_id",
            Self::NotKept(_) => "not_kept",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Lane | Self::NotGenuine(callback::CallbackRefusal::Path) => StatusCode::NOT_FOUND,
            Self::Caller | Self::NotGenuine(_) | Self::MessageId => StatusCode::FORBIDDEN,
            Self::NotKept(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        counter!("gatebell_callbacks_total", "result" => self.reason()).increment(1);
        if let Self::NotKept(cause) = &self {
            tracing::warn!(%cause, "a receipt could not be kept; the gateway is told to send it again");
            let retry = [(header::RETRY_AFTER, HeaderValue::from(RETRY_S))];
            return (self.status(), retry, self.to_string()).into_response();
        }
        (self.status(), self.to_string()).into_response()
    }
}

/// The routes.
pub(crate) fn router(ports: CallbackPorts) -> Router {
    Router::new()
        .route("/v1/callbacks/mitake/{lane}/{segment}", get(mitake))
        .fallback(async || Refusal::Lane)
        .with_state(Arc::new(ports))
}

async fn mitake(
    State(ports): State<Arc<CallbackPorts>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path((lane, segment)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match ports.take(peer, &headers, &lane, &segment, query.as_deref().unwrap_or_default()).await {
        Ok(answer) => {
            counter!("gatebell_callbacks_total", "result" => "kept").increment(1);
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

impl CallbackPorts {
    /// The answer that makes the gateway stop repeating the callback.
    async fn take(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        lane: &str,
        segment: &str,
        query: &str,
    ) -> Result<String, Refusal> {
        if !self.callers.may_call(peer.ip(), headers) {
            return Err(Refusal::Caller);
        }
        let lane = LaneName::new(lane).map_err(|_| Refusal::Lane)?;
        let keys = self.keys.get(&lane).ok_or(Refusal::Lane)?;
        if let Some(message_ids) = self.message_ids.get(&lane)
            && CallbackSegment::parse(segment).is_none()
        {
            let Accepted { receipt, answer } =
                callback::accept_of_account(keys, &lane, segment, query, self.clock.now())?;
            self.take_by_id(&lane, &**message_ids, receipt).await?;
            return Ok(answer);
        }
        let accepted = callback::accept(keys, &lane, segment, query, self.clock.now())?;
        if !self.is_of_a_submit(&accepted.receipt).await? {
            return Err(Refusal::MessageId);
        }
        self.receipts.append(vec![accepted.receipt]).await?;
        Ok(accepted.answer)
    }

    /// Keeps a receipt that names its message by the gateway's id: with its notice, or until that is known.
    async fn take_by_id(
        &self,
        lane: &LaneName,
        message_ids: &dyn MessageIds,
        receipt: UnplacedReceipt,
    ) -> Result<(), PortError> {
        match message_ids.find(&receipt.gateway_id).await? {
            Some(place) => self.receipts.append(vec![receipt.placed(lane, place)]).await,
            // It would settle nothing.
            None if receipt.status == ReceiptStatus::Underway => Ok(()),
            None => {
                message_ids.park(receipt).await?;
                counter!("gatebell_unplaced_receipts_total", "lane" => lane.to_string(), "result" => "parked")
                    .increment(1);
                Ok(())
            }
        }
    }

    /// Whether the receipt's message id is one that a submit of its notice was answered with; also when no
    /// answer is on record yet, since a receipt may overtake it.
    async fn is_of_a_submit(&self, receipt: &Receipt) -> Result<bool, PortError> {
        let entries = self.ledger.entries_of(receipt.position, receipt.notice).await?;
        let mut known = entries
            .iter()
            .filter(|entry| entry.event == Event::Submitted && entry.gateway.as_ref() == Some(&receipt.lane))
            .filter_map(|entry| entry.gateway_id.as_ref())
            .peekable();
        Ok(known.peek().is_none() || known.any(|gateway_id| *gateway_id == receipt.gateway_id))
    }
}

#[cfg(test)]
mod tests;
