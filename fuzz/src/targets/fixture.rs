//! What the targets decide with: the built-in term, and a small city.

use std::sync::LazyLock;

use gatebell_connectors::sealing::ContactKey;
use gatebell_engine::registry::Entry;
use gatebell_engine::term::Term;
use secrecy::SecretString;

use super::city_import::read;

/// The city of `corpus/city_import/whole`, which has no mistakes.
const CITY: &[u8] = include_bytes!("../../corpus/city_import/whole");

static TERM: LazyLock<Term> = LazyLock::new(|| {
    let text = Term::built_in("114-1").expect("the term is built in");
    Term::parse(text).expect("it has no mistakes")
});

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let city = read(CITY);
    assert_eq!(city.mistakes, []);
    city.entries
});

static CONTACT_KEY: LazyLock<ContactKey> = LazyLock::new(|| {
    ContactKey::parse(&SecretString::from("07".repeat(32))).expect("64 hexadecimal digits are a key")
});

/// The term 114-1.
pub(super) fn term() -> &'static Term {
    &TERM
}

/// A small city.
pub(super) fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The key of its contact data.
pub(super) fn contact_key() -> &'static ContactKey {
    &CONTACT_KEY
}
