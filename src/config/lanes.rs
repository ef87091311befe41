//! The `[[gateway]]` and `[app]` tables: the lanes by which notices leave.
//!
//! Owns what may be set of a lane and what holds otherwise. What a provider allows at most (such as Mitake's
//! fifteen connections) is checked here, so that a lane never starts with a setting that its gateway would
//! answer with a ban.

use std::time::Duration;

use gatebell_engine::ids::LaneName;
use url::Url;

use super::secret::SecretSource;
use super::section::Section;

/// Connections that Mitake allows at once (the provider's document).
pub(crate) const MITAKE_CONNECTIONS_MAX: usize = 15;
/// Longest account name that Mitake takes, in characters.
const MITAKE_ACCOUNT_LEN_MAX: usize = 20;
/// Most that a gateway may put before and after the text together, in UTF-16 units: the rest has to say
/// something.
const AFFIX_UNITS_MAX: usize = 30;

/// How fast and how wide a lane may go.
#[derive(Debug, Clone)]
pub(crate) struct LaneLimits {
    /// Messages a second.
    pub(crate) rate_per_s: u32,
    /// Messages at once beyond an even flow.
    pub(crate) burst: u32,
    /// Submits in flight at once.
    pub(crate) window: usize,
    /// Messages in one submit.
    pub(crate) batch_max: usize,
    /// Messages waiting in memory.
    pub(crate) queue_max: usize,
    /// A submit without an answer for so long is in doubt.
    pub(crate) submit_timeout: Duration,
}

/// Who we are to a gateway or push backend.
#[derive(Debug, Clone)]
pub(crate) enum Account {
    /// The account that the simulator is born with; only for URLs on loopback.
    Simulator,
    /// A real one.
    Real(SecretSource),
}

/// One SMS gateway that speaks Mitake's protocol.
#[derive(Debug, Clone)]
pub(crate) struct MitakeGateway {
    /// The lane's name.
    pub(crate) name: LaneName,
    /// Where its API begins; `SmSend` and the others are put behind it.
    pub(crate) url: Url,
    /// The account's name; `None` for the simulator's.
    pub(crate) username: Option<String>,
    /// Its password.
    pub(crate) password: Account,
    /// Speed.
    pub(crate) limits: LaneLimits,
    /// Whether delivery receipts are on order for this account; else accepted counts as delivered.
    pub(crate) receipts: bool,
    /// How long after a submit the gateway is asked for a receipt that has not come.
    pub(crate) poll_after: Duration,
    /// What the gateway itself puts before each text.
    pub(crate) text_before: String,
    /// What the gateway itself puts behind each text.
    pub(crate) text_after: String,
    /// Our callback listener as the gateway reaches it; `None`: it is only asked.
    pub(crate) callback_url: Option<Url>,
    /// Which address receipts come to.
    pub(crate) callback_address: CallbackAddress,
    /// The key that signs callback addresses; `None`: one made at the first start and kept in the data
    /// directory.
    pub(crate) callback_key: Option<SecretSource>,
}

/// Which address a gateway tells receipts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallbackAddress {
    /// The one that each message carries, which names its notice.
    OfMessage,
    /// The one that the provider has on record for the account: the notice is found by the gateway's message id.
    OfAccount,
}

/// The city app's push backend.
#[derive(Debug, Clone)]
pub(crate) struct AppBackend {
    /// The webhook.
    pub(crate) url: Url,
    /// The key that signs requests.
    pub(crate) key: Account,
    /// Speed.
    pub(crate) limits: LaneLimits,
}

