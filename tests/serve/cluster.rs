//! Several processes on the real Kafka and the real CQL store: killed, put to sleep, woken, added and taken away in the
//! middle of a morning; and what is left when the day is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

use gatebell_gateway_sim::GatewaySim;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::accounts::{books_when_settled, nasty};
use crate::front::Front;
use crate::kills::Kills;
use crate::morning::{Reported, morning, morning_until};
use crate::owners::{self, WithoutOwner};
use crate::process::{Serving, Shared, Station, printed};
use crate::servers::{OwnServers, Servers};
use crate::{entries, gentle, simulator, tell};

/// Processes that share every gateway's rate.
const PROCESSES: usize = 3;
/// A member of the group that is silent for so long loses its partitions; the least that Kafka takes.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// A seat that is not renewed for so long is another's.
const SEAT_LAPSES_AFTER: Duration = Duration::from_secs(15);
/// Kills in `dev/test`; `GATEBELL_KILLS` asks for more.
const KILLS: usize = 3;
/// The next one comes so long after the last one's successor listens: sometimes before the group has settled.
const KILL_AFTER: Range<Duration> = Duration::from_secs(3)..Duration::from_secs(12);
/// After the third kill, and so many later again, one process is put to sleep and another one exchanged.
const OTHER_EVENTS_EVERY_KILLS: usize = 10;
/// Pupils who pass between two kills, about.
const PUPILS_PER_KILL: usize = 100;
/// A kill, the start of its successor and the time until the next, about.
const KILL_TAKES: Duration = Duration::from_secs(13);
/// The other events together, about.
const OTHER_EVENTS_TAKE: Duration = Duration::from_secs(45);
/// A fault may take so much longer than reckoned, and there are pupils left who pass.
const READERS_GO_ON: Duration = Duration::from_secs(30);
/// Whoever is left when the last fault is over passes within this.
const LAST_PUPILS_TAKE: Duration = Duration::from_secs(20);
/// What recovery adds to the session time-out where one process goes: some tenths of a second, or seconds on a machine with
/// far more work than it has cores for.
const RECOVERY_TAKES: Duration = Duration::from_secs(20);
/// From the last death on, every partition has an owner again within this, also on a machine with far more work than it has
/// cores for. A death that falls into the rebalance after another is noticed a session time-out after that one has ended,
/// and where all died in quick succession a seat must lapse first.
const OWNED_AGAIN_WITHIN: Duration = Duration::from_secs(45);

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
    /// When which process went.
    gone: Vec<(Timestamp, owners::Event)>,
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
        Self {
            sim,
            shared,
            stations,
            taps,
            callbacks,
            serving: BTreeMap::new(),
            asleep: BTreeSet::new(),
            gone: Vec::new(),
        }
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
            self.note_gone(number, "a kill");
        }
        self.put_behind();
        self.start(number).await;
    }

    /// Longer than the group waits for it and than its seat lasts; in the midst of its work.
    async fn let_sleep(&mut self, number: usize) {
        self.serving[&number].until_owning().await;
        self.serving[&number].signal("STOP");
        self.note_gone(number, "a process fell asleep");
        self.asleep.insert(number);
        self.put_behind();
        tokio::time::sleep(SESSION_TIMEOUT + SEAT_LAPSES_AFTER).await;
        self.serving[&number].signal("CONT");
        self.asleep.remove(&number);
        self.put_behind();
    }

    async fn take_away(&mut self, number: usize) {
        let mut serving = self.serving.remove(&number).expect("it runs");
        self.note_gone(number, "a clean stop");
        self.put_behind();
        assert!(serving.stop("TERM").await.success(), "{}", serving.logged());
    }

    fn note_gone(&mut self, process: usize, why: &'static str) {
        self.gone.push((Timestamp::now(), owners::Event::Gone { process, why }));
    }

    fn without_owner(&self) -> WithoutOwner {
        let logged = self.stations.iter().enumerate().flat_map(|(process, station)| {
            owners::events_in(&fs::read_to_string(station.log_file()).unwrap_or_default(), process)
        });
        WithoutOwner::of(logged.chain(self.gone.iter().cloned()).collect(), SESSION_TIMEOUT)
    }
}

/// Waits until everything is settled, compares the accounts and says what is equal; `what` happened. For how long
/// partitions had no owner.
async fn assert_accounts_equal(
    what: &str,
    company: Company,
    pupils: usize,
    reported: &Reported,
) -> WithoutOwner {
    let books = books_when_settled(company.station(), pupils).await;
    let without_owner = company.without_owner();
    let Company { sim, serving, shared, .. } = company;
    for (_, mut serving) in serving {
        assert!(serving.stop("TERM").await.success(), "{}", serving.logged());
    }
    let accounts = books.compared(pupils, reported, &sim.stop().await);
    tell(format_args!("{what}: {accounts}"));
    tell(format_args!(
        "{what}: {without_owner} the session time-out is {} s, recovery comes on top",
        SESSION_TIMEOUT.as_secs()
    ));
    drop(shared);
    without_owner
}

