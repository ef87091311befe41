//! What happens to a message, drawn from the seed.
//!
//! Owns: every random choice. Promises: a choice depends on the seed, what it is for, the message and how often it came,
//! and on nothing else; so it is the same whatever arrives before or beside it.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::config::{Faults, Receipts, Spread};

/// A stream of random numbers of its own for one purpose and one message.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// For what is drawn for `purpose` about `name`, which came `earlier` times before.
    pub(crate) fn new(seed: u64, purpose: &str, name: &str, earlier: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(earlier.to_be_bytes());
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(name.as_bytes());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// True for `share` of all.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    /// From 0 to one below `count`, which is not 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// The first of `shares` that one draw falls into, if any; they exclude each other.
    fn first_of<T: Copy>(&mut self, shares: &[(T, f64)]) -> Option<T> {
        let mut rest: f64 = self.0.random();
        for (what, share) in shares {
            if rest < *share {
                return Some(*what);
            }
            rest -= share;
        }
        None
    }

    /// A time of `spread`.
    pub(crate) fn time(&mut self, spread: Spread) -> Duration {
        if spread.median_ms == 0 {
            return Duration::ZERO;
        }
        let median_ms = f64::from(spread.median_ms);
        // 2.326 standard deviations above the mean are 99 %.
        let sigma = (f64::from(spread.p99_ms) / median_ms).ln() / 2.326;
        // Box and Muller's transform; 1 − u lies in (0, 1], so the logarithm is finite.
        let (u, v): (f64, f64) = (1.0 - self.0.random::<f64>(), self.0.random());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        Duration::from_secs_f64(median_ms * (sigma * normal).exp() / 1000.0)
    }
}

/// What happens to a request as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFate {
    Answered,
    NoAnswer,
    TakenNoAnswer,
    TakenRubbish,
    TakenCutOff,
}

impl RequestFate {
    pub(crate) fn draw(dice: &mut Dice, faults: &Faults) -> Self {
        let shares = [
            (Self::NoAnswer, faults.no_answer),
            (Self::TakenNoAnswer, faults.taken_no_answer),
            (Self::TakenRubbish, faults.taken_rubbish),
            (Self::TakenCutOff, faults.taken_cut_off),
        ];
        dice.first_of(&shares).unwrap_or(Self::Answered)
    }
}

/// What happens to one message at its submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitFate {
    Taken,
    Refused,
    RetryLater,
    Throttled,
    Stopped,
}

impl SubmitFate {
    pub(crate) fn draw(dice: &mut Dice, faults: &Faults) -> Self {
        let shares = [
            (Self::Refused, faults.refused),
            (Self::RetryLater, faults.retry_later),
            (Self::Throttled, faults.throttled),
            (Self::Stopped, faults.stopped),
        ];
        dice.first_of(&shares).unwrap_or(Self::Taken)
    }
}

/// What becomes of a message that was taken, and when that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceiptPlan {
    /// How the message ends, as a `StatusFlag`.
    pub(crate) end: u8,
    /// When it ends, after the submit.
    pub(crate) ends_after: Duration,
    /// The callbacks: when, after the submit, and which `StatusFlag`.
    pub(crate) told: Vec<(Duration, u8)>,
}

/// On the phone.
pub(crate) const DELIVERED: u8 = 4;
/// At the carrier.
pub(crate) const UNDERWAY: u8 = 1;
/// Not delivered within its validity.
pub(crate) const OVERDUE: u8 = 8;
/// Cancelled before it was sent.
pub(crate) const CANCELLED: u8 = 9;
/// Ways to fail: wrong content, wrong number, the number's SMS switched off, overdue.
const FAILURES: [u8; 4] = [5, 6, 7, OVERDUE];

