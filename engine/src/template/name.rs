//! Names and places inside a text: cleaned, masked, cut to a length.
//!
//! They come from outside, so nothing that could break a message apart or turn it around survives: control
//! characters, line ends, marks of writing direction. Lengths are in UTF-16 units, which is what an SMS
//! counts; a character is never cut in two, nor from the marks that belong to it.

use std::borrow::Cow;
use std::iter;

use compact_str::CompactString;

/// What stands for a hidden character of a Chinese name, as the city writes it (王O明).
const HIDDEN: char = 'O';

/// What stands for the end of a text that was cut; one UTF-16 unit.
const CUT: char = '…';

/// `text` without control characters, its white space single spaces.
pub(super) fn cleaned(text: &str) -> Cow<'_, str> {
    // Nearly all are clean as they come, and every message has two of them.
    if is_clean(text) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_whitespace() {
            if !cleaned.is_empty() && !cleaned.ends_with(' ') {
                cleaned.push(' ');
            }
        } else if is_shown(character) {
            cleaned.push(character);
        }
    }
    cleaned.truncate(cleaned.trim_end().len());
    Cow::Owned(cleaned)
}

fn is_clean(text: &str) -> bool {
    let mut may_have_space = false;
    for character in text.chars() {
        if is_plain(character) {
            may_have_space = true;
            continue;
        }
        let is_space = character == ' ';
        if is_space && !may_have_space || !is_space && (character.is_whitespace() || !is_shown(character)) {
            return false;
        }
        may_have_space = !is_space;
    }
    !text.ends_with(' ')
}

/// Whether a character is one of those that names are mostly made of; of these none is white space or hidden.
fn is_plain(character: char) -> bool {
    matches!(character, '!'..='~' | '\u{4e00}'..='\u{9fff}')
}

fn is_shown(character: char) -> bool {
    !character.is_control() && !is_invisible(character)
}

/// A cleaned `name` with only enough of it left to tell children of a family apart.
///
/// Chinese: the first and the last character stay (王O明, 歐OO明), of two the first (王O). Latin: the first and
/// last letter of the first word and the initial of the last word stay (`A**a L.`).
pub(super) fn masked(name: &str) -> CompactString {
    if name.chars().any(is_wide) { masked_characters(name) } else { masked_words(name) }
}

fn masked_characters(name: &str) -> CompactString {
    let mut characters = characters(name).filter(|text| *text != " ");
    let mut masked = CompactString::new(characters.next().unwrap_or_default());
    if characters.next().is_none() {
        return masked;
    }
    masked.push(HIDDEN);
    // The second is hidden, and the last one shown: of three the third, of two none.
    let mut last = None;
    for character in characters {
        if last.replace(character).is_some() {
            masked.push(HIDDEN);
        }
    }
    masked.push_str(last.unwrap_or_default());
    masked
}

fn masked_words(name: &str) -> CompactString {
    let mut words = name.split(' ');
    let mut of_first = characters(words.next().unwrap_or_default());
    let mut masked = CompactString::new(of_first.next().unwrap_or_default());
    match (of_first.next(), of_first.last()) {
        (None, _) if masked.is_empty() => {}
        (None, _) => masked.push('.'),
        (Some(_), None) => masked.push('*'),
        (Some(_), Some(last)) => masked.extend(["**", last]),
    }
    if let Some(initial) = words.next_back().and_then(|word| characters(word).next()) {
        masked.extend([" ", initial, "."]);
    }
    masked
}

/// `text` in at most `units_max` UTF-16 units; what was cut ends in `…`.
pub(super) fn cut(text: &str, units_max: usize) -> Cow<'_, str> {
    if units(text) <= units_max {
        return Cow::Borrowed(text);
    }
    let Some(room) = units_max.checked_sub(CUT.len_utf16()) else {
        return Cow::Borrowed("");
    };
    let mut kept = String::new();
    let mut used = 0;
    for character in characters(text) {
        used += units(character);
        if used > room {
            break;
        }
        kept.push_str(character);
    }
    kept.truncate(kept.trim_end().len());
    kept.push(CUT);
    Cow::Owned(kept)
}

