//! Channel connectors: the last step to a gateway or a push backend.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use compact_str::CompactString;

use super::receipts::Receipt;
use crate::ids::{GuardianId, LaneName, LogPosition, NoticeId, Personal, PupilId};
use crate::ledger::{ClientReference, LedgerEntry};
use crate::notice::{Channel, Language, NoticeKind};
use crate::time::Timestamp;

/// What a lane needs to know of its gateway; from configuration and the provider's document.
#[derive(Clone, PartialEq, Debug)]
pub struct LaneProfile {
    /// The lane's name, in metrics, the ledger and claims.
    pub name: LaneName,
    /// The channel it serves.
    pub channel: Channel,
    /// Messages a second that the gateway allows.
    pub rate_per_s: u32,
    /// Messages at once that the gateway allows beyond an even flow; at least 1.
    pub burst: u32,
    /// Submits in flight at once (a batch is one): the gateway's limit of connections.
    pub window: usize,
    /// Processes that share rate, burst and window evenly, each with a seat of its own.
    pub shared_by: NonZeroU32,
    /// Messages in one submit.
    pub batch_max: usize,
    /// Messages waiting in memory; at this hard limit the partition that overflows it pauses.
    pub queue_max: usize,
    /// A submit without an answer for so long is in doubt.
    pub submit_timeout: Duration,
    /// Whether receipts come: delivered is then proved by receipt only; else accepted is the end and counts as delivered.
    pub gives_receipts: bool,
    /// For how long the gateway recognises a repeated reference; `None`: it does not.
    pub deduplicates_for: Option<Duration>,
    /// How long after a submit the gateway is asked for a receipt that has not come; `None`: it cannot be asked.
    pub poll_after: Option<Duration>,
}

impl LaneProfile {
    /// This process's share of the burst: at least 1, so no more may share than the burst has messages.
    pub fn burst_share(&self) -> u32 {
        (self.burst / self.shared_by).max(1)
    }

    /// This process's share of the window: at least 1, so no more may share than the gateway takes at once.
    pub fn window_share(&self) -> usize {
        let shared_by = usize::try_from(self.shared_by.get()).unwrap_or(usize::MAX);
        (self.window / shared_by).max(1)
    }

    /// From one message of this process to the next, at its share of the rate; rounded up, so that all together never
    /// exceed it.
    pub fn message_interval(&self) -> Duration {
        let nanos = 1_000_000_000 * u64::from(self.shared_by.get());
        Duration::from_nanos(nanos.div_ceil(u64::from(self.rate_per_s.max(1))))
    }
}

/// One message, ready to leave.
#[derive(Clone, Debug)]
pub struct Message {
    /// The notice.
    pub notice: NoticeId,
    /// The notice's tap; with the notice it goes into the signed per-message callback address.
    pub position: LogPosition,
    /// Our name for this attempt: durable before the request leaves, and the gateway's key for repeated requests.
    pub reference: ClientReference,
    /// Phone number, push token, LINE user or e-mail address, by channel.
    pub address: Personal,
    /// The finished text.
    pub text: Personal,
    /// The reader's language.
    pub language: Language,
    /// What it tells.
    pub kind: NoticeKind,
    /// About whom (for the app, which shows a page about it).
    pub pupil: PupilId,
    /// To whom.
    pub guardian: GuardianId,
    /// When the card was read.
    pub at: Timestamp,
    /// Real time left until the deadline: the gateway is told to give up then.
    pub valid_for: Duration,
}

/// What the gateway said of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubmitOutcome {
    /// It has it. With `duplicate` it had it before: the id is that of the first time.
    Accepted {
        /// The gateway's own id of the message.
        gateway_id: CompactString,
        /// Whether it recognised the reference.
        duplicate: bool,
    },
    /// Too fast; certainly not taken.
    Throttled {
        /// How long to wait, where it says.
        retry_after: Option<Duration>,
    },
    /// A passing trouble; certainly not taken.
    RetryLater {
        /// The gateway's code.
        reason: CompactString,
        /// How long to wait, where it says.
        retry_after: Option<Duration>,
    },
    /// It will never take this message.
    Refused {
        /// The gateway's code.
        reason: CompactString,
    },
    /// It takes nothing from this account until somebody mends it (password, balance, address list); certainly not taken.
    GatewayDown {
        /// The gateway's code.
        reason: CompactString,
    },
    /// The request never left (no connection): certainly not taken, and the reference is unused.
    NotSent {
        /// What kept it, as a fixed word.
        reason: CompactString,
    },
    /// Nobody knows: a time-out or an unreadable answer after the request had left.
    Unknown {
        /// What happened, as a fixed word.
        reason: CompactString,
    },
}

/// The last step to one gateway or push backend. Shared by the submits in flight.
///
/// *A connector promises:* one outcome a message, in the order given; [`SubmitOutcome::Unknown`] whenever the gateway might
/// have taken it; no retries of its own; no more connections than `window`; nothing personal in errors or logs. A future
/// that is dropped leaves the messages in doubt. *The engine promises:* the reference is durable before `submit` is called,
/// at most `window` calls at once, at most `batch_max` messages a call, at most the rate allowed.
#[async_trait]
pub trait ChannelConnector: Send + Sync {
    /// What the lane needs to know.
    fn profile(&self) -> &LaneProfile;

    /// Hands `messages` to the gateway.
    async fn submit(&self, messages: &[Message]) -> Vec<SubmitOutcome>;

    /// Asks the gateway what became of `submitted` (at most 100 `submitted` entries); says what it learnt. Unknown ids and
    /// messages still underway may be left out.
    async fn query(&self, submitted: &[LedgerEntry]) -> Result<Vec<Receipt>, super::PortError>;
}
