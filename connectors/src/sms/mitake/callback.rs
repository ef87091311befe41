//! Mitake's reports of what became of a message.
//!
//! Owns: reading the query of a callback, and the text that makes the gateway stop repeating it. Promises: a receipt
//! comes only from an address that we signed, for this lane, this notice and this phone, or for this lane's account; then it
//! names its message by the gateway's id alone. Delivered is `StatusFlag=4` and nothing else (`statuscode` 0 or 1 says only
//! that the report was made). Leaves to others: the HTTP surface, the list of
//! addresses that may call, making the receipt durable *before* the answer goes out, and comparing the message id with
//! the one of the submit (the engine, which has it).

use compact_str::CompactString;
use gatebell_engine::ids::{LaneName, LogPosition, NoticeId};
use gatebell_engine::ports::message_ids::UnplacedReceipt;
use gatebell_engine::ports::receipts::{Receipt, ReceiptStatus};
use gatebell_engine::time::Timestamp;
use url::form_urlencoded;

use super::super::callback_address::{CallbackKeys, CallbackSegment};
use super::super::phone::MobileNumber;
use super::{PROTOCOL, reply};

/// Longest query that is read, in bytes; the gateway's own have about 150.
const QUERY_BYTES_MAX: usize = 2048;

/// Why a callback is refused. Counted under its [`reason`](CallbackRefusal::reason); says nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallbackRefusal {
    /// The path is not one of ours.
    #[error("the callback's path is of another form")]
    Path,
    /// A field is missing, there twice, or not of its form.
    #[error("a field of the callback is missing, repeated or of another form")]
    Query,
    /// Not signed by us for this lane, notice and phone.
    #[error("the callback's signature does not fit its lane, notice and phone")]
    Signature,
    /// A status that the provider's document does not list.
    #[error("the callback's status is not listed")]
    Status,
}

impl CallbackRefusal {
    /// A fixed word for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Signature => "signature",
            Self::Status => "status",
        }
    }
}

/// What a genuine callback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The notice's tap.
    pub position: LogPosition,
    /// The notice.
    pub notice: NoticeId,
    /// The gateway's id of the message.
    pub gateway_id: CompactString,
    /// What became of it.
    pub status: ReceiptStatus,
}

/// A receipt, and what the gateway is answered once the receipt is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<R = Receipt> {
    /// To be appended to the receipt log.
    pub receipt: R,
    /// The body of the `200`, as `text/plain`.
    pub answer: String,
}

/// Takes a callback that arrived for `lane` at `arrived`: `segment` is the last part of its path, `query` its query as it
/// came (percent-encoded, without the question mark).
pub fn accept(
    keys: &CallbackKeys,
    lane: &LaneName,
    segment: &str,
    query: &str,
    arrived: Timestamp,
) -> Result<Accepted, CallbackRefusal> {
    let fields = Fields::parse(query).ok_or(CallbackRefusal::Query)?;
    let Report { position, notice, gateway_id, status } = fields.report(keys, lane, segment)?;
    Ok(Accepted {
        receipt: Receipt { lane: lane.clone(), notice, position, gateway_id, status, arrived },
        answer: fields.answer(),
    })
}

/// As [`accept`], for a callback to the address of the whole account. The phone that it names proves nothing, and is not
/// read.
pub fn accept_of_account(
    keys: &CallbackKeys,
    lane: &LaneName,
    segment: &str,
    query: &str,
    arrived: Timestamp,
) -> Result<Accepted<UnplacedReceipt>, CallbackRefusal> {
    let fields = Fields::parse(query).ok_or(CallbackRefusal::Query)?;
    if !keys.are_of_account(PROTOCOL, lane, segment) {
        return Err(CallbackRefusal::Signature);
    }
    let (gateway_id, status) = fields.said()?;
    Ok(Accepted { receipt: UnplacedReceipt { gateway_id, status, arrived }, answer: fields.answer() })
}

/// Reads a callback and checks that it is genuine.
pub fn parse_callback(
    keys: &CallbackKeys,
    lane: &LaneName,
    segment: &str,
    query: &str,
) -> Result<Report, CallbackRefusal> {
    Fields::parse(query).ok_or(CallbackRefusal::Query)?.report(keys, lane, segment)
}

/// The fields that count.
struct Fields {
    gateway_id: String,
    phone: String,
    status_flag: String,
}

