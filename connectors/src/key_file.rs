//! Key files: made once, whole or not at all, for their owner alone.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::sealing::KEY_LEN_BYTES;

/// Makes a new key in the file at `path`: [`KEY_LEN_BYTES`] random bytes in hexadecimal.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where something is at `path`: a key is never replaced, since what was made with it
/// could not be read any more. Else whatever the file system says; nothing is at `path` then.
pub fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut key = [0; KEY_LEN_BYTES];
    getrandom::fill(&mut key).map_err(|cause| io::Error::other(cause.to_string()))?;
    // Under another name first: half a key at `path` would be taken for one.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", hex::encode(key))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|refused| refused.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contact.key");
        make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let made = fs::read_to_string(&path).unwrap();
        assert_eq!(hex::decode(made.trim_end()).unwrap().len(), KEY_LEN_BYTES);

        assert_eq!(make(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), made);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn where_something_lies_that_is_no_key_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contact.key");
        symlink("no/such/folder", &path).unwrap();
        make(&path).unwrap_err();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("no/such/folder"));
    }
}
