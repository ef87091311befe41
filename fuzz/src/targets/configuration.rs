//! What operators write: the service's configuration, terms, texts, and the simulator's configuration.

use gatebell::fuzzing::configuration_mistakes;
use gatebell_engine::ids::Personal;
use gatebell_engine::notice::{Channel, Language, NoticeKind};
use gatebell_engine::template::{SMS_UNITS_MAX, Templates, Told};
use gatebell_engine::term::Term;
use gatebell_engine::time::Timestamp;
use gatebell_engine::toml_document::Mistakes;
use gatebell_gateway_sim::SimConfig;

use super::fixture;

/// In the corpus every secret that was written into a file holds it.
const IN_SECRETS: &str = "hunter2";
/// The keys under which those stand.
const KEYS_OF_SECRETS: [&str; 3] = ["password", "hmac_key", "token"];

/// Every mistake is drawn with its place, and none shows a secret that stands under a key that says so.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((count, drawn)) = configuration_mistakes(text) else { return };
    let count: usize = count.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(1);
    let places = drawn.matches("[city.toml:").count();
    assert!(places >= count, "{count} mistakes at {places} places in {drawn}");
    let is_secret = |line: &str| {
        line.split_once('=')
            .is_some_and(|(key, value)| KEYS_OF_SECRETS.contains(&key.trim()) && value.contains(IN_SECRETS))
    };
    let has_secrets_only = text.split('\n').all(|line| is_secret(line) || !line.contains(IN_SECRETS));
    assert!(!has_secrets_only || !drawn.contains(IN_SECRETS), "{drawn}");
}

/// Every mistake has its place; a term without mistakes counts days and minutes at any instant.
pub fn term(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let term = match Term::parse(text) {
        Ok(term) => term,
        Err(mistakes) => return have_places(&mistakes, text),
    };
    assert_eq!(Term::parse(&format!("\u{feff}{text}")).map(|term| term.name), Ok(term.name.clone()));
    for ms in [i64::MIN, -62_135_596_800_000, 0, 1_757_287_864_250, 253_402_300_799_999, i64::MAX] {
        let at = Timestamp::from_millis(ms);
        let (day, minute) = term.local(at);
        assert!(minute < 24 * 60);
        assert_eq!(day, term.day_of(at));
        assert!(term.midnight(day) <= at || at < Timestamp::from_millis(-62_135_596_800_000));
    }
    assert!(term.days.school_days().take(400).all(|day| term.days.is_school_day(day)));
}

/// Chinese and English texts, divided by a line `== en`. Every mistake has its place; texts without mistakes fill one SMS at
/// most, whatever the name and the place.
pub fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (zh_tw, en) = text.split_once("== en\n").unwrap_or((text, ""));
    let templates = match Templates::parse(zh_tw, en) {
        Ok(templates) => templates,
        Err(mistakes) => {
            let told = mistakes.to_string();
            assert!(told.starts_with("zh-TW.toml:") || told.starts_with("en.toml:"), "{told}");
            return;
        }
    };
    let names =
        ["", "王小明", "𠮷野家𠮷野家𠮷野家𠮷野家", "Christopher Alexander Montgomery-Windsor the Third"];
    let place = "臺北市立第一示範國民小學附設幼兒園分校";
    let Ok(fitted) = templates.clone().fitted(place, 8) else { return };
    for name in names.map(Personal::new) {
        let told = Told { pupil_name: &name, place, at: Timestamp::from_millis(1_757_287_864_250) };
        for kind in [NoticeKind::Arrival, NoticeKind::Absence, NoticeKind::Correction, NoticeKind::Emergency]
        {
            for language in Language::ALL {
                let sms = fitted.text(Channel::Sms, kind, language, told, fixture::term());
                let units = sms.expose().encode_utf16().count();
                assert!(units <= SMS_UNITS_MAX - 8, "{units} units");
                templates.text(Channel::App, kind, language, told, fixture::term());
            }
        }
    }
}

/// No text stops the simulator's configuration from being read, and every mistake is told.
pub fn simulator_configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match SimConfig::parse(text) {
        Ok(configuration) => assert_eq!(configuration.check(), Ok(())),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
}

fn have_places(mistakes: &Mistakes, text: &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split('\n').collect();
    assert!(mistakes.iter().count() > 0, "what is not taken has a mistake");
    for mistake in mistakes.iter() {
        let line = lines.get(mistake.line - 1);
        let line = line.unwrap_or_else(|| panic!("{mistake} is behind the {} lines", lines.len()));
        assert!((1..=line.chars().count() + 1).contains(&mistake.column), "{mistake} is beside {line:?}");
    }
}