/// Length in UTF-16 units.
pub(super) fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The characters of `text`, each with the marks that belong to it.
fn characters(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        let mut after_first = rest.char_indices().skip(1);
        let end = after_first.find(|(_, character)| !is_mark(*character));
        let (character, after) = rest.split_at(end.map_or(rest.len(), |(start, _)| start));
        rest = after;
        (!character.is_empty()).then_some(character)
    })
}

/// Whether a character belongs to the one before it: combining accents, variation selectors (which pick the
/// form of a Chinese character), voicing marks.
fn is_mark(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}' | '\u{3099}'..='\u{309a}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether a character takes no room and steers those around it: zero-width ones and marks of writing
/// direction.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a character is of a script without spaces between words: Han, kana, bopomofo, hangul.
fn is_wide(character: char) -> bool {
    matches!(character,
        '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_masked() {
        for (name, expected) in [
            ("王小明", "王O明"),
            ("林佑", "林O"),
            ("王", "王"),
            ("歐陽小明", "歐OO明"),
            ("瓦歷斯·諾幹", "瓦OOOO幹"),
            ("王 小明", "王O明"),
            ("𠮷田花子", "𠮷OO子"),
            ("葛\u{e0100}小明\u{e0100}", "葛\u{e0100}O明\u{e0100}"),
            ("王小明 Ming", "王OOOOOg"),
            ("Anna Lee", "A**a L."),
            ("Andy Lee", "A**y L."),
            ("Maria da Silva Santos", "M**a S."),
            ("Al Yu", "A* Y."),
            ("X", "X."),
            ("Anna", "A**a"),
            ("Jose\u{301}", "J**e\u{301}"),
            ("", ""),
        ] {
            assert_eq!(masked(name), expected, "{name}");
        }
    }

    #[test]
    fn control_characters_line_ends_and_writing_directions_are_removed() {
        for (text, expected) in [
            ("王\n小\r\n明\0", "王 小 明"),
            ("\t內湖國小\u{2028}", "內湖國小"),
            ("a\u{202e}b\u{200b}c\u{feff}\u{7f}\u{85}d", "abc d"),
            (" \n ", ""),
        ] {
            assert_eq!(cleaned(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, units_max, expected) in [
            ("內湖國小", 4, "內湖國小"),
            ("內湖國小", 3, "內湖…"),
            ("內湖國小", 1, "…"),
            ("內湖國小", 0, ""),
            ("𠮷𠮷𠮷", 4, "𠮷…"),
            ("Neihu School", 7, "Neihu…"),
            ("e\u{301}e\u{301}e\u{301}", 4, "e\u{301}…"),
        ] {
            assert_eq!(cut(text, units_max), expected, "{text} to {units_max}");
        }
    }

    #[test]
    fn what_is_plain_is_shown_and_no_space() {
        let plain = (char::MIN..=char::MAX).filter(|character| is_plain(*character));
        assert!(plain.clone().count() > 20_000);
        assert!(plain.clone().all(|character| is_shown(character) && !character.is_whitespace()));
    }

    proptest! {
        #[test]
        fn what_was_cut_fits_and_masking_leaves_no_middle(text in "\\PC{0,40}", units_max in 0usize..50) {
            prop_assert!(units(&cut(&text, units_max)) <= units_max);
            prop_assert!(!cleaned(&text).chars().any(char::is_control));
        }

        #[test]
        fn a_masked_name_shows_at_most_two_of_its_characters(name in "[\u{4e00}-\u{9fa5}]{2,12}") {
            let shown = masked(&name).chars().filter(|character| *character != HIDDEN).count();
            prop_assert!(shown <= 2);
            prop_assert_eq!(masked(&name).chars().count(), name.chars().count());
        }
    }
}
