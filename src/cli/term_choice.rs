//! Which term a command is about: the one it is told, else the one that the city is served by, else the configured one.
//!
//! Promises that a name means one thing in a city: a file that says something else under the name of a term that is being
//! served, or was billed, is refused. Which terms a city knows is kept with it, wherever it lives.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use gatebell_connectors::store::terms::KnownTerms;
use gatebell_engine::ports::PortError;
use gatebell_engine::term::Term;

use super::Globals;
use crate::home::Home;
use crate::standard_error::say;

/// Where terms are looked up by name, in the working directory.
const TERMS_DIR: &str = "config/terms";

/// A term, and the text that says so.
#[derive(Debug)]
pub(crate) struct ReadTerm {
    /// The term.
    pub(crate) term: Term,
    /// Its file's text.
    pub(crate) text: String,
}

impl AsRef<Term> for ReadTerm {
    fn as_ref(&self) -> &Term {
        &self.term
    }
}

impl Globals {
    /// The term called `name_or_file`, or without one the configuration's: for commands that look into no data directory.
    ///
    /// # Errors
    /// When there is none by that name, when its file cannot be read, or with every mistake in it at once.
    pub(crate) fn load_term(&self, name_or_file: Option<&str>) -> anyhow::Result<Term> {
        match name_or_file {
            Some(wanted) => Ok(read(wanted)?.term),
            None => {
                let configured =
                    self.configuration().context("cannot tell the term; --term names one")?.city.term;
                Ok(read(&configured)?.term)
            }
        }
    }

    /// The term that a command about the city at `home` is about: `asked`, else the one that is served there, or was last.
    /// When that differs from the configuration's, standard error says so.
    ///
    /// # Errors
    /// As [`Globals::load_term`]; when what is asked for means something else there.
    pub(crate) fn term_of(&self, home: &Home, asked: Option<&str>) -> anyhow::Result<Term> {
        let known = home.terms()?;
        if let Some(asked) = asked {
            // A term that was served here needs no file any more.
            let read = match (read(asked), known_by_name(&*known, asked)?) {
                (Ok(read), _) => read.term,
                (Err(_), Some(term)) => return Ok(term),
                (Err(error), None) => return Err(error),
            };
            refuse_other_meaning(home, &read)?;
            return Ok(read);
        }
        let served = known.served()?.map(|name| known_term(&*known, &name)).transpose()?.flatten();
        let Some(served) = served else { return self.load_term(None) };
        if !self.load_term(None).is_ok_and(|configured| configured == served) {
            let (name, city) = (&served.name, home.name());
            say(format_args!(
                "term {name}, as it is served on {city}; the configuration's is another, which --term would name"
            ));
        }
        Ok(served)
    }
}

/// Reads the term called `name_or_file`: a file, or a name that is looked up as `config/terms/NAME.toml` in the working
/// directory and among the terms that travel inside the program.
///
/// # Errors
/// As [`Globals::load_term`].
pub(crate) fn read(name_or_file: &str) -> anyhow::Result<ReadTerm> {
    let file = Path::new(name_or_file);
    if is_path(name_or_file) || file.is_file() {
        return parse(file);
    }
    let beside = Path::new(TERMS_DIR).join(format!("{name_or_file}.toml"));
    if beside.is_file() {
        return parse(&beside);
    }
    let Some(text) = Term::built_in(name_or_file) else {
        bail!("no term {name_or_file}: neither a file of that name, nor {}, nor built in", beside.display());
    };
    let term = Term::parse(text).with_context(|| format!("the built-in term {name_or_file}"))?;
    Ok(ReadTerm { term, text: text.to_owned() })
}

/// A term that this process serves, and where its name is known.
pub(crate) struct ServedTerm {
    known: Arc<dyn KnownTerms>,
    term: Term,
}

impl ServedTerm {
    /// That the name still means this term. To be asked again and again: others leave it alone while they see that this process
    /// runs, and may have begun before, or when it had slept.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(crate) fn is_still_meant(&self) -> Result<bool, PortError> {
        let text = self.known.text(&self.term.name)?;
        Ok(text.is_some_and(|text| Term::parse(&text).is_ok_and(|meant| meant == self.term)))
    }
}

/// Has the city at `home` know the term that was read as the one that is served from now on.
///
/// # Errors
/// When its name means something else there, or the term cannot be kept.
pub(crate) fn begin_to_serve(home: &Home, read: &ReadTerm) -> anyhow::Result<ServedTerm> {
    let ReadTerm { term, text } = read;
    let known = home.terms()?;
    // What a data directory's name means was asked before its lock was taken, which nobody else has now.
    let meant = if home.is_shared() { refuse_other_meaning(home, term)? } else { known.text(&term.name)? };
    let is_known = meant.as_deref().is_some_and(|meant| Term::parse(meant).is_ok_and(|meant| meant == *term));
    if !is_known {
        let is_ours = known.define(&term.name, text, meant.as_deref())?;
        ensure!(is_ours, "another process gave the name {} a meaning just now: start again", term.name);
        if let Some(before) = meant.filter(|_| home.is_shared()) {
            give_way(home, &*known, term, text, &before)?;
        }
    }
    known.serve(&term.name)?;
    Ok(ServedTerm { known, term: term.clone() })
}

