//! Logs by `tracing`, on standard error: text for people or JSON for machines.
//!
//! Promises that nothing personal is in them (P1) as far as that can be promised in one place: what libraries
//! log at levels below a warning (addresses, URLs, SQL) is never passed on, whatever the filter says. Our own
//! events keep the rule themselves, and a test reads every line of a run.

use std::io::IsTerminal as _;

use anyhow::{Context as _, ensure};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// What our own modules' names begin with.
const OWN: &str = "gatebell";
/// Says of each consumer that has left its group, when it is dropped, that it cannot leave once more: an error at every
/// clean stop, and the only one that this module of the Kafka client has.
const CONSUMER_DROPPED: &str = "rdkafka::consumer::base_consumer";
/// Sets the filter; goes before the configuration.
pub(crate) const LEVEL_VARIABLE: &str = "GATEBELL_LOG";

/// Starts logging, with the filter of `GATEBELL_LOG` or else `level`. Once a process.
///
/// # Errors
/// When the filter is no filter, or logging was started before.
pub(crate) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let level = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| level.to_owned());
    ensure!(
        is_filter(&level),
        "{level:?} is no filter for logs; allowed: error, warn, info, debug, trace or off, or by module, \
         such as \"gatebell_engine=debug,info\""
    );
    let filter = EnvFilter::try_new(&level).with_context(|| format!("{level:?} is no filter for logs"))?;
    let lines = match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let lines = lines.with_filter(filter_fn(may_be_logged));
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("cannot start logging")
}

/// Whether `text` is a filter for logs. A word alone must be a level: taken for the name of a module, as the library takes
/// it, a misspelt level would turn every log off.
pub(crate) fn is_filter(text: &str) -> bool {
    let alone = |part: &&str| !part.contains(['=', '[']);
    EnvFilter::try_new(text).is_ok()
        && text.split(',').filter(alone).all(|word| word.parse::<LevelFilter>().is_ok())
}

fn may_be_logged(event: &Metadata<'_>) -> bool {
    let (target, level) = (event.target(), *event.level());
    target.starts_with(OWN) || level <= Level::WARN && (target, level) != (CONSUMER_DROPPED, Level::ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `level = "loud"` was taken for a module's name, and the service said nothing any more, not even its errors.
    #[test]
    fn a_misspelt_level_is_no_filter() {
        for (text, is) in [
            ("info", true),
            ("WARN", true),
            ("off", true),
            ("gatebell_engine=debug,info", true),
            ("loud", false),
            ("inof", false),
            ("gatebell_engine=debug,inof", false),
            ("gatebell=loud", false),
        ] {
            assert_eq!(is_filter(text), is, "{text}");
        }
    }
}
