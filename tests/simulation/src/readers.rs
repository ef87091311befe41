//! The readers at the gates: which reports come in when, whole or broken, in time or late, once or twice.

use bytes::Bytes;
use gatebell_engine::ids::CardNumber;
use gatebell_engine::testing::fakes::Journal;
use gatebell_engine::time::Timestamp;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::city::{self, City, PUPILS, READERS};
use crate::plan::{Kind, Plan};

/// Reports that may be uploaded again.
const REMEMBERED_MAX: usize = 50;

/// A report on its way to the tap log.
#[derive(Clone)]
pub(crate) struct Report {
    pub(crate) key: CardNumber,
    pub(crate) value: Bytes,
    /// The number of the pupil whom it is about, if about any.
    pub(crate) pupil: u32,
    card: u32,
    at: i64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Readers {
    remembered: Vec<Report>,
    /// Read while the way to the engine was cut.
    waiting: Vec<Report>,
}

impl Readers {
    /// What some reader sends now: mostly one good report.
    pub(crate) fn read(
        &mut self,
        random: &mut ChaCha8Rng,
        city: &City,
        now: Timestamp,
        plan: &Plan,
        journal: &Journal,
    ) -> Vec<Report> {
        let pupil = random.random_range(0..PUPILS);
        let card = city.carried(random, pupil);
        let kind = random.random_range(0..40);
        let report = report(random, plan, pupil, card, now);
        let known = self.remembered.len().checked_sub(1).map(|last| random.random_range(0..=last));
        let known = known.map(|place| self.remembered[place].clone());
        let sent = match (kind, known) {
            (0, _) => vec![Report { value: r#"{"card":"broken"#.into(), ..report }],
            (1, _) => vec![Report {
                value: format!(r#"{{"card":"9999","reader":"R","at":{now_ms}}}"#, now_ms = now.as_millis())
                    .into(),
                ..report
            }],
            (2, _) => vec![Report { value: spoken(card, "R", now.as_millis() + 3_600_000), ..report }],
            (3..=5, Some(known)) if plan.has(Kind::Duplicates) => {
                journal.reached("taps again to be sure");
                // Within the stay that makes it a duplicate, or just after, at some reader or other.
                let at = known.at + random.random_range(0..2_400_000);
                let (reader, ..) = READERS[random.random_range(0..READERS.len())];
                let at = at.min(now.as_millis());
                vec![Report { value: spoken(known.card, reader, at), at, ..known }]
            }
            (6 | 7, Some(known)) if plan.has(Kind::Duplicates) => {
                journal.reached("reports uploaded again");
                vec![known]
            }
            (8, _) if plan.has(Kind::Duplicates) => {
                journal.reached("reports twice in the log");
                vec![report.clone(), report]
            }
            (9..=11, _) if plan.has(Kind::LateUploads) => {
                self.waiting.push(report);
                Vec::new()
            }
            (12, _) => {
                if !self.waiting.is_empty() {
                    journal.reached("late uploads");
                }
                std::mem::take(&mut self.waiting)
            }
            _ => vec![report],
        };
        self.remembered.extend(sent.iter().cloned());
        let too_many = self.remembered.len().saturating_sub(REMEMBERED_MAX);
        self.remembered.drain(..too_many);
        sent
    }
}

fn report(random: &mut ChaCha8Rng, plan: &Plan, pupil: u32, card: u32, now: Timestamp) -> Report {
    let place = random.random_range(0..READERS.len() + 1);
    let (reader, skew_ms) = READERS.get(place).map_or(("R-NOBODY", 0), |(name, _, _, skew)| (*name, *skew));
    // Some readers were offline for a while: up to longer than a notice is of use.
    let is_late = random.random_range(0..10) == 0;
    let late_ms = random.random_range(0..900_000);
    let late_ms = if is_late && plan.has(Kind::LateUploads) { late_ms } else { 200 };
    let skew_ms = if plan.has(Kind::ClockSkew) { skew_ms } else { 0 };
    let at = now.as_millis() - late_ms + skew_ms;
    Report { key: city::card(card), value: spoken(card, reader, at), pupil, card, at }
}

/// A report in the public format.
fn spoken(card: u32, reader: &str, at: i64) -> Bytes {
    format!(r#"{{"card":"{}","reader":"{reader}","at":{at}}}"#, city::card(card).expose()).into()
}
