//! The data directory: which files there are, that nobody else may read them, and which process may run an engine on them.
//!
//! The directory is for its owner alone (0700), and so is every file in it (0600): they hold phone numbers and names. One
//! `gatebell serve` at a time runs on a directory; it holds [`EngineLock`]. Commands work beside it, since the files
//! themselves are safe for several processes. What is in the files is the business of the tap log and the store.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Permissions of the directory: its owner's alone.
const DIRECTORY_MODE: u32 = 0o700;
/// Permissions of the files: their owner's alone.
const FILE_MODE: u32 = 0o600;
/// A command that asks whether an engine runs holds the lock for an instant; so a start tries so often …
const LOCK_ATTEMPTS_MAX: u32 = 10;
/// … and waits so long in between.
const LOCK_RETRY_MS: u64 = 20;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It is not there, and the command would find nothing in a new one.
    #[error("no data directory at {}: name one with --data, or fill a new one with gatebell import", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It is a file.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// Others may read it.
    #[error(
        "{} is open to others (mode {mode:03o}), and is to hold phone numbers and names: run chmod {allowed:03o} on it",
        path.display()
    )]
    OpenToOthers {
        /// The directory or file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The widest that is taken.
        allowed: u32,
    },
    /// Another process runs an engine on it.
    #[error("another gatebell serve{by} is running on {}: stop it first, or use another data directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as ` (process 123)`, or nothing where it is not known.
        by: String,
    },
    /// The file system refused.
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, what, source }
}

/// A data directory that is there and closed to others.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Opens the directory at `path`, and creates it (0700, with its parents) where it is missing. An empty one that is
    /// open to others is closed; one that already holds something is refused instead, as it may be somebody else's.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(path)
                .map_err(io_error(path, "create the data directory"))?;
        }
        Self::existing(path)
    }

    /// Opens the directory at `path`, which must be there: for commands that only look.
    pub fn existing(path: &Path) -> Result<Self, DataDirError> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DataDirError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(io_error(path, "look at the data directory")(error)),
        };
        if !metadata.is_dir() {
            return Err(DataDirError::NotADirectory { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & !DIRECTORY_MODE != 0 {
            let mut entries = fs::read_dir(path).map_err(io_error(path, "list the data directory"))?;
            if entries.next().is_some() {
                return Err(DataDirError::OpenToOthers {
                    path: path.to_owned(),
                    mode,
                    allowed: DIRECTORY_MODE,
                });
            }
            fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
                .map_err(io_error(path, "close the data directory to others"))?;
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tap log.
    pub fn taps(&self) -> PathBuf {
        self.path.join("taps.db")
    }

    /// Records that are no taps.
    pub fn rejected(&self) -> PathBuf {
        self.path.join("rejected.db")
    }

    /// The registry with its changes; names, phones and addresses live only here.
    pub fn registry(&self) -> PathBuf {
        self.path.join("registry.db")
    }

    /// Ledger, claims, charges, receipts and tokens.
    pub fn store(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// How far the running engine has applied the registry.
    pub(crate) fn engine_progress(&self) -> PathBuf {
        self.path.join("engine.progress")
    }

    fn engine_lock(&self) -> PathBuf {
        self.path.join("engine.lock")
    }

    /// Makes this process the one that runs an engine here, until the lock is dropped or the process ends, however it
    /// ends.
    pub fn lock_engine(&self) -> Result<EngineLock, DataDirError> {
        let path = self.engine_lock();
        let mut file = open_private_file(&path)?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS_MAX => {
                    std::thread::sleep(Duration::from_millis(LOCK_RETRY_MS));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(DataDirError::InUse { path: self.path.clone(), by: holder(&mut file) });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(io_error(&path, "lock the data directory")(error));
                }
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error(&path, "write the process id"))?;
        Ok(EngineLock { _file: file })
    }

    /// Whether some process, this one included, runs an engine here.
    pub fn engine_is_running(&self) -> Result<bool, DataDirError> {
        let path = self.engine_lock();
        if !path.exists() {
            return Ok(false);
        }
        let file = open_private_file(&path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(io_error(&path, "ask for the lock")(error)),
        }
    }
}

/// The right to run an engine on a data directory, given back when dropped.
#[derive(Debug)]
pub struct EngineLock {
    _file: File,
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
        Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
        _ => String::new(),
    }
}

/// Opens `path` for reading and writing, creating it 0600; refuses one that others may read.
pub(crate) fn open_private_file(path: &Path) -> Result<File, DataDirError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(io_error(path, "open the file"))?;
    let mode = file.metadata().map_err(io_error(path, "look at the file"))?.permissions().mode() & 0o777;
    if mode & !FILE_MODE != 0 {
        return Err(DataDirError::OpenToOthers { path: path.to_owned(), mode, allowed: FILE_MODE });
    }
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_directory_and_its_files_are_their_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("city/data");
        let directory = DataDir::open(&path).unwrap();
        let _lock = directory.lock_engine().unwrap();
        assert_eq!(mode_of(&path), 0o700);
        assert_eq!(mode_of(&path.join("engine.lock")), 0o600);
    }

    #[test]
    fn an_empty_directory_is_closed_and_a_used_one_refused_when_others_may_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        DataDir::open(&path).unwrap();
        assert_eq!(mode_of(&path), 0o700);

        fs::write(path.join("notes.txt"), "somebody's").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let refusal = DataDir::open(&path).unwrap_err();
        assert!(matches!(refusal, DataDirError::OpenToOthers { mode: 0o750, .. }), "{refusal}");
        assert_eq!(mode_of(&path), 0o750, "what may be somebody else's is left as it was");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(parent.path()).unwrap();
        fs::write(directory.taps(), "").unwrap();
        fs::set_permissions(directory.taps(), Permissions::from_mode(0o644)).unwrap();
        let refusal = open_private_file(&directory.taps()).unwrap_err();
        assert!(refusal.to_string().contains("chmod 600"), "{refusal}");
    }

    #[test]
    fn a_command_that_only_looks_creates_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("typo");
        assert!(matches!(DataDir::existing(&path), Err(DataDirError::Missing { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn a_second_engine_is_refused_by_name_until_the_first_has_gone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(parent.path()).unwrap();
        assert!(!directory.engine_is_running().unwrap());

        let lock = directory.lock_engine().unwrap();
        assert!(directory.engine_is_running().unwrap());
        let refusal = directory.lock_engine().unwrap_err().to_string();
        assert!(refusal.contains(&parent.path().display().to_string()), "{refusal}");
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");

        drop(lock);
        assert!(!directory.engine_is_running().unwrap());
        directory.lock_engine().unwrap();
    }
}
