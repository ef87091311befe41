//! The terms that a city knows: the text of each one that was served, and which one was served last.
//!
//! A term's name is a key of charges, counters and the bill, so one name must not come to mean two things. Here is what it
//! means, the same for every process and command of the city. Who may change that, and when, is decided where terms are
//! chosen.

use gatebell_engine::ports::PortError;

/// The terms of a store. Its calls block, and must not be made on a thread that runs async tasks.
///
/// *Promises:* what returned is durable, and known to every process from then on; of two that change what one name means,
/// one is told that it came second.
pub trait KnownTerms: Send + Sync {
    /// The text of the term called `name`, if it was ever served.
    fn text(&self, name: &str) -> Result<Option<String>, PortError>;

    /// The name of the term that is served, or was last.
    fn served(&self) -> Result<Option<String>, PortError>;

    /// Has `name` mean `text`, where it meant `expected` (`None`: nothing) so far. Whether it does now; if not, somebody
    /// else has changed it.
    fn define(&self, name: &str, text: &str, expected: Option<&str>) -> Result<bool, PortError>;

    /// The term called `name`, which is known, is served from now on.
    fn serve(&self, name: &str) -> Result<(), PortError>;
}
