//! How far the running engine has applied the registry, for the commands that wait for it.
//!
//! A small file beside the registry, overwritten in place by the one engine that runs on the directory. It is not synced:
//! what it says counts only while that engine holds its lock.

use std::fs::File;
use std::os::unix::fs::FileExt;

use gatebell_engine::ports::PortError;

use super::registry::PORT;
use crate::data_dir::{DataDir, open_private_file};

/// Digits of the largest version, so that every write replaces the one before it whole.
const VERSION_LEN_DIGITS: usize = 20;

/// The file, open.
#[derive(Debug)]
pub(super) struct ProgressFile {
    file: File,
}

impl ProgressFile {
    /// Opens it in `directory`, making it where it is missing.
    pub(super) fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file =
            open_private_file(&directory.engine_progress()).map_err(|error| PortError::new(PORT, error))?;
        Ok(Self { file })
    }

    /// The engine has applied everything up to `version`.
    pub(super) fn write(&self, version: u64) -> Result<(), PortError> {
        let text = format!("{version:0VERSION_LEN_DIGITS$}\n");
        self.file.write_all_at(text.as_bytes(), 0).map_err(|error| {
            PortError::new(PORT, format_args!("cannot write how far the engine has come: {error}"))
        })
    }

    /// What the engine last wrote; 0 when it has written nothing.
    pub(super) fn read(&self) -> Result<u64, PortError> {
        let mut digits = [0; VERSION_LEN_DIGITS];
        let len = self.file.read_at(&mut digits, 0).map_err(|error| {
            PortError::new(PORT, format_args!("cannot read how far the engine has come: {error}"))
        })?;
        let text = digits.get(..len).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default();
        Ok(text.parse().unwrap_or(0))
    }
}