impl ReceiptPlan {
    /// For a message that is valid for `valid_for`.
    pub(crate) fn draw(dice: &mut Dice, receipts: &Receipts, valid_for: Duration) -> Self {
        let mut ends_after = dice.time(receipts.delay);
        let late = Duration::from_millis(u64::from(receipts.late_ms));
        match dice.first_of(&[(true, receipts.late), (false, receipts.early)]) {
            Some(true) => ends_after += late,
            Some(false) => ends_after = Duration::ZERO,
            None => {}
        }
        let failure = FAILURES[dice.below(FAILURES.len())];
        let mut end = if dice.chance(receipts.failed) { failure } else { DELIVERED };
        if ends_after > valid_for {
            (end, ends_after) = (OVERDUE, valid_for);
        }
        // Everything is drawn whatever was drawn before, so that one share can be changed without moving the others.
        let is_lost = dice.chance(receipts.lost);
        let is_underway_first = dice.chance(receipts.underway_first);
        let is_out_of_order = dice.chance(receipts.out_of_order);
        let repeats = if dice.chance(receipts.repeated) { 1 + dice.below(3) } else { 0 };
        let again = Duration::from_millis(u64::from(receipts.retry_ms));
        let mut told = Vec::new();
        if !is_lost {
            if is_underway_first {
                told.push((ends_after / 2, UNDERWAY));
            }
            told.push((ends_after, end));
            if is_out_of_order {
                told.push((ends_after + again / 2, UNDERWAY));
            }
            told.extend((1u32..).take(repeats).map(|repeat| (ends_after + again * repeat, end)));
        }
        Self { end, ends_after, told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(faults: &Faults, name: &str) -> Vec<RequestFate> {
        (0..20)
            .map(|earlier| RequestFate::draw(&mut Dice::new(7, "request", name, earlier), faults))
            .collect()
    }

    #[test]
    fn the_same_message_has_the_same_fate_whatever_else_is_drawn() {
        let faults = Faults { no_answer: 0.3, taken_rubbish: 0.3, ..Faults::default() };
        let first = draws(&faults, "a");
        let _ = draws(&faults, "b");
        assert_eq!(draws(&faults, "a"), first);
        assert_ne!(draws(&faults, "c"), first);
        assert!(first.contains(&RequestFate::NoAnswer) && first.contains(&RequestFate::Answered));
    }

    #[test]
    fn a_share_of_all_messages_meets_a_fault_whatever_they_are_called() {
        let faults = Faults { taken_no_answer: 0.5, ..Faults::default() };
        let met = (0..1_000).filter(|number| {
            let mut dice = Dice::new(1, "request", &format!("{number:032x}-001"), 0);
            RequestFate::draw(&mut dice, &faults) == RequestFate::TakenNoAnswer
        });
        let count = met.count();
        assert!((450..550).contains(&count), "{count}");
    }

    #[test]
    fn shares_and_times_come_out_as_configured() {
        let spread = Spread { median_ms: 100, p99_ms: 1000 };
        let mut dice = Dice::new(1, "test", "", 0);
        let mut times: Vec<Duration> = (0..10_000).map(|_| dice.time(spread)).collect();
        times.sort();
        let near = |time: Duration, ms: f64| (time.as_secs_f64() * 1000.0 / ms - 1.0).abs() < 0.15;
        assert!(near(times[5_000], 100.0), "median {:?}", times[5_000]);
        assert!(near(times[9_900], 1000.0), "99 % {:?}", times[9_900]);
        let refused = Faults { refused: 0.25, retry_later: 0.0, ..Faults::default() };
        let count =
            (0..10_000).filter(|_| SubmitFate::draw(&mut dice, &refused) == SubmitFate::Refused).count();
        assert!((2_300..2_700).contains(&count), "{count}");
    }

    #[test]
    fn a_message_never_arrives_after_its_validity() {
        let receipts = Receipts { delay: Spread { median_ms: 5_000, p99_ms: 60_000 }, ..Receipts::default() };
        for number in 0..1_000 {
            let mut dice = Dice::new(1, "receipts", &number.to_string(), 0);
            let plan = ReceiptPlan::draw(&mut dice, &receipts, Duration::from_secs(5));
            assert!(plan.ends_after <= Duration::from_secs(5));
            assert!(plan.end != DELIVERED || plan.ends_after < Duration::from_secs(5));
        }
    }

    #[test]
    fn a_lost_receipt_is_never_told_and_a_repeated_one_is() {
        let draw = |receipts: &Receipts| {
            ReceiptPlan::draw(&mut Dice::new(1, "receipts", "x", 0), receipts, Duration::from_secs(3600)).told
        };
        assert_eq!(draw(&Receipts { lost: 1.0, ..Receipts::default() }), vec![]);
        assert!(draw(&Receipts { lost: 0.0, repeated: 1.0, ..Receipts::default() }).len() > 1);
    }
}
