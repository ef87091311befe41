//! Whether what must hold does hold: one predicate, or a few, for each [`Invariant`](super::Invariant).
//!
//! They take plain data and know neither where it comes from nor what follows: the
//! runtime asks them of what it has at hand, `recount` and the tests of what they have read. Each says `true` where the promise is
//! kept. They are written apart from the code that keeps the promises, and share no rule with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NoticeId;
use crate::ledger::{Claim, ClaimState, ClientReference, Event, LedgerEntry, OwnerToken};
use crate::notice::{Channel, NoticeKind};
use crate::time::Timestamp;

/// T1: the records of these offsets, and no others, were decided, each once and in their order.
pub fn one_outcome_each(read: impl IntoIterator<Item = u64>, decided: impl IntoIterator<Item = u64>) -> bool {
    read.into_iter().eq(decided)
}

/// T1: the outcomes counted are as many as the records read.
pub fn outcomes_add_up(records: u64, outcomes: impl IntoIterator<Item = u64>) -> bool {
    outcomes.into_iter().sum::<u64>() == records
}

/// T2: no offset was decided before; `next` is the first that was not.
pub fn nothing_decided_again(next: u64, decided: impl IntoIterator<Item = u64>) -> bool {
    let mut next = Some(next);
    decided.into_iter().all(|offset| {
        let is_new = next.is_some_and(|next| offset >= next);
        next = offset.checked_add(1);
        is_new
    })
}

/// T3: of the offsets at which something is unsettled, none lies below what is committed.
pub fn nothing_unsettled_below(committed: u64, unsettled: impl IntoIterator<Item = u64>) -> bool {
    unsettled.into_iter().all(|offset| offset >= committed)
}

/// T3: of the notices opened, as many are open as the offsets at which something is unsettled can hold: none where there is
/// no such offset, else at least one for each.
pub fn accounts_agree(opened: u64, settled: u64, unsettled_offsets: usize) -> bool {
    let offsets = unsettled_offsets as u64;
    opened.checked_sub(settled).is_some_and(|open| offsets <= open && (offsets == 0) == (open == 0))
}

/// Who may have written the ends of one notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owners {
    /// One process, though it may have crashed and come back.
    One,
    /// Several, one after the other, of which a former one may record late what it was answered.
    Several,
}

const fn is_proof(event: Event) -> bool {
    matches!(event, Event::Delivered | Event::Accepted)
}

/// N1: among the events of a notice, in the order written, is no end or one, which at most proof of success has overturned.
///
/// With several owners there may be one end of each of two: what one process had sent, or had decided and not written down
/// yet, is recorded after another has taken its partition and ended the notice. Success outweighs the other end whatever the
/// order, and comes once.
pub fn at_most_one_end(events: impl IntoIterator<Item = Event>, owners: Owners) -> bool {
    let mut ends = events.into_iter().filter(|event| event.is_end());
    match (ends.next(), ends.next(), ends.next()) {
        (_, None, _) => true,
        (Some(first), Some(second), None) => match owners {
            Owners::One => matches!(first, Event::Failed | Event::Expired) && is_proof(second),
            Owners::Several => !(is_proof(first) && is_proof(second)),
        },
        _ => false,
    }
}

/// N1: the notice has ended, and once.
pub fn one_end(events: impl IntoIterator<Item = Event> + Clone, owners: Owners) -> bool {
    events.clone().into_iter().any(Event::is_end) && at_most_one_end(events, owners)
}

/// N2: what a gateway took about one pupil, guardian, kind and day is one message. Where it recognises references, even an
/// attempt in doubt that was sent again is taken once; elsewhere it is taken again under the same reference.
pub fn at_most_one_message<R: PartialEq>(taken: &[R], gateway_recognises: bool) -> bool {
    match taken {
        [] | [_] => true,
        [first, rest @ ..] => !gateway_recognises && rest.iter().all(|reference| reference == first),
    }
}

