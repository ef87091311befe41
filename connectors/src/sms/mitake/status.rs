//! What Mitake's status codes mean, in one table.
//!
//! Owns: the reading of every code of the provider's document (HTTP API 2.14, appendices): what it says in answer to a
//! submit, and what it says of a message that the gateway has. The same digits are used by SmQuery's `statuscode` and by
//! the callback's `StatusFlag`; the callback's own `statuscode` says only that the report is one, and proves nothing.

/// What a code says in answer to a submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnSubmit {
    /// It has the message.
    Taken,
    /// Try the same again in a while.
    RetryLater,
    /// Too many connections or messages at once.
    Throttled,
    /// Nothing will be taken until somebody mends the account or the gateway.
    StopGateway,
    /// This message will never be taken.
    Permanent,
}

/// What a code says of a message that the gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Waiting, or at the carrier.
    Underway,
    /// On the phone.
    Delivered,
    /// Ended without reaching the phone.
    Failed,
}

/// One code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The code as it is written.
    pub(super) code: &'static str,
    /// In answer to a submit.
    pub(super) on_submit: OnSubmit,
    /// Of a message that the gateway has; `None` where a code is never said of one.
    pub(super) progress: Option<Progress>,
}

const fn progress(code: &'static str, on_submit: OnSubmit, progress: Progress) -> Status {
    Status { code, on_submit, progress: Some(progress) }
}

const fn answer(code: &'static str, on_submit: OnSubmit) -> Status {
    Status { code, on_submit, progress: None }
}

static STATUSES: [Status; 32] = [
    progress("0", OnSubmit::Taken, Progress::Underway), // scheduled
    progress("1", OnSubmit::Taken, Progress::Underway), // at the carrier
    progress("2", OnSubmit::Taken, Progress::Underway), // at the carrier
    progress("3", OnSubmit::Taken, Progress::Underway), // at the carrier; only public clients know it
    progress("4", OnSubmit::Taken, Progress::Delivered), // on the phone
    progress("5", OnSubmit::Permanent, Progress::Failed), // wrong content
    progress("6", OnSubmit::Permanent, Progress::Failed), // wrong number
    progress("7", OnSubmit::Permanent, Progress::Failed), // the number's SMS is switched off
    progress("8", OnSubmit::Permanent, Progress::Failed), // not delivered within its validity
    progress("9", OnSubmit::Permanent, Progress::Failed), // cancelled
    answer("a", OnSubmit::RetryLater),                  // sending suspended for a while
    answer("b", OnSubmit::RetryLater),                  // sending suspended for a while
    answer("r", OnSubmit::RetryLater),                  // service suspended for a while
    answer("l", OnSubmit::Throttled),                   // too many connections of this account
    answer("*", OnSubmit::StopGateway),                 // system error: call the provider
    answer("c", OnSubmit::StopGateway),                 // no account given
    answer("d", OnSubmit::StopGateway),                 // no password given
    answer("e", OnSubmit::StopGateway),                 // wrong account or password
    answer("f", OnSubmit::StopGateway),                 // account expired
    answer("h", OnSubmit::StopGateway),                 // account disabled
    answer("k", OnSubmit::StopGateway),                 // our IP address is not registered
    answer("m", OnSubmit::StopGateway),                 // the password must be changed first
    answer("n", OnSubmit::StopGateway),                 // the password has expired
    answer("p", OnSubmit::StopGateway),                 // the account may not use the HTTP interface
    answer("s", OnSubmit::StopGateway),                 // accounting failed, such as without points
    answer("t", OnSubmit::Permanent),                   // the message's validity is over
    answer("u", OnSubmit::Permanent),                   // empty text
    answer("v", OnSubmit::Permanent),                   // wrong number
    answer("w", OnSubmit::Permanent),                   // a query for too many messages
    answer("x", OnSubmit::Permanent),                   // the batch is too large
    answer("y", OnSubmit::Permanent),                   // a wrong parameter
    answer("z", OnSubmit::Permanent),                   // nothing found
];

/// The code's meaning; `None` for one that the document does not list. Case matters.
pub(super) fn of(code: &str) -> Option<&'static Status> {
    STATUSES.iter().find(|status| status.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes_of(on_submit: OnSubmit) -> String {
        STATUSES.iter().filter(|status| status.on_submit == on_submit).map(|status| status.code).collect()
    }

    #[test]
    fn every_code_of_the_document_is_in_its_class() {
        assert_eq!(codes_of(OnSubmit::RetryLater), "abr");
        assert_eq!(codes_of(OnSubmit::Throttled), "l");
        assert_eq!(codes_of(OnSubmit::StopGateway), "*cdefhkmnps");
        assert_eq!(codes_of(OnSubmit::Permanent), "56789tuvwxyz");
        assert_eq!(codes_of(OnSubmit::Taken), "01234");
    }

    /// A public client takes 0 and 1 for success and would charge for messages that nobody got.
    #[test]
    fn only_four_is_delivered() {
        for status in &STATUSES {
            let is_delivered = status.progress == Some(Progress::Delivered);
            assert_eq!(is_delivered, status.code == "4", "{}", status.code);
        }
    }

    #[test]
    fn no_code_is_listed_twice_and_unlisted_ones_mean_nothing() {
        for status in &STATUSES {
            assert_eq!(of(status.code), Some(status), "{}", status.code);
        }
        for code in ["", "g", "A", "10", "44", " 4", "é"] {
            assert_eq!(of(code), None, "{code}");
        }
    }
}
