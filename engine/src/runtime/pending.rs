//! A notice on its way through a lane, and the ways into the lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::tenure::Tenure;
use crate::index::{NoticeRefs, RecipientQuestion};
use crate::lane::queue::Rank;
use crate::ledger::{Claim, ClaimStamp};
use crate::notice::{Channel, Notice};
use crate::shard::NoticeStart;

/// Notices between a shard and a lane's queue.
pub(crate) const INTAKE_MAX: usize = 1024;

/// A notice in a lane. It has hundreds of bytes and changes hands a dozen times, so lanes hand it on by its pointer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) notice: Notice,
    /// What the notice's names refer to, so that what is known now is found without them.
    pub(crate) refs: NoticeRefs,
    pub(crate) start: NoticeStart,
    pub(crate) tenure: Arc<Tenure>,
    /// The claim as we last wrote it, if any (SMS).
    pub(crate) claim: Option<Box<Claim>>,
    /// What the next claim must replace, if anything.
    pub(crate) expected: Option<Box<ClaimStamp>>,
    /// The attempt that the next claim is for, from 1.
    pub(crate) attempt: u32,
    /// Requests made so far.
    pub(crate) tries: u32,
    /// Whether the current attempt may have reached the gateway.
    pub(crate) in_doubt: bool,
}

impl Pending {
    pub(crate) fn new(
        (notice, refs): (Notice, NoticeRefs),
        start: NoticeStart,
        tenure: Arc<Tenure>,
    ) -> Box<Self> {
        Box::new(Self {
            notice,
            refs,
            start,
            tenure,
            claim: None,
            expected: None,
            attempt: 1,
            tries: 0,
            in_doubt: false,
        })
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank { priority: self.notice.kind.priority(), deadline: self.notice.deadline }
    }

    /// Where does it go?
    pub(crate) fn asks_for_recipient(&self) -> RecipientQuestion {
        RecipientQuestion { refs: self.refs, channel: self.notice.channel }
    }

    /// Nothing is owed any more.
    pub(crate) fn settle(&self) {
        self.tenure.settle(self.notice.position.offset);
    }
}

/// The lanes' intakes, by channel.
#[derive(Clone)]
pub(crate) struct LaneIntakes {
    senders: [mpsc::Sender<Box<Pending>>; Channel::ALL.len()],
}

impl LaneIntakes {
    /// `senders` in the order of [`Channel::ALL`].
    pub(crate) fn new(senders: [mpsc::Sender<Box<Pending>>; Channel::ALL.len()]) -> Self {
        Self { senders }
    }

    pub(crate) fn of(&self, channel: Channel) -> &mpsc::Sender<Box<Pending>> {
        let place = Channel::ALL.iter().position(|known| *known == channel).expect("ALL names every channel");
        &self.senders[place]
    }
}

/// A channel between shards and one lane.
pub(crate) fn intake() -> (mpsc::Sender<Box<Pending>>, mpsc::Receiver<Box<Pending>>) {
    mpsc::channel(INTAKE_MAX)
}

/// Waiting for its time to be tried again.
#[derive(Debug)]
pub(crate) struct Delayed {
    /// On the monotonic clock.
    pub(crate) due: Duration,
    /// Of equals, the earlier delayed comes back first.
    pub(crate) sequence: u64,
    pub(crate) item: Box<Pending>,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}
