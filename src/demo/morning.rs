//! One school morning: what the readers of a made-up city report, upload by upload, and what must come of it.
//!
//! Most pupils come around half past seven. Some tap twice to be sure, some are read by two readers at once, a few leave
//! again early. Networks retransmit, readers go offline and upload later, one has a wrong date, one sends rubbish; a card
//! is unknown, a school is closed. Each of these is counted while it is made, so that [`Expected`] knows the outcome of
//! every tap without knowing the engine's rules in detail: the account of the demo compares the two.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Time;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use gatebell_engine::notice::{Channel, Passage};
use gatebell_engine::time::Timestamp;

use super::city::{self, City, CityPlan, FIRST_DAY};

/// When the morning begins: the clock of the demo starts here.
pub(crate) const BEGINS: Time = jiff::civil::time(6, 50, 0, 0);
/// When its last upload is on its way.
pub(crate) const ENDS: Time = jiff::civil::time(8, 30, 0, 0);
/// Taipei's time all year round.
const CITY_OFFSET: jiff::tz::Offset = jiff::tz::offset(8);
/// Reports in one upload at most; a reader that was offline sends several.
const UPLOAD_TAPS_MAX: usize = 500;

/// What the readers of one school send at one moment.
#[derive(Debug)]
pub(crate) struct Upload {
    /// When it is sent, by the city's clock.
    pub(crate) sent: Timestamp,
    /// Index of the school whose gate it comes from.
    pub(crate) school: usize,
    /// The reports, one a line of the body.
    pub(crate) reports: Vec<Report>,
}

/// One report of a reader.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// JSON, one line; or what a broken reader sends instead.
    pub(crate) line: String,
    /// Index of the pupil whose card it was, where it was one, and when.
    pub(crate) tap: Option<(usize, Timestamp)>,
}

/// What must come of the morning.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Reports sent.
    pub(crate) sent: u64,
    /// Not in the form of a tap.
    pub(crate) malformed: u64,
    /// Dated tomorrow.
    pub(crate) clock_ahead: u64,
    /// Of last Friday.
    pub(crate) stale: u64,
    /// Of cards that nobody has.
    pub(crate) unknown_card: u64,
    /// At the school that is closed.
    pub(crate) no_school: u64,
    /// The same passing, reported again.
    pub(crate) duplicate: u64,
    /// Pupils who came.
    pub(crate) arrivals: u64,
    /// Pupils who left again.
    pub(crate) departures: u64,
    /// Notices owed by channel.
    pub(crate) notices: BTreeMap<Channel, u64>,
}

/// A morning.
#[derive(Debug)]
pub(crate) struct Morning {
    /// In the order in which they are sent.
    pub(crate) uploads: Vec<Upload>,
    /// What must come of them.
    pub(crate) expected: Expected,
}

/// The instant at which the city's clocks show `time` on the first day of service.
pub(crate) fn instant(time: Time) -> Timestamp {
    at(FIRST_DAY.at(time.hour(), time.minute(), time.second(), time.subsec_nanosecond()))
}

fn at(local: jiff::civil::DateTime) -> Timestamp {
    let instant = CITY_OFFSET.to_timestamp(local).map(jiff::Timestamp::as_millisecond);
    instant.map_or(Timestamp::MIN, Timestamp::from_millis)
}

/// The city's local time of `instant`.
pub(crate) fn local_time(instant: Timestamp) -> Time {
    let utc = jiff::Timestamp::from_millisecond(instant.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    CITY_OFFSET.to_datetime(utc).time()
}

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;

fn later(instant: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_millis(instant.as_millis() + ms)
}

/// A reader that has no network for a while and uploads everything afterwards.
struct Offline {
    reader: String,
    from: Timestamp,
    until: Timestamp,
}

impl Morning {
    /// Draws the morning of `city`. Readers collect what they read for `collect_ms` (city's time) and send it at once.
    pub(crate) fn draw(city: &City, seed: u64, collect_ms: i64) -> Self {
        let mut draft = Draft::new(city, seed, collect_ms.max(1));
        for pupil in 0..city.pupils.len() {
            draft.pupil(pupil);
        }
        draft.strangers();
        draft.friday_evening();
        draft.rubbish();
        draft.finish()
    }
}

/// The morning while it is made.
struct Draft<'a> {
    city: &'a City,
    random: ChaCha8Rng,
    collect_ms: i64,
    offline: Vec<Offline>,
    /// Reader whose calendar runs a day ahead.
    ahead: String,
    reports: BTreeMap<(Timestamp, usize), Vec<(Timestamp, Report)>>,
    passings: BTreeSet<(usize, Passage)>,
    expected: Expected,
}

