//! One text with placeholders: parsed once, written for each notice, never longer than its limit.

use compact_str::CompactString;

use super::name::{cut, units};

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

/// What a text is filled with; all of it cleaned.
pub(super) struct Filling<'a> {
    pub(super) name: &'a str,
    pub(super) full_name: &'a str,
    pub(super) time: &'a str,
    pub(super) date: &'a str,
    pub(super) place: &'a str,
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

/// A text with placeholders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    parts: Vec<Part>,
}

impl Text {
    /// Parses `template`.
    pub(super) fn parse(template: &str) -> Result<Self, TextError> {
        if template.chars().any(char::is_control) {
            return Err(TextError::Control);
        }
        let mut text = Self { parts: Vec::new() };
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
        let part_units = |part: &Part| match part {
            Part::Literal(literal) => units(literal),
            Part::Filled(placeholder) => placeholder.fixed_units(),
        };
        self.parts.iter().map(part_units).sum()
    }

    /// Fills it in, in at most `units_max` UTF-16 units: first the place is shortened, and the name only when
    /// that leaves it less than `name_units_min`.
    pub(super) fn fill(&self, filling: &Filling<'_>, units_max: usize, name_units_min: usize) -> String {
        let name = if self.has(Placeholder::FullName) { filling.full_name } else { filling.name };
        let place_units = if self.has(Placeholder::Place) { units(filling.place) } else { 0 };
        let room = units_max.saturating_sub(self.fixed_units());
        let name_room = room.saturating_sub(place_units).max(name_units_min).min(room);
        let name = if self.names_pupil() { cut(name, name_room) } else { String::new() };
        let place = cut(filling.place, room.saturating_sub(units(&name)));

        let mut filled = String::new();
        for part in &self.parts {
            filled.push_str(match part {
                Part::Literal(literal) => literal,
                Part::Filled(Placeholder::Name | Placeholder::FullName) => &name,
                Part::Filled(Placeholder::Time) => filling.time,
                Part::Filled(Placeholder::Date) => filling.date,
                Part::Filled(Placeholder::Place) => &place,
            });
        }
        filled
    }
}
