//! What Mitake answers and reports.

use gatebell_connectors::sms::callback_address::{CallbackAddresses, CallbackKeys};
use gatebell_connectors::sms::mitake::callback::{CallbackRefusal, accept};
use gatebell_connectors::sms::mitake::fuzzing::{read_balance, read_query, read_submit};
use gatebell_connectors::sms::phone::MobileNumber;
use gatebell_engine::ids::{LaneName, LogPosition, NoticeId};
use gatebell_engine::ports::channel::SubmitOutcome;
use gatebell_engine::ports::receipts::ReceiptStatus;
use gatebell_engine::time::Timestamp;
use secrecy::SecretString;

use super::input::first_line;

/// Messages that are asked about at once, at most.
const REFERENCES_MAX: usize = 5;

/// The first line has the references, the rest is the answer. Each message gets one outcome, whatever the order in which
/// they are asked for, and is accepted only where the answer has its block, its id and a status that says so.
pub fn mitake_replies(bytes: &[u8]) {
    let (head, body) = first_line(bytes);
    let head = String::from_utf8_lossy(head);
    let mut references: Vec<&str> = head.split_whitespace().take(REFERENCES_MAX).collect();
    let text = String::from_utf8_lossy(body);

    let (outcomes, _) = read_submit(body, &references);
    assert_eq!(outcomes.len(), references.len(), "one outcome a message");
    for (reference, outcome) in references.iter().zip(&outcomes) {
        if let SubmitOutcome::Accepted { gateway_id, .. } = outcome {
            is_accepted_in(&text, reference, references.len(), gateway_id);
        }
    }
    let with_carriage_returns = text.replace('\n', "\r\n");
    assert_eq!(read_submit(with_carriage_returns.as_bytes(), &references).0, outcomes);
    references.reverse();
    let (mut again, _) = read_submit(body, &references);
    again.reverse();
    assert_eq!(again, outcomes, "the order of asking does not matter");

    let said = read_query(body);
    if let Ok(said) = &said {
        assert!(said.len() <= text.lines().count());
        for (id, status) in said {
            assert!(text.contains(id.as_str()) && is_id(id));
            assert!(*status != ReceiptStatus::Delivered || text.contains('4'), "only 4 is delivered");
        }
        let mut lines: Vec<&str> = text.lines().collect();
        lines.reverse();
        let mut turned = read_query(lines.join("\n").as_bytes()).expect("in any order");
        turned.reverse();
        assert_eq!(&turned, said);
    }
    if let Ok(points) = read_balance(body) {
        assert_eq!(read_balance(format!("AccountPoint={points}\r\n").as_bytes()), Ok(points));
    }
}

fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A second reading, line by line: the lines of this message say nothing else than that it was taken.
fn is_accepted_in(text: &str, reference: &str, messages: usize, gateway_id: &str) {
    assert!(is_id(gateway_id), "{gateway_id}");
    let mut blocks: Vec<(&str, Vec<&str>)> = vec![("", Vec::new())];
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix('[') {
            Some(name) => blocks.push((name.strip_suffix(']').unwrap_or(name), Vec::new())),
            None => blocks.last_mut().expect("never empty").1.push(line),
        }
    }
    let named = |name: &str| blocks.iter().skip(1).filter(|(of, _)| *of == name).collect::<Vec<_>>();
    let ours = match named(reference)[..] {
        [] if messages == 1 && blocks.len() == 1 => &blocks[0].1,
        [] if messages == 1 => &named("1").first().expect("a sole block stands for a sole message").1,
        [block] => &block.1,
        _ => panic!("a message with two blocks is accepted"),
    };
    let values = |key: &str| -> Vec<&str> {
        let pairs = ours.iter().filter_map(|line| line.split_once('='));
        pairs.filter(|(found, _)| *found == key).map(|(_, value)| value.trim()).collect()
    };
    let codes = values("statuscode");
    assert!(
        !codes.is_empty() && codes.iter().all(|code| ["0", "1", "2", "3", "4"].contains(code)),
        "{codes:?}"
    );
    let ids = values("msgid");
    assert!(!ids.is_empty() && ids.iter().all(|id| id.trim_start_matches('#') == gateway_id), "{ids:?}");
}

const POSITION: LogPosition = LogPosition { partition: 3, offset: 41 };
const NOTICE: NoticeId = NoticeId::from_u128(0xfeed_beef);
const PHONE: &str = "0912345678";
/// Stands for the genuine signed address.
const GENUINE: &[u8] = b"!";

/// The first line is the last part of the path (`!` for the genuine one), the second the query. Only a genuine address is
/// believed, of one lane, one phone and one status that says so; and the answer is what the provider's document asks for.
pub fn mitake_callbacks(bytes: &[u8]) {
    let (segment, rest) = first_line(bytes);
    let (query, _) = first_line(rest);
    let segment = String::from_utf8_lossy(segment);
    let query = String::from_utf8_lossy(query);
    let arrived = Timestamp::from_millis(1_757_287_867_000);
    let lane = LaneName::new("mitake").expect("of the allowed form");
    let phone = MobileNumber::parse(PHONE).expect("of the allowed form");
    let keys = |text: &str| CallbackKeys::parse(&SecretString::from(text)).expect("long enough");
    let (ours, others) = (keys("0123456789abcdef0123456789abcdef"), keys("fedcba9876543210fedcba9876543210"));

    let forged = accept(&ours, &lane, &segment, &query, arrived);
    assert!(forged.is_err(), "nobody can sign but us");

    let addresses = CallbackAddresses::new("https://gate.example", "mitake", &lane, ours.clone());
    let address = addresses.expect("of the allowed form").address(POSITION, NOTICE, &phone);
    let genuine = address.rsplit('/').next().expect("an address has parts");
    if segment.as_bytes() != GENUINE {
        return;
    }
    let Ok(accepted) = accept(&ours, &lane, genuine, &query, arrived) else { return };
    assert_eq!((accepted.receipt.position, accepted.receipt.notice), (POSITION, NOTICE));
    let fields: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let field = |key: &str| -> &str {
        let mut of_key = fields.iter().filter(|(found, _)| found == key);
        let first = of_key.next().map(|(_, value)| value.trim());
        assert!(of_key.next().is_none(), "{key} once");
        first.unwrap_or_default()
    };
    let flag = field("StatusFlag");
    assert_eq!(accepted.receipt.status == ReceiptStatus::Delivered, flag == "4");
    assert_eq!(MobileNumber::parse(field("dstaddr")).as_ref(), Ok(&phone));
    let id = field("msgid");
    assert_eq!(id.trim_start_matches('#'), accepted.receipt.gateway_id);
    assert_eq!(accepted.answer, format!("magicid=sms_gateway_rpack\nmsgid={id}\n"));
    assert_eq!(accepted.answer.lines().count(), 2, "nothing can be put into the answer");

    let other_lane = LaneName::new("mitake-2").expect("of the allowed form");
    let elsewhere = accept(&ours, &other_lane, genuine, &query, arrived);
    assert_eq!(elsewhere, Err(CallbackRefusal::Signature));
    assert_eq!(accept(&others, &lane, genuine, &query, arrived), Err(CallbackRefusal::Signature));
}
