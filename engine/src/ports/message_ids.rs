//! What a gateway's own message ids stand for, for gateways whose receipts name nothing else.
//!
//! Most gateways call back to an address that each message carries, and that names its notice. One that reports everything
//! to a single address knows only the id that it gave the message at its submit: then this table tells the notice.

use async_trait::async_trait;
use compact_str::CompactString;

use super::PortError;
use super::receipts::{Receipt, ReceiptStatus};
use crate::ids::{LaneName, LogPosition, NoticeId};
use crate::time::Timestamp;

/// An id is known for so many days at least: a notice whose receipt has not come within three is given up.
pub const IDS_KEPT_DAYS: i32 = 4;
/// Parked receipts of a lane, about; the oldest give way, and are counted.
pub const UNPLACED_RECEIPTS_MAX: usize = 20_000;

/// The notice that a message was about, and its tap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoticePlace {
    /// The notice's tap.
    pub position: LogPosition,
    /// The notice.
    pub notice: NoticeId,
}

/// A receipt that names no notice. Holds no phone number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnplacedReceipt {
    /// The gateway's own id of the message.
    pub gateway_id: CompactString,
    /// What became of it.
    pub status: ReceiptStatus,
    /// When it arrived here (wall clock).
    pub arrived: Timestamp,
}

impl UnplacedReceipt {
    /// The receipt as the one of a message of `lane` about the notice at `place`.
    pub fn placed(self, lane: &LaneName, place: NoticePlace) -> Receipt {
        Receipt {
            lane: lane.clone(),
            notice: place.notice,
            position: place.position,
            gateway_id: self.gateway_id,
            status: self.status,
            arrived: self.arrived,
        }
    }
}

/// A parked receipt, and its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParkedReceipt {
    /// Rises from one that was parked to the next, from 1.
    pub sequence: u64,
    /// The receipt.
    pub receipt: UnplacedReceipt,
}

/// The ids that one lane's gateway gave, and its receipts that came before their id.
///
/// Shared by all processes of a city: any may be answered, called back, or look at what is parked.
///
/// *The store promises:* what returned is durable and found by every process from then on, an id for at least
/// [`IDS_KEPT_DAYS`]; of an id that is remembered twice, the last is kept; about [`UNPLACED_RECEIPTS_MAX`] receipts are
/// parked at most, each for a day at least while there is room. *The engine promises:* an id is remembered before the
/// submit counts as recorded.
#[async_trait]
pub trait MessageIds: Send + Sync {
    /// The gateway calls the message about the notice at `place` so, as it said at `accepted_at` (wall clock).
    async fn remember(
        &self,
        gateway_id: &str,
        place: NoticePlace,
        accepted_at: Timestamp,
    ) -> Result<(), PortError>;

    /// What the id stands for; `None`: it is not known, or not any more.
    async fn find(&self, gateway_id: &str) -> Result<Option<NoticePlace>, PortError>;

    /// Keeps a receipt whose id is not known (it overtook the submit's answer), to be tried again.
    async fn park(&self, receipt: UnplacedReceipt) -> Result<(), PortError>;

    /// The parked receipts above `after`, in the order of parking, at most `limit`.
    async fn parked(&self, after: u64, limit: usize) -> Result<Vec<ParkedReceipt>, PortError>;

    /// Forgets parked receipts: placed by now, or too old. One that is not there changes nothing.
    async fn unpark(&self, sequences: Vec<u64>) -> Result<(), PortError>;
}
