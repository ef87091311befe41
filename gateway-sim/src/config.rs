//! The simulator's configuration: a small TOML, every default of which is in `config/gateway-sim.toml`.
//!
//! Owns: what may be set, what holds otherwise, and saying all that is wrong. Shares are parts of one: `0.01` is one in a
//! hundred.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::shape::Fit;

/// The account that the simulator is born with; known to everybody, so it opens nothing else.
pub const SIMULATOR_USERNAME: &str = "gatebell-sim";
/// Its password.
pub const SIMULATOR_PASSWORD: &str = "only-a-simulator";
/// The key with which the simulated app backend checks signatures; known to everybody, so it proves nothing elsewhere.
pub const SIMULATOR_APP_KEY: &str = "only-a-simulator-only-a-simulator-only-a-simulator";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimConfig {
    /// The same seed draws the same fate for the same messages.
    pub seed: u64,
    /// Who may send.
    pub accounts: Vec<Account>,
    /// What the gateway allows.
    pub limits: Limits,
    /// How long an answer takes.
    pub latency: Spread,
    /// What goes wrong with submits.
    pub faults: Faults,
    /// What becomes of messages, and how that is told.
    pub receipts: Receipts,
    /// The city app's backend.
    pub app: AppBackend,
}

/// An account of the SMS gateway.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its name, at most 20 characters.
    pub username: String,
    /// Its password, at most 24 characters.
    pub password: String,
    /// Messages that are paid for; one is deducted at each submit.
    #[serde(default = "many_points")]
    pub points: i64,
    /// Every request is answered with this status, such as `f` for an expired account; empty: none.
    #[serde(default)]
    pub status: String,
    /// Whether long texts are sent; else they are silently cut.
    #[serde(default)]
    pub long_sms: bool,
    /// What became of messages is told there, whatever address they bring; empty: to each message's own.
    #[serde(default)]
    pub callback_address: String,
}

fn many_points() -> i64 {
    10_000_000
}

/// What the gateway allows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Messages a second, by agreement.
    pub rate_per_s: u32,
    /// Messages at once beyond an even flow.
    pub burst: u32,
    /// How much the network may bunch messages together before that counts as too fast.
    pub jitter_ms: u32,
    /// Whether what is too fast is answered as throttled; else it is taken, and counted as an overrun all the same.
    pub enforce: bool,
    /// Requests at once; more are answered as throttled.
    pub connections_max: usize,
    /// For how long a repeated `clientid` is recognised.
    pub remember_references_h: u32,
    /// Messages that the simulator keeps in memory; then it says that it is out of service.
    pub messages_max: usize,
}

/// Times scattered like those of real networks (log-normal).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Half of them are shorter.
    pub median_ms: u32,
    /// One in a hundred is longer.
    pub p99_ms: u32,
}

/// What goes wrong with submits, as shares.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Of messages: refused for good (wrong number).
    pub refused: f64,
    /// Of messages: out of service for a while.
    pub retry_later: f64,
    /// Of messages: throttled, whatever the rate.
    pub throttled: f64,
    /// Of messages: the account does not work.
    pub stopped: f64,
    /// Of requests: no answer, and nothing taken.
    pub no_answer: f64,
    /// Of requests: taken, and no answer.
    pub taken_no_answer: f64,
    /// Of requests: taken, and answered with something else.
    pub taken_rubbish: f64,
    /// Of requests: taken, and the answer breaks off.
    pub taken_cut_off: f64,
    /// How long "no answer" lasts before the connection is closed.
    pub hang_ms: u32,
}

/// What becomes of messages, and how that is told. Shares are of messages.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Receipts {
    /// Not delivered.
    pub failed: f64,
    /// Time from submit to the phone.
    pub delay: Spread,
    /// Later by `late_ms`.
    pub late: f64,
    /// How much later.
    pub late_ms: u32,
    /// At once: it may overtake the answer to the submit.
    pub early: f64,
    /// Never told; only a query finds out.
    pub lost: f64,
    /// Told again, up to three times.
    pub repeated: f64,
    /// Told to be on its way before it arrives.
    pub underway_first: f64,
    /// Told to be on its way after it has arrived.
    pub out_of_order: f64,
    /// Time between two attempts to tell; grows with each.
    pub retry_ms: u32,
    /// Attempts to tell one receipt.
    pub tries_max: u32,
    /// Callbacks at once.
    pub connections_max: usize,
}

