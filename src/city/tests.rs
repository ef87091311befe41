//! Every mistake and warning that the format names, each found in a small city that is otherwise right.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use gatebell_engine::registry::{Entry, OrderState};
use gatebell_engine::time::Timestamp;
use jiff::tz::TimeZone;

use super::{Reading, read};

/// A city without a mistake: one school, two pupils, three guardians.
const RIGHT: [(&str, &str); 9] = [
    ("schools.csv", "school,name,level,departure_opens\nS1,東門國小,elementary,\nS2,南門國中,junior,15:30\n"),
    ("readers.csv", "reader,school,name,direction\nR-in,S1,正門,in\nR2,S2,,both\n"),
    ("pupils.csv", "pupil,school,class,seat,name\nP1,S1,三年甲班,7,王小明\nP2,S2,,,\n"),
    ("cards.csv", "card,pupil,from,until\n04aa,P1,,2025-10-01\n04AA,P2,2025-10-01,\n04BB,P1,2025-10-01,\n"),
    (
        "guardians.csv",
        "guardian,name,phone,email,app_token,line_user,language\n\
         G1,王大明,0912345678,,token-1,,\nG2,林美麗,0987654321,a@example.org,,,en\nG3,,0911111111,,token-3,,zh-TW\n",
    ),
    (
        "bindings.csv",
        "guardian,pupil,relation,from,until\nG1,P1,father,,\nG2,P1,mother,,2025-12-01\nG3,P1,other,2025-12-01,\n",
    ),
    (
        "subscriptions.csv",
        "guardian,pupil,channel,passages,from,until\nG1,P1,app,both,,\nG1,P1,app,arrival,,\nG2,P1,email,departure,,\n",
    ),
    (
        "orders.csv",
        "order,guardian,pupil,plan,state,prepaid,approved_at,cancelled_at\n\
         O1,G1,P1,arrival,approved,68,2025-09-05T09:00,\nO2,G1,P1,departure,ordered,68,,\n\
         O3,G2,P1,both,cancelled,136,2025-09-05,2025-10-01\nO4,G2,P1,both,cancelled,,,2025-09-09\n",
    ),
    ("days.csv", "date,school,kind,name\n2025-09-29,,off,颱風停課\n2025-09-29,S1,school,\n"),
];

/// The city above, with one file replaced (or left out, where there is no text).
fn city_with(file: &str, bytes: Option<&[u8]>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in RIGHT {
        if name != file {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
    }
    if let Some(bytes) = bytes {
        std::fs::write(dir.path().join(file), bytes).unwrap();
    }
    dir
}

fn read_city(dir: &Path) -> Reading {
    let now = Timestamp::from_millis(1_757_376_000_000); // 2025-09-09
    read(dir, &TimeZone::get("Asia/Taipei").unwrap(), now)
}

fn mistakes_with(file: &str, bytes: &[u8]) -> Vec<String> {
    let dir = city_with(file, Some(bytes));
    let reading = read_city(dir.path());
    assert!(reading.entries.is_empty() || reading.findings.mistakes.is_empty());
    reading.findings.mistakes.iter().map(ToString::to_string).collect()
}

fn right(file: &str) -> String {
    RIGHT.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned()).unwrap()
}

/// The right file with one more row.
fn with_row(file: &str, row: &str) -> String {
    format!("{}{row}\n", right(file))
}

#[test]
fn a_right_city_has_no_findings_and_one_entry_a_key() {
    let dir = city_with("", None);
    let reading = read_city(dir.path());
    assert_eq!(reading.findings.mistakes, []);
    assert_eq!(reading.findings.warnings, []);
    let kinds: Vec<&str> = reading.entries.iter().map(|entry| entry.key().kind()).collect();
    let expected = [
        vec!["school"; 2],
        vec!["reader"; 2],
        vec!["pupil"; 2],
        vec!["card"; 2],
        vec!["guardian"; 3],
        vec!["binding"; 3],
        vec!["subscription"; 2],
        vec!["order"; 4],
        vec!["day"; 2],
    ];
    assert_eq!(kinds, expected.concat());
}

