//! What every [`KnownTerms`] promises, as tests.
//!
//! Terms have names of the stage's own, so that stages may share a store; which one is served they change one at a time.

use std::any::Any;
use std::sync::Arc;

use gatebell_engine::ports::PortError;

use super::terms::KnownTerms;

/// Runs the contract of the known terms: a module of tests, one an obligation, each on a stage of its own, which the async
/// function `$fresh` sets.
macro_rules! terms_contract {
    ($module:ident, $fresh:path) => {
        crate::store::terms_contract::terms_contract!(@tests $module, $fresh,
            a_term_is_known_everywhere_as_it_was_defined
            a_name_changes_its_meaning_only_from_what_was_expected
            of_two_that_define_a_name_at_once_one_comes_second
            the_term_served_last_is_known_everywhere
        );
    };
    (@tests $module:ident, $fresh:path, $($obligation:ident)+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $obligation() {
                    crate::store::terms_contract::$obligation($fresh().await).await;
                }
            )+
        }
    };
}
pub(crate) use terms_contract;

/// The terms of a store, twice.
pub(crate) struct Stage {
    pub(crate) terms: Arc<dyn KnownTerms>,
    /// As another process has them.
    pub(crate) elsewhere: Arc<dyn KnownTerms>,
    pub(crate) name: String,
    /// Whatever has to live as long.
    pub(crate) _keep: Box<dyn Any + Send>,
}

impl Stage {
    async fn define(&self, text: &'static str, expected: Option<&'static str>) -> bool {
        let name = self.name.clone();
        ask(&self.terms, move |terms| terms.define(&name, text, expected)).await
    }

    async fn text(&self) -> Option<String> {
        let name = self.name.clone();
        ask(&self.elsewhere, move |terms| terms.text(&name)).await
    }
}

/// Commands block, and so are asked off the tasks' threads.
async fn ask<T: Send + 'static>(
    terms: &Arc<dyn KnownTerms>,
    ask: impl FnOnce(&dyn KnownTerms) -> Result<T, PortError> + Send + 'static,
) -> T {
    let terms = Arc::clone(terms);
    let asked = tokio::task::spawn_blocking(move || ask(&*terms));
    asked.await.expect("the call returns").expect("the store answers")
}

/// To the letter.
pub(crate) async fn a_term_is_known_everywhere_as_it_was_defined(stage: Stage) {
    assert_eq!(stage.text().await, None);
    let text = "name = \"trial\"\n# 學期\n";
    assert!(stage.define(text, None).await);
    assert_eq!(stage.text().await.as_deref(), Some(text));
    assert!(stage.define(text, Some(text)).await, "defining it again changes nothing");
    assert_eq!(stage.text().await.as_deref(), Some(text));
}

/// Whoever decides on what is known no more is told so.
pub(crate) async fn a_name_changes_its_meaning_only_from_what_was_expected(stage: Stage) {
    assert!(!stage.define("two", Some("one")).await, "it means nothing yet");
    assert!(stage.define("one", None).await);
    assert!(!stage.define("two", None).await);
    assert!(!stage.define("two", Some("other")).await);
    assert_eq!(stage.text().await.as_deref(), Some("one"));
    assert!(stage.define("two", Some("one")).await);
    assert_eq!(stage.text().await.as_deref(), Some("two"));
}

/// And the first one stands.
pub(crate) async fn of_two_that_define_a_name_at_once_one_comes_second(stage: Stage) {
    let define = |terms: &Arc<dyn KnownTerms>, text: &'static str| {
        let (terms, name) = (Arc::clone(terms), stage.name.clone());
        async move { ask(&terms, move |terms| terms.define(&name, text, None)).await }
    };
    let (one, other) = futures::join!(define(&stage.terms, "one"), define(&stage.elsewhere, "other"));
    assert_ne!(one, other, "one of them, and one only");
    assert_eq!(stage.text().await.as_deref(), Some(if one { "one" } else { "other" }));
}

/// Also after another one was.
pub(crate) async fn the_term_served_last_is_known_everywhere(stage: Stage) {
    let serve = |name: String| {
        let terms = Arc::clone(&stage.terms);
        async move { ask(&terms, move |terms| terms.serve(&name)).await }
    };
    for name in [stage.name.clone(), format!("{}-2", stage.name), stage.name.clone()] {
        serve(name.clone()).await;
        serve(name.clone()).await;
        assert_eq!(ask(&stage.elsewhere, |terms| terms.served()).await, Some(name));
    }
}