impl<'a> Draft<'a> {
    fn new(city: &'a City, seed: u64, collect_ms: i64) -> Self {
        let reader = |school: usize, gate: usize| {
            let school = city.schools.get(school % city.schools.len().max(1));
            school.and_then(|it| it.readers.get(gate)).map(|it| it.code.clone()).unwrap_or_default()
        };
        let hour = |hour, minute| instant(jiff::civil::time(hour, minute, 0, 0));
        let offline = vec![
            // Uploads while its notices are still of use …
            Offline { reader: reader(2, 0), from: hour(7, 15), until: hour(8, 5) },
            // … and when most of them no longer are.
            Offline { reader: reader(6, 1), from: hour(6, 50), until: hour(8, 26) },
        ];
        Self {
            city,
            // Another stream than the city's own.
            random: ChaCha8Rng::seed_from_u64(seed ^ 0x6d6f_726e_696e_6721),
            collect_ms,
            offline,
            ahead: reader(1, 3),
            reports: BTreeMap::new(),
            passings: BTreeSet::new(),
            expected: Expected::default(),
        }
    }

    /// A pupil's morning.
    fn pupil(&mut self, pupil: usize) {
        let Some(home) = self.city.pupils.get(pupil).map(|it| it.school) else { return };
        let comes = if self.city.is_closed_on_first_day(home) { 2 } else { 96 };
        if self.random.random_range(0..100) >= comes {
            return;
        }
        let arrival = self.arrival();
        // A few go to a contest or a course at another school.
        let school = if self.random.random_ratio(1, 500) {
            self.random.random_range(0..self.city.schools.len())
        } else {
            home
        };
        let gate = match self.random.random_range(0..20) {
            0..9 => 0,
            9..18 => 1,
            _ => 3,
        };
        self.passing(pupil, Passage::Arrival, school, gate, arrival);
        match self.random.random_range(0..100) {
            // Not sure whether it beeped.
            0..3 => {
                let again = later(arrival, self.random.random_range(2 * SECOND_MS..9 * SECOND_MS));
                self.passing(pupil, Passage::Arrival, school, gate, again);
            }
            // Two readers side by side.
            3..5 => {
                let other = usize::from(gate == 0);
                let both = later(arrival, self.random.random_range(0..400));
                self.passing(pupil, Passage::Arrival, school, other, both);
            }
            // To the doctor; or nobody knows where, and that is why parents are told at once.
            5 if arrival < instant(jiff::civil::time(7, 45, 0, 0)) => {
                let latest = instant(jiff::civil::time(8, 28, 0, 0)).as_millis();
                let leaves = self.random.random_range(arrival.as_millis() + 40 * MINUTE_MS..=latest);
                self.passing(pupil, Passage::Departure, school, 2, Timestamp::from_millis(leaves));
            }
            _ => {}
        }
        let lost_card = self.city.pupils.get(pupil).and_then(|it| it.lost_card.clone());
        if let Some(lost) = lost_card
            && self.random.random_ratio(1, 5)
        {
            self.strange(school, gate, &lost, later(arrival, -3 * SECOND_MS));
        }
    }

    /// When a pupil comes: most around 07:30, nobody before 06:51 or after 08:20.
    fn arrival(&mut self) -> Timestamp {
        // The mean of four dice is bell-shaped enough.
        let mean: i64 = (0..4).map(|_| self.random.random_range(0..70 * MINUTE_MS)).sum::<i64>() / 4;
        let seven_thirty = instant(jiff::civil::time(7, 30, 0, 0));
        later(seven_thirty, mean - 35 * MINUTE_MS)
    }

