//! The known terms as files of the data directory: `terms/NAME.toml` each, and in `served.term` the name of the one that is
//! served. An operator may read and copy them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gatebell_engine::ports::PortError;

use crate::data_dir::DataDir;
use crate::store::terms::KnownTerms;

/// The port, as errors name it.
const PORT: &str = "known terms";
/// The folder of the terms' texts.
const FOLDER: &str = "terms";
/// The name of the term that was served last.
const SERVED: &str = "served.term";

/// The terms of one data directory. Only whoever has its lock changes them.
#[derive(Debug)]
pub struct EmbeddedKnownTerms {
    directory: PathBuf,
}

impl EmbeddedKnownTerms {
    /// Those of `directory`.
    pub fn of(directory: &DataDir) -> Self {
        Self { directory: directory.path().to_owned() }
    }

    fn file_of(&self, name: &str) -> PathBuf {
        self.directory.join(FOLDER).join(format!("{name}.toml"))
    }
}

impl KnownTerms for EmbeddedKnownTerms {
    fn text(&self, name: &str) -> Result<Option<String>, PortError> {
        read_if_there(&self.file_of(name))
    }

    fn served(&self) -> Result<Option<String>, PortError> {
        Ok(read_if_there(&self.directory.join(SERVED))?.map(|name| name.trim().to_owned()))
    }

    fn define(&self, name: &str, text: &str, expected: Option<&str>) -> Result<bool, PortError> {
        let known = self.text(name)?;
        if known.as_deref() == Some(text) {
            return Ok(true);
        }
        if known.as_deref() != expected {
            return Ok(false);
        }
        let folder = self.directory.join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| {
            PortError::new(PORT, format_args!("cannot make {}: {error}", folder.display()))
        })?;
        replace(&self.file_of(name), text)?;
        Ok(true)
    }

    fn serve(&self, name: &str) -> Result<(), PortError> {
        replace(&self.directory.join(SERVED), name)
    }
}

fn read_if_there(file: &Path) -> Result<Option<String>, PortError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PortError::new(PORT, format_args!("cannot read {}: {error}", file.display()))),
    }
}

/// Puts `text` into `file`; whoever reads it sees all of it or what was there before, also after a power cut.
fn replace(file: &Path, text: &str) -> Result<(), PortError> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let write = || -> io::Result<()> {
        let mut open =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        fs::rename(&unfinished, file)?;
        // The name is the folder's.
        file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    write().map_err(|error| PortError::new(PORT, format_args!("cannot write {}: {error}", file.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::terms_contract::{Stage, terms_contract};

    /// As two processes that take the directory's lock in turn.
    struct Locked {
        terms: EmbeddedKnownTerms,
        lock: Arc<Mutex<()>>,
    }

    impl KnownTerms for Locked {
        fn text(&self, name: &str) -> Result<Option<String>, PortError> {
            self.terms.text(name)
        }

        fn served(&self) -> Result<Option<String>, PortError> {
            self.terms.served()
        }

        fn define(&self, name: &str, text: &str, expected: Option<&str>) -> Result<bool, PortError> {
            let _locked = self.lock.lock().unwrap();
            self.terms.define(name, text, expected)
        }

        fn serve(&self, name: &str) -> Result<(), PortError> {
            let _locked = self.lock.lock().unwrap();
            self.terms.serve(name)
        }
    }

    async fn stage() -> Stage {
        let path = tempfile::tempdir().unwrap();
        let directory = DataDir::open(path.path()).unwrap();
        let lock = Arc::<Mutex<()>>::default();
        let process =
            || Arc::new(Locked { terms: EmbeddedKnownTerms::of(&directory), lock: Arc::clone(&lock) });
        Stage { terms: process(), elsewhere: process(), name: "trial".to_owned(), _keep: Box::new(path) }
    }

    terms_contract!(contract, super::stage);

    #[test]
    fn terms_are_their_owners_files_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = tempfile::tempdir().unwrap();
        let terms = EmbeddedKnownTerms::of(&DataDir::open(path.path()).unwrap());
        assert!(terms.define("114-1", "name = \"114-1\"", None).unwrap());
        terms.serve("114-1").unwrap();
        for file in ["terms/114-1.toml", "served.term"] {
            let mode = fs::metadata(path.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
