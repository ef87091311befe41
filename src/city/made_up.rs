//! The mark of a made-up city directory: a file that holds a digest of the others.
//!
//! Notices of a made-up city go to no gateway that is not on loopback, so a real city must never be taken for one: whoever
//! puts real files beside an old mark changes the digest, and the mark counts no more.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::file_names;

/// The mark's name in the directory.
pub(crate) const MARK: &str = "MADE-UP";
/// What people read in it; the digest comes after.
const WORDS: &str = "A made-up city: nobody in it is real. The digest is of the files as they were made.\n";

/// What a directory says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeUp {
    /// It has no mark.
    Unmarked,
    /// It is as it was made.
    AsMade,
    /// It has a mark, but other files than those that were made.
    Changed,
}

/// Marks the directory at `dir`, which is complete, as made up.
///
/// # Errors
/// When a file cannot be read or the mark cannot be written.
pub(crate) fn mark(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(MARK);
    let text = marked_text(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Whether the directory at `dir` is marked as made up, and still is.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn look(dir: &Path) -> anyhow::Result<MadeUp> {
    let file = dir.join(MARK);
    if !file.exists() {
        return Ok(MadeUp::Unmarked);
    }
    let read = || -> io::Result<bool> { Ok(fs::read(&file)? == marked_text(dir)?.as_bytes()) };
    let is_as_made = read().with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(if is_as_made { MadeUp::AsMade } else { MadeUp::Changed })
}

fn marked_text(dir: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    for name in file_names() {
        let bytes = match fs::read(dir.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        digest.update(format!("{name} {}\n", bytes.len()));
        digest.update(bytes);
    }
    Ok(format!("{WORDS}{}\n", hex::encode(digest.finalize())))
}
