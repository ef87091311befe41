//! The whole program through its public faces: commands, HTTP, and the gateway simulator at the other end.

#![allow(clippy::unwrap_used)]

mod account_callbacks;
mod accounts;
mod cluster;
mod crash;
mod damage;
mod disk;
mod front;
mod kills;
mod morning;
mod owners;
mod privacy;
mod process;
mod servers;
mod shared_city;
mod shared_terms;
mod small_disk;
mod town;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gatebell_gateway_sim::{AppBackend, Faults, GatewaySim, Receipts, SimConfig, Spread};
use serde_json::Value;

use process::{PATIENCE, Station, gatebell, printed, report_to};
use town::{READER, SCHOOL, phone, tap};

const ANY_PORT: &str = "127.0.0.1:0";

/// A simulator that answers soon and without faults.
fn gentle() -> SimConfig {
    let quick = Spread { median_ms: 2, p99_ms: 20 };
    SimConfig {
        latency: quick,
        faults: Faults {
            refused: 0.0,
            retry_later: 0.0,
            throttled: 0.0,
            stopped: 0.0,
            no_answer: 0.0,
            taken_no_answer: 0.0,
            taken_rubbish: 0.0,
            taken_cut_off: 0.0,
            ..Faults::default()
        },
        receipts: Receipts {
            failed: 0.0,
            delay: Spread { median_ms: 30, p99_ms: 200 },
            late: 0.0,
            lost: 0.0,
            retry_ms: 100,
            tries_max: 100,
            ..Receipts::default()
        },
        app: AppBackend {
            latency: quick,
            gone: 0.0,
            retry_later: 0.0,
            throttled: 0.0,
            no_answer: 0.0,
            taken_no_answer: 0.0,
            ..AppBackend::default()
        },
        ..SimConfig::default()
    }
}

async fn simulator(config: SimConfig) -> GatewaySim {
    GatewaySim::start(config, ANY_PORT.parse().unwrap()).await.unwrap()
}

/// The entries of one kind.
fn entries<'l>(ledger: &'l [Value], entry: &str) -> Vec<&'l Value> {
    ledger.iter().filter(|line| line["entry"] == entry).collect()
}

/// Says a figure that is of interest when the test succeeds, too.
fn tell(figure: impl std::fmt::Display) {
    // Whoever has closed standard error reads no figures.
    let _unread = writeln!(std::io::stderr(), "{figure}");
}

#[tokio::test]
async fn one_tap_becomes_two_notices_a_receipt_and_a_line_of_the_bill() {
    let sim = simulator(gentle()).await;
    let station = Station::of(2, &sim, &[]);
    let mut serving = station.serve().await;
    let answer = serving.report(&[tap(0)]).await.unwrap();
    assert_eq!(answer, (202, serde_json::json!({"accepted": 1, "rejected": []})));

    let ledger = station.until_ledger("the charge", |ledger| !entries(ledger, "charged").is_empty()).await;
    let delivered = entries(&ledger, "delivered");
    assert_eq!(delivered.len(), 1, "{ledger:#?}");
    assert_eq!(delivered[0]["channel"], "sms");
    assert_eq!(delivered[0]["order"], "O0");
    assert_eq!(delivered[0]["day"], station.town.today());
    let pushed = station.until_ledger("the push", |ledger| !entries(ledger, "accepted").is_empty()).await;
    assert_eq!(entries(&pushed, "accepted")[0]["channel"], "app");

    let bill = station.bill();
    assert_eq!(
        (&bill[0]["order"], &bill[0]["delivered"], &bill[0]["fee"]),
        (&"O0".into(), &1.into(), &1.into())
    );
    assert_eq!(bill[1]["delivered"], 0);
    station.assert_recounted();
    serving.until_committed().await;
    assert_figures_are_told(&serving.page("/metrics").await.1);

    assert!(serving.stop("TERM").await.success());
    let seen = sim.stop().await;
    assert_eq!((seen.messages.len(), seen.pushes.len()), (1, 1));
    assert_eq!(seen.messages[0].dstaddr, phone(0));
    assert!(seen.messages[0].is_delivered());
    assert!(seen.messages[0].receipts.iter().any(|receipt| receipt.acknowledged));
    assert_eq!((seen.counts.signature_failures, seen.counts.overruns), (0, 0));
}

