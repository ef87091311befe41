//! Secrets: never in the configuration, which only names the file or the environment variable that holds
//! them.
//!
//! Owns how one is fetched, and promises that neither its value nor a part of it gets into an error. A file
//! that others on the machine may read is refused: the mend is one `chmod`.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use secrecy::SecretString;

/// Largest secret file, in bytes.
const SECRET_LEN_MAX: u64 = 4096;
/// The permission bits of everybody who is neither the owner nor of its group.
const OTHERS: u32 = 0o007;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// The whole file, without the line end at its end.
    File(PathBuf),
    /// The variable's value.
    Environment(String),
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}: {cause}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Others may read the file.
    #[error("the secret file {} may be read by others (mode {mode:04o}); chmod 600 mends it", file.display())]
    OpenToOthers {
        /// Which.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no secret of ours.
    #[error("the secret file {} is longer than {SECRET_LEN_MAX} bytes or not UTF-8", file.display())]
    NoSecret {
        /// Which.
        file: PathBuf,
    },
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(SecretSource),
}

impl SecretSource {
    /// Fetches it.
    ///
    /// # Errors
    /// As [`SecretError`] says; none holds any of the secret.
    pub(crate) fn fetch(&self) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::File(file) => {
                let unreadable = |cause| SecretError::Unreadable { file: file.clone(), cause };
                let metadata = std::fs::metadata(file).map_err(unreadable)?;
                let mode = metadata.permissions().mode() & 0o7777;
                if mode & OTHERS != 0 {
                    return Err(SecretError::OpenToOthers { file: file.clone(), mode });
                }
                if metadata.len() > SECRET_LEN_MAX {
                    return Err(SecretError::NoSecret { file: file.clone() });
                }
                let bytes = std::fs::read(file).map_err(unreadable)?;
                String::from_utf8(bytes).map_err(|_| SecretError::NoSecret { file: file.clone() })?
            }
            Self::Environment(variable) => {
                std::env::var(variable).map_err(|_| SecretError::NotSet(variable.clone()))?
            }
        };
        let secret = text.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            return Err(SecretError::Empty(self.clone()));
        }
        Ok(SecretString::from(secret))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "the secret file {}", file.display()),
            Self::Environment(variable) => write!(f, "the environment variable {variable}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use secrecy::ExposeSecret as _;

    use super::*;

    fn secret_file(content: &str, mode: u32) -> (tempfile::TempDir, SecretSource) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, SecretSource::File(file))
    }

    #[test]
    fn a_secret_file_is_read_without_its_line_end() {
        let (_dir, source) = secret_file("hunter2\n", 0o600);
        assert_eq!(source.fetch().unwrap().expose_secret(), "hunter2");
    }

    #[test]
    fn a_secret_file_open_to_others_is_refused_and_not_quoted() {
        let (_dir, source) = secret_file("hunter2\n", 0o644);
        let error = source.fetch().unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("0644"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_empty_secret_and_a_variable_that_is_not_set_are_errors() {
        let (_dir, source) = secret_file("\n", 0o600);
        assert!(matches!(source.fetch(), Err(SecretError::Empty(_))));
        let variable = SecretSource::Environment("GATEBELL_TEST_NEVER_SET".to_owned());
        assert!(matches!(variable.fetch(), Err(SecretError::NotSet(_))));
    }
}
