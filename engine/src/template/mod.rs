//! The words of a notice, by channel, kind and language. Read from TOML; no text to a parent is in code.
//!
//! An SMS can reach a wrong number: its `{name}` is masked (王O明). The app's text, behind a login, gives the
//! full name; LINE and e-mail carry it too. One SMS is one segment, since one message is one 通 on the bill: a
//! text that cannot be kept within it, whatever name and place it is filled with, is a mistake when it is
//! loaded. When it is sent, a name or place that is too long is shortened, never the time or the kind.

mod name;
mod text;

use std::fmt;

use compact_str::CompactString;

use crate::ids::Personal;
use crate::notice::{Channel, Language, NoticeKind};
use crate::term::Term;
use crate::time::Timestamp;
use crate::toml_document::{Document, Mistakes, Table, Value};
use name::{cleaned, masked, units};
use text::{Filling, Placeholder, Text};

/// One SMS segment in UTF-16 units, when a character outside GSM 03.38 is in it.
pub const SMS_UNITS_MAX: usize = 70;

/// Longest text of the other channels, in UTF-16 units.
pub const APP_UNITS_MAX: usize = 200;

/// So much of a name is always left, in UTF-16 units.
const NAME_UNITS_MIN: usize = 10;

/// So much of a place is always left, in UTF-16 units.
const PLACE_UNITS_MIN: usize = 12;

const KINDS: [NoticeKind; 5] = [
    NoticeKind::Arrival,
    NoticeKind::Departure,
    NoticeKind::Absence,
    NoticeKind::Correction,
    NoticeKind::Emergency,
];

const BUILT_IN_ZH_TW: &str = include_str!("../../../config/templates/zh-TW.toml");
const BUILT_IN_EN: &str = include_str!("../../../config/templates/en.toml");

/// Every text, checked.
#[derive(Clone, Debug)]
pub struct Templates {
    zh_tw: LanguageTexts,
    en: LanguageTexts,
    /// What the gateways leave of [`SMS_UNITS_MAX`].
    sms_units_max: usize,
}

/// What a notice tells, for filling in.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The pupil's name; may be empty.
    pub pupil_name: &'a Personal,
    /// The name of the school at whose gate the card was read; may be empty.
    pub place: &'a str,
    /// When the card was read.
    pub at: Timestamp,
}

/// The mistakes in the files of texts: one line each, as `LANGUAGE.toml:LINE:COLUMN: …`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct TemplateMistakes(Vec<(Language, Mistakes)>);

impl fmt::Display for TemplateMistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines =
            self.0.iter().flat_map(|(language, mistakes)| mistakes.iter().map(move |it| (language, it)));
        for (position, (language, mistake)) in lines.enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}.toml:{mistake}", language.tag())?;
        }
        Ok(())
    }
}

/// An SMS text that does not fit one segment together with what the gateway adds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{}.toml: sms.{kind}: needs {units_needed} UTF-16 units with a shortened name and place; \
     allowed: {units_max}, which is one SMS of {SMS_UNITS_MAX} without what the gateway adds",
    language.tag()
)]
pub struct TemplateError {
    /// The language.
    pub language: Language,
    /// The kind of notice.
    pub kind: NoticeKind,
    /// UTF-16 units of the text at its shortest.
    pub units_needed: usize,
    /// UTF-16 units that there are.
    pub units_max: usize,
}

impl Templates {
    /// The texts that travel inside the program.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN_ZH_TW, BUILT_IN_EN)
            .expect("the built-in texts are tested to be without mistakes")
    }

    /// Reads the texts of both languages.
    ///
    /// # Errors
    /// Every mistake at once: what is no TOML, missing or unknown kinds and placeholders, control characters,
    /// an SMS that cannot be kept within one segment.
    pub fn parse(zh_tw: &str, en: &str) -> Result<Self, TemplateMistakes> {
        match (LanguageTexts::parse(zh_tw), LanguageTexts::parse(en)) {
            (Ok(zh_tw), Ok(en)) => Ok(Self { zh_tw, en, sms_units_max: SMS_UNITS_MAX }),
            (zh_tw, en) => {
                let wrong = [(Language::ZhTw, zh_tw.err()), (Language::En, en.err())];
                let with_mistakes =
                    |(language, mistakes): (Language, Option<Mistakes>)| Some((language, mistakes?));
                Err(TemplateMistakes(wrong.into_iter().filter_map(with_mistakes).collect()))
            }
        }
    }

    /// Leaves room in every SMS for `affix_units`: the UTF-16 units that a gateway itself puts before and
    /// after the text (with several gateways, the most of them). `longest_place` is the longest name of a
    /// school there is.
    ///
    /// # Errors
    /// Every text that does not fit one segment even with a shortened name and place.
    pub fn fitted(self, longest_place: &str, affix_units: usize) -> Result<Self, Vec<TemplateError>> {
        let units_max = SMS_UNITS_MAX.saturating_sub(affix_units);
        let place_units = units(&cleaned(longest_place));
        let mut errors = Vec::new();
        for language in Language::ALL {
            for kind in KINDS {
                let units_needed = units_at_least(self.texts(language).sms.of(kind), place_units);
                if units_needed > units_max {
                    errors.push(TemplateError { language, kind, units_needed, units_max });
                }
            }
        }
        if errors.is_empty() { Ok(Self { sms_units_max: units_max, ..self }) } else { Err(errors) }
    }

    /// The text of a notice.
    pub fn text(
        &self,
        channel: Channel,
        kind: NoticeKind,
        language: Language,
        told: Told<'_>,
        term: &Term,
    ) -> Personal {
        let texts = self.texts(language);
        let (text, units_max) = match channel {
            Channel::Sms => (texts.sms.of(kind), self.sms_units_max),
            Channel::App | Channel::Line | Channel::Email => (texts.app.of(kind), APP_UNITS_MAX),
        };
        let name_on_record = cleaned(told.pupil_name.expose());
        let masked_name;
        let name = if channel == Channel::Sms && !text.has(Placeholder::FullName) {
            masked_name = masked(&name_on_record);
            masked_name.as_str()
        } else {
            &name_on_record
        };
        let place_on_record = cleaned(told.place);
        let (day, minute_of_day) = term.local(told.at);
        let filling = Filling {
            name: or_if_empty(name, &texts.nameless_pupil),
            place: or_if_empty(&place_on_record, &texts.nameless_place),
            day,
            minute_of_day,
        };
        text.fill(&filling, units_max, NAME_UNITS_MIN).into()
    }

    fn texts(&self, language: Language) -> &LanguageTexts {
        match language {
            Language::ZhTw => &self.zh_tw,
            Language::En => &self.en,
        }
    }
}

