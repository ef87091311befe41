//! Mobile numbers in one form.
//!
//! Owns: how the many ways to write a Taiwanese mobile number become one, so that the number a message went to and the
//! number a receipt speaks of can be compared. Promises: equal numbers have equal forms, and a number never prints
//! itself. Leaves to others: whether anybody answers at it.

use std::fmt;

use compact_str::CompactString;

/// A Taiwanese mobile number as `09` and eight digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MobileNumber(CompactString);

/// The text is no Taiwanese mobile number. Says nothing of the text, which is personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no Taiwanese mobile number such as 09xxxxxxxx or +8869xxxxxxxx")]
pub struct NoMobileNumber;

/// Longest text that is looked at, in characters; a number has at most 14 digits, the rest is decoration.
const TEXT_LEN_MAX: usize = 40;

impl MobileNumber {
    /// Reads `0912345678`, `+886912345678`, `886912345678`, `+886 0912…` and `00886912345678`, with full-width digits,
    /// spaces, dashes, dots and brackets wherever people put them.
    pub fn parse(text: &str) -> Result<Self, NoMobileNumber> {
        let mut digits = CompactString::default();
        for (position, character) in text.trim().chars().enumerate() {
            if position >= TEXT_LEN_MAX {
                return Err(NoMobileNumber);
            }
            match half_width(character) {
                digit @ '0'..='9' => digits.push(digit),
                '+' if digits.is_empty() => {}
                ' ' | '-' | '.' | '(' | ')' => {}
                _ => return Err(NoMobileNumber),
            }
        }
        let abroad = digits.strip_prefix("00886").or_else(|| digits.strip_prefix("886"));
        let national = match abroad {
            Some(rest) => rest.strip_prefix('0').unwrap_or(rest),
            None => digits.strip_prefix('0').ok_or(NoMobileNumber)?,
        };
        if national.len() != 9 || !national.starts_with('9') {
            return Err(NoMobileNumber);
        }
        Ok(Self(compact_str::format_compact!("0{national}")))
    }

    /// The number as `09` and eight digits: for a gateway or a signature, never for a log line, a label or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MobileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MobileNumber(masked)")
    }
}

/// Full-width forms (Ｕ+FF01 to U+FF5E, as Chinese input methods type them) and unusual blanks and dashes as plain ASCII.
fn half_width(character: char) -> char {
    match character {
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(character) - 0xff01 + u32::from('!')).unwrap_or(character)
        }
        '\u{3000}' | '\u{00a0}' | '\t' => ' ',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_way_to_write_a_number_has_one_form() {
        for text in [
            "0912345678",
            "+886912345678",
            "886912345678",
            "00886912345678",
            "+886 0912-345-678",
            "0912 345 678",
            "0912-345-678",
            "(0912)345678",
            "０９１２３４５６７８",
            "＋８８６－９１２－３４５－６７８",
            "\u{3000}0912345678 ",
        ] {
            assert_eq!(MobileNumber::parse(text).unwrap().expose(), "0912345678", "{text}");
        }
    }

    #[test]
    fn what_is_no_taiwanese_mobile_number_is_refused() {
        for text in [
            "",
            "0",
            "091234567",
            "09123456789",
            "0223456789",
            "+85212345678",
            "0912345678;0987654321",
            "abc",
            "0912$$34",
        ] {
            assert_eq!(MobileNumber::parse(text), Err(NoMobileNumber), "{text}");
        }
    }

    #[test]
    fn a_number_does_not_print_itself() {
        let printed = format!("{:?}", MobileNumber::parse("0912345678").unwrap());
        assert!(!printed.contains("345"), "{printed}");
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form_and_no_text_panics(text in "\\PC{0,50}", digits in "9[0-9]{8}") {
            if let Ok(number) = MobileNumber::parse(&text) {
                prop_assert_eq!(MobileNumber::parse(number.expose()).unwrap(), number);
            }
            let national = MobileNumber::parse(&format!("0{digits}")).unwrap();
            prop_assert_eq!(MobileNumber::parse(&format!("+886{digits}")).unwrap(), national);
        }
    }
}
