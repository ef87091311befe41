//! One table a sentence of the public format, and the property that both ways are equal.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const AT: &str = "2025-09-08T07:31:04.250+08:00";
const AT_MS: i64 = 1_757_287_864_250;

fn tap(direction: Option<Direction>) -> TapView<'static> {
    TapView {
        card: CardNumber::new("0417391826541234").unwrap(),
        reader: Cow::Borrowed("353604-G1-2"),
        at: Timestamp::from_millis(AT_MS),
        direction,
    }
}

/// The usual three fields and more.
fn with(more: &str) -> String {
    format!(r#"{{"card":"0417391826541234","reader":"353604-G1-2","at":"{AT}"{more}}}"#)
}

fn assert_good(record: &str, direction: Option<Direction>) {
    assert_eq!(decode(record.as_bytes()), Ok(tap(direction)), "{record}");
    assert_ways_agree(record.as_bytes());
}

fn assert_malformed(record: &str) {
    assert_eq!(decode(record.as_bytes()), Err(RejectReason::Malformed), "{record}");
    assert_ways_agree(record.as_bytes());
}

fn assert_ways_agree(record: &[u8]) {
    for received in [ReceivedField::Known, ReceivedField::Unknown] {
        let truth = json::decode(record, received);
        if let Some(scanned) = scan::scan(record, received) {
            assert_eq!(Some(scanned), truth, "{}", String::from_utf8_lossy(record));
        }
    }
}

#[test]
fn the_usual_layouts_are_scanned() {
    for (record, direction) in [
        (with(""), None),
        (with(r#","dir":"in""#), Some(Direction::In)),
        (with(r#","dir":"out""#), Some(Direction::Out)),
        (with(r#", "dir": "out""#), Some(Direction::Out)),
        (format!(r#"{{"at":{AT_MS},"reader":"353604-G1-2","card":"0417391826541234"}}"#), None),
        (format!(r#"{{"at": {AT_MS}, "reader": "353604-G1-2", "card": "0417391826541234"}}"#), None),
    ] {
        let scanned = scan::scan(record.as_bytes(), ReceivedField::Unknown).map(|decoded| decoded.tap);
        assert_eq!(scanned, Some(tap(direction)), "{record}");
        assert_good(&record, direction);
    }
}

#[test]
fn white_space_order_and_escapes_do_not_matter() {
    let spaced = r#" { "at"
        : 1757287864250 , "dir" :null,"card":"0417391826541234","reader":"353604-G1-2" }	"#;
    assert_good(spaced, None);
    let escaped_values = r#"{"card":"\u0030417391826541234","reader":"353604\u002dG1-2",
        "at":"2025-09-08T07:31:04.250\u002B08:00"}"#;
    assert_good(escaped_values, None);
    let escaped_names = r#"{"c\u0061rd":"0417391826541234","reader":"353604-G1-2",
        "\u0061t":1757287864250,"dir":"\u0069n"}"#;
    assert_good(escaped_names, Some(Direction::In));
}

#[test]
fn cards_are_compared_without_regard_to_case() {
    let lower = r#"{"card":"0a1b","reader":"r","at":0}"#;
    let upper = r#"{"card":"0A1B","reader":"r","at":0}"#;
    assert_eq!(decode(lower.as_bytes()).unwrap().card, decode(upper.as_bytes()).unwrap().card);
}

#[test]
fn an_optional_field_that_is_null_is_missing() {
    assert_good(&with(r#","dir":null"#), None);
    let (_, received) = decode_replayed(with(r#","received":null"#).as_bytes()).unwrap();
    assert_eq!(received, Timestamp::from_millis(AT_MS));
}

#[test]
fn a_required_field_that_is_missing_or_null_is_malformed() {
    for (card, reader, at) in [
        ("", r#""reader":"r","#, r#""at":0"#),
        (r#""card":"1","#, "", r#""at":0"#),
        (r#""card":"1","#, r#""reader":"r","#, r#""x":0"#),
        (r#""card":null,"#, r#""reader":"r","#, r#""at":0"#),
        (r#""card":"1","#, r#""reader":null,"#, r#""at":0"#),
        (r#""card":"1","#, r#""reader":"r","#, r#""at":null"#),
    ] {
        assert_malformed(&format!("{{{card}{reader}{at}}}"));
    }
}

#[test]
fn a_known_field_twice_is_malformed() {
    for twice in [
        r#","card":"0417391826541234""#,
        r#","card":null"#,
        r#","reader":"353604-G1-2""#,
        r#","at":0"#,
        r#","dir":"in","dir":"in""#,
        r#","dir":null,"dir":"in""#,
        r#","dir":null,"dir":null"#,
        r#","c\u0061rd":"0417391826541234""#,
    ] {
        assert_malformed(&with(twice));
    }
}

#[test]
fn names_of_fields_are_compared_exactly() {
    assert_good(&with(r#","Card":1,"AT":2,"dir ":3,"dir\u0000":4,"":5"#), None);
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    for unknown in [
        r#""x":1e400"#,
        r#""x":-1E-999999"#,
        r#""x":123456789012345678901234567890"#,
        r#""x":-0"#,
        r#""x":"\ud800""#,
        r#""x":"\udc00\ud800""#,
        r#""\ud800":1"#,
        r#""x":1,"x":1"#,
        r#""x":{"card":"2","card":"3","dir":"in"}"#,
        r#""x":[{"at":[[],{}]},true,false,null,"卡\n"]"#,
        r#""received":"whenever""#,
        r#""received":1,"received":2"#,
        "\"x\":\"\u{7f}\u{2028}\u{10ffff}\"",
    ] {
        assert_good(&with(&format!(",{unknown}")), None);
        assert_good(&format!("{{{unknown},{}", &with("")[1..]), None);
    }
}

#[test]
fn deep_nesting_is_ignored_without_a_deep_stack() {
    let depth = (TAP_LEN_MAX - with(",\"x\":").len()) / 2;
    let deep = with(&format!(",\"x\":{}{}", "[".repeat(depth), "]".repeat(depth)));
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || assert_good(&deep, None))
        .unwrap()
        .join()
        .unwrap();
    assert_malformed(&with(&format!(",\"x\":{}{}", "[".repeat(depth), "]".repeat(depth - 1))));
}

#[test]
fn what_is_not_json_is_malformed() {
    let usual = with("");
    for record in [
        "",
        " ",
        "null",
        "[]",
        "{}",
        "\"card\"",
        r#"["0417391826541234","353604-G1-2",0,null]"#,
        &format!("[{usual}]"),
        &format!("{usual}{usual}"),
        &format!("{usual},"),
        &format!("{usual}\0"),
        &format!("\u{feff}{usual}"),
        &with(","),
        &with(r#","x""#),
        &with(r#","x":"#),
        &with(r#","x":01"#),
        &with(r#","x":1."#),
        &with(r#","x":.5"#),
        &with(r#","x":+1"#),
        &with(r#","x":1e"#),
        &with(r#","x":-"#),
        &with(r#","x":NaN"#),
        &with(r#","x":nul"#),
        &with(r#","x":'y'"#),
        &with(r#","x":"\x""#),
        &with(r#","x":"\u12g4""#),
        &with(",\"x\":\"a\tb\""),
        &with(",\"a\tb\":1"),
        &with(",\"a\\\\\nb\":1"),
        &with(r#","x":[1,]"#),
        &with(r#","x":{"y":1,}"#),
        &with(r#","x":{y:1}"#),
        &with(r#","x":[}"#),
        &with(r#",x:1"#),
        &with("/**/"),
        &usual[..usual.len() - 1],
        &usual[1..],
    ] {
        assert_malformed(record);
    }
}

#[test]
fn what_is_not_utf_8_is_malformed_wherever_it_is() {
    for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xe5\x8d"] {
        for (before, after) in [(r#","x":""#, r#"""#), (r#",""#, r#"":1"#), (r#","x":["#, "]")] {
            let mut record = with(before).into_bytes();
            record.pop();
            record.extend_from_slice(bad);
            record.extend_from_slice(after.as_bytes());
            record.push(b'}');
            assert_eq!(decode(&record), Err(RejectReason::Malformed));
        }
    }
}

#[test]
fn values_of_the_wrong_type_or_form_are_malformed() {
    for (field, values) in [
        ("card", &["1", "[]", "{}", "true", r#""""#, r#""0-1""#, r#""\ud800""#, r#"["1"]"#, r#""卡""#][..]),
        ("reader", &["1", "false", r#""""#, r#""a b""#, r#""\n""#, r#""門""#]),
        (
            "at",
            &[
                r#""0""#,
                "1.0",
                "1e3",
                "1E3",
                "-1.5",
                "true",
                "[0]",
                r#""2025-09-08""#,
                "253402300800000",
                "1e400",
            ],
        ),
        ("dir", &["1", "true", r#""""#, r#""IN""#, r#""both""#, r#"["in"]"#, "{}"]),
    ] {
        for value in values {
            let mut usual = [("card", r#""1""#), ("reader", r#""r""#), ("at", "0"), ("dir", "null")];
            usual
                .iter_mut()
                .filter(|(name, _)| *name == field)
                .for_each(|(_, usual_value)| *usual_value = value);
            let fields: Vec<String> =
                usual.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            assert_malformed(&format!("{{{}}}", fields.join(",")));
        }
    }
}

#[test]
fn a_record_is_at_most_4096_bytes_without_its_line_end() {
    let padded = |len: usize| with(&format!(",\"x\":\"{}\"", "x".repeat(len - with(",\"x\":\"\"").len())));
    assert_eq!(padded(4096).len(), 4096);
    assert_good(&padded(4096), None);
    for line_end in ["\n", "\r\n"] {
        assert!(decode((padded(4096) + line_end).as_bytes()).is_ok());
        assert_eq!(decode((padded(4097) + line_end).as_bytes()), Err(RejectReason::Oversize));
    }
    assert_eq!(decode(padded(4097).as_bytes()), Err(RejectReason::Oversize));
    assert_eq!(decode(&[b'x'; 5000]), Err(RejectReason::Oversize));
}

#[test]
fn received_is_known_only_in_files_for_replay() {
    let late = with(r#","received":"2025-09-08T09:00:00+08:00""#);
    let received =
        |record: &str| decode_replayed(record.as_bytes()).map(|(_, received)| received.as_millis());
    assert_eq!(received(&late), Ok(1_757_293_200_000));
    assert_eq!(received(&with(r#","received":1757293200000"#)), Ok(1_757_293_200_000));
    assert_eq!(received(&with("")), Ok(AT_MS));
    assert_good(&late, None);
    for bad in [r#""soon""#, "1.5", "[]", r#"1,"received":1"#] {
        let record = with(&format!(",\"received\":{bad}"));
        assert_eq!(received(&record), Err(RejectReason::Malformed));
        assert_good(&record, None);
    }
}

#[test]
fn a_byte_order_mark_belongs_to_the_file_and_a_blank_line_is_no_record() {
    assert_eq!(without_byte_order_mark("\u{feff}{}".as_bytes()), b"{}");
    assert_eq!(without_byte_order_mark(b"{}"), b"{}");
    for blank in ["", "\r", " \t\r\n"] {
        assert!(is_blank(blank.as_bytes()));
    }
    assert!(!is_blank(b"{}"));
}

/// Texts that turn one tap into another, or into nonsense.
const SPLICES: [&str; 44] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    " ",
    "\n",
    "\t",
    "\0",
    "null",
    "true",
    "0",
    "-",
    "+",
    ".",
    "e",
    "1e400",
    "é",
    "\u{feff}",
    "\\u0030",
    "\\ud800",
    "\"card\":\"A1\",",
    ",\"card\":\"A1\"",
    "\"dir\":\"in\",",
    ",\"dir\":\"out\"",
    ",\"dir\":null",
    ",\"at\":5",
    ",\"received\":7",
    ",\"received\":\"x\"",
    ",\"x\":1",
    ",\"x\":[[[{}]]]",
    ",\"\\ud800\":{}",
    "T",
    "Z",
    "+08:00",
    ".123456789",
    "60",
    "99",
    "\"in\"",
    "\"dir\":",
    "{}",
];

#[derive(Clone, Debug)]
enum Mutation {
    Replace(u8),
    Insert(&'static str),
    Remove(usize),
    /// Repeats a stretch of the record behind it.
    Repeat(usize),
}

fn mutation() -> impl Strategy<Value = (prop::sample::Index, Mutation)> {
    let change = prop_oneof![
        any::<u8>().prop_map(Mutation::Replace),
        prop::sample::select(SPLICES.to_vec()).prop_map(Mutation::Insert),
        (1usize..12).prop_map(Mutation::Remove),
        (1usize..40).prop_map(Mutation::Repeat),
    ];
    (any::<prop::sample::Index>(), change)
}

fn mutated(mut record: Vec<u8>, mutations: &[(prop::sample::Index, Mutation)]) -> Vec<u8> {
    for (place, mutation) in mutations {
        let start = place.index(record.len() + 1);
        let end_of = |len: usize| (start + len).min(record.len());
        match mutation {
            Mutation::Replace(byte) => {
                if let Some(place) = record.get_mut(start) {
                    *place = *byte;
                }
            }
            Mutation::Insert(text) => {
                record.splice(start..start, text.bytes());
            }
            Mutation::Remove(len) => {
                let end = end_of(*len);
                record.drain(start..end);
            }
            Mutation::Repeat(len) => {
                let stretch = record[start..end_of(*len)].to_vec();
                record.splice(start..start, stretch);
            }
        }
    }
    record
}

const USUAL_INSTANT: &str = concat!(
    "20(25|24)-(02|09|12)-(0[1-9]|[12][0-9]|3[01])[Tt]",
    "([01][0-9]|2[0-4]):[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,10})?(Z|z|[+-](08|23|24):[0-5]0)",
);

/// Fields that a record may have besides.
const MORE_FIELDS: [&str; 5] =
    [r#""dir":"in""#, r#""dir":"out""#, r#""dir":null"#, r#""received":1757287864250"#, r#""x":{}"#];

fn usual_record() -> impl Strategy<Value = Vec<u8>> {
    let at = prop_oneof![
        USUAL_INSTANT.prop_map(|text| format!("\"{text}\"")),
        (-70_000_000_000_000i64..300_000_000_000_000).prop_map(|ms| ms.to_string()),
    ];
    let more = prop::sample::subsequence(MORE_FIELDS.to_vec(), 0..3);
    let turned = prop_oneof![2 => Just(0usize), 1 => 0usize..5];
    ("[0-9A-Za-z]{1,33}", "[0-9A-Za-z._-]{1,33}", at, more, turned, any::<bool>()).prop_map(
        |(card, reader, at, more, turned, spaces)| {
            let mut fields = vec![
                format!("\"card\":\"{card}\""),
                format!("\"reader\":\"{reader}\""),
                format!("\"at\":{at}"),
            ];
            fields.extend(more.into_iter().map(str::to_owned));
            let turned = turned % fields.len();
            fields.rotate_left(turned);
            let text = format!("{{{}}}", fields.join(if spaces { ", " } else { "," }));
            if spaces { text.replace("\":", "\": ").into_bytes() } else { text.into_bytes() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_agree_on_usual_records(record in usual_record()) {
        assert_ways_agree(&record);
    }

    #[test]
    fn both_ways_agree_on_mutated_records(
        record in usual_record(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        assert_ways_agree(&mutated(record, &mutations));
    }

    #[test]
    fn decoding_never_panics(record in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&record);
        let _ = decode_replayed(&record);
    }
}
