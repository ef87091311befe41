//! Every record has its outcome: the rules as a file shows them, and whatever bytes come.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use gatebell_engine::registry::Entry;
use gatebell_engine::tap::TAP_LEN_MAX;
use gatebell_engine::term::Term;
use proptest::prelude::*;

use super::{Summary, replay};

/// One school; P1 with G1 (app both ways, SMS for arrivals) and G2 (app for departures), P2 with nobody.
const CITY: [(&str, &str); 8] = [
    (
        "schools.csv",
        "school,name,level,departure_opens\nS1,東門國小,elementary,11:30\nS2,南門國小,elementary,\n",
    ),
    ("readers.csv", "reader,school,name,direction\nR-in,S1,,in\nR-out,S1,,out\nR-both,S1,,both\n"),
    ("pupils.csv", "pupil,school,class,seat,name\nP1,S1,,,王小明\nP2,S1,,,\nP3,S2,,,\n"),
    ("cards.csv", "card,pupil,from,until\n04AA,P1,,2025-10-01\n04BB,P1,,\n04CC,P2,,\n04DD,P3,,\n"),
    (
        "guardians.csv",
        "guardian,name,phone,email,app_token,line_user,language\nG1,,0912345678,,token-1,,\nG2,,,,token-2,,\n",
    ),
    ("bindings.csv", "guardian,pupil,relation,from,until\nG1,P1,father,,\nG2,P1,mother,,\n"),
    (
        "subscriptions.csv",
        "guardian,pupil,channel,passages,from,until\nG1,P1,app,both,,\nG2,P1,app,departure,,\nG2,P1,email,both,,\n",
    ),
    (
        "orders.csv",
        "order,guardian,pupil,plan,state,prepaid,approved_at,cancelled_at\nO1,G1,P1,arrival,approved,68,2025-09-05,\n",
    ),
];

