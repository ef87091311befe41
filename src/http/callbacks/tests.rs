//! The surface as a gateway meets it, over a real connection and with the embedded store behind it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::sms::callback_address::CallbackAddresses;
use gatebell_connectors::sms::mitake::PROTOCOL;
use gatebell_connectors::sms::phone::MobileNumber;
use gatebell_connectors::store::embedded::store_db::EmbeddedStore;
use gatebell_engine::ids::{GuardianId, LogPosition, NoticeId, PupilId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::notice::{Channel, NoticeKind};
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::ports::message_ids::NoticePlace;
use gatebell_engine::time::{Day, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::listener::{Listener, ListenerLimits};

const POSITION: LogPosition = LogPosition { partition: 1, offset: 7 };
const NOTICE: NoticeId = NoticeId::from_u128(42);
const PHONE: &str = "0912345678";

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn lane() -> LaneName {
    LaneName::new("mitake").unwrap()
}

struct Served {
    address: String,
    of_account: String,
    store: EmbeddedStore,
    _data: tempfile::TempDir,
}

impl Served {
    async fn to(callers: Callers) -> Self {
        Self::called_at(callers, false).await
    }

    async fn by_account() -> Self {
        Self::called_at(Callers::default(), true).await
    }

    async fn called_at(callers: Callers, by_account: bool) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&DataDir::open(data.path()).unwrap()).unwrap();
        let keys = CallbackKeys::parse(&SecretString::from("0123456789abcdef0123456789abcdef")).unwrap();
        let limits = ListenerLimits {
            connections_max: 8,
            head_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
        };
        let listener = Listener::bind("callbacks", "127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
        let base = format!("http://{}", listener.address());
        let addresses = CallbackAddresses::new(&base, PROTOCOL, &lane(), keys.clone()).unwrap();
        let address = addresses.address(POSITION, NOTICE, &MobileNumber::parse(PHONE).unwrap());
        let of_account = addresses.of_account().expose_secret().to_owned();
        let message_ids: Arc<dyn MessageIds> = store.message_ids(&lane());
        let router = router(CallbackPorts {
            receipts: store.receipts(),
            ledger: store.ledger(),
            clock: Arc::new(SystemClock::new()),
            keys: BTreeMap::from([(lane(), keys)]),
            message_ids: if by_account { BTreeMap::from([(lane(), message_ids)]) } else { BTreeMap::new() },
            callers,
        });
        tokio::spawn(listener.serve(router, CancellationToken::new()));
        Self { address, of_account, store, _data: data }
    }

    async fn call(&self, address: &str, query: &str) -> (u16, String) {
        let answer = reqwest::get(format!("{address}?{query}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn kept(&self) -> usize {
        // A read waits for the first receipt for as long as it takes; none is there when it does not come at
        // once.
        let read = self.store.receipts();
        match tokio::time::timeout(Duration::from_millis(200), read.read(POSITION.partition, 0, 100)).await {
            Ok(receipts) => receipts.unwrap().len(),
            Err(_) => 0,
        }
    }

    async fn submitted_as(&self, gateway_id: &str) {
        let entry = LedgerEntry {
            notice: NOTICE,
            position: POSITION,
            pupil: PupilId::new("P1").unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            channel: Channel::Sms,
            kind: NoticeKind::Arrival,
            day: Day::from_epoch_days(20_000),
            at: Timestamp::from_millis(0),
            event: Event::Submitted,
            time: Timestamp::from_millis(0),
            attempt: 1,
            order: None,
            gateway: Some(lane()),
            gateway_id: Some(gateway_id.into()),
            reason: None,
        };
        self.store.ledger().append(vec![entry]).await.unwrap();
    }
}

fn delivered(gateway_id: &str, phone: &str) -> String {
    format!(
        "msgid={gateway_id}&dstaddr={phone}&dlvtime=20250908073105&donetime=20250908073107&statuscode=0&StatusFlag=4"
    )
}

#[tokio::test]
async fn a_receipt_is_durable_when_the_gateway_gets_its_answer() {
    let served = Served::to(Callers::default()).await;
    let answer = served.call(&served.address, &delivered("8091000069", PHONE)).await;
    assert_eq!(answer, (200, "magicid=sms_gateway_rpack\nmsgid=8091000069\n".to_owned()));
    assert_eq!(served.kept().await, 1);
}

#[tokio::test]
async fn what_is_not_genuine_is_refused_and_not_kept() {
    let served =
        Served::to(Callers { allow: networks(&["127.0.0.1/32"]), trusted_proxies: Vec::new() }).await;
    let another_lane = served.address.replace("/mitake/mitake/", "/mitake/other/");
    let another_tap = served.address.replace("/1.7.", "/1.8.");
    let (base, _) = served.address.rsplit_once('/').unwrap();
    for (address, query, status) in [
        (served.address.as_str(), delivered("8091000069", "0987654321"), 403),
        (served.address.as_str(), "msgid=8091000069".to_owned(), 403),
        (served.address.as_str(), format!("{}&StatusFlag=4", delivered("1", PHONE)), 403),
        (another_tap.as_str(), delivered("8091000069", PHONE), 403),
        (another_lane.as_str(), delivered("8091000069", PHONE), 404),
        (base, delivered("8091000069", PHONE), 404),
        (&format!("{base}/nonsense"), delivered("8091000069", PHONE), 404),
    ] {
        assert_eq!(served.call(address, &query).await.0, status);
    }
    assert_eq!(served.kept().await, 0);
}

#[tokio::test]
async fn a_receipt_under_another_message_id_than_the_submits_is_refused() {
    let served = Served::to(Callers::default()).await;
    served.submitted_as("8091000069").await;
    assert_eq!(served.call(&served.address, &delivered("8091000070", PHONE)).await.0, 403);
    assert_eq!(served.call(&served.address, &delivered("8091000069", PHONE)).await.0, 200);
    assert_eq!(served.kept().await, 1);
}

#[tokio::test]
async fn a_receipt_to_the_accounts_address_finds_its_notice_by_its_id_or_waits_for_it() {
    let served = Served::by_account().await;
    let ids = served.store.message_ids(&lane());
    let answer = served.call(&served.of_account, &delivered("%238091000069", PHONE)).await;
    assert_eq!(answer, (200, "magicid=sms_gateway_rpack\nmsgid=#8091000069\n".to_owned()));
    let underway = delivered("8091000070", PHONE).replace("StatusFlag=4", "StatusFlag=1");
    assert_eq!(served.call(&served.of_account, &underway).await.0, 200);
    assert_eq!(served.kept().await, 0);
    let parked = ids.parked(0, 10).await.unwrap();
    assert_eq!(parked.len(), 1, "what settles nothing is not kept: {parked:?}");
    assert_eq!(parked[0].receipt.gateway_id, "8091000069");

    let place = NoticePlace { position: POSITION, notice: NOTICE };
    ids.remember("8091000069", place, Timestamp::from_millis(0)).await.unwrap();
    assert_eq!(served.call(&served.of_account, &delivered("8091000069", PHONE)).await.0, 200);
    assert_eq!(served.kept().await, 1);
    // The addresses of messages that left before the account's one was registered are good, too.
    assert_eq!(served.call(&served.address, &delivered("8091000069", PHONE)).await.0, 200);
    assert_eq!(served.kept().await, 2);
}

#[tokio::test]
async fn an_accounts_address_that_is_not_genuine_or_not_in_use_is_refused() {
    let by_account = Served::by_account().await;
    let (base, signature) = by_account.of_account.rsplit_once('/').unwrap();
    let (_, of_message) = by_account.address.rsplit_once('.').unwrap();
    for segment in ["00112233445566778899aabbccddeeff", of_message, &signature[1..], "nonsense"] {
        let status = by_account.call(&format!("{base}/{segment}"), &delivered("1", PHONE)).await.0;
        assert_eq!(status, 403, "{segment}");
    }
    assert_eq!(by_account.store.message_ids(&lane()).parked(0, 10).await.unwrap(), []);
    let by_message = Served::to(Callers::default()).await;
    assert_eq!(by_message.call(&by_message.of_account, &delivered("1", PHONE)).await.0, 404);
}

#[tokio::test]
async fn an_address_that_may_not_call_is_refused() {
    let served =
        Served::to(Callers { allow: networks(&["203.0.113.0/24"]), trusted_proxies: Vec::new() }).await;
    assert_eq!(served.call(&served.address, &delivered("8091000069", PHONE)).await.0, 403);
    assert_eq!(served.kept().await, 0);
}

#[test]
fn who_calls_is_told_by_trusted_proxies_only() {
    let callers = Callers {
        allow: networks(&["203.0.113.0/24"]),
        trusted_proxies: networks(&["127.0.0.0/8", "10.0.0.0/8"]),
    };
    for (peer, forwarded, may) in [
        ("203.0.113.7", None, true),
        ("::ffff:203.0.113.7", None, true),
        ("198.51.100.1", None, false),
        ("127.0.0.1", None, false),
        ("127.0.0.1", Some("203.0.113.7"), true),
        ("127.0.0.1", Some("203.0.113.7, 10.0.0.1"), true),
        ("127.0.0.1", Some("203.0.113.7, 198.51.100.1"), false),
        ("198.51.100.1", Some("203.0.113.7"), false),
        ("127.0.0.1", Some("nonsense"), false),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(hops) = forwarded {
            headers.insert("x-forwarded-for", hops.parse().unwrap());
        }
        assert_eq!(callers.may_call(peer.parse().unwrap(), &headers), may, "{peer} {forwarded:?}");
    }
    assert!(Callers::default().may_call("198.51.100.1".parse().unwrap(), &HeaderMap::new()));
}
