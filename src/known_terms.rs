//! The terms that a data directory knows: the text of each one that was served on it, and which one was served last.
//!
//! A term's name is a key of charges, counters and the bill, so one name must not come to mean two things. Here is what it
//! means. Who may change that, and when, is decided where terms are chosen (`cli`).

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gatebell_connectors::data_dir::DataDir;
use gatebell_engine::term::Term;

/// The folder of the terms' texts, each as `NAME.toml`.
const FOLDER: &str = "terms";
/// The name of the term that was served last, in the data directory.
const SERVED: &str = "served.term";

/// What is known in one data directory.
pub(crate) struct KnownTerms {
    directory: PathBuf,
}

impl KnownTerms {
    /// Those of `directory`.
    pub(crate) fn of(directory: &DataDir) -> Self {
        Self { directory: directory.path().to_owned() }
    }

    /// The term of that name, if it was ever served here.
    ///
    /// # Errors
    /// When its file cannot be read, or was spoiled.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<Option<Term>> {
        let file = self.file_of(name);
        let Some(text) = read_if_there(&file)? else { return Ok(None) };
        let term = Term::parse(&text).with_context(|| format!("{} was spoiled", file.display()))?;
        Ok(Some(term))
    }

    /// The term that is served here, or was last.
    ///
    /// # Errors
    /// As [`KnownTerms::get`].
    pub(crate) fn served(&self) -> anyhow::Result<Option<Term>> {
        match read_if_there(&self.directory.join(SERVED))? {
            Some(name) => self.get(name.trim()),
            None => Ok(None),
        }
    }

    /// Keeps `term`, whose file has this `text`, as the one that is served from now on.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn serve(&self, term: &Term, text: &str) -> anyhow::Result<()> {
        let folder = self.directory.join(FOLDER);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        replace(&self.file_of(&term.name), text)?;
        replace(&self.directory.join(SERVED), &term.name)
    }

    /// Where the text of the term called `name` is kept.
    pub(crate) fn file_of(&self, name: &str) -> PathBuf {
        self.directory.join(FOLDER).join(format!("{name}.toml"))
    }
}

fn read_if_there(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Puts `text` into `file`; whoever reads it sees all of it or what was there before, also after a power cut.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let write = || -> io::Result<()> {
        let mut open =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        fs::rename(&unfinished, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}
