//! Tokens on a shared store.
//!
//! Two tables: the list gives out numbers by compare-and-set; the look-up is by hash. A token is valid from its row in the
//! look-up on and until that row says revoked, so it is written after the list when it is made, and before it when it is
//! revoked: whatever breaks off in between leaves a token that is listed and not valid, never the other way round.

use std::sync::Arc;

use async_trait::async_trait;
use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use scylla::DeserializeRow;
use scylla::value::CqlTimestamp;
use secrecy::SecretString;
use subtle::ConstantTimeEq;

use super::commands::CqlCommands;
use super::error::store_error;
use super::ledger_rows::{instant, unreadable, word};
use super::session::{CqlSession, Read, Swap, Write, pause_after};
use crate::store::tokens::{TokenRecord, TokenScope, Tokens, hash_of, new_token};

/// All tokens of a city are one partition.
const PART: &str = "tokens";
/// Bytes of the hash that find a token.
const HASH_START_BYTES: usize = 8;
/// Numbers that are tried before nothing is made: each one lost is a token that somebody else made.
const NUMBERS_MAX: u32 = 32;

/// The tokens of a keyspace.
#[derive(Debug)]
pub struct CqlTokens {
    commands: Arc<CqlCommands>,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    session: Arc<CqlSession>,
    select_last: Read,
    insert: Swap,
    select_one: Read,
    revoke: Swap,
    select_all: Read,
    insert_hash: Write,
    revoke_hash: Write,
    select_hash: Read,
}

/// A token as it is read.
#[derive(DeserializeRow)]
struct TokenRow {
    id: i64,
    hash: Vec<u8>,
    school: Option<String>,
    label: String,
    made_by: String,
    made_at: CqlTimestamp,
    revoked: Option<CqlTimestamp>,
}

/// A token to be made.
#[derive(Clone)]
struct NewToken {
    hash: [u8; 32],
    scope: TokenScope,
    label: String,
    made_by: String,
    made_at: Timestamp,
}

impl CqlTokens {
    /// The tokens in the keyspace of `commands`.
    pub fn open(commands: Arc<CqlCommands>) -> Result<Self, PortError> {
        let session = commands.session();
        let tables = commands.wait(Tables::new(session))?;
        Ok(Self { commands, tables: Arc::new(tables) })
    }
}

#[async_trait]
impl Tokens for CqlTokens {
    fn add(
        &self,
        scope: &TokenScope,
        label: &str,
        made_by: &str,
        made_at: Timestamp,
    ) -> Result<(TokenRecord, SecretString), PortError> {
        let token = new_token()?;
        let new = NewToken {
            hash: hash_of(&token),
            scope: scope.clone(),
            label: label.to_owned(),
            made_by: made_by.to_owned(),
            made_at,
        };
        let tables = Arc::clone(&self.tables);
        let record = self.commands.wait(async move { tables.add(new).await })?;
        Ok((record, SecretString::from(token)))
    }

    fn list(&self) -> Result<Vec<TokenRecord>, PortError> {
        let tables = Arc::clone(&self.tables);
        self.commands.wait(async move { tables.list().await })
    }

    fn revoke(&self, id: u64, at: Timestamp) -> Result<bool, PortError> {
        let tables = Arc::clone(&self.tables);
        self.commands.wait(async move { tables.revoke(id, at).await })
    }

    async fn verify(&self, token: &str) -> Result<Option<TokenScope>, PortError> {
        let hash = hash_of(token);
        let tables = Arc::clone(&self.tables);
        self.commands.done(async move { tables.scope_of(hash).await }).await
    }
}