fn or_if_empty<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// UTF-16 units of `text` with name and place at their shortest.
fn units_at_least(text: &Text, place_units: usize) -> usize {
    let name = if text.names_pupil() { NAME_UNITS_MIN } else { 0 };
    let place = if text.has(Placeholder::Place) { place_units.min(PLACE_UNITS_MIN) } else { 0 };
    text.fixed_units() + name + place
}

/// The texts of one language.
#[derive(Clone, Debug)]
struct LanguageTexts {
    nameless_pupil: CompactString,
    nameless_place: CompactString,
    sms: KindTexts,
    app: KindTexts,
}

/// One text for each kind of notice.
#[derive(Clone, Debug)]
struct KindTexts {
    arrival: Text,
    departure: Text,
    absence: Text,
    correction: Text,
    emergency: Text,
}

impl LanguageTexts {
    fn parse(toml: &str) -> Result<Self, Mistakes> {
        let document = Document::parse(toml);
        let texts = Self::read(&document);
        document.finish()?;
        Ok(texts.expect("what keeps texts from being read is noted as a mistake"))
    }

    fn read(document: &Document<'_>) -> Option<Self> {
        let table = document.root();
        let nameless_pupil = read_stand_in(&table, "nameless_pupil", NAME_UNITS_MIN);
        let nameless_place = read_stand_in(&table, "nameless_place", PLACE_UNITS_MIN);
        let sms = KindTexts::read(&table, "sms", SMS_UNITS_MAX);
        let app = KindTexts::read(&table, "app", APP_UNITS_MAX);
        table.end();
        Some(Self { nameless_pupil: nameless_pupil?, nameless_place: nameless_place?, sms: sms?, app: app? })
    }
}

impl KindTexts {
    fn read(table: &Table<'_>, key: &'static str, units_max: usize) -> Option<Self> {
        const FORM: &str = "a table with arrival, departure, absence, correction and emergency";
        let kinds = table.required(key, FORM)?.table(FORM)?;
        let texts = KINDS.map(|kind| read_text(&kinds, kind, units_max));
        kinds.end();
        let [arrival, departure, absence, correction, emergency] = texts;
        Some(Self {
            arrival: arrival?,
            departure: departure?,
            absence: absence?,
            correction: correction?,
            emergency: emergency?,
        })
    }

    const fn of(&self, kind: NoticeKind) -> &Text {
        match kind {
            NoticeKind::Arrival => &self.arrival,
            NoticeKind::Departure => &self.departure,
            NoticeKind::Absence => &self.absence,
            NoticeKind::Correction => &self.correction,
            NoticeKind::Emergency => &self.emergency,
        }
    }
}

fn read_text(kinds: &Table<'_>, kind: NoticeKind, units_max: usize) -> Option<Text> {
    let value = kinds.required(kind.name(), "a text such as \"{name} {time} 到校 {place}\"")?;
    let text = match Text::parse(value.text("a text")?) {
        Ok(text) => text,
        Err(error) => {
            value.wrong(error.to_string());
            return None;
        }
    };
    check_text(&value, &text, kind, units_max).then_some(text)
}

fn check_text(value: &Value<'_>, text: &Text, kind: NoticeKind, units_max: usize) -> bool {
    let needs_name = kind != NoticeKind::Emergency;
    let needs_time = matches!(kind, NoticeKind::Arrival | NoticeKind::Departure | NoticeKind::Correction);
    if needs_name && !text.names_pupil() {
        value.wrong("a text with {name}: a parent may have several children");
        return false;
    }
    if needs_time && !text.has(Placeholder::Time) {
        value.wrong("a text with {time}: a notice carries the time of its tap");
        return false;
    }
    let units_needed = units_at_least(text, PLACE_UNITS_MIN);
    if units_needed > units_max {
        value.wrong(format!(
            "at most {units_max} UTF-16 units with a shortened name and place; this needs {units_needed}"
        ));
        return false;
    }
    true
}

fn read_stand_in(table: &Table<'_>, key: &'static str, units_max: usize) -> Option<CompactString> {
    let form = format!("1 to {units_max} characters without line ends and braces");
    let value = table.required(key, &form)?;
    let text = value.text(&form)?;
    if text.is_empty() || cleaned(text) != text || text.contains(['{', '}']) || units(text) > units_max {
        value.wrong(form);
        return None;
    }
    Some(CompactString::new(text))
}

#[cfg(test)]
mod tests;
