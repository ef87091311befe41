//! Makes lines of the bill final when their time comes, in a running `serve`: without it a receipt that
//! arrives weeks after a cancellation would still be charged, until somebody asked for the bill.

use std::sync::Arc;
use std::time::Duration;

use gatebell_engine::ports::clock::Clock;
use gatebell_engine::term::Term;
use tokio_util::sync::CancellationToken;

use crate::home::Home;
use crate::statement::{OrderBook, freeze_settled};

/// How often is looked for lines whose time has come. They have waited for seven days.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Who freezes them, in the books.
const BY: &str = "serve";

/// Freezes the lines of long-cancelled orders, at once and then every hour, until `stop`. A pass that fails
/// is said and tried again with the next one; nothing is lost by it.
pub(crate) async fn keep_settling(home: Home, term: Term, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let term = Arc::new(term);
    loop {
        let (home, term, now) = (home.clone(), Arc::clone(&term), clock.now());
        let pass = tokio::task::spawn_blocking(move || {
            freeze_settled(&term, &OrderBook::read(&home)?, &*home.books()?, now, BY)
        });
        match pass.await {
            Ok(Ok(0)) => {}
            Ok(Ok(lines)) => tracing::info!(lines, "lines of cancelled orders are final"),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "cannot freeze lines of the bill"),
            Err(error) => tracing::error!(%error, "freezing lines of the bill was broken off"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use compact_str::CompactString;
    use gatebell_connectors::data_dir::DataDir;
    use gatebell_engine::ids::{GuardianId, OrderId, Personal, PupilId, SchoolId};
    use gatebell_engine::notice::Passages;
    use gatebell_engine::ports::clock::SystemClock;
    use gatebell_engine::registry::{Entry, Order, OrderState, Pupil};
    use gatebell_engine::time::Timestamp;

    use super::*;
    use crate::config::Configuration;
    use crate::home::CityClock;

    fn cancelled(order: &str, at: Timestamp) -> Entry {
        Entry::Order(Order {
            order: OrderId::new(order).unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            pupil: PupilId::new("P1").unwrap(),
            plan: Passages::Arrival,
            state: OrderState::Cancelled,
            prepaid_dollars: 68,
            approved_at: Some(Timestamp::from_millis(0)),
            cancelled_at: Some(at),
        })
    }

    #[tokio::test]
    async fn lines_whose_time_has_come_are_frozen_and_no_others() {
        let path = tempfile::tempdir().unwrap();
        let directory = DataDir::open(path.path()).unwrap();
        let home = Home::of(&Configuration::built_in().whole().unwrap(), directory, CityClock::Real).unwrap();
        let clock = Arc::new(SystemClock::new());
        let ago = |days: u64| clock.now().minus(Duration::from_secs(days * 24 * 60 * 60));
        let pupil = Entry::Pupil(Pupil {
            pupil: PupilId::new("P1").unwrap(),
            school: SchoolId::new("S1").unwrap(),
            class: CompactString::default(),
            seat: CompactString::default(),
            name: Personal::default(),
            removed: None,
        });
        let entries = vec![pupil, cancelled("long-ago", ago(8)), cancelled("lately", ago(6))];
        home.registry().unwrap().apply(entries, Timestamp::MIN, "test").unwrap();

        let stop = CancellationToken::new();
        stop.cancel();
        let term = Term::parse(Term::built_in("114-1").unwrap()).unwrap();
        let name = term.name.clone();
        keep_settling(home.clone(), term, clock.clone(), stop).await;

        let frozen = home.books().unwrap().term(&name).unwrap().frozen;
        assert_eq!(frozen.into_keys().collect::<Vec<_>>(), [OrderId::new("long-ago").unwrap()]);
    }
}
