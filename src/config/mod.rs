//! The configuration: one TOML file, checked as a whole before anything starts.
//!
//! Owns what may be set and what holds when it is not; [`Configuration::built_in`] is the commented file that
//! comes with the program, so the two cannot drift apart. A mistake stops the start, with every other one,
//! each at its line. Secrets are never in the file: it names the file or the environment variable that has
//! them.

mod cluster;
mod lanes;
mod listeners;
mod mistakes;
mod secret;
mod section;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gatebell_engine::ids::LaneName;
use gatebell_engine::notice::Channel;
use toml::de::DeTable;

pub(crate) use cluster::{Cluster, Kafka, KafkaSecurity, ScramHash, Scylla, TlsFiles};
pub(crate) use lanes::{Account, AppBackend, CallbackAddress, LaneLimits, MitakeGateway};
pub(crate) use listeners::{CallbacksListener, MetricsListener, TapsListener};
pub(crate) use mistakes::ConfigurationMistakes;
use mistakes::Mistake;
pub(crate) use secret::SecretSource;
use section::Section;

/// The file that holds when no other is named.
pub(crate) const BUILT_IN: &str = include_str!("../../config/gatebell.toml");
/// The term that is served when none is named.
const TERM_DEFAULT: &str = "114-1";
const BUILT_IN_NAME: &str = "the built-in configuration";

/// A configuration without mistakes.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    /// The data directory: the city's, or in a shared city this process's own; relative to the working directory.
    pub(crate) data: Option<PathBuf>,
    /// What city this is.
    pub(crate) city: City,
    /// The embedded tap log.
    pub(crate) tap_log: TapLogSettings,
    /// How logs are written.
    pub(crate) logs: Logs,
    /// Where readers report taps.
    pub(crate) taps: TapsListener,
    /// Where SMS gateways deliver receipts.
    pub(crate) callbacks: CallbacksListener,
    /// Where operators look.
    pub(crate) metrics: MetricsListener,
    /// SMS gateways.
    pub(crate) gateways: Vec<MitakeGateway>,
    /// The city app's push backend.
    pub(crate) app: Option<AppBackend>,
    /// The channels that have a lane in the file, with mistakes or without.
    pub(crate) channels: Vec<Channel>,
    /// Kafka and ScyllaDB, when several processes share the city; `None`: it lives in the data directory.
    pub(crate) cluster: Option<Cluster>,
}

/// What a file says, with its mistakes: what is wrong in it is left out or is the default.
#[derive(Debug)]
pub(crate) struct Draft {
    /// What could be read.
    pub(crate) configuration: Configuration,
    /// What could not.
    pub(crate) mistakes: Option<ConfigurationMistakes>,
}

impl Draft {
    /// The configuration, if it has no mistakes.
    pub(crate) fn whole(self) -> Result<Configuration, ConfigurationMistakes> {
        self.mistakes.map_or(Ok(self.configuration), Err)
    }
}

/// The `[city]` table.
#[derive(Debug, Clone)]
pub(crate) struct City {
    /// The term: a name or a file.
    pub(crate) term: String,
    /// Room is made for so many at the start, so that nothing has to grow in the morning.
    pub(crate) pupils_expected: usize,
    /// A directory with the texts, `zh-TW.toml` and `en.toml`; `None`: the built-in ones.
    pub(crate) texts: Option<PathBuf>,
}

/// The `[tap_log]` table.
#[derive(Debug, Clone)]
pub(crate) struct TapLogSettings {
    /// Shards; fixed once the data directory is there.
    pub(crate) partitions: u32,
    /// Taps are kept for so many days.
    pub(crate) retention_days: u32,
    /// Taps waiting to be written; beyond it readers are told to come back.
    pub(crate) queue_taps_max: usize,
}

/// The `[logs]` table.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    /// One line of text or one JSON object an event.
    pub(crate) format: LogFormat,
    /// A filter such as `info` or `gatebell_engine=debug,info`.
    pub(crate) level: String,
}

/// How a log event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// For machines: one JSON object a line
    Json,
}