#[tokio::test]
async fn a_morning_of_three_processes_is_told_and_billed_once() {
    const PUPILS: usize = 120;
    let mut company = Company::of(PUPILS, simulator(gentle()).await, Servers::Common).await;
    for number in 0..PROCESSES {
        company.start(number).await;
    }
    let url = format!("http://{}/v1/taps", company.taps.address);
    let reported = morning(url, company.station().token.clone(), PUPILS, Duration::from_secs(4)).await;
    assert_accounts_equal("three processes", company, PUPILS, &reported).await;
}

#[tokio::test]
async fn processes_that_are_killed_put_to_sleep_and_exchanged_lose_and_double_nothing() {
    let mut kills = Kills::asked("three processes", KILLS, usize::MAX);
    let count = kills.count;
    let others_follow = |kill: usize| kill % OTHER_EVENTS_EVERY_KILLS == KILLS;
    // Pupils pass for as long as processes die: a kill of one that has nothing to do shows little.
    let reckoned_end = |next: usize| {
        let times = |faults: usize| u32::try_from(faults).unwrap();
        let others = (next..=count).filter(|kill| others_follow(*kill)).count();
        Instant::now()
            + KILL_TAKES * times(count + 1 - next)
            + OTHER_EVENTS_TAKE * times(others)
            + READERS_GO_ON
    };
    let pupils = PUPILS_PER_KILL * (count + 3);
    let mut company = Company::of(pupils, simulator(nasty()).await, Servers::Common).await;
    for number in 0..PROCESSES {
        company.start(number).await;
    }
    let url = format!("http://{}/v1/taps", company.taps.address);
    let (ends_at, end) = watch::channel(reckoned_end(1));
    let readers = tokio::spawn(morning_until(url, company.station().token.clone(), pupils, end));

    for kill in 1..=count {
        ends_at.send_replace(reckoned_end(kill));
        tokio::time::sleep(kills.time(KILL_AFTER)).await;
        company.kill_and_replace(kills.one_of(PROCESSES)).await;
        if others_follow(kill) {
            company.let_sleep(kills.one_of(PROCESSES)).await;
            tokio::time::sleep(kills.time(KILL_AFTER)).await;
            let exchanged = kills.one_of(PROCESSES);
            company.take_away(exchanged).await;
            company.start(exchanged).await;
        }
    }
    assert!(!readers.is_finished(), "the last faults met nobody at the gate");
    ends_at.send_replace(Instant::now() + LAST_PUPILS_TAKE);
    let reported = readers.await.unwrap();
    let what = format!("{count} kills of three processes");
    let without_owner = assert_accounts_equal(&what, company, pupils, &reported).await;
    assert!(without_owner.longest_alone() <= SESSION_TIMEOUT + RECOVERY_TAKES, "{without_owner}");
    assert!(without_owner.longest_settling() <= OWNED_AGAIN_WITHIN, "{without_owner}");
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
    let reported = readers.await.unwrap();
    for serving in company.serving.values() {
        serving.until_ready("readiness", |status, _| status == 200).await;
    }
    assert_accounts_equal("crashes of broker and store", company, PUPILS, &reported).await;
}

/// Two numbers would give the gateways more than their rates: whoever comes with another one sends nothing, takes no
/// partition from the others, and says so until they have stopped.
#[tokio::test]
async fn a_process_that_divides_the_rates_by_another_number_waits_until_the_others_have_stopped() {
    const PUPILS: usize = 24;
    let mut company = Company::of(PUPILS, simulator(gentle()).await, Servers::Common).await;
    company.start(0).await;
    company.serving[&0].until_ready("readiness", |status, _| status == 200).await;

    let configuration = fs::read_to_string(&company.station().configuration).unwrap();
    let processes = |number: usize| format!("processes_max = {number}\n");
    let otherwise = configuration.replace(&processes(PROCESSES), &processes(PROCESSES - 1));
    assert_ne!(otherwise, configuration);
    company.stations[1].configuration = company.station().configuration.with_file_name("otherwise.toml");
    fs::write(&company.stations[1].configuration, otherwise).unwrap();
    company.start(1).await;
    let says_why = |status: u16, answer: &Value| {
        status == 503 && answer.to_string().contains("processes_max is 2 here and 3 in a process that runs")
    };
    company.serving[&1].until_ready("the reason", says_why).await;

    let url = format!("http://{}/v1/taps", company.taps.address);
    let reported = morning(url, company.station().token.clone(), PUPILS, Duration::from_secs(2)).await;
    company.serving[&0].until_committed().await;
    let owns = company.serving[&1].page("/metrics").await.1;
    assert!(owns.lines().any(|line| line == "gatebell_partitions_owned 0"), "{owns}");
    assert_eq!(company.serving[&0].page("/readyz").await.0, 200);

    company.take_away(0).await;
    company.serving[&1].until_ready("readiness", |status, _| status == 200).await;
    company.serving[&1].until_owning().await;
    assert_accounts_equal("another number", company, PUPILS, &reported).await;
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
    assert!(protected.status.success(), "{}", printed(&protected));
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
