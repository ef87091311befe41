//! Several processes on the real Kafka and the real CQL store: killed, put to sleep, woken, added and taken away in the
//! middle of a morning; and what is left when the day is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gatebell_gateway_sim::GatewaySim;
use serde_json::Value;

use crate::crash::{nasty, seen_by_parents};
use crate::front::Front;
use crate::process::{PATIENCE, Serving, Shared, Station, report_to};
use crate::servers::{OwnServers, Servers};
use crate::town::tap;
use crate::{entries, gentle, simulator};

/// Processes that share every gateway's rate.
const PROCESSES: usize = 3;
/// Taps in one report.
const REPORT_TAPS: usize = 8;
/// A member of the group that is silent for so long loses its partitions; the least that Kafka takes.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// A seat that is not renewed for so long is another's.
const SEAT_LAPSES_AFTER: Duration = Duration::from_secs(15);
/// Kills in `dev/test`; `GATEBELL_KILLS` asks for more.
const KILLS: usize = 3;

/// A town whose engine is several processes.
struct Company {
    sim: GatewaySim,
    shared: Shared,
    stations: Vec<Station>,
    taps: Front,
    callbacks: Front,
    /// The processes that run, by the number of their station.
    serving: BTreeMap<usize, Serving>,
    asleep: BTreeSet<usize>,
}

impl Company {
    async fn of(pupils: usize, sim: GatewaySim, servers: Servers) -> Self {
        let (taps, callbacks) = (Front::open().await, Front::open().await);
        let shared = Shared {
            servers,
            processes_max: PROCESSES,
            session_timeout: SESSION_TIMEOUT,
            callbacks: callbacks.address,
        };
        let first = Station::sharing(pupils, &sim, &shared);
        let stations = (1..=PROCESSES).map(|number| first.another(&format!("process-{number}"))).collect();
        Self { sim, shared, stations, taps, callbacks, serving: BTreeMap::new(), asleep: BTreeSet::new() }
    }

    fn station(&self) -> &Station {
        &self.stations[0]
    }

    async fn start(&mut self, number: usize) {
        let serving = self.stations[number].serve().await;
        self.serving.insert(number, serving);
        self.put_behind();
    }

    fn put_behind(&self) {
        let awake =
            || self.serving.iter().filter(|(number, _)| !self.asleep.contains(number)).map(|(_, one)| one);
        self.taps.put_behind(awake().map(Serving::taps_address));
        self.callbacks.put_behind(awake().map(Serving::callbacks_address));
    }

    async fn kill_and_replace(&mut self, number: usize) {
        if let Some(mut serving) = self.serving.remove(&number) {
            serving.kill();
        }
        self.put_behind();
        self.start(number).await;
    }

    /// Longer than the group waits for it and than its seat lasts.
    async fn let_sleep(&mut self, number: usize) {
        self.serving[&number].signal("STOP");
        self.asleep.insert(number);
        self.put_behind();
        tokio::time::sleep(SESSION_TIMEOUT + SEAT_LAPSES_AFTER).await;
        self.serving[&number].signal("CONT");
        self.asleep.remove(&number);
        self.put_behind();
    }

    async fn take_away(&mut self, number: usize) {
        let mut serving = self.serving.remove(&number).expect("it runs");
        self.put_behind();
        assert!(serving.stop("TERM").await.success(), "{}", serving.logged());
    }

    fn logged(&self) -> String {
        let logs = self.serving.iter().map(|(number, serving)| format!("-- {number}\n{}", serving.logged()));
        logs.collect()
    }
}