fn city() -> (Term, Vec<Entry>) {
    let term = Term::parse(Term::built_in("114-1").unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in CITY {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let now = term.midnight("2025-09-08".parse().unwrap());
    let reading = crate::city::read(dir.path(), term.time_zone(), now);
    assert_eq!(reading.findings.mistakes, []);
    (term, reading.entries)
}

fn outcomes(name: &str, bytes: &[u8]) -> (Vec<String>, Summary) {
    let dir = tempfile::tempdir().unwrap();
    let taps: PathBuf = dir.path().join(name);
    std::fs::write(&taps, bytes).unwrap();
    let (term, entries) = city();
    let mut out = Vec::new();
    let summary = replay(term, entries, &taps, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(str::to_owned).collect(), summary)
}

fn tap(card: &str, reader: &str, clock: &str) -> String {
    format!(r#"{{"card":"{card}","reader":"{reader}","at":"2025-09-08T{clock}+08:00"}}"#)
}

#[test]
fn each_outcome_is_written_as_the_format_says() {
    let lines = [
        tap("04aa", "R-in", "07:31:04.250"),
        tap("04AA", "R-in", "07:35:00"),
        tap("04BB", "R-both", "07:50:00"),
        "not json".to_owned(),
        tap("04ZZ", "R-in", "07:31:00"),
        r#"{"card":"04AA","reader":"R-in","at":"2025-09-08T09:00:00+08:00","received":"2025-09-08T08:50:00+08:00"}"#
            .to_owned(),
        tap("04AA", "R-out", "16:00:00"),
        r#"{"card":"04AA","reader":"R-in","at":"2025-09-07T07:31:00+08:00"}"#.to_owned(),
        tap("04CC", "R-nobody", "11:29:59"),
        tap("04DD", "R-both", "11:30:00"),
        r#"{"card":"04AA","reader":"R-in","at":"2025-09-09T07:31:00+08:00","received":"2025-09-09T08:31:00+08:00"}"#
            .to_owned(),
        r#"{"card":"04AA","reader":"R-in","at":"2025-09-13T07:31:00+08:00"}"#.to_owned(),
    ];
    let (outcomes, summary) = outcomes("taps.ndjson", lines.join("\n").as_bytes());
    assert_eq!(
        outcomes,
        [
            r#"{"record":0,"outcome":"passage","passage":"arrival","pupil":"P1","notices":[{"guardian":"G1","channel":"app","state":"queued"},{"guardian":"G1","channel":"sms","state":"queued","order":"O1"}]}"#,
            r#"{"record":1,"outcome":"duplicate","pupil":"P1"}"#,
            r#"{"record":2,"outcome":"duplicate","pupil":"P1"}"#,
            r#"{"record":3,"outcome":"rejected","reason":"malformed"}"#,
            r#"{"record":4,"outcome":"unknown_card"}"#,
            r#"{"record":5,"outcome":"rejected","reason":"clock_ahead"}"#,
            r#"{"record":6,"outcome":"passage","passage":"departure","pupil":"P1","notices":[{"guardian":"G1","channel":"app","state":"queued"},{"guardian":"G2","channel":"app","state":"queued"}]}"#,
            r#"{"record":7,"outcome":"stale"}"#,
            r#"{"record":8,"outcome":"passage","passage":"arrival","pupil":"P2","notices":[]}"#,
            r#"{"record":9,"outcome":"passage","passage":"departure","pupil":"P3","notices":[]}"#,
            r#"{"record":10,"outcome":"passage","passage":"arrival","pupil":"P1","notices":[{"guardian":"G1","channel":"app","state":"expired"},{"guardian":"G1","channel":"sms","state":"expired","order":"O1"}]}"#,
            r#"{"record":11,"outcome":"no_school","pupil":"P1"}"#,
        ]
    );
    assert_eq!(
        summary.to_string(),
        "12 records\n  \
           rejected: malformed       1\n  \
           rejected: clock_ahead     1\n  \
           stale                     1\n  \
           unknown_card              1\n  \
           no_school                 1\n  \
           duplicate                 2\n  \
           passage: arrival          3\n  \
           passage: departure        2\n"
    );
}

#[test]
fn the_33rd_passage_of_a_day_is_too_many() {
    let mut lines = Vec::new();
    for minute in 0..33 {
        // Eleven minutes apart, and each the other way.
        let (hour, minute_of_hour) = (7 + minute * 11 / 60, minute * 11 % 60);
        let reader = if minute % 2 == 0 { "R-in" } else { "R-out" };
        lines.push(tap("04CC", reader, &format!("{hour:02}:{minute_of_hour:02}:00")));
    }
    let (outcomes, _) = outcomes("taps.ndjson", lines.join("\r\n").as_bytes());
    assert!(outcomes[..32].iter().all(|line| line.contains(r#""outcome":"passage""#)), "{outcomes:?}");
    assert_eq!(outcomes[32], r#"{"record":32,"outcome":"rejected","reason":"too_many","pupil":"P2"}"#);
}

#[test]
fn csv_and_ndjson_with_the_same_taps_have_the_same_outcomes() {
    let json = [
        r#"{"card":"04AA","reader":"R-in","at":"2025-09-08T07:31:00+08:00"}"#,
        r#"{"card":"04AA","reader":"R-in","at":1757289000000,"dir":"out","received":1757289000001}"#,
        r#"{"card":"04CC","reader":"R-both","at":"2025-09-08T07:31:00+08:00","dir":"up"}"#,
        r#"{"card":"04CC","reader":"R both","at":"2025-09-08T07:31:00+08:00"}"#,
        r#"{"card":"04CC","at":"2025-09-08T07:31:00+08:00"}"#,
    ]
    .join("\n");
    let csv = "\u{feff}note,at,received,card,dir,reader\r\n\
         ,2025-09-08T07:31:00+08:00,,04AA,,R-in\r\n\
         \"a \"\"note\"\",\r\nof two lines\",1757289000000,1757289000001,04AA,out,R-in\r\n\
         \r\n\
         ,2025-09-08T07:31:00+08:00,,04CC,up,R-both\r\n\
         ,2025-09-08T07:31:00+08:00,,04CC,,R both\r\n\
         ,2025-09-08T07:31:00+08:00,,04CC,,\r\n";
    let (of_json, _) = outcomes("taps.ndjson", json.as_bytes());
    let (of_csv, summary) = outcomes("taps.CSV", csv.as_bytes());
    assert_eq!(of_json, of_csv);
    assert_eq!(summary.records(), 5);
}

#[test]
fn what_is_no_record_of_the_format_is_rejected_with_its_reason() {
    let oversize =
        format!(r#"{{"card":"04AA","reader":"R-in","at":1757289000000,"x":"{}"}}"#, "x".repeat(TAP_LEN_MAX));
    let good = tap("04AA", "R-in", "07:31:00");
    let largest = format!("{good}{}", " ".repeat(TAP_LEN_MAX - good.len()));
    // (file, bytes, what the records' outcomes contain)
    let cases: [(&str, Vec<u8>, &[&str]); 20] = [
        ("t.ndjson", b"".to_vec(), &[]),
        ("t.ndjson", b"\n\r\n  \n\t".to_vec(), &[]),
        ("t.ndjson", format!("\u{feff}{good}").into_bytes(), &["arrival"]),
        ("t.ndjson", "\u{feff}\n".into(), &[]),
        ("t.ndjson", format!("{largest}\r\n").into_bytes(), &["arrival"]),
        ("t.ndjson", format!("\u{feff}{largest}\r\n").into_bytes(), &["arrival"]),
        ("t.ndjson", format!("{largest} \r\n").into_bytes(), &["oversize"]),
        ("t.ndjson", format!("{oversize}\n{good}").into_bytes(), &["oversize", "arrival"]),
        ("t.ndjson", format!("{}\n{good}", " ".repeat(100_000)).into_bytes(), &["arrival"]),
        ("t.ndjson", b"\xff\xfe{\n[]\nnull\n{}\n\"\"".to_vec(), &["malformed"; 5]),
        (
            "t.ndjson",
            br#"{"card":"04AA","reader":"R-in","at":1757289000000,"received":"x"}"#.to_vec(),
            &["malformed"],
        ),
        (
            "t.ndjson",
            br#"{"card":"04AA","reader":"R-in","at":1757289000000,"received":null}"#.to_vec(),
            &["arrival"],
        ),
        ("t.csv", b"".to_vec(), &[]),
        ("t.csv", b"card,reader,at\n".to_vec(), &[]),
        ("t.csv", b"card,reader,at\n04AA,R-in\n04AA,R-in,1757289000000,\n,,\n".to_vec(), &["malformed"; 3]),
        ("t.csv", b"card,reader,at\n04AA,R-in,1757289000000".to_vec(), &["arrival"]),
        (
            "t.csv",
            b"card,reader,at\n04CC,R-in,1757289000000\n04AA,R-in,\"1757289000000\n".to_vec(),
            &["arrival", "malformed"],
        ),
        (
            "t.csv",
            [
                b"card,reader,at,x\n04AA,R-in,1757289000000,",
                vec![b'x'; 3_000_000].as_slice(),
                b"\n04AA,R-in,1757289000000,\xff\n",
            ]
            .concat(),
            &["oversize", "malformed"],
        ),
        ("t.csv", b"card,reader\n04AA,R-in\n".to_vec(), &["malformed"]),
        ("t.csv", b"card,reader,at,card\n04AA,R-in,1757289000000,04AA\n".to_vec(), &["malformed"]),
    ];
    for (name, bytes, expected) in cases {
        let (found, _) = outcomes(name, &bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert_eq!(found.len(), expected.len(), "{name} {shown}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{name} {shown}: {found}");
        }
    }
}

#[test]
fn a_csv_row_of_the_largest_size_is_a_record_and_one_byte_more_is_oversize() {
    for line_end in ["\n", "\r\n"] {
        let row = "04AA,R-in,1757289000000,";
        let largest = format!("{row}{}", "x".repeat(TAP_LEN_MAX - row.len()));
        let csv =
            ["card,reader,at,note", &largest, "", &largest, &format!("{largest}x"), &largest].join(line_end);
        let (found, _) = outcomes("taps.csv", csv.as_bytes());
        let words: Vec<bool> = found.iter().map(|line| line.contains("oversize")).collect();
        assert_eq!(words, [false, false, true, false], "{found:?}");
    }
}

#[test]
fn a_csv_without_the_columns_of_a_tap_says_so() {
    let (_, summary) = outcomes("taps.csv", b"card,Reader\n04AA,R-in\n");
    let text = summary.to_string();
    assert!(
        text.contains("warning: the header does not name reader, at, so every record is malformed"),
        "{text}"
    );
}

#[test]
fn a_tap_without_received_that_turns_the_day_by_more_than_a_week_is_warned_of() {
    let at = |day: &str| format!(r#"{{"card":"04AA","reader":"R-in","at":"{day}T07:31:00+08:00"}}"#);
    let says = |day: &str| {
        format!(
            r#"{{"card":"04AA","reader":"R-in","at":"{day}T07:31:00+08:00","received":"{day}T07:31:00+08:00"}}"#
        )
    };
    for (lines, is_warned) in [
        ([at("2025-09-08"), at("2025-09-15")], false),
        ([at("2025-09-08"), at("2025-09-16")], true),
        ([at("2025-09-08"), says("2025-09-16")], false),
        ([at("2025-09-16"), at("2025-09-08")], false),
        (["no tap".to_owned(), at("2025-09-16")], false),
    ] {
        let (_, summary) = outcomes("taps.ndjson", lines.join("\n").as_bytes());
        let text = summary.to_string();
        assert_eq!(text.contains("warning: record 1, a tap without received"), is_warned, "{lines:?} {text}");
    }
}

/// Lines that are nearly taps, and lines that are nothing.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let tap = (
        prop_oneof!["04(AA|BB|CC|DD|EE)", "[0-9A-Za-z-]{0,34}"],
        prop_oneof!["R-(in|out|both)", "[ -~]{0,3}"],
        prop_oneof!["2025-09-0[7-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\+08:00", "[0-9T:+.-]{0,20}"],
        prop_oneof!["", ",\"dir\":\"(in|out|up)\"", ",\"received\":(null|1757289000000|x)"],
    )
        .prop_map(|(card, reader, at, more)| {
            format!(r#"{{"card":"{card}","reader":"{reader}","at":"{at}"{more}}}"#).into_bytes()
        });
    let noise = proptest::collection::vec(any::<u8>(), 0..60)
        .prop_map(|bytes| bytes.into_iter().filter(|byte| *byte != b'\n').collect::<Vec<u8>>());
    let long = (4000_usize..5000).prop_map(|len| vec![b'['; len]);
    prop_oneof![6 => tap, 3 => noise, 1 => long]
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| b" \t\r".contains(byte))
}

/// One JSON object a record, numbered from 0.
fn check_outcomes(outcomes: &[String], records: usize) {
    assert_eq!(outcomes.len(), records);
    for (position, outcome) in outcomes.iter().enumerate() {
        let value: serde_json::Value = serde_json::from_str(outcome).unwrap();
        assert_eq!(value["record"], position);
        assert!(value["outcome"].is_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_line_of_any_ndjson_has_exactly_one_outcome(lines in proptest::collection::vec(line(), 0..60)) {
        let records = lines
            .iter()
            .enumerate()
            .filter(|(position, line)| {
                let text: &[u8] = line.as_slice();
                let is_first = *position == 0;
                !is_blank(if is_first { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text })
            })
            .count();
        let (outcomes, summary) = outcomes("taps.ndjson", &lines.join(&b'\n'));
        check_outcomes(&outcomes, records);
        prop_assert_eq!(summary.records(), records as u64);
    }

    #[test]
    fn every_row_of_any_csv_has_exactly_one_outcome(
        rows in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof!["04AA", "R-in", "1757289000000", "[a-z,\"\r\n]{0,6}", ".{0,4}", "x{4090,4100}"],
                1..6,
            ),
            0..30,
        ),
        line_end in prop_oneof![Just("\n"), Just("\r\n")],
    ) {
        let mut csv = format!("card,reader,at{line_end}");
        for row in &rows {
            let cells: Vec<String> = row.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            csv.push_str(&cells.join(","));
            csv.push_str(line_end);
        }
        let (outcomes, _) = outcomes("taps.csv", csv.as_bytes());
        check_outcomes(&outcomes, rows.len());
    }

    #[test]
    fn any_bytes_as_csv_end_in_outcomes_that_are_json(bytes in proptest::collection::vec(
        prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400,
    )) {
        let (found, summary) = outcomes("taps.csv", &bytes);
        check_outcomes(&found, usize::try_from(summary.records()).unwrap());
        let mut with_header = b"card,reader,at,dir\n".to_vec();
        with_header.extend(&bytes);
        let (found, summary) = outcomes("taps.csv", &with_header);
        check_outcomes(&found, usize::try_from(summary.records()).unwrap());
    }
}