/// Takes the new meaning back when a process turns out to run that may have begun with the one `before`. Of two that start
/// at once one sees the other: this here, or the other that its term [is no longer meant](ServedTerm::is_still_meant).
fn give_way(
    home: &Home,
    known: &dyn KnownTerms,
    term: &Term,
    text: &str,
    before: &str,
) -> anyhow::Result<()> {
    let is_served = known.served()?.is_some_and(|served| served == term.name);
    if !is_served || !home.engine_is_running()? {
        return Ok(());
    }
    // Who has changed it meanwhile serves what it says now.
    let _was_taken_back = known.define(&term.name, before, Some(text))?;
    bail!(
        "another process began to serve the term {} just now, and it said something else: start again",
        term.name
    )
}

/// Refuses `term` when its name means something else in the city at `home`: when it is served there just now, or was billed.
/// Gives the text that the name has stood for so far.
///
/// # Errors
/// That it does, and what to do.
pub(crate) fn refuse_other_meaning(home: &Home, term: &Term) -> anyhow::Result<Option<String>> {
    let known = home.terms()?;
    let name = &term.name;
    let Some(text) = known.text(name)? else { return Ok(None) };
    if parse_known(name, &text)? == *term {
        return Ok(Some(text));
    }
    let is_served = || anyhow::Ok(known.served()?.is_some_and(|served| served == *name));
    let why = if was_billed(home, name)? {
        "was billed"
    } else if home.engine_is_running()? && is_served()? {
        "is being served"
    } else {
        return Ok(Some(text));
    };
    bail!(
        "term {name} {why} on {} and said something else then: give the new term a name of its own, \
         or take what gatebell term show {name} prints",
        home.name()
    )
}

fn was_billed(home: &Home, term: &str) -> anyhow::Result<bool> {
    if !home.has_store() {
        return Ok(false);
    }
    let books = home.books()?.term(term)?;
    Ok(!books.delivered.is_empty() || !books.frozen.is_empty() || books.closed.is_some())
}

fn known_by_name(known: &dyn KnownTerms, asked: &str) -> anyhow::Result<Option<Term>> {
    if is_path(asked) { Ok(None) } else { known_term(known, asked) }
}

fn known_term(known: &dyn KnownTerms, name: &str) -> anyhow::Result<Option<Term>> {
    known.text(name)?.map(|text| parse_known(name, &text)).transpose()
}

fn parse_known(name: &str, text: &str) -> anyhow::Result<Term> {
    Term::parse(text).with_context(|| format!("what is known of the term {name} was spoiled"))
}

fn is_path(name_or_file: &str) -> bool {
    name_or_file.contains('/') || name_or_file.ends_with(".toml")
}

fn parse(file: &Path) -> anyhow::Result<ReadTerm> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the term {}", file.display()))?;
    let term = Term::parse(&text).with_context(|| format!("the term {} has mistakes", file.display()))?;
    Ok(ReadTerm { term, text })
}

#[cfg(test)]
mod tests {
    use gatebell_connectors::data_dir::DataDir;
    use gatebell_connectors::store::embedded::terms::EmbeddedKnownTerms;

    use super::*;

    #[test]
    fn a_term_whose_name_was_given_another_meaning_is_no_longer_meant() {
        let folder = tempfile::tempdir().expect("a directory");
        let directory = DataDir::open(folder.path()).expect("a data directory");
        let known: Arc<dyn KnownTerms> = Arc::new(EmbeddedKnownTerms::of(&directory));
        let ReadTerm { term, text } = read("114-1").expect("a built-in term");
        let name = term.name.clone();
        assert!(known.define(&name, &text, None).expect("it can be written"));
        let served = ServedTerm { known: Arc::clone(&known), term };
        assert!(served.is_still_meant().expect("it can be read"));
        let commented = format!("# As it was decided in August\n{text}");
        assert!(known.define(&name, &commented, Some(&text)).expect("it can be written"));
        assert!(served.is_still_meant().expect("it can be read"), "a comment means nothing");
        let other = text.replace("sms_price = 75", "sms_price = 80");
        assert_ne!(other, text);
        assert!(known.define(&name, &other, Some(&commented)).expect("it can be written"));
        assert!(!served.is_still_meant().expect("it can be read"));
    }
}
