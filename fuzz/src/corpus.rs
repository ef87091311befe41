//! The corpora: a directory for each target, a file for each input.

use std::io;
use std::path::{Path, PathBuf};

/// Where the corpus of `target` is.
pub fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs in the corpus of `target`, sorted by the names of their files so that a seed always makes the same of them.
///
/// # Errors
/// When the corpus is not there or cannot be read.
pub fn inputs(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory(target))?.map(|file| Ok(file?.path())).collect::<io::Result<_>>()?;
    files.sort_unstable();
    files.iter().map(std::fs::read).collect()
}