#[test]
fn prepaid_counts_as_nothing_while_an_order_is_only_ordered() {
    let dir = city_with("", None);
    let reading = read_city(dir.path());
    let prepaid: Vec<(OrderState, i64)> = reading
        .entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Order(order) => Some((order.state, order.prepaid_dollars)),
            _ => None,
        })
        .collect();
    use OrderState::{Approved, Cancelled, Ordered};
    assert_eq!(prepaid, [(Approved, 68), (Ordered, 0), (Cancelled, 136), (Cancelled, 0)]);
}

#[test]
fn the_order_of_rows_and_columns_and_the_line_ends_change_nothing() {
    let dir = city_with("", None);
    let plain = read_city(dir.path()).entries;
    for (file, text) in RIGHT {
        let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        lines.iter_mut().for_each(|cells| cells.reverse());
        let rows: Vec<String> = lines.iter().map(|cells| cells.join(",")).collect();
        let turned = format!("\u{feff}{}\r\n", rows.join("\r\n"));
        std::fs::write(dir.path().join(file), turned).unwrap();
    }
    let reading = read_city(dir.path());
    assert_eq!(reading.findings.mistakes, []);
    assert_eq!(reading.entries, plain);

    let cards = "card,pupil,from,until\n04BB,P1,2025-10-01,\n04AA,P2,2025-10-01,\n04aa,P1,,2025-10-01\n";
    let dir = city_with("cards.csv", Some(cards.as_bytes()));
    assert_eq!(read_city(dir.path()).entries, plain);
}

#[test]
fn only_schools_pupils_and_cards_must_be_there() {
    for file in ["schools.csv", "pupils.csv", "cards.csv"] {
        let dir = city_with(file, None);
        let reading = read_city(dir.path());
        let found: Vec<String> = reading.findings.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(found, [format!("{file}: found no such file; allowed: a file, since it is required")]);
    }
    let dir = tempfile::tempdir().unwrap();
    for file in ["schools.csv", "pupils.csv", "cards.csv"] {
        std::fs::write(dir.path().join(file), right(file)).unwrap();
    }
    assert_eq!(read_city(dir.path()).findings.mistakes, []);
}