/// Every figure that operators were promised is there, and each says what it is.
fn assert_figures_are_told(page: &str) {
    for promised in [
        "gatebell_taps_total{outcome=\"passage\",detail=\"arrival\"} 1",
        "gatebell_tap_lag{partition=\"0\"} 0",
        "gatebell_held_seconds{partition=\"0\"} 0",
        "gatebell_unsettled_taps{partition=\"0\"} 0",
        "gatebell_lane_queue_depth{lane=\"mitake\"} 0",
        "gatebell_lane_state{lane=\"mitake\",state=\"sending\"} 1",
        "gatebell_lane_permits_total{lane=\"mitake\"} 1",
        "gatebell_lane_rate_per_second{lane=\"mitake\"} 50",
        "gatebell_receipts_total{lane=\"mitake\",status=\"delivered\"}",
        "gatebell_callbacks_total{result=\"kept\"}",
        "gatebell_charges_total{verdict=\"charged\"} 1",
        "gatebell_tap_to_answer_seconds_count{channel=\"sms\"} 1",
        "gatebell_submit_seconds_bucket{lane=\"mitake\"",
    ] {
        assert!(page.contains(promised), "{promised} in\n{page}");
    }
    let figures = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for figure in figures {
        assert!(page.contains(&format!("# HELP {figure} ")), "{figure} has no help text");
    }
}

#[tokio::test]
async fn a_wrong_configuration_stops_the_start_with_every_mistake_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("wrong.toml");
    let text = "[taps]\nlisten = 8080\n[[gateway]]\nname = \"sms\"\nkind = \"mitake\"\n\
                url = \"https://sms.example/\"\npassword = \"hunter2\"\nwindow = 16\n";
    fs::write(&configuration, text).unwrap();
    let data = folder.path().join("data");
    let output =
        gatebell().args(["serve", "--config"]).arg(&configuration).arg("--data").arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = printed(&output);
    for expected in [
        "wrong.toml:2:10",
        "taps.listen: found 8080",
        "gateway[0].password: unknown key",
        "gateway[0].username: missing",
        "wrong.toml:8:10",
        "a whole number from 1 to 15",
    ] {
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    assert!(!data.exists(), "nothing is begun");
}