/// N2: of these requests about one pupil, guardian, kind and day, each with its start and its end, in the order of their
/// starts, none began before the one before it could no longer be answered.
pub fn one_sender_at_a_time(requests: impl IntoIterator<Item = (Duration, Duration)>) -> bool {
    let mut before_is_over = Duration::ZERO;
    requests.into_iter().all(|(start, end)| {
        let waited = start >= before_is_over;
        before_is_over = end;
        waited
    })
}

/// N2: an SMS goes out under a claim that is its own: of this notice and owner, still open, and named by the reference.
pub fn leaves_under_its_claim(
    claim: Option<&Claim>,
    notice: NoticeId,
    owner: OwnerToken,
    reference: &ClientReference,
) -> bool {
    claim.is_some_and(|claim| {
        claim.notice == notice
            && claim.owner == owner
            && claim.state == ClaimState::Open
            && claim.reference() == *reference
    })
}

/// N3: a message that costs its guardian money was ordered.
pub const fn is_ordered(channel: Channel, kind: NoticeKind, has_order: bool) -> bool {
    has_order || !matches!(channel, Channel::Sms) || !is_payable(kind)
}

/// N3: what leaves at `sent_at` was looked up, at `looked_up_at`, no longer ago than a look-up counts.
pub fn is_known(looked_up_at: Duration, sent_at: Duration, counts_for: Duration) -> bool {
    sent_at.saturating_sub(looked_up_at) < counts_for
}

/// N4: sent before its deadline, and to be given up by then; `valid_for` by the same clock as the instants.
pub fn sent_in_time(sent_at: Timestamp, valid_for: Duration, deadline: Timestamp) -> bool {
    sent_at < deadline && sent_at.plus(valid_for) <= deadline
}

/// L1: no stretch of time, however long, holds more of these messages, in the order in which they were sent, than one an
/// `interval` and `burst` beyond that.
pub fn within_rate(sent_at: impl IntoIterator<Item = Duration>, interval: Duration, burst: u32) -> bool {
    let mut account = SentAccount::new(interval, burst);
    sent_at.into_iter().all(|at| {
        let is_due = account.due_at(at) > 0;
        account.sent(1, at);
        is_due
    })
}

/// L1 told as time goes by: what a gateway was sent, and so when it may be sent more. Remembers one instant: had all gone out
/// evenly, one message an interval, the next would be due then.
#[derive(Clone, Copy, Debug)]
pub struct SentAccount {
    interval: Duration,
    burst: u32,
    next_even: Duration,
}

impl SentAccount {
    /// Nothing was ever sent: the whole burst may go at once.
    pub fn new(interval: Duration, burst: u32) -> Self {
        let interval = interval.max(Duration::from_nanos(1));
        Self { interval, burst: burst.max(1), next_even: Duration::ZERO }
    }

    /// Counts the whole burst as sent at `now`, unless more is known: what somebody sent before us, nobody told.
    #[must_use]
    pub fn spent_at(self, now: Duration) -> Self {
        let spent = now.saturating_add(self.interval.saturating_mul(self.burst));
        Self { next_even: self.next_even.max(spent), ..self }
    }

    /// How many messages may leave at `now`.
    pub fn due_at(&self, now: Duration) -> u32 {
        let ahead = self.interval.saturating_mul(self.burst);
        let room = now.saturating_add(ahead).saturating_sub(self.next_even.max(now));
        u32::try_from(room.as_nanos() / self.interval.as_nanos()).unwrap_or(u32::MAX)
    }

    /// How long after `now` the next message may leave; zero where it may at once.
    pub fn due_in(&self, now: Duration) -> Duration {
        let ahead = self.interval.saturating_mul(self.burst);
        let due = self.next_even.saturating_add(self.interval).saturating_sub(ahead);
        due.saturating_sub(now)
    }

    /// So many messages left at `now`.
    pub fn sent(&mut self, messages: u32, now: Duration) {
        self.next_even = self.next_even.max(now).saturating_add(self.interval.saturating_mul(messages));
    }
}

/// L1: no more is in flight than the gateway takes at once.
pub const fn within_window(in_flight: usize, window: usize) -> bool {
    in_flight <= window
}