#[test]
fn one_wrong_row_is_one_mistake_with_its_place() {
    // (file, row added, what the mistake says)
    for (file, row, expected) in [
        (
            "schools.csv",
            "S 3,,junior,",
            r#"schools.csv:4: school: found "S 3"; allowed: 1 to 32 of [0-9A-Za-z._-]"#,
        ),
        (
            "schools.csv",
            ",,junior,",
            "schools.csv:4: school: found an empty cell; allowed: 1 to 32 of [0-9A-Za-z._-]",
        ),
        (
            "schools.csv",
            "S1,,junior,",
            r#"schools.csv:4: school: found "S1" again; allowed: each key once, and it is on line 2"#,
        ),
        (
            "schools.csv",
            "S3,,college,",
            r#"schools.csv:4: level: found "college"; allowed: elementary, junior, senior or vocational"#,
        ),
        (
            "schools.csv",
            "S3,,junior,7:30",
            r#"schools.csv:4: departure_opens: found "7:30"; allowed: empty, or HH:MM from 00:00 to 23:59"#,
        ),
        (
            "readers.csv",
            "R3,S9,,in",
            r#"readers.csv:4: school: found "S9"; allowed: a school of schools.csv"#,
        ),
        ("readers.csv", "R3,S1,,", "readers.csv:4: direction: found an empty cell; allowed: in, out or both"),
        (
            "readers.csv",
            "R2,S1,,in",
            r#"readers.csv:4: reader: found "R2" again; allowed: each key once, and it is on line 3"#,
        ),
        (
            "pupils.csv",
            "P1,S1,,,",
            r#"pupils.csv:4: pupil: found "P1" again; allowed: each key once, and it is on line 2"#,
        ),
        ("pupils.csv", "P3,S1,,", "pupils.csv:4: found 4 cells; allowed: 5, as in the header"),
        ("pupils.csv", "P3,S1,,,,", "pupils.csv:4: found 6 cells; allowed: 5, as in the header"),
        (
            "pupils.csv",
            "P3,S1,,,\"王小",
            "pupils.csv:4: found a quoted cell that is never closed; allowed: a closing quote",
        ),
        (
            "cards.csv",
            "04-CC,P1,,",
            "cards.csv:5: card: found a masked value of 5 characters; allowed: 1 to 32 of [0-9A-Za-z]",
        ),
        ("cards.csv", "04CC,P9,,", r#"cards.csv:5: pupil: found "P9"; allowed: a pupil of pupils.csv"#),
        (
            "cards.csv",
            "04CC,P1,2025-10-01,2025-10-01",
            r#"cards.csv:5: until: found "2025-10-01"; allowed: a time after from"#,
        ),
        (
            "cards.csv",
            "04Bb,P2,2025-11-01,2025-12-01",
            "cards.csv:5: from: found from 2025-11-01T00:00:00 until 2025-12-01T00:00:00; \
             allowed: stretches of one card that do not overlap (see line 4)",
        ),
        (
            "guardians.csv",
            "G4,,0912/0913,,,,",
            "guardians.csv:5: phone: found a masked value of 9 characters; allowed: empty, or one phone number of 3 to 15 digits",
        ),
        (
            "guardians.csv",
            "G4,,,nobody,,,",
            "guardians.csv:5: email: found a masked value of 6 characters; allowed: empty, or one e-mail address",
        ),
        (
            "guardians.csv",
            "G4,,,,a b,,",
            "guardians.csv:5: app_token: found a masked value of 3 characters; allowed: empty, or characters without spaces between them",
        ),
        (
            "guardians.csv",
            "G4,,,,,,zh",
            r#"guardians.csv:5: language: found "zh"; allowed: empty, zh-TW or en"#,
        ),
        (
            "bindings.csv",
            "G9,P2,father,,",
            r#"bindings.csv:5: guardian: found "G9"; allowed: a guardian of guardians.csv"#,
        ),
        (
            "bindings.csv",
            "G1,P2,uncle,,",
            r#"bindings.csv:5: relation: found "uncle"; allowed: father, mother, paternal_grandparent, maternal_grandparent or other"#,
        ),
        (
            "bindings.csv",
            "G3,P1,other,2026-01-01,",
            "bindings.csv:5: from: found from 2026-01-01T00:00:00 on; allowed: stretches of one binding that do not overlap (see line 4)",
        ),
        (
            "bindings.csv",
            "G3,P1,other,2025-09-01,2025-09-02",
            r#"bindings.csv:5: guardian: found "G3" as one more guardian of "P1" from 2025-09-01T00:00:00 until 2025-09-02T00:00:00; allowed: at most 2 guardians of a pupil at once"#,
        ),
        (
            "subscriptions.csv",
            "G1,P1,sms,both,,",
            r#"subscriptions.csv:5: channel: found "sms"; allowed: app, line or email (SMS comes from orders)"#,
        ),
        (
            "subscriptions.csv",
            "G1,P1,app,all,,",
            r#"subscriptions.csv:5: passages: found "all"; allowed: arrival, departure or both"#,
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,approved,136,,",
            "orders.csv:6: approved_at: found an empty cell; allowed: a time, since the order is approved",
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,paid,136,2025-09-05,",
            r#"orders.csv:6: approved_at: found "2025-09-05"; allowed: an empty cell, since the order is not approved yet"#,
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,paid,136,,2025-09-05",
            r#"orders.csv:6: cancelled_at: found "2025-09-05"; allowed: an empty cell, since the order is not cancelled"#,
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,approved,136,2025-09-05,2025-09-06",
            r#"orders.csv:6: cancelled_at: found "2025-09-06"; allowed: an empty cell, since the order is not cancelled"#,
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,cancelled,136,,",
            "orders.csv:6: cancelled_at: found an empty cell; allowed: a time, since the order is cancelled",
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,cancelled,136,2025-09-05,2025-09-04",
            r#"orders.csv:6: cancelled_at: found "2025-09-04"; allowed: a time that is not before approved_at"#,
        ),
        (
            "orders.csv",
            "O5,G3,P2,both,approved,136.5,2025-09-05,",
            r#"orders.csv:6: prepaid: found "136.5"; allowed: empty, or whole NT$ from 0 to 999999999, digits only"#,
        ),
        (
            "orders.csv",
            "O5,G1,P1,both,approved,136,2025-09-06,",
            "orders.csv:6: approved_at: found an order in force from 2025-09-06T00:00:00 on; \
             allowed: one order in force at once for a kind of passage (see line 2)",
        ),
        (
            "days.csv",
            "2025-9-29,,off,",
            r#"days.csv:4: date: found "2025-9-29"; allowed: a date, YYYY-MM-DD"#,
        ),
        (
            "days.csv",
            "2025-09-30,S9,off,",
            r#"days.csv:4: school: found "S9"; allowed: empty, or a school of schools.csv"#,
        ),
        ("days.csv", "2025-09-30,,closed,", r#"days.csv:4: kind: found "closed"; allowed: off or school"#),
        (
            "days.csv",
            "2025-09-29,,school,",
            "days.csv:4: date: found 2025-09-29 of all schools again; allowed: each key once, and it is on line 2",
        ),
    ] {
        assert_eq!(mistakes_with(file, with_row(file, row).as_bytes()), [expected], "{file} {row}");
    }
}

#[test]
fn what_is_allowed_side_by_side_is_no_mistake() {
    for (file, row) in [
        // Stretches that touch share no instant: G3 comes when G2 goes.
        ("bindings.csv", "G2,P2,mother,2025-12-01,"),
        ("orders.csv", "O5,G1,P1,departure,approved,68,2025-09-05,"),
        ("orders.csv", "O5,G2,P1,both,approved,136,2025-10-01,"),
        ("orders.csv", "O5,G3,P1,both,approved,136,2025-09-05,"),
        // Approved and cancelled at one instant: never in force.
        ("orders.csv", "O5,G1,P1,both,cancelled,0,2025-09-06,2025-09-06"),
        ("days.csv", "2025-09-29,S2,school,"),
        ("subscriptions.csv", "G1,P1,app,both,,"),
    ] {
        let found = mistakes_with(file, with_row(file, row).as_bytes());
        assert_eq!(found, [""; 0], "{file} {row}");
    }
}

#[test]
fn mistakes_of_the_header_are_named() {
    for (text, expected) in [
        (
            "school,name,level,departure_opens,city\nS1,,junior,,\nS2,,junior,,\n",
            vec![
                r#"schools.csv:1: found the unknown column "city" (number 5); allowed: the columns school, name, level, departure_opens"#,
            ],
        ),
        (
            "school,name,level\nS1,,junior\nS2,,junior\n",
            vec![
                "schools.csv:1: departure_opens: found no such column; allowed: the columns school, name, level, departure_opens",
            ],
        ),
        (
            "school,name,level,departure_opens,level\nS1,,junior,,\nS2,,junior,,\n",
            vec![
                "schools.csv:1: level: found the column twice (again as number 5); allowed: each column once",
            ],
        ),
    ] {
        assert_eq!(mistakes_with("schools.csv", text.as_bytes()), expected);
    }
}

#[test]
fn a_file_without_a_header_shows_nothing_personal() {
    let found = mistakes_with("guardians.csv", "G1,王大明,0912345678,,abcdef,,\n".as_bytes()).join("\n");
    for personal in ["王大明", "0912345678", "abcdef"] {
        assert!(!found.contains(personal), "{found}");
    }
    assert!(found.starts_with("guardians.csv:1: found a first line with none of the columns"), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
}

#[test]
fn an_empty_file_lacks_its_columns() {
    for empty in ["", "\u{feff}"] {
        let expected = "days.csv:1: found a first line with none of the columns; allowed: the columns date, school, kind, name";
        assert_eq!(mistakes_with("days.csv", empty.as_bytes()), [expected]);
    }
}

#[test]
fn one_slip_of_a_file_is_one_mistake_and_hides_none_of_another_file() {
    let pupils = |header: &str, rows: &dyn Fn(usize) -> String| -> String {
        let rows: String = (1..300).map(|number| rows(number) + "\n").collect();
        format!("{header}\n{rows}")
    };
    let right = "pupil,school,class,seat,name";
    let row = |number: usize| format!("P{number},S1,,,");
    let quote_at = |at: usize, cell: &'static str| {
        move |number: usize| if number == at { format!("P{number},S1,{cell},,") } else { row(number) }
    };
    for (text, expected) in [
        (
            pupils("pupil;school;class;seat;name", &|number| format!("P{number};S1;;;")),
            "pupils.csv:1: found a first line",
        ),
        (pupils("pupil,school,class,seat", &row), "pupils.csv:1: name: found no such column"),
        (pupils("school,class,seat,name", &row), "pupils.csv:1: pupil: found no such column"),
        (pupils(right, &quote_at(5, "\"a")), "pupils.csv:6: found a quoted cell that is never closed"),
        (
            pupils(right, &|number| match number {
                5 | 7 => quote_at(number, "\"a")(number),
                9 => quote_at(9, "\"b\"")(number),
                _ => row(number),
            }),
            "pupils.csv:6: found a quote that is closed on a later line",
        ),
    ] {
        let dir = city_with("pupils.csv", Some(text.as_bytes()));
        let cards: String = (1..300).map(|number| format!("04{number:04},P{number},,\n")).collect();
        std::fs::write(dir.path().join("cards.csv"), format!("card,pupil,from,until\n{cards}")).unwrap();
        std::fs::write(dir.path().join("days.csv"), with_row("days.csv", "2025-09-30,S9,off,")).unwrap();
        let found: Vec<String> =
            read_city(dir.path()).findings.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with(expected), "{found:#?}");
        assert!(found[1].starts_with("days.csv:4: school"), "{found:#?}");
    }
}

#[test]
fn a_file_that_is_not_utf8_is_one_mistake() {
    // 王 in Big5, on the third line.
    let bytes = b"pupil,school,class,seat,name\nP1,S1,,,\nP2,S2,,,\xa4\xfd\n";
    assert_eq!(
        mistakes_with("pupils.csv", bytes),
        ["pupils.csv:3: found bytes that are not UTF-8; allowed: UTF-8"]
    );
}

#[test]
fn a_rows_line_is_the_one_on_which_it_begins() {
    for line_end in ["\n", "\r\n"] {
        let text = [
            "",
            "pupil,school,class,seat,name",
            "",
            "P1,S1,,,\"王\n小\n明\"",
            "",
            "",
            "P2,S2,,",
            "P3,S9,,,",
            "",
        ]
        .join(line_end);
        let found = mistakes_with("pupils.csv", text.as_bytes());
        let places: Vec<&str> =
            found.iter().map(|mistake| mistake.split(": found").next().unwrap()).collect();
        assert_eq!(places, ["pupils.csv:9", "pupils.csv:10: school"], "{found:?}");
    }
}

#[test]
fn every_mistake_is_reported_at_once_by_file_and_line() {
    let dir = city_with("", None);
    std::fs::write(dir.path().join("days.csv"), with_row("days.csv", "x,S9,y,")).unwrap();
    std::fs::write(dir.path().join("schools.csv"), with_row("schools.csv", "S1,,x,y")).unwrap();
    let reading = read_city(dir.path());
    let places: Vec<String> = reading
        .findings
        .mistakes
        .iter()
        .map(|mistake| mistake.to_string().split(": found").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        places,
        [
            "schools.csv:4: school",
            "schools.csv:4: level",
            "schools.csv:4: departure_opens",
            "days.csv:4: date",
            "days.csv:4: school",
            "days.csv:4: kind"
        ]
    );
}

#[test]
fn guardians_without_an_address_are_warned_of() {
    let dir =
        city_with("subscriptions.csv", Some(with_row("subscriptions.csv", "G2,P1,app,both,,").as_bytes()));
    std::fs::write(dir.path().join("guardians.csv"), right("guardians.csv").replace("0912345678", ""))
        .unwrap();
    let reading = read_city(dir.path());
    assert_eq!(reading.findings.mistakes, []);
    let warnings: Vec<String> = reading.findings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            r#"subscriptions.csv:5: channel: found an app subscription of "G2" without a token; allowed: an app_token in guardians.csv"#,
            r#"orders.csv:2: guardian: found an order in force of "G1" without a phone; allowed: a phone in guardians.csv"#,
        ]
    );
}
