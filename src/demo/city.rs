//! A made-up city: schools, readers, pupils and their cards, drawn from a seed. Who cares for the pupils is in
//! [`families`](super::families).
//!
//! Promises: the same plan gives the same city; every identifier, card and phone number is of its own kind at a glance and
//! made up (cards begin with 9990, phones with 0900), and the city is marked as made up when it is written, so that no
//! gateway outside this machine takes its messages.

use jiff::civil::Date;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use gatebell_engine::registry::{Level, ReaderDirection};

use super::families::{self, Families};
use super::names;

/// How large a city, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CityPlan {
    /// How many schools; at least 1, at most [`CityPlan::SCHOOLS_MAX`].
    pub(crate) schools: usize,
    /// How many pupils; at least one a school, at most [`CityPlan::PUPILS_MAX`].
    pub(crate) pupils: usize,
    /// Decides everything that is drawn.
    pub(crate) seed: u64,
}

impl CityPlan {
    /// More schools than any city has; their codes have six digits.
    pub(crate) const SCHOOLS_MAX: usize = 10_000;
    /// Several cities; guardians' phone numbers must not run out of their range.
    pub(crate) const PUPILS_MAX: usize = 3_000_000;
}

/// A made-up city.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct City {
    pub(crate) schools: Vec<School>,
    pub(crate) pupils: Vec<Pupil>,
    pub(crate) families: Families,
    pub(crate) day_rules: Vec<DayRule>,
}

/// A school with its readers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct School {
    pub(crate) code: String,
    pub(crate) name: String,
    pub(crate) level: Level,
    /// Minute of the day from which a first tap without direction is a departure; `None`: the format's own default.
    pub(crate) departure_opens: Option<&'static str>,
    pub(crate) readers: Vec<Reader>,
}

/// A gate reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) code: String,
    pub(crate) name: &'static str,
    pub(crate) direction: ReaderDirection,
}

/// A pupil with their card.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pupil {
    pub(crate) code: String,
    /// Index into [`City::schools`].
    pub(crate) school: usize,
    pub(crate) class: String,
    pub(crate) seat: usize,
    pub(crate) name: String,
    pub(crate) card: String,
    /// The card that this one replaced in the summer, now nobody's.
    pub(crate) lost_card: Option<String>,
}

/// A date that differs from the term's calendar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DayRule {
    pub(crate) date: Date,
    /// Index into [`City::schools`]; `None`: all.
    pub(crate) school: Option<usize>,
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
}

/// The first day of service of term 114-1, a Monday: the day that the demo plays.
pub(crate) const FIRST_DAY: Date = jiff::civil::date(2025, 9, 8);

/// On this day of August cards were replaced.
pub(crate) const CARDS_REPLACED: Date = jiff::civil::date(2025, 8, 20);

/// Pupils in a class.
const CLASS_SIZE: usize = 26;

/// Levels in turn: of ten schools five elementary, three junior, one senior, one vocational.
const LEVELS: [Level; 10] = [
    Level::Elementary,
    Level::Elementary,
    Level::Junior,
    Level::Elementary,
    Level::Senior,
    Level::Elementary,
    Level::Junior,
    Level::Elementary,
    Level::Vocational,
    Level::Junior,
];

impl City {
    /// Draws the city.
    pub(crate) fn generate(plan: CityPlan) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
        let schools: Vec<School> = (0..plan.schools).map(school).collect();
        let mut pupils = pupils(&schools, plan.pupils, &mut random);
        let families = families::draw(&mut pupils, &mut random);
        let day_rules = day_rules(schools.len());
        Self { schools, pupils, families, day_rules }
    }

    /// Whether the school with this index is closed on [`FIRST_DAY`] by a rule of its own.
    pub(crate) fn is_closed_on_first_day(&self, school: usize) -> bool {
        self.day_rules
            .iter()
            .any(|rule| rule.date == FIRST_DAY && rule.school == Some(school) && rule.kind == "off")
    }
}

fn school(number: usize) -> School {
    let level = LEVELS.get(number % LEVELS.len()).copied().unwrap_or(Level::Elementary);
    let code = format!("{}", 900_001 + number);
    let departure_opens = match level {
        Level::Elementary => Some("11:50"),
        Level::Junior | Level::Senior => None,
        Level::Vocational => Some("12:00"),
    };
    let readers = [
        ("G1-1", "正門入口 1", ReaderDirection::In),
        ("G1-2", "正門入口 2", ReaderDirection::In),
        ("G1-3", "正門出口", ReaderDirection::Out),
        ("G2-1", "側門", ReaderDirection::Both),
    ]
    .into_iter()
    .map(|(gate, name, direction)| Reader { code: format!("{code}-{gate}"), name, direction })
    .collect();
    School { name: names::school(number, level), code, level, departure_opens, readers }
}

