//! Taps over HTTP into the embedded log: the real `gatebell serve` on a real disk, with the engine behind it
//! deciding what comes in, and readers' vendors who send batches of 500 over a few connections.
//!
//! Counts what was acknowledged, so what is durable. Sender and process share the machine; the sender's body
//! is made once, so most of the work measured is the process's. Prints the rate and the time to the answer;
//! no criterion, as a sample here is seconds of a whole process.
//!
//! `cargo bench --bench http_ingest` (with `-- SECONDS CONNECTIONS` for other than 10 seconds over 16
//! connections)

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

const BATCH_TAPS: usize = 500;
const SECONDS: u64 = 10;
const CONNECTIONS: usize = 16;
const START_MAX: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    // Cargo itself adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(SECONDS);
    let connections = numbers.next().map_or(Ok(CONNECTIONS), usize::try_from)?;

    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let configuration = folder.path().join("gatebell.toml");
    std::fs::write(
        &configuration,
        "[taps]\nlisten = \"127.0.0.1:0\"\n[callbacks]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [[gateway]]\nname = \"mitake\"\nkind = \"mitake\"\nurl = \"http://127.0.0.1:9\"\nsimulator = true\n\
         [app]\nurl = \"http://127.0.0.1:9\"\nsimulator = true\n",
    )?;
    let gatebell = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatebell"));
        command.args(arguments).arg("--config").arg(&configuration).arg("--data").arg(&data);
        command
    };
    let made = gatebell(&["token", "add", "--label", "bench"]).output()?;
    let token = String::from_utf8(made.stdout)?.trim().to_owned();
    let serving = Ended(gatebell(&["serve"]).stderr(Stdio::null()).spawn()?);
    let listeners = data.join("listeners.json");
    let begun = Instant::now();
    while !listeners.exists() {
        ensure!(begun.elapsed() < START_MAX, "gatebell serve does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let addresses: Value = serde_json::from_slice(&std::fs::read(&listeners)?)?;
    let address = addresses["taps"].as_str().context("it says where it listens")?;
    let url = format!("http://{address}/v1/taps");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let begun = Instant::now();
    let answers = runtime.block_on(async {
        let senders = (0..connections).map(|sender| send(url.clone(), token.clone(), sender, until));
        futures::future::try_join_all(senders).await
    })?;
    let elapsed_s = begun.elapsed().as_secs_f64();
    let mut answer_us = Histogram::<u64>::new(3)?;
    for answers in &answers {
        answer_us.add(answers)?;
    }
    let metrics = addresses["metrics"].as_str().context("it says where its figures are")?;
    let page =
        runtime.block_on(async { reqwest::get(format!("http://{metrics}/metrics")).await?.text().await })?;
    drop(serving);

    let taps = answer_us.len() * BATCH_TAPS as u64;
    let ms = |quantile| {
        let us = answer_us.value_at_quantile(quantile);
        us as f64 / 1000.0
    };
    println!(
        "{taps} taps acknowledged in {elapsed_s:.1} s over {connections} connections, {BATCH_TAPS} a request"
    );
    println!("{:.0} taps/s; answers p50 {:.1} ms, p99 {:.1} ms", taps as f64 / elapsed_s, ms(0.5), ms(0.99));
    println!("{} of them decided by the engine behind it when the last answer was there", decided(&page));
    Ok(())
}

/// Records that the engine has read, by its own count.
fn decided(page: &str) -> u64 {
    let outcomes = page.lines().filter(|line| line.starts_with("gatebell_taps_total{"));
    outcomes.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Sends the same batch again and again; the times to the answer, in microseconds.
async fn send(url: String, token: String, sender: usize, until: Instant) -> anyhow::Result<Histogram<u64>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut lines = String::new();
    for tap in 0..BATCH_TAPS {
        let card = 417_391_826_541_234 + (sender * BATCH_TAPS + tap) as u64;
        writeln!(
            lines,
            r#"{{"card":"{card:016}","reader":"353604-G1-2","at":"2025-09-08T07:31:04.250+08:00","dir":"in"}}"#
        )?;
    }
    let body = Bytes::from(lines);
    let mut answer_us = Histogram::new(3)?;
    while Instant::now() < until {
        let begun = Instant::now();
        let request = client.post(&url).bearer_auth(&token).header(CONTENT_TYPE, "application/x-ndjson");
        let answer = request.body(body.clone()).send().await?;
        ensure!(answer.status() == 202, "answered {}", answer.status());
        answer.bytes().await?;
        answer_us.record(u64::try_from(begun.elapsed().as_micros())?)?;
    }
    Ok(answer_us)
}

/// Killed when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