/// L2: nothing that waits is more urgent than what leaves; the lower rank is the more urgent one.
pub fn most_urgent_first<R: PartialOrd>(leaving: R, first_waiting: Option<R>) -> bool {
    first_waiting.is_none_or(|waiting| leaving <= waiting)
}

/// B1: so many charges of one notice are at most one, and on proof.
pub const fn is_due(charges: usize, is_proven: bool) -> bool {
    charges == 0 || (charges == 1 && is_proven)
}

/// B1: the events of a notice have at most one charge, and none without proof.
pub fn charged_once_on_proof(events: impl IntoIterator<Item = Event>) -> bool {
    let (mut charges, mut is_proven) = (0, false);
    for event in events {
        charges += usize::from(matches!(event, Event::Charged | Event::Adjusted));
        is_proven |= is_proof(event);
    }
    is_due(charges, is_proven)
}

/// B1: the event is final proof of success.
pub const fn proves_success(event: Event) -> bool {
    is_proof(event)
}

/// B2: the counter of an order is what its messages come to, counted again.
pub const fn counter_is_recount(counter: u64, recounted: u64) -> bool {
    counter == recounted
}

/// B3: charged are all that were proved delivered, and none besides that nobody can be sure of.
pub fn totals_follow_proof<N: Ord>(
    charged: &BTreeSet<N>,
    proven: &BTreeSet<N>,
    doubtful: &BTreeSet<N>,
) -> bool {
    proven.is_subset(charged)
        && charged.iter().all(|notice| proven.contains(notice) || doubtful.contains(notice))
}

/// B3: however many receipts came, the events of a notice have one delivery at most.
pub fn delivered_once(events: impl IntoIterator<Item = Event>) -> bool {
    events.into_iter().filter(|event| *event == Event::Delivered).count() <= 1
}

/// B4: a parent pays for a notice of this kind.
pub const fn is_payable(kind: NoticeKind) -> bool {
    match kind {
        NoticeKind::Arrival | NoticeKind::Departure => true,
        NoticeKind::Absence | NoticeKind::Correction | NoticeKind::Emergency => false,
    }
}

/// R1: two ledgers of the same taps, under gateways that answer alike, tell of the same notices, and of each the same end and
/// the same charges. Of a notice that ended in doubt in one of them it is asked only that the other has it: whether it
/// arrived nobody knows.
pub fn same_ledger(uninterrupted: &[LedgerEntry], crashed: &[LedgerEntry]) -> bool {
    let (one, other) = (last_words(uninterrupted), last_words(crashed));
    one.len() == other.len()
        && one.iter().zip(&other).all(|((notice, words), (other_notice, other_words))| {
            let in_doubt = words.in_doubt || other_words.in_doubt;
            notice == other_notice && (in_doubt || words == other_words)
        })
}

/// What a ledger has to say of a notice in the end.
#[derive(Default, PartialEq, Eq)]
struct LastWords {
    end: Option<Event>,
    in_doubt: bool,
    charges: usize,
}

fn last_words(entries: &[LedgerEntry]) -> BTreeMap<NoticeId, LastWords> {
    let mut words: BTreeMap<NoticeId, LastWords> = BTreeMap::new();
    for entry in entries {
        let of_notice = words.entry(entry.notice).or_default();
        of_notice.charges += usize::from(matches!(entry.event, Event::Charged | Event::Adjusted));
        // Proof outweighs every other end, whatever the order.
        if entry.event.is_end() && !of_notice.end.is_some_and(is_proof) {
            of_notice.end = Some(entry.event);
            of_notice.in_doubt = entry.reason.as_deref() == Some("unknown");
        }
    }
    words
}

/// P1: the line has none of these secrets in it: names, numbers and tokens as they were given to the program.
pub fn says_none_of<S: AsRef<str>>(line: &str, secrets: impl IntoIterator<Item = S>) -> bool {
    !secrets.into_iter().any(|secret| line.contains(secret.as_ref()))
}