    /// A pupil passes a reader of a school.
    fn passing(&mut self, pupil: usize, passage: Passage, school: usize, gate: usize, at: Timestamp) {
        let Some(card) = self.city.pupils.get(pupil).map(|it| it.card.clone()) else { return };
        let reader = self.reader(school, gate);
        let home = self.city.pupils.get(pupil).map_or(0, |it| it.school);
        if reader == self.ahead {
            self.expected.clock_ahead += 1;
        } else if self.city.is_closed_on_first_day(home) {
            self.expected.no_school += 1;
        } else if self.passings.insert((pupil, passage)) {
            self.owe(pupil, passage);
        } else {
            self.expected.duplicate += 1;
        }
        self.report(school, gate, &card, at, Some((pupil, passage)));
    }

    /// What a passage owes to whom, straight from the families' lists.
    fn owe(&mut self, pupil: usize, passage: Passage) {
        match passage {
            Passage::Arrival => self.expected.arrivals += 1,
            Passage::Departure => self.expected.departures += 1,
        }
        let families = &self.city.families;
        let first = families.bindings.partition_point(|it| it.pupil < pupil);
        let bindings = families.bindings.iter().skip(first).take_while(|it| it.pupil == pupil);
        for binding in bindings.filter(|it| !it.ended) {
            let of_pair = (binding.pupil, binding.guardian);
            let first = families.subscriptions.partition_point(|it| (it.pupil, it.guardian) < of_pair);
            let subscription =
                families.subscriptions.get(first).filter(|it| (it.pupil, it.guardian) == of_pair);
            if subscription.is_some_and(|it| it.passages.include(passage)) {
                *self.expected.notices.entry(Channel::App).or_default() += 1;
            }
            let first = families.orders.partition_point(|it| (it.pupil, it.guardian) < of_pair);
            let mut orders =
                families.orders.iter().skip(first).take_while(|it| (it.pupil, it.guardian) == of_pair);
            if orders.any(|it| it.is_in_force() && it.plan.include(passage)) {
                *self.expected.notices.entry(Channel::Sms).or_default() += 1;
            }
        }
    }

    fn reader(&self, school: usize, gate: usize) -> String {
        let reader = self.city.schools.get(school).and_then(|it| it.readers.get(gate));
        reader.map(|it| it.code.clone()).unwrap_or_default()
    }

    /// Cards that nobody in the city has: a teacher's, a visitor's; one in three hundred taps.
    fn strangers(&mut self) {
        for stranger in 0..self.city.pupils.len() / 300 {
            let school = self.random.random_range(0..self.city.schools.len());
            let card = city::card(2 * CityPlan::PUPILS_MAX + stranger);
            let at = self.arrival();
            self.strange(school, 0, &card, at);
        }
    }

    /// A card that is nobody's (any more).
    fn strange(&mut self, school: usize, gate: usize, card: &str, at: Timestamp) {
        if self.reader(school, gate) == self.ahead {
            self.expected.clock_ahead += 1;
        } else {
            self.expected.unknown_card += 1;
        }
        self.report(school, gate, card, at, None);
    }

    /// A reader that was switched off on Friday has some taps left.
    fn friday_evening(&mut self) {
        let school = 4 % self.city.schools.len().max(1);
        let friday = FIRST_DAY.checked_sub(jiff::Span::new().days(3)).unwrap_or(FIRST_DAY);
        let sent = later(instant(BEGINS), 5 * MINUTE_MS);
        for pupil in (0..self.city.pupils.len()).filter(|it| it % 240 == 11) {
            let Some(card) = self.city.pupils.get(pupil).map(|it| it.card.clone()) else { continue };
            let tapped = later(at(friday.at(16, 5, 0, 0)), self.random.random_range(0..25 * MINUTE_MS));
            let line = line(&card, &self.reader(school, 3), tapped, None, school);
            self.expected.stale += 1;
            self.reports.entry((sent, school)).or_default().push((tapped, Report { line, tap: None }));
        }
    }

