//! Tokens of readers' vendors: who may report taps, for the city or for one school.
//!
//! A token is 256 random bits, shown once when it is made; the store keeps its SHA-256, which is enough for a value that
//! nobody can guess (the public format asks for just that). Looking one up is an indexed read, so that a token made or
//! revoked by another process counts from the next request on. Revoked ones stay on record.

use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, params};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers, Schema};

/// The port, as errors name it.
const PORT: &str = "token store";
/// Randomness of a token.
const TOKEN_LEN_BYTES: usize = 32;
/// Requests that look up a token at once, each on a connection and a blocking thread; the others wait.
const READERS_MAX: usize = 4;

/// Tokens are found by the start of their hash, which tells nothing of the token, and compared in constant time.
const TOKENS: Schema = Schema {
    name: "tokens",
    steps: &["
        CREATE TABLE token (
            id      INTEGER PRIMARY KEY AUTOINCREMENT,
            hash    BLOB NOT NULL UNIQUE,
            school  TEXT,
            label   TEXT NOT NULL,
            made_by TEXT NOT NULL,
            made_at INTEGER NOT NULL,
            revoked INTEGER
        ) STRICT;
        CREATE INDEX token_hash_start ON token (substr(hash, 1, 8)) WHERE revoked IS NULL;
    "],
};

/// For whom a token speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenScope {
    /// Every reader of the city.
    City,
    /// The readers of one school.
    School(SchoolId),
}

/// A token as the store knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// Its number, for revoking it.
    pub id: u64,
    /// For whom it speaks.
    pub scope: TokenScope,
    /// What it is for, in its maker's words.
    pub label: String,
    /// Who made it.
    pub made_by: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Since when it is no longer valid; `None`: it is.
    pub revoked: Option<Timestamp>,
}

/// The tokens in a data directory. Making, listing and revoking block, for commands; looking one up does not.
#[derive(Debug)]
pub struct TokenStore {
    file: DatabaseFile,
    readers: Readers,
}

impl TokenStore {
    /// Opens the tokens in `directory`, making what is missing.
    pub fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.store(), PORT, &TOKENS)?;
        Ok(Self { readers: Readers::new(file.clone(), READERS_MAX), file })
    }

    /// Makes a token. It is returned here and never again.
    pub fn add(
        &self,
        scope: &TokenScope,
        label: &str,
        made_by: &str,
        made_at: Timestamp,
    ) -> Result<(TokenRecord, SecretString), PortError> {
        let mut bytes = [0; TOKEN_LEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| {
            PortError::new(PORT, format_args!("the system gives no random bytes: {error}"))
        })?;
        let token = hex::encode(bytes);
        let school = match scope {
            TokenScope::City => None,
            TokenScope::School(school) => Some(school.as_str()),
        };
        let id = self.write(|connection| {
            connection.execute(
                "INSERT INTO token (hash, school, label, made_by, made_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![hash_of(&token), school, label, made_by, made_at.as_millis()],
            )?;
            Ok(connection.last_insert_rowid().cast_unsigned())
        })?;
        let record = TokenRecord {
            id,
            scope: scope.clone(),
            label: label.to_owned(),
            made_by: made_by.to_owned(),
            made_at,
            revoked: None,
        };
        Ok((record, SecretString::from(token)))
    }

    /// Every token ever made, the oldest first.
    pub fn list(&self) -> Result<Vec<TokenRecord>, PortError> {
        self.readers.read_blocking(|connection| {
            connection
                .prepare_cached("SELECT id, school, label, made_by, made_at, revoked FROM token ORDER BY id")?
                .query_map([], |row| {
                    Ok(TokenRecord {
                        id: row.get(0)?,
                        scope: scope_of(1, row.get(1)?)?,
                        label: row.get(2)?,
                        made_by: row.get(3)?,
                        made_at: Timestamp::from_millis(row.get(4)?),
                        revoked: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
                    })
                })?
                .collect()
        })
    }

    /// Makes token `id` invalid from the next request on. Whether there was a valid one of that number.
    pub fn revoke(&self, id: u64, at: Timestamp) -> Result<bool, PortError> {
        self.write(|connection| {
            connection.execute(
                "UPDATE token SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL",
                params![id, at.as_millis()],
            )
        })
        .map(|revoked| revoked == 1)
    }

    /// For whom `token` speaks; `None`: it is not valid. However many ask at once, a few read the store.
    pub async fn verify(&self, token: &str) -> Result<Option<TokenScope>, PortError> {
        let hash = hash_of(token);
        let query = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT hash, school FROM token WHERE substr(hash, 1, 8) = substr(?1, 1, 8) AND revoked IS NULL",
            )?;
            let mut rows = statement.query([hash])?;
            while let Some(row) = rows.next()? {
                if bool::from(row.get_ref(0)?.as_blob()?.ct_eq(&hash)) {
                    return scope_of(1, row.get(1)?).map(Some);
                }
            }
            Ok(None)
        };
        self.readers.read(query).await
    }

    fn write<T>(&self, command: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, PortError> {
        let connection = self.file.connect()?;
        command(&connection).map_err(|error| self.file.error(&error))
    }
}

