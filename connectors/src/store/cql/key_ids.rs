//! Which key the city's contact data is sealed with: each process looks before it seals anything.

use gatebell_engine::ports::PortError;

use super::error::store_error;
use super::session::{CqlSession, pause_after};

/// The key of names, phones and addresses.
const CONTACTS: &str = "contacts";
/// Rounds of a compare-and-set whose outcome is not known.
const ROUNDS_MAX: u32 = 16;

/// The id of the key that contact data is sealed with in the keyspace: the one that was ever first named to it, which is
/// `ours` where there was none.
pub async fn contact_key(session: &CqlSession, ours: &str) -> Result<String, PortError> {
    id_of(session, CONTACTS, ours).await
}

async fn id_of(session: &CqlSession, purpose: &str, ours: &str) -> Result<String, PortError> {
    let select = session.prepare_serial_read("SELECT key_id FROM keyspace.key_ids WHERE purpose = ?").await?;
    let insert = session
        .prepare_swap("INSERT INTO keyspace.key_ids (purpose, key_id) VALUES (?, ?) IF NOT EXISTS")
        .await?;
    let mut last_error = None;
    for round in 1..=ROUNDS_MAX {
        let row: Option<(String,)> = session.row(&select, (purpose,)).await?;
        if let Some((id,)) = row {
            return Ok(id);
        }
        // Whoever was first, the row tells, also where the answer is lost.
        last_error = session.swap(&insert, (purpose, ours)).await.err();
        if last_error.is_some() {
            tokio::time::sleep(pause_after(round)).await;
        }
    }
    Err(last_error.unwrap_or_else(|| store_error("the id of the contact key cannot be written")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures::future::join_all;

    use super::super::fixture;
    use super::super::session::CqlSession;
    use super::*;

    #[tokio::test]
    async fn of_many_keys_named_at_once_one_is_the_citys_for_good() {
        let (session, purpose) = (fixture::session().await, fixture::unique());
        let ids: Vec<String> = (0..8).map(|number| format!("key{number}")).collect();
        let answers = join_all(ids.iter().map(|id| id_of(&session, &purpose, id))).await;
        let first = answers[0].as_ref().unwrap();
        assert!(ids.contains(first));
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap() == first), "{answers:?}");
        assert_eq!(&id_of(&session, &purpose, "another").await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_key_named_without_an_answer_is_the_citys() {
        let session = CqlSession::open(&fixture::shared_settings()).await.unwrap();
        let purpose = fixture::unique();
        session.swap_answers_lost.store(1, Ordering::SeqCst);
        assert_eq!(id_of(&session, &purpose, "ours").await.unwrap(), "ours");
    }
}