/// The city app's push backend.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppBackend {
    /// The key that requests are signed with, at least 32 characters.
    pub key: String,
    /// How far a request's time may be from ours.
    pub clock_tolerance_s: u32,
    /// How long an answer takes.
    pub latency: Spread,
    /// Of tokens: gone.
    pub gone: f64,
    /// Of messages: out of service for a while.
    pub retry_later: f64,
    /// Of messages: throttled.
    pub throttled: f64,
    /// Of requests: no answer, and nothing taken.
    pub no_answer: f64,
    /// Of requests: taken, and no answer.
    pub taken_no_answer: f64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            accounts: vec![Account {
                username: SIMULATOR_USERNAME.to_owned(),
                password: SIMULATOR_PASSWORD.to_owned(),
                points: many_points(),
                status: String::new(),
                long_sms: false,
                callback_address: String::new(),
            }],
            limits: Limits::default(),
            latency: Spread { median_ms: 25, p99_ms: 250 },
            faults: Faults::default(),
            receipts: Receipts::default(),
            app: AppBackend::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate_per_s: 50,
            burst: 50,
            jitter_ms: 100,
            enforce: true,
            connections_max: 15,
            remember_references_h: 12,
            messages_max: 2_000_000,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            refused: 0.002,
            retry_later: 0.005,
            throttled: 0.0,
            stopped: 0.0,
            no_answer: 0.0005,
            taken_no_answer: 0.002,
            taken_rubbish: 0.001,
            taken_cut_off: 0.001,
            hang_ms: 30_000,
        }
    }
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            failed: 0.01,
            delay: Spread { median_ms: 2_000, p99_ms: 8_000 },
            late: 0.01,
            late_ms: 15_000,
            early: 0.01,
            lost: 0.002,
            repeated: 0.03,
            underway_first: 0.05,
            out_of_order: 0.02,
            retry_ms: 1_000,
            tries_max: 20,
            connections_max: 16,
        }
    }
}

impl Default for AppBackend {
    fn default() -> Self {
        Self {
            key: SIMULATOR_APP_KEY.to_owned(),
            clock_tolerance_s: 300,
            latency: Spread { median_ms: 8, p99_ms: 60 },
            gone: 0.005,
            retry_later: 0.002,
            throttled: 0.002,
            no_answer: 0.0005,
            taken_no_answer: 0.001,
        }
    }
}

/// Why a configuration cannot be used: everything that is wrong, one a line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", list(.0))]
pub struct ConfigError(pub Vec<Mistake>);

/// One thing that cannot be.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Such as `receipts.failed`; empty where the text is no TOML.
    pub field: String,
    /// Where it stands, from 1; `None`: it is about what stands nowhere.
    pub line: Option<usize>,
    /// What is there; never a password or key.
    pub found: String,
    /// What may stand there.
    pub allowed: Cow<'static, str>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "found {}, allowed is {}", self.found, self.allowed)
    }
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Statuses that an account may answer everything with.
const ACCOUNT_STATUSES: &str = "*abcdefhklmnprs";

