//! Reading requests in Mitake's protocol.
//!
//! Owns: forms and the lines of SmBulkSend, limits of the fields included. What is declared as UTF-8 is read as that;
//! without the declaration the gateway reads Big5, and every character beyond ASCII is garbled, as it would be there.

use std::collections::HashMap;

use url::form_urlencoded;

use super::status::Code;

/// Most lines of SmBulkSend.
pub(super) const LINES_MAX: usize = 500;
const CLIENTID_LEN_MAX: usize = 36;
const RESPONSE_LEN_MAX: usize = 256;

/// The fields of a form or query.
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    /// Of a query or form; the first of repeated ones counts.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut fields = HashMap::new();
        for (key, value) in form_urlencoded::parse(text) {
            fields.entry(key.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self(fields)
    }

    /// A field; one that is missing is empty.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether `key` declares UTF-8.
    pub(super) fn declares_utf8(&self, key: &str) -> bool {
        let charset = self.get(key);
        charset.eq_ignore_ascii_case("UTF8") || charset.eq_ignore_ascii_case("UTF-8")
    }
}

/// One message as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submission {
    pub(super) clientid: String,
    pub(super) dstaddr: String,
    pub(super) dlvtime: String,
    pub(super) vldtime: String,
    pub(super) response: String,
    pub(super) smbody: String,
}

impl Submission {
    /// Of SmSend's form.
    pub(super) fn of_form(form: &Fields, utf8: bool) -> Self {
        Self {
            clientid: form.get("clientid").to_owned(),
            dstaddr: form.get("dstaddr").to_owned(),
            dlvtime: form.get("dlvtime").to_owned(),
            vldtime: form.get("vldtime").to_owned(),
            response: form.get("response").to_owned(),
            smbody: read_text(form.get("smbody"), utf8),
        }
    }

    /// Of a line of SmBulkSend; `None` when it has not the seven fields.
    fn of_line(line: &str, utf8: bool) -> Option<Self> {
        let fields: Vec<&str> = line.split("$$").collect();
        let [clientid, dstaddr, dlvtime, vldtime, _destname, response, smbody] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            clientid: (*clientid).to_owned(),
            dstaddr: (*dstaddr).to_owned(),
            dlvtime: (*dlvtime).to_owned(),
            vldtime: (*vldtime).to_owned(),
            response: (*response).to_owned(),
            smbody: read_text(smbody, utf8),
        })
    }

    /// What the document says of single fields.
    pub(super) fn check(&self) -> Result<(), Code> {
        if self.clientid.chars().count() > CLIENTID_LEN_MAX
            || self.response.chars().count() > RESPONSE_LEN_MAX
        {
            return Err(Code::WrongParameter);
        }
        if !is_mobile(&self.dstaddr) {
            return Err(Code::WrongNumber);
        }
        if self.smbody.trim().is_empty() {
            return Err(Code::EmptyText);
        }
        Ok(())
    }
}

/// The lines of SmBulkSend.
pub(super) fn read_bulk(body: &[u8], utf8: bool) -> Result<Vec<Submission>, Code> {
    let text = String::from_utf8_lossy(body);
    let lines: Vec<&str> =
        text.split('\n').map(|line| line.trim_end_matches('\r')).filter(|l| !l.is_empty()).collect();
    if lines.len() > LINES_MAX {
        return Err(Code::BatchTooLarge);
    }
    let submissions: Option<Vec<Submission>> =
        lines.iter().map(|line| Submission::of_line(line, utf8)).collect();
    match submissions {
        Some(submissions) if submissions.iter().all(|submission| !submission.clientid.is_empty()) => {
            Ok(submissions)
        }
        _ => Err(Code::WrongParameter),
    }
}

fn read_text(text: &str, utf8: bool) -> String {
    let text = text.replace('\u{6}', "\n");
    if utf8 || text.is_ascii() {
        return text;
    }
    text.chars().map(|character| if character.is_ascii() { character } else { '\u{fffd}' }).collect()
}

/// 09 and eight digits, or with the country's code.
fn is_mobile(number: &str) -> bool {
    let national = number.strip_prefix('+').unwrap_or(number);
    let rest = national.strip_prefix("8869").or_else(|| national.strip_prefix("09"));
    rest.is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_has_seven_fields_and_an_injected_one_breaks_the_batch() {
        let body = "a$$0912345678$$$$60$$$$http://x/y$$早安\r\nb$$0987654321$$$$60$$$$$$hello\n";
        let submissions = read_bulk(body.as_bytes(), true).unwrap();
        assert_eq!(submissions.len(), 2);
        assert_eq!(submissions[0].response, "http://x/y");
        assert_eq!(submissions[0].smbody, "早安");
        assert_eq!(read_bulk(b"a$$0912345678$$$$60$$$$$$hi$$there\n", true), Err(Code::WrongParameter));
        assert_eq!(read_bulk(b"$$0912345678$$$$60$$$$$$hi\n", true), Err(Code::WrongParameter));
        assert_eq!(read_bulk("x\n".repeat(501).as_bytes(), true), Err(Code::BatchTooLarge));
    }

    #[test]
    fn text_that_is_not_declared_as_utf8_is_garbled() {
        let form = Fields::parse("smbody=%E6%97%A9a".as_bytes());
        assert_eq!(Submission::of_form(&form, true).smbody, "早a");
        assert_eq!(Submission::of_form(&form, false).smbody, "\u{fffd}a");
    }

    #[test]
    fn numbers_are_taken_in_the_two_forms_of_the_document() {
        for (number, is) in
            [("0912345678", true), ("886912345678", true), ("+886912345678", true), ("091234567", false)]
        {
            assert_eq!(is_mobile(number), is, "{number}");
        }
    }
}
