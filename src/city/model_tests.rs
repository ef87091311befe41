//! What rows must not say of each other, held to a naive model that looks at every day one by one; and files of any bytes.

#![allow(clippy::unwrap_used)]

use gatebell_engine::time::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::{Reading, read};

const SCHOOLS: &str = "school,name,level,departure_opens\nS1,,junior,\n";
const PUPILS: &str = "pupil,school,class,seat,name\nP0,S1,,,\nP1,S1,,,\n";
const CARDS: &str = "card,pupil,from,until\n";
const GUARDIANS: &str =
    "guardian,name,phone,email,app_token,line_user,language\nG0,,,,,,\nG1,,,,,,\nG2,,,,,,\n";

/// Days that stretches begin and end on.
const DAYS: std::ops::Range<u8> = 1..8;

fn read_files(files: &[(&str, &[u8])]) -> Reading {
    let dir = tempfile::tempdir().unwrap();
    let right = [
        ("schools.csv", SCHOOLS),
        ("pupils.csv", PUPILS),
        ("cards.csv", CARDS),
        ("guardians.csv", GUARDIANS),
    ];
    for (name, text) in right {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    read(dir.path(), &TimeZone::UTC, Timestamp::from_millis(0))
}

fn date(day: u8) -> String {
    format!("2025-10-{day:02}")
}

/// Whose and about whom, and the days from and until which.
type Lasting = ((u8, u8), (u8, u8));

fn lasting() -> impl Strategy<Value = Lasting> {
    let days = (DAYS, 1_u8..4).prop_map(|(from, days)| (from, from + days));
    ((0_u8..3, 0_u8..2), days)
}

fn is_in_force(((_, _), (from, until)): &Lasting, day: u8) -> bool {
    (*from..*until).contains(&day)
}

proptest! {
    #[test]
    fn cards_and_bindings_are_judged_as_day_by_day(rows in proptest::collection::vec(lasting(), 0..7)) {
        let mut bindings = "guardian,pupil,relation,from,until\n".to_owned();
        let mut cards = CARDS.to_owned();
        for ((guardian, pupil), (from, until)) in &rows {
            let (from, until) = (date(*from), date(*until));
            bindings.push_str(&format!("G{guardian},P{pupil},other,{from},{until}\n"));
            cards.push_str(&format!("04A{guardian},P{pupil},{from},{until}\n"));
        }
        let (mut overlaps, mut is_crowded, mut card_overlaps) = (false, false, false);
        for day in DAYS.start..DAYS.end + 4 {
            let in_force: Vec<(u8, u8)> =
                rows.iter().filter(|row| is_in_force(row, day)).map(|(pair, _)| *pair).collect();
            for pair in &in_force {
                overlaps |= in_force.iter().filter(|other| *other == pair).count() > 1;
                card_overlaps |= in_force.iter().filter(|other| other.0 == pair.0).count() > 1;
                is_crowded |= (0..3).all(|guardian| in_force.contains(&(guardian, pair.1)));
            }
        }
        let reading = read_files(&[("bindings.csv", bindings.as_bytes()), ("cards.csv", cards.as_bytes())]);
        let has = |text: &str| reading.findings.mistakes.iter().any(|mistake| mistake.allowed.contains(text));
        prop_assert_eq!(has("stretches of one binding"), overlaps);
        prop_assert_eq!(has("stretches of one card"), card_overlaps);
        prop_assert_eq!(has("guardians of a pupil at once"), is_crowded);
    }

    #[test]
    fn orders_are_judged_as_day_by_day(
        rows in proptest::collection::vec((lasting(), 0_usize..3, any::<bool>()), 0..7),
    ) {
        const PLANS: [(&str, [bool; 2]); 3] = [("arrival", [true, false]), ("departure", [false, true]), ("both", [true, true])];
        let mut orders = "order,guardian,pupil,plan,state,prepaid,approved_at,cancelled_at\n".to_owned();
        for (number, (((guardian, pupil), (from, until)), plan, was_approved)) in rows.iter().enumerate() {
            let from = if *was_approved { date(*from) } else { String::new() };
            let (plan, until) = (PLANS[*plan].0, date(*until));
            orders.push_str(&format!("O{number},G{guardian},P{pupil},{plan},cancelled,68,{from},{until}\n"));
        }
        let mut is_double = false;
        for day in DAYS.start..DAYS.end + 4 {
            for passage in 0..2 {
                let paid: Vec<(u8, u8)> = rows
                    .iter()
                    .filter(|(row, plan, was_approved)| *was_approved && PLANS[*plan].1[passage] && is_in_force(row, day))
                    .map(|((pair, _), _, _)| *pair)
                    .collect();
                is_double |= paid.iter().any(|pair| paid.iter().filter(|other| *other == pair).count() > 1);
            }
        }
        let reading = read_files(&[("orders.csv", orders.as_bytes())]);
        prop_assert_eq!(reading.findings.mistakes.is_empty(), !is_double, "{:?}", reading.findings.mistakes);
    }

    #[test]
    fn a_file_of_any_bytes_is_read_or_has_mistakes_but_never_stops_the_check(
        file in prop_oneof![Just("schools.csv"), Just("cards.csv"), Just("guardians.csv"), Just("orders.csv"), Just("days.csv")],
        header in prop_oneof![
            Just(""),
            Just("card,pupil,from,until\n"),
            Just("date,school,kind,name\n"),
            Just("order,guardian,pupil,plan,state,prepaid,approved_at,cancelled_at\n"),
        ],
        cells in proptest::collection::vec(
            prop_oneof!["[,\"\r\n]", "P[0-2]", "2025-1[0-9]-[0-3][0-9]", ".{0,12}", "off|school|cancelled|both|68"],
            0..40,
        ),
        tail in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let bytes = [header.as_bytes(), cells.join(",").as_bytes(), &tail].concat();
        let reading = read_files(&[(file, &bytes)]);
        let Reading { entries, findings } = &reading;
        // Schools and pupils are there whenever there is no mistake.
        prop_assert_eq!(findings.mistakes.is_empty(), !entries.is_empty());
        for finding in findings.mistakes.iter().chain(&findings.warnings) {
            prop_assert_eq!(finding.to_string().lines().count(), 1, "one line a finding: {}", finding);
        }
    }
}