impl Configuration {
    /// Reads `file`.
    ///
    /// # Errors
    /// When it cannot be read as text.
    pub(crate) fn draft(file: &Path) -> anyhow::Result<Draft> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).with_context(|| format!("cannot read the configuration {name}"))?;
        let text = String::from_utf8(bytes)
            .ok()
            .with_context(|| format!("the configuration {name} is not UTF-8"))?;
        Ok(Self::parse(&name, text.strip_prefix('\u{feff}').unwrap_or(&text)))
    }

    /// What holds without a file: a trial on this machine.
    pub(crate) fn built_in() -> Draft {
        Self::parse(BUILT_IN_NAME, BUILT_IN)
    }

    /// Reads `text`, which errors call `name`.
    pub(crate) fn parse(name: &str, text: &str) -> Draft {
        let (table, syntax_errors) = DeTable::parse_recoverable(text);
        let mut mistakes = Vec::new();
        let configuration = Self::read(Section::top(table.get_ref(), &mut mistakes));
        let first_error = syntax_errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
        if let Some(error) = first_error {
            // Whatever follows may be anything: the keys and secrets of one table pass for the values of another.
            let span = error.span().unwrap_or(0..0);
            mistakes.retain(|mistake| mistake.span.end <= span.start && !mistake.is_missing());
            mistakes.push(Mistake {
                field: String::new(),
                found: error.message().to_owned(),
                allowed: "TOML 1.1; what follows was not looked at".to_owned(),
                span,
            });
        }
        let mistakes = (!mistakes.is_empty()).then(|| ConfigurationMistakes::new(name, text, mistakes));
        Draft { configuration, mistakes }
    }

    fn read(mut top: Section<'_, '_>) -> Self {
        let configuration = Self {
            data: top.path("data"),
            city: City::read(top.table("city")),
            tap_log: TapLogSettings::read(top.table("tap_log")),
            logs: Logs::read(top.table("logs")),
            taps: TapsListener::read(top.table("taps")),
            callbacks: CallbacksListener::read(top.table("callbacks")),
            metrics: MetricsListener::read(top.table("metrics")),
            gateways: top.tables("gateway", MitakeGateway::read),
            app: AppBackend::read(top.table("app")),
            channels: [("app", Channel::App), ("gateway", Channel::Sms)]
                .into_iter()
                .filter_map(|(key, channel)| top.has(key).then_some(channel))
                .collect(),
            cluster: Cluster::read(&mut top),
        };
        top.only_one("gateway", "one SMS gateway: two lanes would share one channel");
        configuration.check_listeners(&mut top);
        if let Some(cluster) = &configuration.cluster {
            configuration.check_shared(cluster, &mut top);
        }
        top.end();
        configuration
    }

    /// Two listeners cannot share a port of an address.
    fn check_listeners(&self, top: &mut Section<'_, '_>) {
        let listeners = [
            ("taps", self.taps.listen),
            ("callbacks", self.callbacks.listen),
            ("metrics", self.metrics.listen),
        ];
        for (position, (later, address)) in listeners.iter().enumerate() {
            for (earlier, taken) in
                listeners.iter().take(position).filter(|(_, taken)| clash(*taken, *address))
            {
                let place = if top.table(later).has("listen") { (later, earlier) } else { (earlier, later) };
                let allowed = format!("an address of its own; [{}] listens on {taken}", place.1);
                top.table(place.0).wrong_field("listen", &allowed);
            }
        }
    }
}

/// Whether both cannot be listened on at once. Each port 0 is another one.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && is_same_ip
}

impl Configuration {
    /// The lanes whose gateway calls back to one address for the whole account.
    pub(crate) fn lanes_called_by_account(&self) -> impl Iterator<Item = &LaneName> {
        let by_account =
            self.gateways.iter().filter(|gateway| gateway.callback_address == CallbackAddress::OfAccount);
        by_account.map(|gateway| &gateway.name)
    }

    /// What lanes need so that several processes may share them, and what is the topics' business then.
    fn check_shared(&self, cluster: &Cluster, top: &mut Section<'_, '_>) {
        for gateway in &self.gateways {
            if let Some((field, rule)) = cluster.not_shareable(&gateway.limits) {
                top.wrong_field("gateway", &format!("for {}: {field} of {rule}", gateway.name));
            }
            if gateway.callback_url.is_some() && gateway.callback_key.is_none() {
                let rule = "callback_key_file or callback_key_env: any process may be called back";
                top.wrong_field("gateway", &format!("for {}: {rule}", gateway.name));
            }
        }
        if let Some((field, rule)) = self.app.as_ref().and_then(|app| cluster.not_shareable(&app.limits)) {
            top.wrong_field("app", &format!("{field} of {rule}"));
        }
        for key in ["partitions", "retention_days"] {
            let mut tap_log = top.table("tap_log");
            if tap_log.has(key) {
                tap_log.wrong_field(key, "said in [kafka] where the taps are a topic");
            }
        }
    }
}

impl City {
    fn read(mut section: Section<'_, '_>) -> Self {
        let term =
            section.text("term", "a term's name or file", |text| (!text.is_empty()).then(|| text.to_owned()));
        let pupils_expected = section.number("pupils_expected", 1..=10_000_000, 20_000);
        let texts = section.path("texts");
        section.end();
        Self { term: term.unwrap_or_else(|| TERM_DEFAULT.to_owned()), pupils_expected, texts }
    }
}

