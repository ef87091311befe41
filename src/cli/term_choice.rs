//! Which term a command is about: the one it is told, else the one that is served on the data directory, else the
//! configured one.
//!
//! Promises that a name means one thing in a data directory: a file that says something else under the name of a term that
//! is being served, or was billed, is refused. Which terms a directory knows is the business of `known_terms`.

use std::path::Path;

use anyhow::{Context as _, bail};
use gatebell_engine::term::Term;

use super::Globals;
use crate::home::Home;
use crate::known_terms::KnownTerms;
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

    /// The term that a command beside `directory` is about: `asked`, else the one that is served there, or was last. When
    /// that differs from the configuration's, standard error says so.
    ///
    /// # Errors
    /// As [`Globals::load_term`]; when what is asked for means something else in `directory`.
    pub(crate) fn term_of(&self, home: &Home, asked: Option<&str>) -> anyhow::Result<Term> {
        let known = KnownTerms::of(home.directory());
        if let Some(asked) = asked {
            // A term that was served here needs no file any more.
            let read = match (read(asked), known_by_name(&known, asked)?) {
                (Ok(read), _) => read.term,
                (Err(_), Some(term)) => return Ok(term),
                (Err(error), None) => return Err(error),
            };
            refuse_other_meaning(home, &read)?;
            return Ok(read);
        }
        let Some(served) = known.served()? else { return self.load_term(None) };
        if !self.load_term(None).is_ok_and(|configured| configured == served) {
            let (name, path) = (&served.name, home.directory().path().display());
            say(format_args!(
                "term {name}, as it is served on {path}; the configuration's is another, which --term would name"
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

/// Refuses `term` when its name means something else in `directory`: when it is served there just now, or was billed.
///
/// # Errors
/// That it does, and what to do.
pub(crate) fn refuse_other_meaning(home: &Home, term: &Term) -> anyhow::Result<()> {
    let known = KnownTerms::of(home.directory());
    let name = &term.name;
    let Some(meant) = known.get(name)? else { return Ok(()) };
    if meant == *term {
        return Ok(());
    }
    let is_served = || anyhow::Ok(known.served()?.is_some_and(|served| served.name == *name));
    let why = if was_billed(home, name)? {
        "was billed"
    } else if home.engine_is_running()? && is_served()? {
        "is being served"
    } else {
        return Ok(());
    };
    bail!(
        "term {name} {why} on {} and said something else then: give the new term a name of its own, \
         or take what it was, {}",
        home.name(),
        known.file_of(name).display()
    )
}

fn was_billed(home: &Home, term: &str) -> anyhow::Result<bool> {
    if !home.has_store() {
        return Ok(false);
    }
    let books = home.books()?.term(term)?;
    Ok(!books.delivered.is_empty() || !books.frozen.is_empty() || books.closed.is_some())
}

fn known_by_name(known: &KnownTerms, asked: &str) -> anyhow::Result<Option<Term>> {
    if is_path(asked) { Ok(None) } else { known.get(asked) }
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