/// Reports every pupil's tap until each was acknowledged, spread over `lasts`.
async fn morning(url: String, token: String, pupils: usize, lasts: Duration) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let numbers: Vec<usize> = (0..pupils).collect();
    let pause = lasts / u32::try_from(pupils.div_ceil(REPORT_TAPS)).unwrap();
    for group in numbers.chunks(REPORT_TAPS) {
        let taps: Vec<Value> = group.iter().map(|pupil| tap(*pupil)).collect();
        let begun = Instant::now();
        loop {
            match report_to(&client, &url, &token, &taps).await {
                Ok((202, answer)) => {
                    assert_eq!(answer["accepted"], group.len());
                    break;
                }
                Ok((429 | 503, _)) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(other) => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < PATIENCE, "taps are not taken");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Waits until everything is charged and told, then compares the accounts of ledger, bill and gateway.
async fn assert_accounts_equal(company: Company, pupils: usize) {
    let station = company.station();
    let ledger = station
        .until_ledger("every charge and every push", |ledger| {
            entries(ledger, "charged").len() >= pupils && entries(ledger, "accepted").len() >= pupils
        })
        .await;
    station.assert_recounted();
    assert_eq!(entries(&ledger, "charged").len(), pupils, "no SMS is billed twice");
    let billed: u64 = station.bill().iter().map(|line| line["delivered"].as_u64().unwrap()).sum();
    assert_eq!(billed, pupils as u64);
    let seen = seen_by_parents(&ledger);
    assert_eq!(
        seen.len(),
        3 * pupils,
        "an SMS is delivered and charged, a push accepted; nothing else: {seen:#?}"
    );

    let logged = company.logged();
    let Company { sim, serving, shared, .. } = company;
    for (_, mut serving) in serving {
        assert!(serving.stop("TERM").await.success(), "{}", serving.logged());
    }
    let taken = sim.stop().await;
    assert_eq!(
        taken.messages.len(),
        pupils,
        "what was in doubt went out again under the same reference\n{logged}"
    );
    assert_eq!(taken.counts.overruns, 0, "all together keep to the gateway's rate");
    let delivered: BTreeSet<&str> = taken
        .messages
        .iter()
        .filter(|message| message.is_delivered())
        .map(|message| message.msgid.as_str())
        .collect();
    let proved: BTreeSet<&str> =
        entries(&ledger, "delivered").iter().map(|line| line["gateway_id"].as_str().unwrap()).collect();
    assert_eq!(delivered, proved, "the gateway's messages are the ledger's");
    drop(shared);
}

#[tokio::test]
async fn a_morning_of_three_processes_is_told_and_billed_once() {
    const PUPILS: usize = 120;
    let mut company = Company::of(PUPILS, simulator(gentle()).await, Servers::Common).await;
    for number in 0..PROCESSES {
        company.start(number).await;
    }
    let url = format!("http://{}/v1/taps", company.taps.address);
    morning(url, company.station().token.clone(), PUPILS, Duration::from_secs(4)).await;
    assert_accounts_equal(company, PUPILS).await;
}

#[tokio::test]
async fn processes_that_are_killed_put_to_sleep_and_exchanged_lose_and_double_nothing() {
    let kills = std::env::var("GATEBELL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let pupils = 100 * (kills + 3);
    let mut company = Company::of(pupils, simulator(nasty()).await, Servers::Common).await;
    for number in 0..PROCESSES {
        company.start(number).await;
    }
    let url = format!("http://{}/v1/taps", company.taps.address);
    let lasts = Duration::from_secs(4) * u32::try_from(kills + 8).unwrap();
    let readers = tokio::spawn(morning(url, company.station().token.clone(), pupils, lasts));

    for kill in 0..kills {
        tokio::time::sleep(Duration::from_secs(4)).await;
        company.kill_and_replace(kill % PROCESSES).await;
    }
    company.let_sleep(1).await;
    company.take_away(2).await;
    company.start(2).await;
    readers.await.unwrap();
    assert_accounts_equal(company, pupils).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "restarts servers of its own, which takes minutes: dev/test --long"]
async fn a_broker_and_a_store_that_crash_under_load_lose_and_double_nothing() {
    const PUPILS: usize = 400;
    let servers = Servers::Own(OwnServers::start());
    let mut company = Company::of(PUPILS, simulator(nasty()).await, servers).await;
    for number in 0..PROCESSES {
        company.start(number).await;
    }
    let url = format!("http://{}/v1/taps", company.taps.address);
    let token = company.station().token.clone();
    let readers = tokio::spawn(morning(url, token, PUPILS, Duration::from_secs(60)));
    for server in ["kafka", "cql", "kafka", "cql"] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let Servers::Own(own) = &company.shared.servers else { unreachable!("they are its own") };
        tokio::task::block_in_place(|| own.crash(server));
    }
    readers.await.unwrap();
    for serving in company.serving.values() {
        serving.until_ready("readiness", |status, _| status == 200).await;
    }
    assert_accounts_equal(company, PUPILS).await;
}

/// Protects a guardian while three processes run: the command returns when all of them know.
#[tokio::test]
async fn a_protection_holds_in_every_process_when_the_command_returns() {
    const PUPILS: usize = 24;
    let mut company = Company::of(PUPILS, simulator(gentle()).await, Servers::Common).await;
    for number in 0..PROCESSES {
        company.start(number).await;
    }
    for serving in company.serving.values() {
        serving.until_ready("readiness", |status, _| status == 200).await;
    }
    let protected = company.station().gatebell(&["protect", "G3", "P3"]);
    assert!(protected.status.success(), "{}", crate::process::printed(&protected));
    let url = format!("http://{}/v1/taps", company.taps.address);
    morning(url, company.station().token.clone(), PUPILS, Duration::from_secs(1)).await;
    let ledger = company
        .station()
        .until_ledger("every charge", |ledger| entries(ledger, "charged").len() >= PUPILS - 1)
        .await;
    let of_protected: BTreeSet<&str> = ledger
        .iter()
        .filter(|line| line["guardian"] == "G3")
        .map(|line| line["entry"].as_str().unwrap())
        .collect();
    assert_eq!(of_protected, BTreeSet::from(["suppressed"]));
    let pushes = company.sim.log().pushes.len();
    assert_eq!(pushes, PUPILS - 1);
}
