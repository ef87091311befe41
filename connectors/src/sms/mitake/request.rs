//! Writing what Mitake is asked.
//!
//! Owns: the form of SmSend, SmBulkSend and SmQuery, and what may not go into them. Promises: nothing that the gateway could take
//! for the end of a field or a line leaves this machine (a name with `$$` in it must not become another message), and
//! no text that the gateway would silently cut. Leaves to others: the exchange, and what comes back.

use gatebell_engine::ids::Personal;
use gatebell_engine::ports::channel::{Message, SubmitOutcome};
use url::form_urlencoded;

use super::super::callback_address::CallbackAddresses;
use super::super::phone::MobileNumber;

/// What separates the fields of a line of SmBulkSend.
const FIELD_SEPARATOR: &str = "$$";
/// Longest validity, in seconds: beyond the carriers' own 24 hours no receipt may come (the provider's document).
const VALID_FOR_S_MAX: u64 = 24 * 60 * 60;
/// UTF-16 units of one SMS; more is another message on the bill, or cut, by the account's permission.
const SEGMENT_UNITS_MAX: usize = 70;
/// Characters of one SMS that is written in ASCII alone, of which some count twice.
const SEGMENT_ASCII_MAX: usize = 160;
/// ASCII characters that an SMS writes with an escape.
const ESCAPED_ASCII: &str = "[]{}\\^~|";

/// One message, checked and ready to be written.
#[derive(Debug)]
pub(super) struct Line<'a> {
    reference: &'a str,
    phone: MobileNumber,
    valid_for_s: u64,
    callback: Option<String>,
    text: &'a Personal,
}

impl<'a> Line<'a> {
    /// Checks `message`; the outcome says why it will not be sent.
    pub(super) fn check(
        message: &'a Message,
        addresses: Option<&CallbackAddresses>,
    ) -> Result<Self, SubmitOutcome> {
        let refused = |reason: &'static str| SubmitOutcome::Refused { reason: reason.into() };
        let phone = MobileNumber::parse(message.address.expose()).map_err(|_| refused("bad_phone"))?;
        let text = message.text.expose();
        if text.trim().is_empty() {
            return Err(refused("empty_text"));
        }
        if text.contains(FIELD_SEPARATOR) || text.chars().any(ends_a_line) {
            return Err(refused("forbidden_text"));
        }
        if !fits_one_segment(text) {
            return Err(refused("text_too_long"));
        }
        let valid_for_s = message.valid_for.as_secs().min(VALID_FOR_S_MAX);
        if valid_for_s == 0 {
            // The gateway counts whole seconds, and 0 would mean its default of a day. Only this message is too late: it
            // expires while it waits, and the lane goes on.
            return Err(SubmitOutcome::RetryLater { reason: "deadline".into(), retry_after: None });
        }
        Ok(Self {
            reference: message.reference.as_str(),
            callback: addresses.map(|addresses| addresses.address(message.position, message.notice, &phone)),
            phone,
            valid_for_s,
            text: &message.text,
        })
    }

    /// What the answer will call it.
    pub(super) fn reference(&self) -> &'a str {
        self.reference
    }

    /// The body of SmSend, credentials included.
    pub(super) fn form(&self, username: &str, password: &str) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("username", username)
            .append_pair("password", password)
            .append_pair("dstaddr", self.phone.expose())
            .append_pair("vldtime", &self.valid_for_s.to_string())
            .append_pair("smbody", self.text.expose())
            .append_pair("clientid", self.reference);
        if let Some(callback) = &self.callback {
            form.append_pair("response", callback);
        }
        form.finish()
    }

    /// `ClientID$$dstaddr$$dlvtime$$vldtime$$destname$$response$$smbody`; sent at once, and the name stays here.
    fn write(&self, body: &mut String) {
        let valid_for_s = self.valid_for_s.to_string();
        let callback = self.callback.as_deref().unwrap_or_default();
        let fields =
            [self.reference, self.phone.expose(), "", &valid_for_s, "", callback, self.text.expose()];
        for (position, field) in fields.into_iter().enumerate() {
            if position > 0 {
                body.push_str(FIELD_SEPARATOR);
            }
            body.push_str(field);
        }
        body.push_str("\r\n");
    }
}