/// Pupils in the order of schools, classes and seats, without names: those come with their families.
fn pupils(schools: &[School], wanted: usize, random: &mut ChaCha8Rng) -> Vec<Pupil> {
    let weights: Vec<usize> = schools.iter().map(|_| random.random_range(70..=130)).collect();
    let weight_of_all: usize = weights.iter().sum();
    let mut pupils = Vec::with_capacity(wanted);
    let mut weight_so_far = 0;
    for (school, weight) in weights.iter().enumerate() {
        weight_so_far += weight;
        // Cut from the running total, so that the parts add up to the whole.
        let until = wanted * weight_so_far / weight_of_all;
        let here = until - pupils.len();
        let grades = grades(schools.get(school).map_or(Level::Elementary, |it| it.level));
        let classes_per_grade = here.div_ceil(grades.len() * CLASS_SIZE).max(1);
        for place in 0..here {
            let number = pupils.len();
            let class = place / CLASS_SIZE;
            let grade = grades.get(class / classes_per_grade).copied().unwrap_or(1);
            pupils.push(Pupil {
                code: format!("P{:07}", number + 1),
                school,
                class: format!("{grade}{:02}", class % classes_per_grade + 1),
                seat: place % CLASS_SIZE + 1,
                name: String::new(),
                card: card(number),
                // One card in a hundred was lost over the summer.
                lost_card: random.random_ratio(1, 100).then(|| card(CityPlan::PUPILS_MAX + number)),
            });
        }
    }
    pupils
}

fn grades(level: Level) -> &'static [u8] {
    match level {
        Level::Elementary => &[1, 2, 3, 4, 5, 6],
        Level::Junior => &[7, 8, 9],
        Level::Senior | Level::Vocational => &[10, 11, 12],
    }
}

/// The card with this number: 16 digits, scattered so that neighbours are not neighbours, and no two alike, since the
/// factor has no divisor in common with 10^12.
pub(crate) fn card(number: usize) -> String {
    const RANGE: u128 = 1_000_000_000_000;
    let scattered = (number as u128 * 314_159_265_359 + 271_828_182_845) % RANGE;
    format!("9990{scattered:012}")
}

fn day_rules(schools: usize) -> Vec<DayRule> {
    let mut rules =
        vec![DayRule {
            date: jiff::civil::date(2025, 9, 23), school: None, kind: "off", name: "颱風停課"
        }];
    // With a single school there would be nothing left to show.
    if schools > 1 {
        rules.push(DayRule {
            date: FIRST_DAY,
            school: Some(schools - 1),
            kind: "off",
            name: "校舍整修延後開學",
        });
        rules.push(DayRule {
            date: jiff::civil::date(2025, 11, 24),
            school: Some(0),
            kind: "off",
            name: "校慶補假",
        });
    }
    rules.push(DayRule {
        date: jiff::civil::date(2025, 10, 18),
        school: None,
        kind: "school",
        name: "補上課",
    });
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_city_and_another_seed_another() {
        let plan = CityPlan { schools: 4, pupils: 300, seed: 7 };
        assert_eq!(City::generate(plan), City::generate(plan));
        assert_ne!(City::generate(plan), City::generate(CityPlan { seed: 8, ..plan }));
    }

    #[test]
    fn a_city_has_as_many_pupils_as_asked_and_no_two_share_a_card_or_a_seat() {
        for (schools, wanted) in [(1, 1), (3, 100), (20, 12_000)] {
            let city = City::generate(CityPlan { schools, pupils: wanted, seed: 1 });
            let cards: BTreeSet<&str> = city
                .pupils
                .iter()
                .flat_map(|it| [Some(&it.card), it.lost_card.as_ref()])
                .flatten()
                .map(String::as_str)
                .collect();
            let seats: BTreeSet<_> = city.pupils.iter().map(|it| (it.school, &it.class, it.seat)).collect();
            let lost = city.pupils.iter().filter(|it| it.lost_card.is_some()).count();
            assert_eq!(city.pupils.len(), wanted);
            assert_eq!(cards.len(), wanted + lost);
            assert_eq!(seats.len(), wanted);
        }
    }
}
