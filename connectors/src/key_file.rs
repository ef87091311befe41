//! Key files: made once, whole or not at all, for their owner alone.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::sealing::KEY_LEN_BYTES;

/// Makes a new key in the file at `path`: [`KEY_LEN_BYTES`] random bytes in hexadecimal. `false` where something is there
/// already: a key is never replaced, since what was made with it could not be read any more.
///
/// # Errors
/// What the file system says; at `path` is nothing then, or a whole key.
pub fn make(path: &Path) -> io::Result<bool> {
    // A symbolic link to nowhere is something, too.
    if fs::symlink_metadata(path).is_ok() {
        return Ok(false);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut key = [0; KEY_LEN_BYTES];
    getrandom::fill(&mut key).map_err(|cause| io::Error::other(cause.to_string()))?;
    // Under another name first: half a key at `path` would be taken for one.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", hex::encode(key))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(refused) => return Err(refused.error),
    }
    File::open(folder)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contact.key");
        assert!(make(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let made = fs::read_to_string(&path).unwrap();
        assert_eq!(hex::decode(made.trim_end()).unwrap().len(), KEY_LEN_BYTES);

        assert!(!make(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), made);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_lies_there_already_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contact.key");
        symlink("no/such/folder", &path).unwrap();
        assert!(!make(&path).unwrap());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("no/such/folder"));
    }
}