/// The body of SmBulkSend.
pub(super) fn bulk_body(lines: &[Line<'_>]) -> String {
    let mut body = String::with_capacity(lines.len() * 400);
    for line in lines {
        line.write(&mut body);
    }
    body
}

/// The body of SmQuery about `gateway_ids`; without any it asks for the balance.
pub(super) fn query_form(username: &str, password: &str, gateway_ids: &[&str]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("username", username).append_pair("password", password);
    if !gateway_ids.is_empty() {
        form.append_pair("msgid", &gateway_ids.join(","));
    }
    form.finish()
}

/// Control characters (0x06 is the gateway's own line break) and what Unicode calls the end of a line or paragraph.
fn ends_a_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

fn fits_one_segment(text: &str) -> bool {
    // The grave accent is the one printable ASCII character that an SMS has no place for.
    if text.is_ascii() && !text.contains('`') {
        let escaped = text.chars().filter(|character| ESCAPED_ASCII.contains(*character)).count();
        return text.len() + escaped <= SEGMENT_ASCII_MAX;
    }
    text.encode_utf16().count() <= SEGMENT_UNITS_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::super::tests::message;
    use super::*;

    fn refusal(message: &Message) -> SubmitOutcome {
        Line::check(message, None).unwrap_err()
    }

    #[test]
    fn text_that_could_become_another_field_line_or_message_is_refused() {
        for text in [
            "王O明 07:31 到校$$",
            "$$$$0987654321$$$$$$$$$$中獎",
            "$$",
            "a\nb",
            "a\rb",
            "a\u{6}b",
            "a\0b",
            "a\u{85}b",
            "a\u{2028}b",
            "a\tb",
        ] {
            let outcome = refusal(&message(1, "0912345678", text));
            assert_eq!(outcome, SubmitOutcome::Refused { reason: "forbidden_text".into() }, "{text:?}");
        }
        assert!(Line::check(&message(1, "0912345678", "餘額 $5 = 100%&x=1"), None).is_ok());
    }

    #[test]
    fn a_phone_that_is_none_or_hides_a_field_is_refused() {
        for phone in
            ["", "0912", "0223456789", "0912345678$$", "0912345678\n0987654321", "0912345678,0987654321"]
        {
            let outcome = refusal(&message(1, phone, "到校"));
            assert_eq!(outcome, SubmitOutcome::Refused { reason: "bad_phone".into() }, "{phone:?}");
        }
    }

    #[test]
    fn text_that_the_gateway_would_cut_is_refused() {
        for (text, fits) in [
            ("校".repeat(70), true),
            ("校".repeat(71), false),
            ("𠮷".repeat(35), true),
            ("𠮷".repeat(36), false),
            ("a".repeat(160), true),
            ("a".repeat(161), false),
            ("[".repeat(80), true),
            ("[".repeat(81), false),
            ("`".repeat(71), false),
        ] {
            let sent = message(1, "0912345678", &text);
            assert_eq!(Line::check(&sent, None).is_ok(), fits, "{} characters", text.chars().count());
        }
        assert_eq!(
            refusal(&message(1, "0912345678", " ")),
            SubmitOutcome::Refused { reason: "empty_text".into() }
        );
    }

    #[test]
    fn the_gateway_is_told_to_give_up_when_the_notice_is_no_longer_useful() {
        let mut sent = message(1, "0912345678", "到校");
        for (valid_for, field) in [
            (Duration::from_millis(3_599_999), "vldtime=3599&"),
            (Duration::from_secs(1), "vldtime=1&"),
            (Duration::from_secs(7 * 86_400), "vldtime=86400&"),
        ] {
            sent.valid_for = valid_for;
            let form = Line::check(&sent, None).unwrap().form("u", "p");
            assert!(form.contains(field), "{form}");
        }
        sent.valid_for = Duration::from_millis(999);
        let later = SubmitOutcome::RetryLater { reason: "deadline".into(), retry_after: None };
        assert_eq!(refusal(&sent), later);
    }

    #[test]
    fn a_batch_has_a_line_of_seven_fields_for_each_message() {
        let messages = [message(1, "+886 912-345-678", "王O明 07:31 到校"), message(2, "0987654321", "$5")];
        let lines: Vec<Line<'_>> =
            messages.iter().map(|message| Line::check(message, None).unwrap()).collect();
        let expected = format!(
            "{}$$0912345678$$$$3600$$$$$$王O明 07:31 到校\r\n{}$$0987654321$$$$3600$$$$$$$5\r\n",
            messages[0].reference.as_str(),
            messages[1].reference.as_str(),
        );
        assert_eq!(bulk_body(&lines), expected);
        assert_eq!(expected.split("\r\n").next().unwrap().split("$$").count(), 7);
    }

    #[test]
    fn a_checked_line_does_not_print_phone_or_text() {
        let sent = message(1, "0912345678", "王O明 07:31 到校");
        let printed = format!("{:?}", Line::check(&sent, None).unwrap());
        assert!(!printed.contains("0912345678") && !printed.contains("到校"), "{printed}");
    }
}