impl Tables {
    async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let columns =
            "SELECT id, hash, school, label, made_by, made_at, revoked FROM keyspace.tokens WHERE part = ?";
        let insert = session.prepare_swap(
            "INSERT INTO keyspace.tokens (part, id, hash, school, label, made_by, made_at) VALUES (?, ?, ?, ?, ?, ?, ?)
             IF NOT EXISTS",
        );
        let revoke = session.prepare_swap(
            "UPDATE keyspace.tokens SET revoked = ? WHERE part = ? AND id = ? IF revoked = null",
        );
        let select_last =
            session.prepare_serial_read("SELECT id FROM keyspace.tokens WHERE part = ? LIMIT 1");
        let insert_hash = session
            .prepare_write("INSERT INTO keyspace.tokens_by_hash (hash_start, hash, school) VALUES (?, ?, ?)");
        let revoke_hash = session.prepare_write(
            "UPDATE keyspace.tokens_by_hash SET revoked = ? WHERE hash_start = ? AND hash = ?",
        );
        let select_hash = session
            .prepare_read("SELECT hash, school, revoked FROM keyspace.tokens_by_hash WHERE hash_start = ?");
        Ok(Self {
            insert: insert.await?,
            revoke: revoke.await?,
            select_last: select_last.await?,
            select_one: session.prepare_serial_read(&format!("{columns} AND id = ?")).await?,
            select_all: session.prepare_serial_read(columns).await?,
            insert_hash: insert_hash.await?,
            revoke_hash: revoke_hash.await?,
            select_hash: select_hash.await?,
            session,
        })
    }

    async fn add(&self, new: NewToken) -> Result<TokenRecord, PortError> {
        let id = self.take_number(&new).await?;
        let (start, school) = (hash_start(&new.hash), school_column(&new.scope));
        self.session.write(&self.insert_hash, (start, new.hash, school)).await?;
        let NewToken { scope, label, made_by, made_at, .. } = new;
        Ok(TokenRecord { id: number(id)?, scope, label, made_by, made_at, revoked: None })
    }

    /// Puts the token on the list under the next number.
    async fn take_number(&self, new: &NewToken) -> Result<i64, PortError> {
        let mut last_error = None;
        for round in 1..=NUMBERS_MAX {
            let last: Option<(i64,)> = self.session.row(&self.select_last, (PART,)).await?;
            let id = last.map_or(1, |(id,)| id + 1);
            let row = (
                PART,
                id,
                new.hash,
                school_column(&new.scope),
                &new.label,
                &new.made_by,
                instant(new.made_at),
            );
            match self.session.swap(&self.insert, row).await {
                Ok(true) => return Ok(id),
                Ok(false) => {}
                Err(error) => {
                    // The row tells whether it was applied.
                    if self.one(id).await?.is_some_and(|row| row.hash == new.hash) {
                        return Ok(id);
                    }
                    last_error = Some(error);
                }
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("too many tokens are being made at once")))
    }

    async fn one(&self, id: i64) -> Result<Option<TokenRow>, PortError> {
        self.session.row(&self.select_one, (PART, id)).await
    }

    async fn list(&self) -> Result<Vec<TokenRecord>, PortError> {
        let rows: Vec<TokenRow> = self.session.rows(&self.select_all, (PART,)).await?;
        // The last one is the first row.
        rows.into_iter().rev().map(record).collect()
    }

    async fn revoke(&self, id: u64, at: Timestamp) -> Result<bool, PortError> {
        let Ok(id) = i64::try_from(id) else { return Ok(false) };
        let Some(row) = self.one(id).await? else { return Ok(false) };
        if row.revoked.is_some() {
            return Ok(false);
        }
        let start = row.hash.get(..HASH_START_BYTES).ok_or_else(|| unreadable("hash"))?;
        self.session.write(&self.revoke_hash, (instant(at), start, &row.hash)).await?;
        self.session.swap(&self.revoke, (instant(at), PART, id)).await
    }

    async fn scope_of(&self, hash: [u8; 32]) -> Result<Option<TokenScope>, PortError> {
        let rows: Vec<(Vec<u8>, Option<String>, Option<CqlTimestamp>)> =
            self.session.rows(&self.select_hash, (hash_start(&hash),)).await?;
        for (found, school, revoked) in rows {
            if bool::from(found.as_slice().ct_eq(&hash)) {
                return if revoked.is_some() { Ok(None) } else { scope(school).map(Some) };
            }
        }
        Ok(None)
    }
}

fn hash_start(hash: &[u8; 32]) -> &[u8] {
    hash.get(..HASH_START_BYTES).expect("a hash is longer than its start")
}

fn school_column(scope: &TokenScope) -> Option<&str> {
    match scope {
        TokenScope::City => None,
        TokenScope::School(school) => Some(school.as_str()),
    }
}

fn scope(school: Option<String>) -> Result<TokenScope, PortError> {
    let Some(school) = school else { return Ok(TokenScope::City) };
    word::<SchoolId>(&school, "school").map(TokenScope::School)
}

fn record(row: TokenRow) -> Result<TokenRecord, PortError> {
    Ok(TokenRecord {
        id: number(row.id)?,
        scope: scope(row.school)?,
        label: row.label,
        made_by: row.made_by,
        made_at: Timestamp::from_millis(row.made_at.0),
        revoked: row.revoked.map(|at| Timestamp::from_millis(at.0)),
    })
}

fn number(id: i64) -> Result<u64, PortError> {
    u64::try_from(id).map_err(|_| unreadable("id"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture;
    use super::CqlTokens;
    use crate::store::tokens_contract::{Stage, tokens_contract};

    tokens_contract!(contract, super::stage);

    async fn stage() -> Stage {
        let open = || CqlTokens::open(fixture::commands()).expect("the tokens open");
        Stage {
            tokens: Arc::new(open()),
            elsewhere: Arc::new(open()),
            label: fixture::unique(),
            _keep: Box::new(()),
        }
    }
}
