//! A running `gatebell serve` on a data directory of its own, as an operator and a reader meet it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatebell_gateway_sim::GatewaySim;
use serde_json::Value;

use crate::morning::Reported;
use crate::servers::Servers;
use crate::small_disk::SmallDisk;
use crate::town::Town;

/// The longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Partitions of a log when nothing else is said.
const PARTITIONS: u32 = 4;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A data directory, its configuration and its town.
pub(crate) struct Station {
    pub(crate) town: Town,
    pub(crate) data: PathBuf,
    pub(crate) configuration: PathBuf,
    pub(crate) token: String,
    log: PathBuf,
    folder: Arc<tempfile::TempDir>,
    /// What the data directory lies on, if that is a small one.
    disk: Option<Arc<SmallDisk>>,
}

/// What several processes share beside the town: topics, a keyspace and keys of this test alone.
pub(crate) struct Shared {
    pub(crate) servers: Servers,
    pub(crate) processes_max: usize,
    pub(crate) session_timeout: Duration,
    /// Gateways call back to this address, whichever process submitted.
    pub(crate) callbacks: SocketAddr,
}

impl Shared {
    fn tables(&self, folder: &Path) -> String {
        let mut bytes = [0; 6];
        getrandom::fill(&mut bytes).unwrap();
        // The connectors' tests drop keyspaces of this form that are hours old: each costs the store some memory.
        let minute = jiff::Timestamp::now().as_second() / 60;
        format!(
            "[kafka]\nbootstrap = \"{kafka}\"\ntopic_prefix = \"{name}\"\ngroup = \"{name}\"\npartitions = 12\n\
             replication = 1\nsession_timeout_s = {session_s}\n\
             [scylla]\nnodes = [\"{cql}\"]\nkeyspace = \"{name}\"\ndatacenter = \"datacenter1\"\nreplication = 1\n\
             [cluster]\nprocesses_max = {processes_max}\ncontact_key_file = {contact_key:?}\n",
            kafka = self.servers.kafka(),
            cql = self.servers.cql(),
            name = format_args!("gatebell_test_{minute}_{}", hex::encode(bytes)),
            session_s = self.session_timeout.as_secs(),
            processes_max = self.processes_max,
            contact_key = folder.join("contact.key"),
        )
    }
}

impl Station {
    /// Imports a town of `pupils` and sends its notices to `sim`; `more` is put under the given tables'
    /// heads.
    pub(crate) fn of(pupils: usize, sim: &GatewaySim, more: &[(&str, &str)]) -> Self {
        let station = Self::empty(pupils, sim, more);
        station.import();
        station
    }

    /// As [`Station::of`], but the town is not imported yet.
    pub(crate) fn empty(pupils: usize, sim: &GatewaySim, more: &[(&str, &str)]) -> Self {
        Self::empty_at("http://127.0.0.1:0", pupils, sim, more)
    }

    /// As [`Station::of`], with its data on a disk of `mib`; `None` where this user may not mount one.
    pub(crate) fn on_small_disk(
        mib: u32,
        pupils: usize,
        sim: &GatewaySim,
        more: &[(&str, &str)],
    ) -> Option<(Self, Arc<SmallDisk>)> {
        let mut station = Self::bare("http://127.0.0.1:0", pupils, sim, more);
        let disk = Arc::new(SmallDisk::mounted_at(&station.data, mib)?);
        station.disk = Some(Arc::clone(&disk));
        station.token = station.new_token(&[]);
        station.import();
        Some((station, disk))
    }

    fn empty_at(callback_url: &str, pupils: usize, sim: &GatewaySim, more: &[(&str, &str)]) -> Self {
        let mut station = Self::bare(callback_url, pupils, sim, more);
        station.token = station.new_token(&[]);
        station
    }

    fn bare(callback_url: &str, pupils: usize, sim: &GatewaySim, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let town = Town::of(pupils, folder.path());
        let configuration = folder.path().join("gatebell.toml");
        fs::write(&configuration, configuration_of(sim, &town, callback_url, more)).unwrap();
        Self::on(folder, town, configuration)
    }

    fn import(&self) {
        let imported = self.gatebell(&["import", "--made-up", self.town.directory.to_str().unwrap()]);
        assert!(imported.status.success(), "{}", printed(&imported));
    }