impl SimConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Everything that is wrong at once: first what is no TOML, unknown keys and values of another type; where there is
    /// none of these, what values cannot be. Each with its line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let shape =
            toml::Table::try_from(Self::default()).expect("the defaults are a table of texts and numbers");
        let fit = Fit::of(text, &shape);
        if !fit.mistakes.is_empty() {
            return Err(ConfigError(fit.mistakes));
        }
        let config: Self = toml::from_str(text).map_err(|error| {
            // What the shape does not tell: a key that is missing, or a number that is too large.
            let line =
                error.span().map(|span| 1 + text.get(..span.start).unwrap_or(text).matches('\n').count());
            let found = error.message().replace('\n', ", ");
            ConfigError(vec![Mistake {
                field: String::new(),
                line,
                found,
                allowed: "what config/gateway-sim.toml says".into(),
            }])
        })?;
        config.check().map_err(|mut mistakes| {
            for mistake in &mut mistakes {
                mistake.line = fit.line(&mistake.field);
            }
            ConfigError(mistakes)
        })?;
        Ok(config)
    }

    /// Everything that cannot be.
    pub fn check(&self) -> Result<(), Vec<Mistake>> {
        let mut checks = Checks(Vec::new());
        checks.accounts(&self.accounts);
        checks.limits(&self.limits);
        checks.spread("latency", self.latency);
        let faults = &self.faults;
        checks.shares(&[
            ("faults.refused", faults.refused),
            ("faults.retry_later", faults.retry_later),
            ("faults.throttled", faults.throttled),
            ("faults.stopped", faults.stopped),
        ]);
        checks.shares(&[
            ("faults.no_answer", faults.no_answer),
            ("faults.taken_no_answer", faults.taken_no_answer),
            ("faults.taken_rubbish", faults.taken_rubbish),
            ("faults.taken_cut_off", faults.taken_cut_off),
        ]);
        let receipts = &self.receipts;
        checks.spread("receipts.delay", receipts.delay);
        for (field, share) in [
            ("receipts.failed", receipts.failed),
            ("receipts.lost", receipts.lost),
            ("receipts.repeated", receipts.repeated),
            ("receipts.underway_first", receipts.underway_first),
            ("receipts.out_of_order", receipts.out_of_order),
        ] {
            checks.shares(&[(field, share)]);
        }
        checks.shares(&[("receipts.late", receipts.late), ("receipts.early", receipts.early)]);
        checks.at_least_one("receipts.tries_max", u64::from(receipts.tries_max));
        checks.at_least_one("receipts.connections_max", receipts.connections_max as u64);
        let app = &self.app;
        checks.spread("app.latency", app.latency);
        checks.shares(&[("app.gone", app.gone)]);
        checks.shares(&[("app.retry_later", app.retry_later), ("app.throttled", app.throttled)]);
        checks.shares(&[("app.no_answer", app.no_answer), ("app.taken_no_answer", app.taken_no_answer)]);
        checks.require(
            "app.key",
            app.key.len() >= 32,
            || "a shorter key".to_owned(),
            "32 characters or more",
        );
        if checks.0.is_empty() { Ok(()) } else { Err(checks.0) }
    }
}

struct Checks(Vec<Mistake>);

impl Checks {
    fn require(&mut self, field: &str, holds: bool, found: impl FnOnce() -> String, allowed: &'static str) {
        if !holds {
            self.0.push(Mistake {
                field: field.to_owned(),
                line: None,
                found: found(),
                allowed: allowed.into(),
            });
        }
    }

    fn at_least_one(&mut self, field: &str, value: u64) {
        self.require(field, value > 0, || value.to_string(), "1 or more");
    }

