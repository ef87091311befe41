//! What every [`Tokens`] promises, as tests.
//!
//! A stage's label is its own, so that stages may share a store.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use gatebell_engine::ids::SchoolId;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::tokens::{TokenRecord, TokenScope, Tokens};

/// Runs the tokens' contract: a module of tests, one an obligation, each on a stage of its own, which the async function
/// `$fresh` sets.
macro_rules! tokens_contract {
    ($module:ident, $fresh:path) => {
        crate::store::tokens_contract::tokens_contract!(@tests $module, $fresh,
            a_token_speaks_for_its_scope_until_it_is_revoked
            what_is_not_exactly_a_token_is_not_valid
            a_token_is_printed_by_nothing_but_itself
            no_two_tokens_are_alike_and_the_oldest_is_listed_first
        );
    };
    (@tests $module:ident, $fresh:path, $($obligation:ident)+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $obligation() {
                    crate::store::tokens_contract::$obligation($fresh().await).await;
                }
            )+
        }
    };
}
pub(crate) use tokens_contract;

const NOON: Timestamp = Timestamp::from_millis(1_757_304_000_000);

/// The tokens of a store, twice.
pub(crate) struct Stage {
    pub(crate) tokens: Arc<dyn Tokens>,
    /// As another process has them.
    pub(crate) elsewhere: Arc<dyn Tokens>,
    pub(crate) label: String,
    /// Whatever has to live as long.
    pub(crate) _keep: Box<dyn Any + Send>,
}

impl Stage {
    async fn add(&self, scope: &TokenScope) -> (TokenRecord, SecretString) {
        let (scope, label) = (scope.clone(), self.label.clone());
        ask(&self.tokens, move |tokens| tokens.add(&scope, &label, "chen", NOON)).await
    }

    async fn list(&self) -> Vec<TokenRecord> {
        let mut all = ask(&self.elsewhere, |tokens| tokens.list()).await;
        all.retain(|record| record.label == self.label);
        all
    }

    async fn verify(&self, token: &str) -> Option<TokenScope> {
        self.tokens.verify(token).await.expect("the token is looked up")
    }
}

async fn ask<T: Send + 'static>(
    tokens: &Arc<dyn Tokens>,
    question: impl FnOnce(&dyn Tokens) -> Result<T, PortError> + Send + 'static,
) -> T {
    let tokens = Arc::clone(tokens);
    let asking = tokio::task::spawn_blocking(move || question(&*tokens));
    asking.await.expect("the question is asked").expect("the store answers")
}

fn school() -> TokenScope {
    TokenScope::School(SchoolId::new("353604").expect("of the allowed form"))
}

/// Whoever revokes it.
pub(crate) async fn a_token_speaks_for_its_scope_until_it_is_revoked(stage: Stage) {
    let (city, city_token) = stage.add(&TokenScope::City).await;
    let (_, school_token) = stage.add(&school()).await;
    assert_eq!(stage.verify(city_token.expose_secret()).await, Some(TokenScope::City));
    assert_eq!(stage.verify(school_token.expose_secret()).await, Some(school()));

    assert!(ask(&stage.elsewhere, move |tokens| tokens.revoke(city.id, NOON)).await);
    assert_eq!(stage.verify(city_token.expose_secret()).await, None);
    assert_eq!(stage.verify(school_token.expose_secret()).await, Some(school()));
    let later = Timestamp::from_millis(NOON.as_millis() + 1);
    assert!(!ask(&stage.tokens, move |tokens| tokens.revoke(city.id, later)).await, "it is no longer valid");
    assert!(!ask(&stage.tokens, |tokens| tokens.revoke(77, NOON)).await, "there is none");
    let revoked: Vec<_> = stage.list().await.iter().map(|record| record.revoked).collect();
    assert_eq!(revoked, [Some(NOON), None]);
}

/// Not even nearly.
pub(crate) async fn what_is_not_exactly_a_token_is_not_valid(stage: Stage) {
    let (_, token) = stage.add(&TokenScope::City).await;
    let token = token.expose_secret();
    for wrong in ["", "0", &token[1..], &token.to_uppercase(), &format!("{token} "), &format!("{token}0")] {
        assert_eq!(stage.verify(wrong).await, None);
    }
}

/// Neither the record nor what carries it.
pub(crate) async fn a_token_is_printed_by_nothing_but_itself(stage: Stage) {
    let (record, token) = stage.add(&school()).await;
    assert_eq!(token.expose_secret().len(), 64);
    assert_eq!(stage.list().await, std::slice::from_ref(&record));
    let printed = format!("{record:?} {token:?}");
    assert!(!printed.contains(token.expose_secret()), "{printed}");
}

/// Also of those made at once.
pub(crate) async fn no_two_tokens_are_alike_and_the_oldest_is_listed_first(stage: Stage) {
    let first = stage.add(&TokenScope::City).await.0.id;
    let scope = TokenScope::City;
    let added = futures::future::join_all((0..10).map(|_| stage.add(&scope))).await;
    let tokens: BTreeSet<_> = added.iter().map(|(_, token)| token.expose_secret().to_owned()).collect();
    let ids: BTreeSet<_> = added.iter().map(|(record, _)| record.id).collect();
    assert_eq!((tokens.len(), ids.len()), (10, 10));
    let last = stage.add(&TokenScope::City).await.0.id;
    let listed: Vec<_> = stage.list().await.iter().map(|record| record.id).collect();
    assert_eq!(listed.len(), 12);
    assert_eq!((listed.first(), listed.last()), (Some(&first), Some(&last)));
}