impl Fields {
    /// `None` when one is missing or there twice.
    fn parse(query: &str) -> Option<Self> {
        if query.len() > QUERY_BYTES_MAX {
            return None;
        }
        let (mut gateway_id, mut phone, mut status_flag) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match key.as_ref() {
                "msgid" => &mut gateway_id,
                "dstaddr" => &mut phone,
                "StatusFlag" => &mut status_flag,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(Self { gateway_id: gateway_id?, phone: phone?, status_flag: status_flag? })
    }

    /// What they say, if `segment` was signed for them.
    fn report(&self, keys: &CallbackKeys, lane: &LaneName, segment: &str) -> Result<Report, CallbackRefusal> {
        let segment = CallbackSegment::parse(segment).ok_or(CallbackRefusal::Path)?;
        let phone = MobileNumber::parse(&self.phone).map_err(|_| CallbackRefusal::Query)?;
        let (position, notice) =
            segment.verify(keys, PROTOCOL, lane, &phone).ok_or(CallbackRefusal::Signature)?;
        let (gateway_id, status) = self.said()?;
        Ok(Report { position, notice, gateway_id, status })
    }

    /// Of which message they speak, and what became of it.
    fn said(&self) -> Result<(CompactString, ReceiptStatus), CallbackRefusal> {
        let gateway_id = reply::gateway_id(&self.gateway_id).ok_or(CallbackRefusal::Query)?;
        let status = reply::receipt_status(self.status_flag.trim()).ok_or(CallbackRefusal::Status)?;
        Ok((gateway_id, status))
    }

    /// The id as it came, with a `#` if it had one; [`said`](Self::said) has checked that nothing else can be in it.
    fn answer(&self) -> String {
        format!("magicid=sms_gateway_rpack\nmsgid={}\n", self.gateway_id.trim())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::callback_address::CallbackAddresses;
    use super::*;
    use proptest::prelude::*;
    use secrecy::{ExposeSecret as _, SecretString};

    const POSITION: LogPosition = LogPosition { partition: 0, offset: 7 };
    const NOTICE: NoticeId = NoticeId::from_u128(42);

    fn keys() -> CallbackKeys {
        CallbackKeys::parse(&SecretString::from("0123456789abcdef0123456789abcdef")).unwrap()
    }

    fn lane() -> LaneName {
        LaneName::new("mitake").unwrap()
    }

    fn segment() -> String {
        let addresses = CallbackAddresses::new("https://gate.example", PROTOCOL, &lane(), keys()).unwrap();
        let address = addresses.address(POSITION, NOTICE, &MobileNumber::parse("0912345678").unwrap());
        address.rsplit('/').next().unwrap().to_owned()
    }

    fn said(query: &str) -> Result<ReceiptStatus, CallbackRefusal> {
        parse_callback(&keys(), &lane(), &segment(), query).map(|report| report.status)
    }

    #[test]
    fn a_genuine_callback_becomes_a_receipt_and_is_answered_as_the_gateway_expects() {
        let query = "msgid=8091000069&dstaddr=0912345678&dlvtime=20250908073105&donetime=20250908073107\
                     &statusstr=DELIVRD&statuscode=0&StatusFlag=4";
        let arrived = Timestamp::from_millis(1_757_287_867_000);
        let accepted = accept(&keys(), &lane(), &segment(), query, arrived).unwrap();
        let receipt = Receipt {
            lane: lane(),
            notice: NOTICE,
            position: POSITION,
            gateway_id: "8091000069".into(),
            status: ReceiptStatus::Delivered,
            arrived,
        };
        let answer = "magicid=sms_gateway_rpack\nmsgid=8091000069\n".to_owned();
        assert_eq!(accepted, Accepted { receipt: receipt.clone(), answer });
        let marked =
            accept(&keys(), &lane(), &segment(), &query.replace("msgid=", "msgid=%23"), arrived).unwrap();
        assert_eq!(marked.receipt, receipt);
        assert_eq!(marked.answer, "magicid=sms_gateway_rpack\nmsgid=#8091000069\n");
    }

    #[test]
    fn a_callback_to_the_accounts_address_names_its_message_by_id() {
        let addresses = CallbackAddresses::new("https://gate.example", PROTOCOL, &lane(), keys()).unwrap();
        let address = addresses.of_account();
        let of_account = address.expose_secret().rsplit('/').next().unwrap().to_owned();
        let arrived = Timestamp::from_millis(1_757_287_867_000);
        let accept =
            |segment: &str, query: &str| accept_of_account(&keys(), &lane(), segment, query, arrived);
        let query = "msgid=%238091000069&dstaddr=0912345678&StatusFlag=4";
        let receipt =
            UnplacedReceipt { gateway_id: "8091000069".into(), status: ReceiptStatus::Delivered, arrived };
        let answer = "magicid=sms_gateway_rpack\nmsgid=#8091000069\n".to_owned();
        assert_eq!(accept(&of_account, query), Ok(Accepted { receipt, answer }));
        for (segment, query, refusal) in [
            (segment().as_str(), query, CallbackRefusal::Signature),
            ("00112233445566778899aabbccddeeff", query, CallbackRefusal::Signature),
            (&of_account, "dstaddr=0912345678&StatusFlag=4", CallbackRefusal::Query),
            (&of_account, "msgid=1%0A2&dstaddr=0912345678&StatusFlag=4", CallbackRefusal::Query),
            (&of_account, "msgid=1&dstaddr=0912345678&StatusFlag=x", CallbackRefusal::Status),
        ] {
            assert_eq!(accept(segment, query), Err(refusal), "{query}");
        }
    }

    #[test]
    fn only_status_flag_four_is_delivered_whatever_statuscode_says() {
        let failed = |reason: &'static str| Ok(ReceiptStatus::Failed { reason: reason.into() });
        for (flag, status) in [
            ("0", Ok(ReceiptStatus::Underway)),
            ("1", Ok(ReceiptStatus::Underway)),
            ("2", Ok(ReceiptStatus::Underway)),
            ("4", Ok(ReceiptStatus::Delivered)),
            ("5", failed("5")),
            ("6", failed("6")),
            ("7", failed("7")),
            ("8", failed("8")),
            ("9", failed("9")),
            ("e", Err(CallbackRefusal::Status)),
            ("44", Err(CallbackRefusal::Status)),
            ("", Err(CallbackRefusal::Status)),
        ] {
            for statuscode in ["0", "1", "4"] {
                let query = format!("msgid=1&dstaddr=0912345678&statuscode={statuscode}&StatusFlag={flag}");
                assert_eq!(said(&query), status, "{query}");
            }
        }
    }

    #[test]
    fn the_same_phone_is_recognised_in_every_form_and_another_one_is_refused() {
        for phone in ["0912345678", "%2B886912345678", "886912345678", "+886912345678", "0912-345-678"] {
            let query = format!("msgid=1&dstaddr={phone}&StatusFlag=4");
            assert_eq!(said(&query), Ok(ReceiptStatus::Delivered), "{phone}");
        }
        assert_eq!(said("msgid=1&dstaddr=0912345679&StatusFlag=4"), Err(CallbackRefusal::Signature));
    }

    #[test]
    fn incomplete_or_ambiguous_callbacks_are_refused() {
        for query in [
            "",
            "msgid=1&dstaddr=0912345678",
            "msgid=1&StatusFlag=4",
            "dstaddr=0912345678&StatusFlag=4",
            "msgid=1&dstaddr=0912345678&StatusFlag=8&StatusFlag=4",
            "msgid=1&msgid=2&dstaddr=0912345678&StatusFlag=4",
            "msgid=1%0Amagicid%3Dx&dstaddr=0912345678&StatusFlag=4",
            "msgid=&dstaddr=0912345678&StatusFlag=4",
            "msgid=1&dstaddr=0223456789&StatusFlag=4",
            &format!("msgid=1&dstaddr=0912345678&StatusFlag=4&x={}", "y".repeat(QUERY_BYTES_MAX)),
        ] {
            assert_eq!(said(query), Err(CallbackRefusal::Query), "{query}");
        }
        let elsewhere = parse_callback(&keys(), &lane(), "x", "msgid=1&dstaddr=0912345678&StatusFlag=4");
        assert_eq!(elsewhere, Err(CallbackRefusal::Path));
    }

    proptest! {
        #[test]
        fn no_path_and_no_query_panics_or_is_believed(path in "\\PC{0,120}", query in "\\PC{0,200}") {
            prop_assert!(parse_callback(&keys(), &lane(), &path, &query).is_err());
            let _ = parse_callback(&keys(), &lane(), &segment(), &query);
        }
    }
}