    /// As [`Station::of`], with gateways calling back to `callbacks`, whichever address the process has.
    pub(crate) fn called_back_at(
        callbacks: SocketAddr,
        pupils: usize,
        sim: &GatewaySim,
        more: &[(&str, &str)],
    ) -> Self {
        let station = Self::empty_at(&format!("http://{callbacks}"), pupils, sim, more);
        station.import();
        station
    }

    /// As [`Station::of`], in topics and a keyspace of its own, with room for other processes beside it.
    pub(crate) fn sharing(pupils: usize, sim: &GatewaySim, shared: &Shared) -> Self {
        let mut station = Self::about_to_share(pupils, sim, shared);
        for command in [
            ["store", "migrate"].as_slice(),
            &["import", "--made-up", station.town.directory.to_str().unwrap()],
        ] {
            let done = station.gatebell(command);
            assert!(done.status.success(), "{}", printed(&done));
        }
        station.token = station.new_token(&[]);
        station
    }

    /// As [`Station::sharing`], but neither keyspace nor keys are made yet.
    pub(crate) fn about_to_share(pupils: usize, sim: &GatewaySim, shared: &Shared) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let town = Town::of(pupils, folder.path());
        let configuration = folder.path().join("gatebell.toml");
        let callback_url = format!("http://{}", shared.callbacks);
        let callback_key = folder.path().join("callback.key");
        let gateway = format!(
            "submit_timeout_s = 1\nrate_per_s = 60\nburst = 60\ncallback_key_file = {callback_key:?}"
        );
        let text = configuration_of(sim, &town, &callback_url, &[("gateway", gateway.as_str())]);
        fs::write(&configuration, text + &shared.tables(folder.path())).unwrap();
        Self::on(folder, town, configuration)
    }

    fn on(folder: tempfile::TempDir, town: Town, configuration: PathBuf) -> Self {
        let (data, log) = (folder.path().join("data"), folder.path().join("serve.log"));
        fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
        Self { town, data, configuration, token: String::new(), log, folder: Arc::new(folder), disk: None }
    }

    /// The same city, seen by another process: with a data directory and a log of its own.
    pub(crate) fn another(&self, name: &str) -> Self {
        Self {
            town: self.town.clone(),
            data: self.folder.path().join(name),
            configuration: self.configuration.clone(),
            token: self.token.clone(),
            log: self.folder.path().join(format!("{name}.log")),
            folder: Arc::clone(&self.folder),
            disk: None,
        }
    }

    pub(crate) fn new_token(&self, more: &[&str]) -> String {
        let made = self.gatebell(&[&["token", "add", "--label", "test"], more].concat());
        assert!(made.status.success(), "{}", printed(&made));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// Runs a command on the data directory.
    pub(crate) fn gatebell(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = gatebell();
        command.args(args).arg("--config").arg(&self.configuration).arg("--data").arg(&self.data);
        match &self.disk {
            Some(disk) => disk.enter(&command),
            None => command,
        }
    }

    /// The file `name` in the data directory.
    fn data_file(&self, name: &str) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.file(name),
            None => self.data.join(name),
        }
    }

    /// Starts to serve and waits until it listens.
    pub(crate) async fn serve(&self) -> Serving {
        self.serve_by(self.command(&["serve"])).await
    }

    /// As [`Station::serve`], by way of `command`.
    pub(crate) async fn serve_by(&self, command: Command) -> Serving {
        let mut serving = self.begin_by(command);
        serving.until_listening().await;
        serving
    }

    /// Starts to serve and waits for nothing.
    pub(crate) fn begin_to_serve(&self) -> Serving {
        self.begin_by(self.command(&["serve"]))
    }

    fn begin_by(&self, mut command: Command) -> Serving {
        let listeners = self.data_file("listeners.json");
        // One that was killed leaves it behind.
        fs::remove_file(&listeners).ok();
        let log = self.log_file();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        Serving { child, log, listeners, addresses: None, token: self.token.clone() }
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    /// The whole ledger.
    pub(crate) fn ledger(&self) -> Vec<Value> {
        let exported = self.gatebell(&["ledger", "export", "--from", "2020-01-01", "--to", "2099-12-31"]);
        assert!(exported.status.success(), "{}", printed(&exported));
        let lines = String::from_utf8(exported.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What lies in the tap log's file, partition after partition.
    pub(crate) fn taps_on_disk(&self) -> Vec<String> {
        let file = self.tap_log_file();
        let values = |partition: u32| -> Vec<String> {
            let mut rows =
                file.prepare(&format!("SELECT value FROM tap_{partition} ORDER BY offset")).unwrap();
            let values = rows.query_map([], |row| row.get(0)).unwrap();
            values.map(|value| String::from_utf8(value.unwrap()).unwrap()).collect()
        };
        (0..PARTITIONS).flat_map(values).collect()
    }

    /// Taps in the log's file that are not below a committed offset.
    pub(crate) fn undecided_taps(&self) -> i64 {
        let file = self.tap_log_file();
        let count = |partition: u32| -> i64 {
            let query = format!(
                "SELECT count(*) FROM tap_{partition} WHERE offset >=
                     coalesce((SELECT next_offset FROM committed WHERE partition = {partition}), 0)"
            );
            file.query_row(&query, [], |row| row.get(0)).unwrap()
        };
        (0..PARTITIONS).map(count).sum()
    }

    /// Waits until every tap in the log has its outcome, whoever is killed and started meanwhile.
    pub(crate) async fn until_decided(&self) {
        let begun = Instant::now();
        while self.undecided_taps() > 0 {
            assert!(begun.elapsed() < PATIENCE, "{} taps stay undecided", self.undecided_taps());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// That every tap that was acknowledged lies in the log, and every tap that does has its outcome; of one that has stopped.
    pub(crate) fn assert_all_kept_and_decided(&self, reported: &Reported) {
        let kept: BTreeSet<String> = self.taps_on_disk().into_iter().collect();
        let lost: Vec<&Value> =
            reported.acknowledged.iter().filter(|tap| !kept.contains(&tap.to_string())).collect();
        assert!(lost.is_empty(), "acknowledged and not in the log: {lost:#?}");
        assert_eq!(self.undecided_taps(), 0, "every tap in the log has its outcome");
    }

    /// On a small disk a copy, so for one that has stopped: SQLite follows links, and would look for it outside.
    fn tap_log_file(&self) -> rusqlite::Connection {
        let file = self.data_file("taps.db");
        if self.disk.is_none() {
            return rusqlite::Connection::open(file).unwrap();
        }
        let copy = self.folder.path().join("taps-copy.db");
        fs::copy(file, &copy).unwrap();
        rusqlite::Connection::open(copy).unwrap()
    }

    /// Waits until the ledger is as it should be.
    pub(crate) async fn until_ledger(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let ledger = self.ledger();
            if holds(&ledger) {
                return ledger;
            }
            let logged = fs::read_to_string(self.log_file()).unwrap_or_default();
            assert!(
                begun.elapsed() < PATIENCE,
                "{what} did not come; the ledger: {ledger:#?}\nthe log: {logged}"
            );
            tokio::time::sleep(LOOK_EVERY * 5).await;
        }
    }

    /// The bill, by order.
    pub(crate) fn bill(&self) -> Vec<Value> {
        let billed = self.gatebell(&["bill", "--format", "json"]);
        assert!(billed.status.success(), "{}", printed(&billed));
        let bill: Value = serde_json::from_slice(&billed.stdout).unwrap();
        bill.as_array().unwrap().clone()
    }

    /// The books derived again from the ledger alone say the same.
    pub(crate) fn assert_recounted(&self) {
        let recounted = self.gatebell(&["recount"]);
        assert!(recounted.status.success(), "{}", printed(&recounted));
    }
}

/// The program under test.
pub(crate) fn gatebell() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatebell"));
    for variable in ["GATEBELL_CONFIG", "GATEBELL_DATA", "GATEBELL_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Both outputs of a command.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn configuration_of(sim: &GatewaySim, town: &Town, callback_url: &str, more: &[(&str, &str)]) -> String {
    let under = |table: &str| -> String {
        more.iter().filter(|(wanted, _)| *wanted == table).map(|(_, lines)| format!("{lines}\n")).collect()
    };
    format!(
        "[city]\nterm = {term:?}\n{city}\
         [tap_log]\n{tap_log}\
         [logs]\nformat = \"json\"\n{logs}\
         [taps]\nlisten = \"127.0.0.1:0\"\n{taps}\
         [callbacks]\nlisten = \"127.0.0.1:0\"\n{callbacks}\
         [metrics]\nlisten = \"127.0.0.1:0\"\n\
         [[gateway]]\nname = \"mitake\"\nkind = \"mitake\"\nurl = \"{sms}\"\nsimulator = true\n\
         callback_url = \"{callback_url}\"\npoll_after_s = 10\n{gateway}\
         [app]\nurl = \"{app}\"\nsimulator = true\n",
        term = town.term.to_str().unwrap(),
        city = under("city"),
        tap_log = under("tap_log"),
        logs = under("logs"),
        taps = under("taps"),
        callbacks = under("callbacks"),
        gateway = under("gateway"),
        sms = sim.mitake_url(),
        app = sim.app_url(),
    )
}

#[derive(Clone, Copy)]
struct Addresses {
    taps: SocketAddr,
    callbacks: SocketAddr,
    metrics: SocketAddr,
}

/// A process that serves. Killed when dropped.
pub(crate) struct Serving {
    child: Child,
    log: PathBuf,
    listeners: PathBuf,
    addresses: Option<Addresses>,
    token: String,
}

impl Serving {
    /// Waits until it listens.
    pub(crate) async fn until_listening(&mut self) {
        let begun = Instant::now();
        while !self.listeners.exists() {
            assert!(begun.elapsed() < PATIENCE, "does not listen:\n{}", self.logged());
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status}:\n{}", self.logged());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let content: Value = serde_json::from_slice(&fs::read(&self.listeners).unwrap()).unwrap();
        let address = |surface: &str| content[surface].as_str().unwrap().parse().unwrap();
        self.addresses = Some(Addresses {
            taps: address("taps"),
            callbacks: address("callbacks"),
            metrics: address("metrics"),
        });
    }

    fn addresses(&self) -> Addresses {
        self.addresses.expect("it listens")
    }

    /// Where it listens for taps.
    pub(crate) fn taps_address(&self) -> SocketAddr {
        self.addresses().taps
    }

    /// Where it listens for receipts.
    pub(crate) fn callbacks_address(&self) -> SocketAddr {
        self.addresses().callbacks
    }

    /// Where taps are reported.
    pub(crate) fn taps_url(&self) -> String {
        format!("http://{}/v1/taps", self.addresses().taps)
    }

    /// Reports `taps` once: the status, and the answer.
    pub(crate) async fn report(&self, taps: &[Value]) -> reqwest::Result<(u16, Value)> {
        report_to(&reqwest::Client::new(), &self.taps_url(), &self.token, taps).await
    }

    /// A page for operators: its status and text.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let page = reqwest::get(format!("http://{}{path}", self.addresses().metrics)).await.unwrap();
        (page.status().as_u16(), page.text().await.unwrap())
    }

    /// Waits until `/readyz` is as it should be.
    pub(crate) async fn until_ready(&self, what: &str, holds: impl Fn(u16, &Value) -> bool) {
        let begun = Instant::now();
        loop {
            let (status, text) = self.page("/readyz").await;
            let answer: Value = serde_json::from_str(&text).unwrap();
            if holds(status, &answer) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come: {answer}\n{}", self.logged());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until its figures are as they should be; the last of them.
    pub(crate) async fn until_figures(&self, what: &str, hold: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let page = self.page("/metrics").await.1;
            if hold(&page) {
                return page;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: not in\n{page}\nthe log: {}", self.logged());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it decides some partition.
    pub(crate) async fn until_owning(&self) {
        let owns = |page: &str| figures(page, "gatebell_partitions_owned").any(|owned| owned != "0");
        self.until_figures("partitions of its own", owns).await;
    }

    /// Waits until nothing that it has read would be read again.
    pub(crate) async fn until_committed(&self) {
        let all_is = |page: &str| {
            let mut taps = figures(page, "gatebell_unsettled_taps{").peekable();
            taps.peek().is_some() && taps.all(|taps| taps == "0")
        };
        self.until_figures("every tap settled and committed", all_is).await;
    }

    /// Ends it as a crash of the machine's memory would: no clean-up whatever.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the log has `text`.
    pub(crate) async fn until_logged(&self, text: &str) {
        let begun = Instant::now();
        while !self.logged().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{text} is not logged:\n{}", self.logged());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "does not stop:\n{}", self.logged());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn logged(&self) -> String {
        read_or_nothing(&self.log)
    }
}

/// The values of the figures whose lines begin with `beginning`.
fn figures<'a>(page: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = page.lines().filter(move |line| line.starts_with(beginning));
    lines.filter_map(|line| line.rsplit(' ').next())
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) async fn report_to(
    client: &reqwest::Client,
    url: &str,
    token: &str,
    taps: &[Value],
) -> reqwest::Result<(u16, Value)> {
    let answer = client.post(url).bearer_auth(token).json(taps).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

fn read_or_nothing(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}
