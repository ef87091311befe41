//! A provider that calls one address for a whole account: receipts find their notices by the gateway's message id, also
//! when they come before the answer to the submit, more than once, or to another process than the one that submitted.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gatebell_gateway_sim::{Account, GatewaySim, Receipts, SimConfig, Spread};
use serde_json::Value;

use crate::front::Front;
use crate::process::{PATIENCE, Serving, Shared, Station, printed};
use crate::servers::Servers;
use crate::town::tap;
use crate::{entries, gentle, simulator};

const PUPILS: usize = 6;

/// Tells every receipt at once, long before it answers the submit, and tells it again when it was placed by then.
fn hasty(callback_address: &str) -> SimConfig {
    let gentle = gentle();
    let account =
        Account { callback_address: callback_address.to_owned(), ..SimConfig::default().accounts[0].clone() };
    SimConfig {
        accounts: vec![account],
        latency: Spread { median_ms: 400, p99_ms: 500 },
        receipts: Receipts { early: 1.0, repeated: 1.0, retry_ms: 8_000, ..gentle.receipts.clone() },
        ..gentle
    }
}

/// Has receipts of `station` come to one address behind `front`; gives the address that the provider is to call.
fn call_by_account(station: &Station, front: SocketAddr) -> String {
    let text = fs::read_to_string(&station.configuration).unwrap();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("callback_url")).collect();
    let url = format!("callback_url = \"http://{front}\"\ncallback_address = \"account\"");
    let gateway = lines.iter().position(|line| *line == "[[gateway]]").unwrap();
    lines.insert(gateway + 1, &url);
    fs::write(&station.configuration, lines.join("\n")).unwrap();
    let address = station.gatebell(&["callback-address", "mitake"]);
    assert!(address.status.success(), "{}", printed(&address));
    String::from_utf8(address.stdout).unwrap().trim().to_owned()
}

fn listening(sim: &GatewaySim) -> SocketAddr {
    reqwest::Url::parse(&sim.mitake_url()).unwrap().socket_addrs(|| None).unwrap()[0]
}

/// The same provider, to which somebody has given the address.
async fn registered(sim: GatewaySim, callback_address: &str) -> GatewaySim {
    let listening = listening(&sim);
    sim.stop().await;
    GatewaySim::start(hasty(callback_address), listening).await.unwrap()
}

/// Receipts that came before their id, and how many of them were placed later, in all processes.
async fn unplaced(serving: &[Serving]) -> (u64, u64) {
    let (mut parked, mut placed) = (0, 0);
    for process in serving {
        let page = process.page("/metrics").await.1;
        let count = |result: &str| -> u64 {
            let name = format!("gatebell_unplaced_receipts_total{{lane=\"mitake\",result=\"{result}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
        };
        parked += count("parked");
        placed += count("placed");
    }
    (parked, placed)
}

/// Every SMS is delivered and charged once, by receipts that had to wait for their id.
async fn assert_told_and_charged_once(station: &Station, sim: GatewaySim, serving: Vec<Serving>) {
    station.until_ledger("every charge", |ledger| entries(ledger, "charged").len() >= PUPILS).await;
    let has_repeated = |sim: &GatewaySim| {
        let messages = sim.log().messages;
        messages.iter().all(|message| message.receipts.iter().filter(|told| told.acknowledged).count() >= 2)
    };
    let begun = Instant::now();
    while !has_repeated(&sim) {
        assert!(begun.elapsed() < PATIENCE, "receipts are not told twice: {:#?}", sim.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let parked = loop {
        let (parked, placed) = unplaced(&serving).await;
        // Several processes may place the same one.
        if placed >= parked {
            break parked;
        }
        assert!(begun.elapsed() < PATIENCE, "{placed} of {parked} receipts were placed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(parked >= PUPILS as u64, "only {parked} receipts came before their id");
    station.assert_recounted();
    let ledger = station.ledger();
    assert_eq!(entries(&ledger, "delivered").len(), PUPILS, "{ledger:#?}");
    assert_eq!(entries(&ledger, "charged").len(), PUPILS, "what is told twice is charged once");
    for mut process in serving {
        assert!(process.stop("TERM").await.success(), "{}", process.logged());
    }
    assert_eq!(sim.stop().await.messages.len(), PUPILS);
}

fn morning() -> Vec<Value> {
    (0..PUPILS).map(tap).collect()
}

#[tokio::test]
async fn receipts_to_the_accounts_address_are_charged_once_also_when_they_overtake_the_answer() {
    let sim = simulator(gentle()).await;
    let station = Station::of(PUPILS, &sim, &[]);
    let front = Front::open().await;
    let address = call_by_account(&station, front.address);
    let sim = registered(sim, &address).await;
    let serving = station.serve().await;
    front.put_behind([serving.callbacks_address()]);

    // Whoever does not know the address is refused.
    let (base, _) = address.rsplit_once('/').unwrap();
    let stranger = format!("{base}/00112233445566778899aabbccddeeff?msgid=1&dstaddr=0912345678&StatusFlag=4");
    assert_eq!(reqwest::get(stranger).await.unwrap().status().as_u16(), 403);

    assert_eq!(serving.report(&morning()).await.unwrap().0, 202);
    assert_told_and_charged_once(&station, sim, vec![serving]).await;
    let logged = fs::read_to_string(station.log_file()).unwrap();
    assert!(!logged.contains(address.rsplit('/').next().unwrap()), "the address is in the log");
}

#[tokio::test]
async fn receipts_to_the_accounts_address_find_the_owner_whichever_process_is_called() {
    let sim = simulator(gentle()).await;
    let front = Front::open().await;
    let shared = Shared {
        servers: Servers::Common,
        processes_max: 2,
        session_timeout: Duration::from_secs(6),
        callbacks: front.address,
    };
    let first = Station::sharing(PUPILS, &sim, &shared);
    let address = call_by_account(&first, front.address);
    let sim = registered(sim, &address).await;
    let second = first.another("second");
    let serving = vec![first.serve().await, second.serve().await];
    front.put_behind(serving.iter().map(Serving::callbacks_address));
    for process in &serving {
        process.until_ready("readiness", |status, _| status == 200).await;
    }
    assert_eq!(serving[0].report(&morning()).await.unwrap().0, 202);
    assert_told_and_charged_once(&first, sim, serving).await;
}
