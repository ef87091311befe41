//! The tokens in `store.db`. Looking one up is an indexed read, on a few connections however many requests ask at once.

use async_trait::async_trait;
use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, params};
use secrecy::SecretString;
use subtle::ConstantTimeEq;

use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers, Schema};
use crate::store::tokens::{PORT, TokenRecord, TokenScope, Tokens, hash_of, new_token};

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

/// The tokens in a data directory.
#[derive(Debug)]
pub struct EmbeddedTokens {
    file: DatabaseFile,
    readers: Readers,
}

impl EmbeddedTokens {
    /// Opens the tokens in `directory`, making what is missing.
    pub fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.store(), PORT, &TOKENS)?;
        Ok(Self { readers: Readers::new(file.clone(), READERS_MAX), file })
    }

    fn write<T>(&self, command: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, PortError> {
        let connection = self.file.connect()?;
        command(&connection).map_err(|error| self.file.error(&error))
    }
}

#[async_trait]
impl Tokens for EmbeddedTokens {
    fn add(
        &self,
        scope: &TokenScope,
        label: &str,
        made_by: &str,
        made_at: Timestamp,
    ) -> Result<(TokenRecord, SecretString), PortError> {
        let token = new_token()?;
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

    fn list(&self) -> Result<Vec<TokenRecord>, PortError> {
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

    fn revoke(&self, id: u64, at: Timestamp) -> Result<bool, PortError> {
        self.write(|connection| {
            connection.execute(
                "UPDATE token SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL",
                params![id, at.as_millis()],
            )
        })
        .map(|revoked| revoked == 1)
    }

    async fn verify(&self, token: &str) -> Result<Option<TokenScope>, PortError> {
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
    use std::sync::Arc;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::store::tokens_contract::{Stage, tokens_contract};

    tokens_contract!(contract, super::stage);

    fn store(directory: &tempfile::TempDir) -> EmbeddedTokens {
        EmbeddedTokens::open(&DataDir::open(directory.path()).unwrap()).unwrap()
    }

    async fn stage() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        Stage {
            tokens: Arc::new(store(&directory)),
            elsewhere: Arc::new(store(&directory)),
            label: "reader vendor".to_owned(),
            _keep: Box::new(directory),
        }
    }

    #[test]
    fn no_file_holds_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = store(&directory);
        let (_, token) = tokens.add(&TokenScope::City, "vendor", "chen", Timestamp::from_millis(0)).unwrap();
        assert!(!format!("{tokens:?}").contains(token.expose_secret()));
        drop(tokens);
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let needle = token.expose_secret().as_bytes();
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
}