impl MitakeGateway {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let name = section.required("name", "1 to 32 of 0-9, A-Z, a-z, dot, underscore and dash", |text| {
            LaneName::new(text).ok()
        });
        section.required("kind", "\"mitake\"", |text| (text == "mitake").then_some(()));
        let url = encrypted_url(&mut section);
        let simulator = simulator(&mut section, url.as_ref());
        let username = section.text("username", "1 to 20 printable ASCII characters", |text| {
            let fits = (1..=MITAKE_ACCOUNT_LEN_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| text.to_owned())
        });
        if username.is_none() && !simulator {
            section.missing("username", "the account's name, or simulator = true");
        }
        let password = account(&mut section, "password", simulator);
        let limits = LaneLimits {
            rate_per_s: section.number("rate_per_s", 1..=10_000, 50),
            burst: section.number("burst", 1..=10_000, 5),
            window: section.number("window", 1..=MITAKE_CONNECTIONS_MAX, MITAKE_CONNECTIONS_MAX),
            batch_max: section.number("batch_max", 1..=500, 1),
            queue_max: section.number("queue_max", 1..=10_000_000, 1_000_000),
            submit_timeout: section.seconds("submit_timeout_s", 1..=120, Duration::from_secs(10)),
        };
        let receipts = section.truth("receipts", true);
        let poll_after = section.seconds("poll_after_s", 10..=86_400, Duration::from_secs(300));
        let text_before =
            section.text("text_before", "a text", |text| Some(text.to_owned())).unwrap_or_default();
        let text_after =
            section.text("text_after", "a text", |text| Some(text.to_owned())).unwrap_or_default();
        if text_before.encode_utf16().count() + text_after.encode_utf16().count() > AFFIX_UNITS_MAX {
            let allowed =
                format!("at most {AFFIX_UNITS_MAX} UTF-16 units in text_before and text_after together");
            section.wrong_field(if text_before.is_empty() { "text_after" } else { "text_before" }, &allowed);
        }
        let callback_url = section.optional_url("callback_url");
        let callback_address =
            section.text("callback_address", "\"message\" or \"account\"", |text| match text {
                "message" => Some(CallbackAddress::OfMessage),
                "account" => Some(CallbackAddress::OfAccount),
                _ => None,
            });
        let callback_address = callback_address.unwrap_or(CallbackAddress::OfMessage);
        if callback_address == CallbackAddress::OfAccount && (!receipts || callback_url.is_none()) {
            section.wrong_field(
                "callback_address",
                "\"message\", since no receipts come: receipts and callback_url",
            );
        }
        let callback_key = section.secret("callback_key");
        section.end();
        Some(Self {
            name: name?,
            url: url?,
            username,
            password: password?,
            limits,
            receipts,
            poll_after,
            text_before,
            text_after,
            callback_url,
            callback_address,
            callback_key,
        })
    }
}

impl AppBackend {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        if !section.is_there() {
            return None;
        }
        let url = encrypted_url(&mut section);
        let simulator = simulator(&mut section, url.as_ref());
        let key = account(&mut section, "key", simulator);
        let limits = LaneLimits {
            rate_per_s: section.number("rate_per_s", 1..=1_000_000, 10_000),
            burst: section.number("burst", 1..=1_000_000, 1_000),
            window: section.number("window", 1..=256, 8),
            batch_max: section.number("batch_max", 1..=1_000, 200),
            queue_max: section.number("queue_max", 1..=10_000_000, 1_000_000),
            submit_timeout: section.seconds("submit_timeout_s", 1..=120, Duration::from_secs(10)),
        };
        section.end();
        Some(Self { url: url?, key: key?, limits })
    }
}

/// Where messages go. They are personal, so they leave this machine over TLS only.
fn encrypted_url(section: &mut Section<'_, '_>) -> Option<Url> {
    let url = section.url("url")?;
    if url.scheme() != "https" && !is_loopback(&url) {
        section.wrong_field("url", "https://, since it is not on loopback");
    }
    Some(url)
}

/// Whether the table asks for the simulator's own account, which everybody knows: only towards this machine.
fn simulator(section: &mut Section<'_, '_>, url: Option<&Url>) -> bool {
    let asked = section.truth("simulator", false);
    if asked && url.is_some_and(|url| !is_loopback(url)) {
        section.wrong_field("simulator", "false, since the url is not on loopback");
    }
    asked
}

/// The account: the simulator's, or the secret that is named under `key`.
fn account(section: &mut Section<'_, '_>, key: &str, simulator: bool) -> Option<Account> {
    match (section.secret(key), simulator) {
        (Some(secret), false) => Some(Account::Real(secret)),
        (None, true) => Some(Account::Simulator),
        (Some(_), true) => {
            section.wrong_field("simulator", &format!("false, since a {key} is named"));
            None
        }
        (None, false) => {
            section.missing(
                &format!("{key}_file"),
                &format!(
                    "{key}_file names a file, or {key}_env an environment variable; or simulator = true"
                ),
            );
            None
        }
    }
}

/// Whether `url` leads to this machine whatever a name server says.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