    /// Shares that exclude each other: each within 0 and 1, and so is their sum.
    fn shares(&mut self, shares: &[(&str, f64)]) {
        for (field, share) in shares {
            self.require(field, (0.0..=1.0).contains(share), || share.to_string(), "a share from 0 to 1");
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if let Some((field, _)) = shares.last().filter(|_| shares.len() > 1) {
            let holds = sum.is_nan() || sum <= 1.0 + 1e-9;
            let allowed = "at most 1 together with the shares beside it";
            self.require(field, holds, || format!("a sum of {sum}"), allowed);
        }
    }

    fn spread(&mut self, field: &str, spread: Spread) {
        let Spread { median_ms, p99_ms } = spread;
        let allowed = "a median_ms not above p99_ms, and p99_ms 0 if the median is 0";
        let holds = median_ms <= p99_ms && (median_ms > 0 || p99_ms == 0);
        self.require(field, holds, || format!("median_ms {median_ms} and p99_ms {p99_ms}"), allowed);
    }

    fn limits(&mut self, limits: &Limits) {
        self.at_least_one("limits.rate_per_s", u64::from(limits.rate_per_s));
        self.at_least_one("limits.burst", u64::from(limits.burst));
        self.at_least_one("limits.connections_max", limits.connections_max as u64);
        self.at_least_one("limits.messages_max", limits.messages_max as u64);
    }

    fn accounts(&mut self, accounts: &[Account]) {
        self.require("accounts", !accounts.is_empty(), || "none".to_owned(), "at least one account");
        for (position, account) in accounts.iter().enumerate() {
            let field = |name: &str| format!("accounts[{position}].{name}");
            let username_len = account.username.chars().count();
            let found = || format!("{username_len} characters");
            self.require(&field("username"), (1..=20).contains(&username_len), found, "1 to 20 characters");
            let password_len = account.password.chars().count();
            let found = || format!("{password_len} characters");
            self.require(&field("password"), (1..=24).contains(&password_len), found, "1 to 24 characters");
            let is_status =
                account.status.len() <= 1 && account.status.chars().all(|c| ACCOUNT_STATUSES.contains(c));
            let found = || format!("{:?}", account.status);
            self.require(&field("status"), is_status, found, "nothing, or one of *abcdefhklmnprs");
            let address = &account.callback_address;
            let is_address = address.is_empty() || Url::parse(address).is_ok_and(|url| url.has_host());
            let found = || "no address, which is not shown".to_owned();
            self.require(&field("callback_address"), is_address, found, "nothing, or an http or https URL");
            let is_first = accounts.iter().take(position).all(|earlier| earlier.username != account.username);
            self.require(&field("username"), is_first, || "the same twice".to_owned(), "a name of its own");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_commented_file_holds_exactly_the_defaults() {
        let file = include_str!("../../config/gateway-sim.toml");
        assert_eq!(SimConfig::parse(file).unwrap(), SimConfig::default());
        assert_eq!(SimConfig::parse("").unwrap(), SimConfig::default());
    }

    #[test]
    fn an_unknown_key_or_another_type_is_told_with_its_line() {
        for (text, told) in [
            ("seed = 1\n[limits]\nrate = 5\n", "line 3"),
            ("seed = \"one\"\n", "line 1"),
            ("[receipts]\nfailed = 0.1\nfailed = 0.2\n", "line 3"),
            ("[[accounts]]\nusername = \"u\"\n", "password"),
        ] {
            let error = SimConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn everything_that_does_not_fit_is_told_at_once_with_its_line() {
        let text = "seed = \"one\"\n[limits]\nrate = 5\nburst = 1.5\n[faults]\nrefused = 1\n[[accounts]]\nusername = 7\n\
                    pasword = \"hunter2\"\n[latency]\nmedian_ms = -1\n";
        let told = SimConfig::parse(text).unwrap_err().to_string();
        let lines: Vec<&str> = told.lines().map(|line| line.split(", allowed").next().unwrap()).collect();
        let expected = [
            "line 1: seed: found a value of type string",
            "line 3: limits.rate: found an unknown key",
            "line 4: limits.burst: found a value of type float",
            "line 8: accounts[0].username: found a value of type integer",
            "line 9: accounts[0].pasword: found an unknown key",
            "line 11: latency.median_ms: found -1",
        ];
        assert_eq!(lines, expected, "{told}");
    }

    #[test]
    fn all_values_that_cannot_be_are_told_at_once_without_passwords() {
        let text = "[[accounts]]\nusername = \"u\"\npassword = \"hunter2-hunter2-hunter2-hunter2\"\nstatus = \"q\"\n\
                    [limits]\nrate_per_s = 0\n[faults]\nrefused = 0.7\nstopped = 0.7\n[receipts]\nlost = -0.1\n\
                    delay = { median_ms = 5, p99_ms = 4 }\n[app]\nkey = \"hunter2\"\n";
        let error = SimConfig::parse(text).unwrap_err();
        let mistakes = &error.0;
        let fields: Vec<&str> = mistakes.iter().map(|mistake| mistake.field.as_str()).collect();
        let expected = [
            "accounts[0].password",
            "accounts[0].status",
            "limits.rate_per_s",
            "faults.stopped",
            "receipts.delay",
            "receipts.lost",
            "app.key",
        ];
        assert_eq!(fields, expected);
        let told = error.to_string();
        assert!(told.contains("line 6: limits.rate_per_s: found 0"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
