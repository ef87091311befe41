//! The targets: each a function of bytes that asserts what its decoder promises, and what it is fed with.
//!
//! A target promises to end soon, to depend on its bytes alone, and to touch neither disk nor network. Which inputs it gets
//! is left to whoever calls it: libFuzzer, the test over the corpora, or a long run.

mod app_replies;
mod city_import;
mod configuration;
mod fixture;
mod input;
mod mitake;
mod stores;
mod tap_decode;
mod tap_files;
mod tap_reports;

pub use app_replies::app_replies;
pub use city_import::city_import;
pub use configuration::{configuration, simulator_configuration, term, texts};
pub use mitake::{mitake_callbacks, mitake_replies};
pub use stores::{
    ledger_entries, ledger_lines, ledger_rows, receipt_records, receipt_rows, registry_records, registry_rows,
};
pub use tap_decode::tap_decode;
pub use tap_files::tap_files;
pub use tap_reports::tap_reports;

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of its corpus, and of the program that libFuzzer runs.
    pub name: &'static str,
    /// Feeds it with one input; panics where a promise is not kept.
    pub run: fn(&[u8]),
    /// Longest input that is worth its time, in bytes.
    pub len_max_bytes: usize,
    /// Words that its decoder knows, to be put into inputs.
    pub words: &'static [&'static str],
    /// Inputs that the test makes of the corpus.
    pub test_inputs: u64,
}

macro_rules! targets {
    ($($name:ident: $len_max_bytes:literal bytes, $test_inputs:literal inputs, $words:expr;)+) => {
        /// Every target.
        pub static TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $name,
            len_max_bytes: $len_max_bytes,
            words: $words,
            test_inputs: $test_inputs,
        }),+];
    };
}

targets! {
    tap_decode: 5_000 bytes, 20_000 inputs, TAP;
    tap_files: 6_000 bytes, 3_000 inputs, TAP;
    tap_reports: 6_000 bytes, 5_000 inputs, TAP;
    mitake_replies: 1_000 bytes, 10_000 inputs, MITAKE;
    mitake_callbacks: 1_000 bytes, 10_000 inputs, MITAKE;
    app_replies: 1_000 bytes, 10_000 inputs, APP;
    city_import: 4_000 bytes, 2_000 inputs, CITY;
    configuration: 4_000 bytes, 1_000 inputs, TOML;
    term: 4_000 bytes, 1_000 inputs, TOML;
    texts: 4_000 bytes, 1_000 inputs, TOML;
    simulator_configuration: 4_000 bytes, 1_000 inputs, TOML;
    ledger_entries: 1_000 bytes, 5_000 inputs, STORED;
    ledger_rows: 1_000 bytes, 5_000 inputs, STORED;
    ledger_lines: 1_000 bytes, 5_000 inputs, STORED;
    receipt_records: 1_000 bytes, 5_000 inputs, STORED;
    receipt_rows: 1_000 bytes, 5_000 inputs, STORED;
    registry_records: 2_000 bytes, 3_000 inputs, STORED;
    registry_rows: 2_000 bytes, 3_000 inputs, STORED;
}

const TAP: &[&str] = &[
    "\"card\":\"04AA\",",
    "\"reader\":\"353604-G1-2\",",
    "\"at\":",
    "\"dir\":\"in\"",
    "\"dir\":\"out\"",
    "\"received\":",
    "null",
    "2025-09-08T07:31:04.250+08:00",
    "9999-12-31T23:59:60Z",
    "0001-01-01T00:00:00+23:59",
    "-62135596800000",
    "253402300799999",
    "1757287864250",
    "1e400",
    "\\ud800",
    "\\u0030",
    "\u{feff}",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "\\",
    "\r\n",
    "card,reader,at,dir,received",
    "\"\"",
    "9223372036854775807",
    "application/json",
    "application/x-ndjson",
    "0x0",
    "-0",
];

const MITAKE: &[&str] = &[
    "[ref-1]",
    "[ref-2]",
    "[1]",
    "msgid=",
    "#0000000013",
    "statuscode=",
    "Duplicate=Y",
    "AccountPoint=",
    "smsPoint=1",
    "\r\n",
    "\t",
    "20250908073105",
    "9223372036854775808",
    "-1",
    "+5",
    "=",
    "]",
    "[",
    "*",
    "StatusFlag=4",
    "dstaddr=0912345678",
    "%23",
    "%0A",
    "%",
    "&",
    "+886",
    "\u{ff10}\u{ff19}",
    "\u{3000}",
    "!",
];

const APP: &[&str] = &[
    "{\"results\":[",
    "{\"reference\":\"a\",",
    "\"status\":202",
    "\"status\":429,",
    "\"id\":\"m-1\"",
    "\"duplicate\":true",
    "\"retry_after_s\":18446744073709551615",
    "null",
    "]}",
    "}",
    ",",
    "65536",
    "-1",
    "1e3",
    "\\u0000",
    "\"\"",
];

const CITY: &[&str] = &[
    "== schools.csv\n",
    "== pupils.csv\n",
    "== cards.csv\n",
    "== guardians.csv\n",
    "== orders.csv\n",
    "== days.csv\n",
    "\"",
    "\"\"",
    ",",
    "\n",
    "\r\n",
    "\u{feff}",
    "2025-09-08",
    "9999-12-31T23:59:59",
    "0001-01-01",
    "2025-09-08T07:31:05+08:00",
    "elementary",
    "both",
    "approved",
    "cancelled",
    "S1",
    "P1",
    "G1",
    "04AA",
    "24:00",
    "999999999",
    "-0",
    "機密",
    "\u{b}",
    "\u{2028}",
    "#",
];

const TOML: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "=",
    "\"",
    "\"\"\"",
    "'''",
    "\n",
    "\r\n",
    "\t",
    "#",
    "{",
    "}",
    ",",
    ".",
    "true",
    "inf",
    "nan",
    "-1",
    "0x7fffffffffffffff",
    "9223372036854775807",
    "2025-09-08",
    "2025-09-08T07:31:04Z",
    "0001-01-01",
    "9999-12-31",
    "\\u0000",
    "\\U0010ffff",
    "\u{feff}",
    "機密",
    "password = \"hunter2hunter2\"\n",
    "[[gateway]]\n",
    "[kafka]\n",
    "[[days_off]]\n",
    "date = ",
    "name = ",
    "{name}",
    "{time}",
    "{",
    "}}",
    "time_zone = \"Africa/Casablanca\"",
    "url = \"https://me@sms.example/\"",
    "http://[::1]:1/",
    "0.0.0.0:8080",
    "106751991167 days",
];

const STORED: &[&str] = &[
    "null",
    "-1",
    "0",
    "2147483647",
    "-2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "4294967295",
    "\"-009999-01-01\"",
    "\"9999-12-31\"",
    "\"2025-09-08\"",
    "feedbeef",
    "\"sms\"",
    "submitted",
    "arrival",
    "emergency",
    "\"from\":",
    "\"until\":",
    "i7304485",
    "i-7304485",
    "tsms",
    "tdelivered",
    "x00112233445566778899aabbccddeeff",
    "\n",
    "\"",
    "\\u0000",
    "\\ud83d\\ude00",
    "{",
    "}",
    "[",
    "]",
    "%SEALED%",
    "\"removed\":0",
    "\"holders\":[]",
    "+",
    "é",
];