#[tokio::test]
async fn secrets_that_cannot_be_had_are_all_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let open_to_others = folder.path().join("password");
    fs::write(&open_to_others, "hunter2").unwrap();
    fs::set_permissions(&open_to_others, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let configuration = folder.path().join("gatebell.toml");
    let text = format!(
        "[[gateway]]\nname = \"sms\"\nkind = \"mitake\"\nurl = \"https://sms.example/\"\nusername = \"city\"\n\
         password_file = {open_to_others:?}\n[app]\nurl = \"https://push.example/\"\nkey_env = \"NEVER_SET_KEY\"\n\
         [taps]\nlisten = \"{ANY_PORT}\"\n[callbacks]\nlisten = \"{ANY_PORT}\"\n[metrics]\nlisten = \"{ANY_PORT}\"\n"
    );
    fs::write(&configuration, text).unwrap();
    let data = folder.path().join("data");
    let run = |command: &[&str]| {
        gatebell()
            .args(command)
            .arg("--config")
            .arg(&configuration)
            .arg("--data")
            .arg(&data)
            .output()
            .unwrap()
    };
    let (checked, served) = (run(&["config", "check"]), run(&["serve"]));
    assert_eq!((checked.status.code(), served.status.code()), (Some(1), Some(1)));
    let said = printed(&served);
    assert_eq!(printed(&checked), said, "the check finds what the start would");
    for expected in ["password of gateway sms", "chmod 600", "key of the app", "NEVER_SET_KEY is not set"] {
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn whatever_keeps_serve_from_starting_is_said_at_once_and_by_the_check_too() {
    let folder = tempfile::tempdir().unwrap();
    let term = folder.path().join("broken.toml");
    fs::write(&term, "name = \"broken\"\nsms_price = \"much\"\n").unwrap();
    let configuration = folder.path().join("gatebell.toml");
    let text = format!(
        "[city]\nterm = {term:?}\ntexts = \"nowhere\"\n[taps]\nlisten = \"127.0.0.1:9090\"\n[[gateway]]\nname = \"sms\"\n\
         kind = \"mitake\"\nurl = \"http://sms.example/\"\nusername = \"city\"\npassword_env = \"NEVER_SET_PASSWORD\"\n"
    );
    fs::write(&configuration, text).unwrap();
    let data = folder.path().join("data");
    let run = |args: &[&str]| {
        gatebell().args(args).arg("--config").arg(&configuration).arg("--data").arg(&data).output().unwrap()
    };
    let (checked, served) = (run(&["config", "check"]), run(&["serve"]));
    assert_eq!((checked.status.code(), served.status.code()), (Some(1), Some(1)));
    let said = printed(&served);
    assert_eq!(printed(&checked), said);
    for expected in [
        "broken.toml has mistakes",
        "2:13: sms_price: found \"much\"",
        "NEVER_SET_PASSWORD is not set",
        "cannot read the texts nowhere/zh-TW.toml",
        "taps.listen: found \"127.0.0.1:9090\"",
        "gateway[0].url: found \"http://sms.example/\"",
    ] {
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
    assert!(!data.exists(), "nothing is begun");

    // With the configured term mended and no lane for the app, which it offers.
    let said = printed(&run(&["serve", "--term", "114-1"]));
    assert!(said.contains("the term 114-1 offers app, but no lane is configured for it"), "{said}");
}

#[tokio::test]
async fn commands_follow_the_term_that_is_served_and_a_name_means_one_thing() {
    let sim = simulator(gentle()).await;
    let station = Station::of(1, &sim, &[]);
    let fair = station.data.with_file_name("fair.toml");
    let text = fs::read_to_string(&station.town.term).unwrap();
    let name = |name: &str| {
        let lines = text
            .lines()
            .map(|line| if line.starts_with("name") { format!("name = {name:?}") } else { line.to_owned() });
        lines.collect::<Vec<String>>().join("\n")
    };
    fs::write(&fair, name("fair")).unwrap();
    let mut command = gatebell();
    command
        .args(["serve", "--term"])
        .arg(&fair)
        .arg("--config")
        .arg(&station.configuration)
        .arg("--data")
        .arg(&station.data);
    let mut serving = station.serve_by(command).await;

    let bill = station.gatebell(&["bill"]);
    assert!(printed(&bill).contains("term fair, as it is served on"), "{}", printed(&bill));
    assert!(printed(&bill).contains("term fair: all 1 lines are drafts"), "{}", printed(&bill));
    // Another meaning of the name while it is served.
    let other = station.data.with_file_name("other.toml");
    fs::write(&other, format!("{}\n", name("fair").replace("sms_price = 75", "sms_price = 80"))).unwrap();
    let other = other.to_str().unwrap();
    let closed = station.gatebell(&["term", "close", other, "--force"]);
    assert_eq!(closed.status.code(), Some(1));
    assert!(printed(&closed).contains("term fair is being served on"), "{}", printed(&closed));

    assert_eq!(serving.report(&[tap(0)]).await.unwrap().0, 202);
    station.until_ledger("the charge", |ledger| !entries(ledger, "charged").is_empty()).await;
    assert!(serving.stop("TERM").await.success());
    let served = station.gatebell(&["serve", "--term", other]);
    assert_eq!(served.status.code(), Some(1));
    assert!(printed(&served).contains("term fair was billed on"), "{}", printed(&served));
    // By its name alone: what was served is known.
    fs::remove_file(&fair).unwrap();
    let bill = station.gatebell(&["bill", "--term", "fair"]);
    assert!(bill.status.success(), "{}", printed(&bill));
}

#[test]
fn the_commented_configuration_that_is_shown_is_one_to_begin_with() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("gatebell.toml");
    fs::write(&own, gatebell().args(["config", "show"]).output().unwrap().stdout).unwrap();
    let checked = gatebell().args(["config", "check", "--config"]).arg(&own).output().unwrap();
    assert!(checked.status.success(), "{}", printed(&checked));
}

#[tokio::test]
async fn a_second_serve_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let sim = simulator(gentle()).await;
    let station = Station::of(1, &sim, &[]);
    let mut serving = station.serve().await;
    let second = station.gatebell(&["serve"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(printed(&second).contains("another gatebell serve"), "{}", printed(&second));
    assert_eq!(serving.report(&[tap(0)]).await.unwrap().0, 202);
    assert!(serving.stop("INT").await.success());
    assert!(!station.data.join("listeners.json").exists());
    let mut after = station.serve().await;
    assert!(after.stop("TERM").await.success());
}

#[tokio::test]
async fn a_clean_stop_loses_nothing_that_was_acknowledged() {
    let sim = simulator(SimConfig { latency: Spread { median_ms: 50, p99_ms: 100 }, ..gentle() }).await;
    let station = Station::of(60, &sim, &[]);
    let mut serving = station.serve().await;
    let taps: Vec<Value> = (0..60).map(tap).collect();
    assert_eq!(serving.report(&taps).await.unwrap().0, 202);
    assert!(serving.stop("TERM").await.success());
    let _after = station.serve().await;
    station.until_ledger("every charge", |ledger| entries(ledger, "charged").len() == 60).await;
    assert_eq!(sim.stop().await.messages.len(), 60);
    station.assert_recounted();
}

#[tokio::test]
async fn a_second_signal_ends_at_once_what_a_first_one_would_have_waited_for() {
    let gentle = gentle();
    let silent = Faults { no_answer: 1.0, hang_ms: 60_000, ..gentle.faults.clone() };
    let sim = simulator(SimConfig { faults: silent, ..gentle }).await;
    let station = Station::of(1, &sim, &[]);
    let mut serving = station.serve().await;
    assert_eq!(serving.report(&[tap(0)]).await.unwrap().0, 202);
    let begun = Instant::now();
    while sim.log().counts.requests == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing is on the wire:\n{}", serving.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    serving.signal("INT");
    serving.until_logged("stopping").await;
    assert_eq!(serving.stop("INT").await.code(), Some(130));
}

#[tokio::test]
async fn a_protection_beside_a_running_serve_holds_when_the_command_returns() {
    let sim = simulator(gentle()).await;
    let station = Station::of(2, &sim, &[]);
    let serving = station.serve().await;
    let protected = station.gatebell(&["protect", "G0", "P0"]);
    assert!(protected.status.success(), "{}", printed(&protected));
    assert_eq!(serving.report(&[tap(0), tap(1)]).await.unwrap().0, 202);
    let every_end =
        |ledger: &[Value]| entries(ledger, "suppressed").len() == 2 && entries(ledger, "charged").len() == 1;
    let ledger = station.until_ledger("every end", every_end).await;
    for suppressed in entries(&ledger, "suppressed") {
        assert_eq!((&suppressed["guardian"], &suppressed["reason"]), (&"G0".into(), &"protected".into()));
    }
    let seen = sim.stop().await;
    assert!(seen.messages.iter().all(|message| message.dstaddr == phone(1)));
    assert!(seen.pushes.iter().all(|push| push.guardian == "G1"));
}

#[tokio::test]
async fn a_made_up_city_is_not_brought_under_a_process_that_takes_its_city_for_real() {
    let sim = simulator(gentle()).await;
    let station = Station::empty(1, &sim, &[]);
    let _serving = station.serve().await;
    let imported = station.gatebell(&["import", "--made-up", station.town.directory.to_str().unwrap()]);
    assert_eq!(imported.status.code(), Some(1));
    assert!(printed(&imported).contains("takes its city for a real one"), "{}", printed(&imported));
}

#[tokio::test]
async fn a_schools_token_is_for_its_readers_and_a_revoked_one_for_nobody() {
    let sim = simulator(gentle()).await;
    let station = Station::of(1, &sim, &[]);
    let serving = station.serve().await;
    let client = reqwest::Client::new();
    let url = serving.taps_url();
    let its_own = station.new_token(&["--school", SCHOOL]);
    let anothers = station.new_token(&["--school", "400400"]);
    assert_eq!(tap(0)["reader"], READER);
    let (status, answer) = report_to(&client, &url, &its_own, &[tap(0)]).await.unwrap();
    assert_eq!((status, &answer["accepted"]), (202, &1.into()));
    let (status, answer) = report_to(&client, &url, &anothers, &[tap(0)]).await.unwrap();
    assert_eq!((status, &answer["rejected"][0]["reason"]), (202, &"not_allowed".into()));
    // The first token is the station's own, made before the two.
    assert!(station.gatebell(&["token", "revoke", "2"]).status.success());
    assert_eq!(report_to(&client, &url, &its_own, &[tap(0)]).await.unwrap().0, 401);
}

#[tokio::test]
async fn a_full_queue_asks_readers_to_come_back_and_every_acknowledged_tap_is_there() {
    let sim = simulator(gentle()).await;
    let station = Station::of(1, &sim, &[("tap_log", "queue_taps_max = 2"), ("taps", "requests_max = 64")]);
    let serving = station.serve().await;
    let (url, client) = (serving.taps_url(), reqwest::Client::new());
    let mut accepted = 0;
    let mut refused = 0;
    let begun = Instant::now();
    while refused == 0 {
        assert!(begun.elapsed() < PATIENCE, "the queue is never full");
        let reports = (0..32).map(|_| {
            let (client, url, token) = (client.clone(), url.clone(), station.token.clone());
            tokio::spawn(async move { report_to(&client, &url, &token, &[tap(0), tap(0)]).await.unwrap() })
        });
        for report in reports.collect::<Vec<_>>() {
            match report.await.unwrap() {
                (202, _) => accepted += 2,
                (429, _) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(accepted > 0);
    let (_, page) = serving.page("/metrics").await;
    let counted =
        page.lines().find(|line| line.starts_with("gatebell_reported_taps_total{result=\"accepted\"}"));
    assert_eq!(counted.unwrap().rsplit(' ').next().unwrap(), accepted.to_string());
    let read = |page: &str| -> u64 {
        let outcomes = page.lines().filter(|line| line.starts_with("gatebell_taps_total{"));
        outcomes.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    while read(&serving.page("/metrics").await.1) < accepted {
        assert!(begun.elapsed() < PATIENCE, "acknowledged taps are missing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(read(&serving.page("/metrics").await.1), accepted, "a refused report may be sent again whole");
}

#[tokio::test]
async fn a_gateway_that_is_down_is_reported_and_gets_everything_when_it_is_back() {
    let sim = simulator(gentle()).await;
    let address: SocketAddr = sim.address();
    let station = Station::of(20, &sim, &[]);
    sim.stop().await;
    let serving = station.serve().await;
    let taps: Vec<Value> = (0..20).map(tap).collect();
    assert_eq!(serving.report(&taps).await.unwrap().0, 202);
    let lane_is_down = |status: u16, answer: &Value| {
        let missing = answer["missing"].as_array().unwrap();
        status == 503 && missing.iter().any(|missing| missing["why"].as_str().unwrap().contains("mitake"))
    };
    serving.until_ready("the gateway's absence", lane_is_down).await;
    assert_eq!(serving.page("/healthz").await.0, 200);

    let back = GatewaySim::start(gentle(), address).await.unwrap();
    station.until_ledger("every charge", |ledger| entries(ledger, "charged").len() == 20).await;
    serving.until_ready("readiness", |status, _| status == 200).await;
    let seen = back.stop().await;
    assert_eq!((seen.messages.len(), seen.counts.overruns), (20, 0));
}
