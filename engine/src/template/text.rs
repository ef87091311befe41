//! One text with placeholders: parsed once, written for each notice, never longer than its limit.

use std::borrow::Cow;

use compact_str::{CompactString, ToCompactString};

use super::name::{cut, units};
use crate::time::Day;

/// What a placeholder stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placeholder {
    /// The pupil: masked in SMS, in full elsewhere.
    Name,
    /// The pupil in full.
    FullName,
    /// `07:31`.
    Time,
    /// `2025-09-08`.
    Date,
    /// The school at whose gate the card was read.
    Place,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 5] = [
        ("name", Self::Name),
        ("full_name", Self::FullName),
        ("time", Self::Time),
        ("date", Self::Date),
        ("place", Self::Place),
    ];

    /// Units that are the same in every text; names and places vary.
    const fn fixed_units(self) -> usize {
        match self {
            Self::Name | Self::FullName | Self::Place => 0,
            Self::Time => "07:31".len(),
            Self::Date => "2025-09-08".len(),
        }
    }

    const fn is_name(self) -> bool {
        matches!(self, Self::Name | Self::FullName)
    }
}

/// What a text is filled with; names and places cleaned.
pub(super) struct Filling<'a> {
    pub(super) name: &'a str,
    pub(super) place: &'a str,
    /// The local day.
    pub(super) day: Day,
    /// The minute of that day.
    pub(super) minute_of_day: u16,
}

/// Why a text is no template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TextError {
    #[error("placeholders {{name}}, {{full_name}}, {{time}}, {{date}}, {{place}} and no other braces")]
    Placeholder,
    #[error("each placeholder once, and {{name}} or {{full_name}}, not both")]
    Repeated,
    #[error("a text without line ends and control characters")]
    Control,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(CompactString),
    Filled(Placeholder),
}

impl Part {
    /// UTF-16 units that are the same in every text.
    fn fixed_units(&self) -> usize {
        match self {
            Self::Literal(literal) => units(literal),
            Self::Filled(placeholder) => placeholder.fixed_units(),
        }
    }

    /// Bytes that are the same in every text.
    fn fixed_bytes(&self) -> usize {
        match self {
            Self::Literal(literal) => literal.len(),
            // Digits and signs of ASCII.
            Self::Filled(placeholder) => placeholder.fixed_units(),
        }
    }
}

/// A text with placeholders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    parts: Vec<Part>,
    /// UTF-16 units of all but name and place.
    fixed_units: usize,
    /// Bytes of all but name and place.
    fixed_bytes: usize,
}

impl Text {
    /// Parses `template`.
    pub(super) fn parse(template: &str) -> Result<Self, TextError> {
        if template.chars().any(char::is_control) {
            return Err(TextError::Control);
        }
        let mut text = Self { parts: Vec::new(), fixed_units: 0, fixed_bytes: 0 };
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}').ok_or(TextError::Placeholder)?;
            let known = Placeholder::ALL.into_iter().find(|(name, _)| *name == word);
            let (_, placeholder) = known.ok_or(TextError::Placeholder)?;
            if text.has(placeholder) || (placeholder.is_name() && text.names_pupil()) {
                return Err(TextError::Repeated);
            }
            text.add_literal(literal)?;
            text.parts.push(Part::Filled(placeholder));
            rest = after;
        }
        text.add_literal(rest)?;
        text.fixed_units = text.parts.iter().map(Part::fixed_units).sum();
        text.fixed_bytes = text.parts.iter().map(Part::fixed_bytes).sum();
        Ok(text)
    }

    fn add_literal(&mut self, literal: &str) -> Result<(), TextError> {
        if literal.contains('}') {
            return Err(TextError::Placeholder);
        }
        if !literal.is_empty() {
            self.parts.push(Part::Literal(CompactString::new(literal)));
        }
        Ok(())
    }

    /// Whether `placeholder` is in it.
    pub(super) fn has(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Filled(placeholder))
    }

    /// Whether it says whom it is about.
    pub(super) fn names_pupil(&self) -> bool {
        self.has(Placeholder::Name) || self.has(Placeholder::FullName)
    }

    /// UTF-16 units of all but name and place.
    pub(super) fn fixed_units(&self) -> usize {
        self.fixed_units
    }

    /// Fills it in, in at most `units_max` UTF-16 units: first the place is shortened, and the name only when
    /// that leaves it less than `name_units_min`.
    pub(super) fn fill(
        &self,
        filling: &Filling<'_>,
        units_max: usize,
        name_units_min: usize,
    ) -> CompactString {
        let (name, place) = self.shortened(filling, units_max, name_units_min);
        // A `String`, which grows in fewer steps than what it becomes in the end.
        let mut filled = String::with_capacity(self.fixed_bytes + name.len() + place.len());
        for part in &self.parts {
            match part {
                Part::Literal(literal) => filled.push_str(literal),
                Part::Filled(Placeholder::Name | Placeholder::FullName) => filled.push_str(&name),
                Part::Filled(Placeholder::Time) => push_time(&mut filled, filling.minute_of_day),
                Part::Filled(Placeholder::Date) => filled.push_str(&filling.day.to_compact_string()),
                Part::Filled(Placeholder::Place) => filled.push_str(&place),
            }
        }
        filled.into()
    }

    /// Name and place as far as there is room for them.
    fn shortened<'a>(
        &self,
        filling: &Filling<'a>,
        units_max: usize,
        name_units_min: usize,
    ) -> (Cow<'a, str>, Cow<'a, str>) {
        let room = units_max.saturating_sub(self.fixed_units);
        // A text has no more units than bytes, and most fit without being counted.
        if filling.name.len() + filling.place.len() <= room {
            return (Cow::Borrowed(filling.name), Cow::Borrowed(filling.place));
        }
        let place_units = if self.has(Placeholder::Place) { units(filling.place) } else { 0 };
        let name_room = room.saturating_sub(place_units).max(name_units_min).min(room);
        let name = if self.names_pupil() { cut(filling.name, name_room) } else { Cow::Borrowed("") };
        let place = cut(filling.place, room.saturating_sub(units(&name)));
        (name, place)
    }
}

/// As `07:31`. By hand: every message has it, and the way through the formatter costs as much as all the rest.
fn push_time(filled: &mut String, minute_of_day: u16) {
    let (hour, minute) = (minute_of_day / 60, minute_of_day % 60);
    let digit = |number: u16| char::from(b'0' + u8::try_from(number % 10).unwrap_or(0));
    filled.extend([digit(hour / 10), digit(hour), ':', digit(minute / 10), digit(minute)]);
}