fn hash_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn scope_of(column: usize, school: Option<String>) -> rusqlite::Result<TokenScope> {
    let Some(school) = school else { return Ok(TokenScope::City) };
    SchoolId::new(&school).map(TokenScope::School).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_757_304_000_000);

    fn school() -> TokenScope {
        TokenScope::School(SchoolId::new("353604").unwrap())
    }

    fn store(directory: &tempfile::TempDir) -> TokenStore {
        TokenStore::open(&DataDir::open(directory.path()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_token_speaks_for_its_scope_until_it_is_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = store(&directory);
        let (city, city_token) = tokens.add(&TokenScope::City, "reader vendor", "chen", NOON).unwrap();
        let (_, school_token) = tokens.add(&school(), "one school", "chen", NOON).unwrap();
        let verify = async |token: &SecretString| tokens.verify(token.expose_secret()).await.unwrap();
        assert_eq!(verify(&city_token).await, Some(TokenScope::City));
        assert_eq!(verify(&school_token).await, Some(school()));

        // By another process, as a command does it.
        assert!(store(&directory).revoke(city.id, NOON).unwrap());
        assert_eq!(verify(&city_token).await, None);
        assert_eq!(verify(&school_token).await, Some(school()));
        assert!(!tokens.revoke(city.id, NOON).unwrap(), "it is no longer valid");
        assert!(!tokens.revoke(77, NOON).unwrap(), "there is none");
        let revoked: Vec<_> = tokens.list().unwrap().iter().map(|record| record.revoked).collect();
        assert_eq!(revoked, [Some(NOON), None]);
    }

    #[tokio::test]
    async fn what_is_not_exactly_a_token_is_not_valid() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = store(&directory);
        let (_, token) = tokens.add(&TokenScope::City, "vendor", "chen", NOON).unwrap();
        let token = token.expose_secret();
        for wrong in ["", "0", &token[1..], &token.to_uppercase(), &format!("{token} "), &format!("{token}0")]
        {
            assert_eq!(tokens.verify(wrong).await.unwrap(), None);
        }
    }

    #[test]
    fn the_store_holds_and_prints_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = store(&directory);
        let (record, token) = tokens.add(&school(), "vendor", "chen", NOON).unwrap();
        assert_eq!(token.expose_secret().len(), 64);
        assert_eq!(tokens.list().unwrap(), std::slice::from_ref(&record));
        let printed = format!("{record:?} {token:?} {tokens:?}");
        assert!(!printed.contains(token.expose_secret()), "{printed}");
        drop(tokens);
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let needle = token.expose_secret().as_bytes();
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }

    #[test]
    fn no_two_tokens_are_alike() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = store(&directory);
        let made: std::collections::BTreeSet<String> = (0..20)
            .map(|_| {
                let (_, token) = tokens.add(&TokenScope::City, "vendor", "chen", NOON).unwrap();
                token.expose_secret().to_owned()
            })
            .collect();
        assert_eq!(made.len(), 20);
    }
}