impl TapLogSettings {
    fn read(mut section: Section<'_, '_>) -> Self {
        let settings = Self {
            partitions: section.number("partitions", 1..=256, 4),
            retention_days: section.number("retention_days", 2..=3650, 30),
            queue_taps_max: section.number("queue_taps_max", 1..=10_000_000, 200_000),
        };
        section.end();
        settings
    }
}

impl Logs {
    fn read(mut section: Section<'_, '_>) -> Self {
        let format = section.text("format", "\"text\" or \"json\"", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let level =
            section.text("level", "a filter, such as \"info\" or \"gatebell_engine=debug,info\"", |text| {
                crate::logs::is_filter(text).then(|| text.to_owned())
            });
        section.end();
        Self { format: format.unwrap_or(LogFormat::Text), level: level.unwrap_or_else(|| "info".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_built_in_configuration_has_no_mistakes() {
        Configuration::built_in().whole().unwrap();
    }

    #[test]
    fn the_commented_defaults_are_the_defaults() {
        let tables_without_lines = "[city]\n[tap_log]\n[logs]\n[taps]\n[callbacks]\n[metrics]\n[[gateway]]\n\
            name = \"mitake\"\nkind = \"mitake\"\nurl = \"http://127.0.0.1:8099/api/mtk\"\nsimulator = true\n\
            callback_url = \"http://127.0.0.1:8081\"\n\
            [app]\nurl = \"http://127.0.0.1:8099/app/push\"\nsimulator = true\n";
        let mut without_lines = Configuration::parse("defaults", tables_without_lines).whole().unwrap();
        without_lines.data = Some(PathBuf::from("data"));
        let built_in = Configuration::built_in().whole().unwrap();
        assert_eq!(format!("{built_in:#?}"), format!("{without_lines:#?}"));
    }

    #[test]
    fn every_mistake_is_named_at_once_with_its_line() {
        let cases = [
            ("data = 5", "data: found 5"),
            ("wrong = 1", "wrong: unknown key"),
            ("[tap_log]\npartitions = 0", "tap_log.partitions: found 0"),
            ("retention_days = \"30\"", "tap_log.retention_days: found \"30\""),
            ("[taps]\nlisten = \"here\"", "taps.listen: found \"here\""),
            (
                "[callbacks]\nallow = [\"10.0.0.0/8\", \"10.0.0.0/64\"]",
                "callbacks.allow: found \"10.0.0.0/64\"",
            ),
            ("[logs]\nformat = \"xml\"", "logs.format: found \"xml\""),
            ("[[gateway]]\nkind = \"mitake\"", "gateway[0].name: missing"),
            ("url = \"ftp://sms.example\"", "gateway[0].url: found"),
            ("window = 16", "gateway[0].window: found 16"),
            ("simulator = false", "gateway[0].password_file: missing"),
            ("[app]\nurl = \"https://push.example/\"\nsimulator = true", "app.simulator: found true"),
        ];
        let text: String = cases.iter().map(|(lines, _)| format!("{lines}\n")).collect();
        let drawn = Configuration::parse("city.toml", &text).whole().unwrap_err().drawn();
        for (_, expected) in cases {
            assert!(drawn.contains(expected), "{expected} in\n{drawn}");
        }
        for place in ["city.toml:1:8", "city.toml:2:1", "city.toml:4:14"] {
            assert!(drawn.contains(place), "{place} in\n{drawn}");
        }
    }

    #[test]
    fn a_secret_in_the_file_is_a_mistake_that_does_not_show_it() {
        let text = "[[gateway]]\nname = \"sms\"\nkind = \"mitake\"\nurl = \"https://me:hunter2@sms.example/\"\n\
            username = \"city\"\npassword = \"hunter2\"\n[app]\nkey = \"\"\"\nhunter2\n\"\"\"\n";
        let drawn = Configuration::parse("city.toml", text).whole().unwrap_err().drawn();
        assert!(drawn.contains("gateway[0].password: unknown key"), "{drawn}");
        assert!(drawn.contains("gateway[0].url: found a value that is not shown"), "{drawn}");
        assert!(!drawn.contains("hunter2"), "{drawn}");
    }

    #[test]
    fn the_configuration_for_kafka_and_scylladb_has_no_mistakes() {
        let text = include_str!("../../config/kafka-scylla.toml");
        let cluster = Configuration::parse("kafka-scylla.toml", text).whole().unwrap().cluster.unwrap();
        assert_eq!(cluster.kafka.security, KafkaSecurity::None);
        assert_eq!((cluster.processes_max.get(), cluster.kafka.partitions.get()), (3, 12));
    }

    #[test]
    fn the_configuration_in_compose_has_no_mistakes() {
        let text = include_str!("../../config/compose.toml");
        let cluster = Configuration::parse("compose.toml", text).whole().unwrap().cluster.unwrap();
        assert!(!cluster.scylla.migrate_at_start, "compose.yaml has a service for that");
    }

    /// An array that was never closed took the keys and values of what followed for its own, secrets among them, and each of
    /// them was a mistake. The fuzzer found it.
    #[test]
    fn what_follows_a_mistake_of_form_is_not_looked_at_and_shows_no_secret() {
        let text = "data = 5\n[callbacks]\nallow = [\"\n[app]\nhmac_key = \"hunter2\"\ntoken = 'hunter2'\n";
        let drawn = Configuration::parse("city.toml", text).whole().unwrap_err().drawn();
        assert!(drawn.contains("data: found 5") && drawn.contains("invalid basic string"), "{drawn}");
        assert!(!drawn.contains("hunter2"), "{drawn}");
        assert!(drawn.matches("[city.toml:").count() <= 3, "{drawn}");
    }

    #[test]
    fn mistakes_of_a_shared_city_are_named_too() {
        let text = "[kafka]\nbootstrap = \"nowhere\"\nsecurity = \"scram\"\ntls_key = \"k.pem\"\n\
            [cluster]\nprocesses_max = 9\n\
            [[gateway]]\nname = \"sms\"\nkind = \"mitake\"\nurl = \"http://127.0.0.1:1/\"\nsimulator = true\n\
            burst = 4\ncallback_url = \"http://127.0.0.1:8081\"\n";
        let drawn = Configuration::parse("city.toml", text).whole().unwrap_err().drawn();
        for expected in [
            "scylla: missing",
            "kafka.bootstrap: found \"nowhere\"",
            "kafka.user: missing",
            "kafka.password_file: missing",
            "kafka.tls_key: found",
            "cluster.contact_key_file: missing",
        ] {
            assert!(drawn.contains(expected), "{expected} in\n{drawn}");
        }
        let text = include_str!("../../config/kafka-scylla.toml")
            .replace("burst = 6", "burst = 2")
            .replace("callback_key_file = \"data-shared/callback.key\"", "");
        let text = format!("{text}\n[tap_log]\npartitions = 4\n");
        let drawn = Configuration::parse("city.toml", &text).whole().unwrap_err().drawn();
        for expected in [
            "for mitake: burst of at least 3",
            "for mitake: callback_key_file",
            "tap_log.partitions: found 4",
        ] {
            assert!(drawn.contains(expected), "{expected} in\n{drawn}");
        }
    }

    #[test]
    fn a_simulator_and_a_real_account_exclude_each_other() {
        let text = "[[gateway]]\nname = \"sms\"\nkind = \"mitake\"\nurl = \"http://127.0.0.1:1/\"\n\
            simulator = true\npassword_env = \"SMS_PASSWORD\"\n";
        let drawn = Configuration::parse("city.toml", text).whole().unwrap_err().drawn();
        assert!(drawn.contains("gateway[0].simulator: found true"), "{drawn}");
    }

    #[test]
    fn what_a_start_would_stumble_over_is_a_mistake_of_the_file() {
        const GATEWAY: &str =
            "[[gateway]]\nname = \"a\"\nkind = \"mitake\"\nurl = \"http://127.0.0.1:1/\"\nsimulator = true\n";
        let second_gateway = format!("{GATEWAY}{}", GATEWAY.replace("\"a\"", "\"b\""));
        for (text, expected) in [
            (
                "[taps]\nlisten = \"127.0.0.1:9000\"\n[metrics]\nlisten = \"127.0.0.1:9000\"",
                "metrics.listen: found",
            ),
            (
                "[taps]\nlisten = \"127.0.0.1:9000\"\n[metrics]\nlisten = \"0.0.0.0:9000\"",
                "[taps] listens on 127.0.0.1",
            ),
            ("[taps]\nlisten = \"127.0.0.1:9090\"", "[metrics] listens on 127.0.0.1:9090"),
            (&second_gateway, "gateway: found a table"),
            (&GATEWAY.replace("127.0.0.1", "sms.example"), "gateway[0].url: found \"http://sms.example:1/\""),
            ("[app]\nurl = \"http://push.example/\"\nkey_env = \"KEY\"", "app.url: found"),
            (
                &format!("{GATEWAY}callback_address = \"account\""),
                "gateway[0].callback_address: found \"account\"",
            ),
        ] {
            let drawn = Configuration::parse("city.toml", text).whole().unwrap_err().drawn();
            assert!(drawn.contains(expected), "{expected} in\n{drawn}");
        }
        let port_zero = "[taps]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"";
        assert!(Configuration::parse("city.toml", port_zero).whole().is_ok());
    }
}
