//! The known terms on a shared store: what a name means, and which one is served, each changed by compare-and-set.

use std::sync::Arc;

use gatebell_engine::ports::PortError;

use super::commands::CqlCommands;
use super::error::store_error;
use super::session::{CqlSession, Read, Swap, pause_after};
use crate::store::terms::KnownTerms;

/// Which term is served is one row.
const PART: &str = "terms";
/// Rounds of a compare-and-set whose outcome is not known, or that others keep winning.
const ROUNDS_MAX: u32 = 16;

/// The terms of a keyspace.
#[derive(Debug)]
pub struct CqlKnownTerms {
    commands: Arc<CqlCommands>,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    session: Arc<CqlSession>,
    select_text: Read,
    insert_text: Swap,
    change_text: Swap,
    select_served: Read,
    insert_served: Swap,
    change_served: Swap,
}

impl CqlKnownTerms {
    /// The terms in the keyspace of `commands`.
    pub fn open(commands: Arc<CqlCommands>) -> Result<Self, PortError> {
        let session = commands.session();
        let tables = commands.wait(Tables::new(session))?;
        Ok(Self { commands, tables: Arc::new(tables) })
    }
}

impl KnownTerms for CqlKnownTerms {
    fn text(&self, name: &str) -> Result<Option<String>, PortError> {
        let (tables, name) = (Arc::clone(&self.tables), name.to_owned());
        self.commands.wait(async move { tables.text(&name).await })
    }

    fn served(&self) -> Result<Option<String>, PortError> {
        let tables = Arc::clone(&self.tables);
        self.commands.wait(async move { tables.served().await })
    }

    fn define(&self, name: &str, text: &str, expected: Option<&str>) -> Result<bool, PortError> {
        let (tables, name, text) = (Arc::clone(&self.tables), name.to_owned(), text.to_owned());
        let expected = expected.map(ToOwned::to_owned);
        self.commands.wait(async move { tables.define(&name, &text, expected.as_deref()).await })
    }

    fn serve(&self, name: &str) -> Result<(), PortError> {
        let (tables, name) = (Arc::clone(&self.tables), name.to_owned());
        self.commands.wait(async move { tables.serve(&name).await })
    }
}

impl Tables {
    async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let insert_text =
            session.prepare_swap("INSERT INTO keyspace.terms (term, file_text) VALUES (?, ?) IF NOT EXISTS");
        let change_text =
            session.prepare_swap("UPDATE keyspace.terms SET file_text = ? WHERE term = ? IF file_text = ?");
        let insert_served =
            session.prepare_swap("INSERT INTO keyspace.served_term (part, term) VALUES (?, ?) IF NOT EXISTS");
        let change_served =
            session.prepare_swap("UPDATE keyspace.served_term SET term = ? WHERE part = ? IF term = ?");
        Ok(Self {
            insert_text: insert_text.await?,
            change_text: change_text.await?,
            insert_served: insert_served.await?,
            change_served: change_served.await?,
            select_text: session
                .prepare_serial_read("SELECT file_text FROM keyspace.terms WHERE term = ?")
                .await?,
            select_served: session
                .prepare_serial_read("SELECT term FROM keyspace.served_term WHERE part = ?")
                .await?,
            session,
        })
    }

    async fn text(&self, name: &str) -> Result<Option<String>, PortError> {
        let row: Option<(String,)> = self.session.row(&self.select_text, (name,)).await?;
        Ok(row.map(|(text,)| text))
    }

    async fn served(&self) -> Result<Option<String>, PortError> {
        let row: Option<(String,)> = self.session.row(&self.select_served, (PART,)).await?;
        Ok(row.map(|(name,)| name))
    }

    async fn define(&self, name: &str, text: &str, expected: Option<&str>) -> Result<bool, PortError> {
        let mut last_error = None;
        for round in 1..=ROUNDS_MAX {
            let swapped = match expected {
                None => self.session.swap(&self.insert_text, (name, text)).await,
                Some(expected) => self.session.swap(&self.change_text, (text, name, expected)).await,
            };
            last_error = match swapped {
                Ok(true) => return Ok(true),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            // The row tells whether it was applied, now or in an earlier round. It may say so by somebody else's hand, which is
            // as good.
            let known = self.text(name).await?;
            if known.as_deref() == Some(text) {
                return Ok(true);
            }
            if known.as_deref() != expected {
                return Ok(false);
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("a term cannot be written")))
    }

    async fn serve(&self, name: &str) -> Result<(), PortError> {
        let mut last_error = None;
        for round in 1..=ROUNDS_MAX {
            let swapped = match self.served().await? {
                Some(served) if served == name => return Ok(()),
                Some(served) => self.session.swap(&self.change_served, (name, PART, served)).await,
                None => self.session.swap(&self.insert_served, (PART, name)).await,
            };
            match swapped {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last_error = Some(error),
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("too many processes begin to serve at once")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::fixture;
    use super::*;
    use crate::store::terms_contract::{Stage, terms_contract};

    /// Which term is served is one row of a keyspace, so its test has that to itself: nothing else here serves one.
    async fn stage() -> Stage {
        let open = || async {
            tokio::task::spawn_blocking(|| CqlKnownTerms::open(fixture::commands()).unwrap()).await.unwrap()
        };
        Stage {
            terms: Arc::new(open().await),
            elsewhere: Arc::new(open().await),
            name: fixture::unique(),
            _keep: Box::new(()),
        }
    }

    terms_contract!(contract, super::stage);

    #[tokio::test]
    async fn a_definition_whose_answer_was_lost_is_known_by_the_row() {
        let tables = Tables::new(fixture::session().await).await.unwrap();
        let name = fixture::unique();
        for (text, expected) in [("one", None), ("two", Some("one"))] {
            tables.session.swap_answers_lost.store(1, Ordering::SeqCst);
            assert!(tables.define(&name, text, expected).await.unwrap(), "{text}");
            assert_eq!(tables.text(&name).await.unwrap().as_deref(), Some(text));
        }
    }
}