    /// A reader with a loose cable.
    fn rubbish(&mut self) {
        let school = 0;
        let reader = self.reader(school, 0);
        let card = city::card(3 * CityPlan::PUPILS_MAX);
        let lines = [
            format!(r#"{{"card":"{card}","reader":"{reader}","at":"2025-09-08T07:1"#),
            format!(r#"{{"card":"{card}","reader":"{reader}","at":"2025-09-08 07:12:00+08:00"}}"#),
            format!(r#"{{"card":"{card}","reader":"{reader}"}}"#),
            format!(r#"{{"card":"","reader":"{reader}","at":"2025-09-08T07:12:04+08:00"}}"#),
            r#"{"reader":"?","at":null}"#.to_owned(),
        ];
        for (minute, line) in (0..).zip(lines) {
            let at = instant(jiff::civil::time(7, 12 + 3 * minute, 30, 0));
            self.expected.malformed += 1;
            self.reports
                .entry((self.sent(school, &reader, at), school))
                .or_default()
                .push((at, Report { line, tap: None }));
        }
    }

    /// Puts one report into the upload that will carry it.
    fn report(
        &mut self,
        school: usize,
        gate: usize,
        card: &str,
        at: Timestamp,
        passing: Option<(usize, Passage)>,
    ) {
        let reader = self.reader(school, gate);
        let stamped = if reader == self.ahead { later(at, 24 * 60 * MINUTE_MS) } else { at };
        // Some vendors' readers say the direction themselves, also where they could be passed either way.
        let direction = match passing {
            Some((_, Passage::Arrival)) if school % 10 == 3 => Some("in"),
            Some((_, Passage::Departure)) if school % 10 == 3 => Some("out"),
            _ => None,
        };
        let line = line(card, &reader, stamped, direction, school);
        let tap = passing.map(|(pupil, _)| (pupil, stamped));
        let sent = self.sent(school, &reader, at);
        self.reports.entry((sent, school)).or_default().push((at, Report { line, tap }));
    }

    /// When a report made at `at` is sent: at the end of the stretch in which it is collected; of a reader that is
    /// offline, once it is back.
    fn sent(&self, school: usize, reader: &str, at: Timestamp) -> Timestamp {
        let offline = self.offline.iter().find(|it| it.reader == reader && it.from <= at && at < it.until);
        let ready = offline.map_or(at, |it| it.until);
        // Schools are not in step.
        let phase = i64::try_from(school).unwrap_or_default() * 997 % self.collect_ms;
        let stretches = (ready.as_millis() - phase).div_euclid(self.collect_ms) + 1;
        Timestamp::from_millis(stretches * self.collect_ms + phase)
    }

    /// Sorts, cuts into uploads, and lets the network send one in eighty twice.
    fn finish(mut self) -> Morning {
        let mut uploads = Vec::with_capacity(self.reports.len());
        for ((sent, school), mut reports) in std::mem::take(&mut self.reports) {
            reports.sort_by_key(|(at, _)| *at);
            let reports: Vec<Report> = reports.into_iter().map(|(_, report)| report).collect();
            for part in reports.chunks(UPLOAD_TAPS_MAX) {
                uploads.push(Upload { sent, school, reports: part.to_vec() });
            }
        }
        let mut repeated = Vec::new();
        for upload in &uploads {
            // Only of uploads that hold nothing but passings is it plain what a repetition makes: duplicates.
            let plain =
                upload.reports.iter().all(|it| it.tap.is_some_and(|tap| self.is_passing_today(upload, tap)));
            if plain && self.random.random_ratio(1, 80) {
                let sent = later(upload.sent, self.random.random_range(5 * SECOND_MS..30 * SECOND_MS));
                self.expected.duplicate += upload.reports.len() as u64;
                repeated.push(Upload { sent, school: upload.school, reports: upload.reports.clone() });
            }
        }
        uploads.extend(repeated);
        uploads.sort_by_key(|it| (it.sent, it.school));
        self.expected.sent = uploads.iter().map(|it| it.reports.len() as u64).sum();
        Morning { uploads, expected: self.expected }
    }

    fn is_passing_today(&self, upload: &Upload, (pupil, stamped): (usize, Timestamp)) -> bool {
        let home = self.city.pupils.get(pupil).map_or(0, |it| it.school);
        stamped <= upload.sent && !self.city.is_closed_on_first_day(home)
    }
}

/// A report as a reader's vendor writes it: every other vendor sends epoch milliseconds.
fn line(card: &str, reader: &str, at: Timestamp, direction: Option<&str>, school: usize) -> String {
    let at = if school % 2 == 1 { at.as_millis().to_string() } else { format!("\"{}\"", rfc3339(at)) };
    match direction {
        Some(direction) => {
            format!(r#"{{"card":"{card}","reader":"{reader}","at":{at},"dir":"{direction}"}}"#)
        }
        None => format!(r#"{{"card":"{card}","reader":"{reader}","at":{at}}}"#),
    }
}

/// `2025-09-08T07:31:04.250+08:00`
pub(crate) fn rfc3339(instant: Timestamp) -> String {
    let utc = jiff::Timestamp::from_millisecond(instant.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{:.3}+08:00", CITY_OFFSET.to_datetime(utc))
}

impl Upload {
    /// The body of the request, as NDJSON.
    pub(crate) fn body(&self) -> String {
        let mut body = String::with_capacity(self.reports.iter().map(|it| it.line.len() + 1).sum());
        for report in &self.reports {
            body.push_str(&report.line);
            body.push('\n');
        }
        body
    }

    /// The lines of a file for `gatebell replay`: each report with its time of receipt. Rubbish stays as it is.
    pub(crate) fn replay_lines(&self) -> impl Iterator<Item = String> {
        let received = rfc3339(self.sent);
        self.reports.iter().map(move |report| match report.line.strip_suffix('}') {
            Some(open) => format!(r#"{open},"received":"{received}"}}"#),
            None => report.line.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn city() -> City {
        City::generate(CityPlan { schools: 20, pupils: 4_000, seed: 3 })
    }

    #[test]
    fn the_same_seed_gives_the_same_morning() {
        let city = city();
        let bodies =
            |seed| Morning::draw(&city, seed, 20_000).uploads.iter().map(Upload::body).collect::<Vec<_>>();
        assert_eq!(bodies(3), bodies(3));
        assert_ne!(bodies(3), bodies(4));
    }

    #[test]
    fn every_report_has_one_expected_outcome() {
        let Morning { uploads, expected } = Morning::draw(&city(), 3, 20_000);
        let outcomes = expected.malformed
            + expected.clock_ahead
            + expected.stale
            + expected.unknown_card
            + expected.no_school
            + expected.duplicate
            + expected.arrivals
            + expected.departures;
        assert_eq!(outcomes, expected.sent);
        assert_eq!(uploads.iter().map(|it| it.reports.len() as u64).sum::<u64>(), expected.sent);
    }

    #[test]
    fn the_morning_has_every_kind_of_trouble() {
        let expected = Morning::draw(&city(), 3, 20_000).expected;
        for (what, count) in [
            ("malformed", expected.malformed),
            ("clock ahead", expected.clock_ahead),
            ("stale", expected.stale),
            ("unknown card", expected.unknown_card),
            ("no school", expected.no_school),
            ("duplicate", expected.duplicate),
            ("departures", expected.departures),
        ] {
            assert!(count > 0, "{what}");
        }
    }

    #[test]
    fn nothing_is_sent_before_it_was_read_and_everything_in_the_morning() {
        for upload in Morning::draw(&city(), 3, 20_000).uploads {
            assert!(upload.sent >= instant(BEGINS) && upload.sent <= instant(ENDS), "{}", upload.sent);
        }
    }

    #[test]
    fn times_are_written_with_the_citys_offset() {
        let at = later(instant(jiff::civil::time(7, 31, 4, 0)), 250);
        assert_eq!(rfc3339(at), "2025-09-08T07:31:04.250+08:00");
    }
}
