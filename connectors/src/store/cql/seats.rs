//! Seats on a shared store: each a row that expires unless its holder renews it.
//!
//! Taken where there is no row, renewed and left where the row is ours, all by compare-and-set. The store counts the time,
//! so the clocks of the processes do not matter; a process that was stopped finds that its row is gone or another's, and
//! its renewal fails. The lease is somewhat longer than what the port promises, since the store counts whole seconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::seats::{SEAT_LAPSES_AFTER, SEATS_MAX, Seating, Seats};

use super::error::store_error;
use super::session::{CqlSession, Read, Swap};

/// Who shares the gateways' rates.
const POOL: &str = "gateways";
/// What the store may cut off a lease by counting whole seconds and by its nodes' clocks being apart.
const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// Bytes of a holder that are its name; after them comes the number of seats by which it divides.
const NAME_LEN: usize = 16;

/// One process's way to the seats of a keyspace.
#[derive(Debug)]
pub struct CqlSeats {
    session: Arc<CqlSession>,
    pool: String,
    seats: u32,
    lease_s: i32,
    /// Nobody else's name, since a process that starts again is another one, and `seats`.
    owner: [u8; NAME_LEN + 4],
    held: Mutex<Option<i32>>,
    take: Swap,
    renew: Swap,
    leave: Swap,
    select: Read,
}

impl CqlSeats {
    /// The seats of a city whose rates are shared by at most `processes_max` processes.
    pub async fn new(session: Arc<CqlSession>, processes_max: u32) -> Result<Self, PortError> {
        Self::in_pool(session, POOL, processes_max, SEAT_LAPSES_AFTER + LEASE_MARGIN).await
    }

    async fn in_pool(
        session: Arc<CqlSession>,
        pool: &str,
        processes_max: u32,
        lease: Duration,
    ) -> Result<Self, PortError> {
        let seats = processes_max.min(SEATS_MAX);
        let lease_s = i32::try_from(lease.as_secs()).expect("some seconds");
        let mut owner = [0; NAME_LEN + 4];
        let (name, divides_by) = owner.split_at_mut(NAME_LEN);
        getrandom::fill(name).map_err(store_error)?;
        divides_by.copy_from_slice(&seats.to_be_bytes());
        let take = session.prepare_swap(
            "INSERT INTO keyspace.seats (pool, seat, owner) VALUES (?, ?, ?) IF NOT EXISTS USING TTL ?",
        );
        let renew = session.prepare_swap(
            "UPDATE keyspace.seats USING TTL ? SET owner = ? WHERE pool = ? AND seat = ? IF owner = ?",
        );
        let leave =
            session.prepare_swap("DELETE FROM keyspace.seats WHERE pool = ? AND seat = ? IF owner = ?");
        let select = session.prepare_read("SELECT owner FROM keyspace.seats WHERE pool = ? AND seat = ?");
        Ok(Self {
            take: take.await?,
            renew: renew.await?,
            leave: leave.await?,
            select: select.await?,
            session,
            pool: pool.to_owned(),
            seats,
            lease_s,
            owner,
            held: Mutex::new(None),
        })
    }

    /// Whether the seat is ours for another lease. After an error it may be for some time, and is not counted on.
    async fn renew(&self, seat: i32) -> Result<bool, PortError> {
        let values = (self.lease_s, self.owner, &self.pool, seat, self.owner);
        self.session.swap(&self.renew, values).await
    }

    /// Who holds which seat, also of those that are there only for who divides by more.
    async fn owners(&self) -> Result<Vec<(i32, Option<Vec<u8>>)>, PortError> {
        try_join_all((0..as_column(SEATS_MAX)).map(async |seat| {
            let row: Option<(Option<Vec<u8>>,)> = self.session.row(&self.select, (&self.pool, seat)).await?;
            Ok((seat, row.and_then(|(owner,)| owner)))
        }))
        .await
    }

    /// The number by which one of `owners` divides, where it is not ours.
    fn divided_otherwise(&self, owners: &[(i32, Option<Vec<u8>>)]) -> Option<u32> {
        let divides_by = |owner: &[u8]| Some(u32::from_be_bytes(owner.get(NAME_LEN..)?.try_into().ok()?));
        let others = owners.iter().filter_map(|(_, owner)| divides_by(owner.as_deref()?));
        others.into_iter().find(|seats| *seats != self.seats)
    }

    /// Takes a seat that is free, if any, and no seat where somebody divides by another number: their shares and ours could
    /// be more than the whole (L1).
    async fn take(&self) -> Result<Seating, PortError> {
        let owners = self.owners().await?;
        // Taken by a call of ours whose answer was lost.
        if let Some((seat, _)) = owners.iter().find(|(_, owner)| owner.as_deref() == Some(&self.owner))
            && self.renew(*seat).await?
        {
            return self.look_again(*seat).await;
        }
        if let Some(theirs) = self.divided_otherwise(&owners) {
            return Ok(Seating::DividedOtherwise { ours: self.seats, theirs });
        }
        let free: Vec<i32> = owners
            .into_iter()
            .filter(|(seat, owner)| *seat < as_column(self.seats) && owner.is_none())
            .map(|(seat, _)| seat)
            .collect();
        // Each process begins elsewhere, so that those that start together seldom try the same one.
        let start = usize::from(self.owner[0]) % free.len().max(1);
        for seat in free.iter().cycle().skip(start).take(free.len()) {
            let values = (&self.pool, *seat, self.owner, self.lease_s);
            if self.session.swap(&self.take, values).await? {
                return self.look_again(*seat).await;
            }
        }
        Ok(Seating::AllTaken)
    }

    /// Keeps `seat`, which is ours, unless somebody divides by another number who came at the same time: each looks after its
    /// own seat is taken, so one of the two sees the other.
    async fn look_again(&self, seat: i32) -> Result<Seating, PortError> {
        let owners = self.owners().await?;
        if let Some(theirs) = self.divided_otherwise(&owners) {
            self.session.swap(&self.leave, (&self.pool, seat, self.owner)).await?;
            return Ok(Seating::DividedOtherwise { ours: self.seats, theirs });
        }
        self.set_held(Some(seat));
        Ok(Seating::Held)
    }

    fn held(&self) -> Option<i32> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_held(&self, seat: Option<i32>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = seat;
    }
}

/// A number of at most [`SEATS_MAX`] as the store has it.
fn as_column(number: u32) -> i32 {
    i32::try_from(number).expect("at most some dozens")
}

#[async_trait]
impl Seats for CqlSeats {
    async fn hold(&self) -> Result<Seating, PortError> {
        if let Some(seat) = self.held() {
            if self.renew(seat).await? {
                return Ok(Seating::Held);
            }
            self.set_held(None);
            tracing::warn!(seat, "the seat was not renewed in time and is lost; looking for another");
        }
        self.take().await
    }

    async fn leave(&self) -> Result<(), PortError> {
        let Some(seat) = self.held() else { return Ok(()) };
        // Where it is not ours any more, there is nothing to give back.
        self.session.swap(&self.leave, (&self.pool, seat, self.owner)).await?;
        self.set_held(None);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use futures::future::join_all;

    use super::super::fixture;
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const WAIT_MAX: Duration = Duration::from_secs(60);
    const RACES: usize = 20;

    async fn processes(count: usize, seats: u32, lease: Duration) -> Vec<CqlSeats> {
        let (session, pool) = (fixture::session().await, fixture::unique());
        let made = (0..count).map(|_| CqlSeats::in_pool(Arc::clone(&session), &pool, seats, lease));
        join_all(made).await.into_iter().map(Result::unwrap).collect()
    }

    /// Whether `process` holds a seat after it has asked once, an answer lost to contention counting as no.
    async fn holds(process: &CqlSeats) -> bool {
        process.hold().await.is_ok_and(|seating| seating == Seating::Held)
    }

    async fn holders(processes: &[CqlSeats]) -> Vec<bool> {
        join_all(processes.iter().map(holds)).await
    }

    async fn holders_reach(processes: &[CqlSeats], expected: usize) -> Vec<bool> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let held = holders(processes).await;
            let count = held.iter().filter(|held| **held).count();
            assert!(count <= expected, "{count} hold one of {expected} seats");
            if count == expected {
                return held;
            }
            assert!(Instant::now() < deadline, "{count} of {expected} seats are held");
        }
    }

    #[tokio::test]
    async fn of_many_processes_as_many_hold_as_there_are_seats() {
        let all = processes(7, 3, SEAT_LAPSES_AFTER + WAIT_MAX).await;
        let first = holders_reach(&all, 3).await;
        assert_eq!(holders_reach(&all, 3).await, first, "whoever renews keeps it");

        let leaver = first.iter().position(|held| *held).unwrap();
        all[leaver].leave().await.unwrap();
        let others: Vec<CqlSeats> =
            all.into_iter().enumerate().filter(|(number, _)| *number != leaver).map(|(_, it)| it).collect();
        holders_reach(&others, 3).await;
    }

    #[tokio::test]
    async fn a_seat_that_lapsed_is_taken_by_exactly_one_other_and_not_renewed_by_its_old_holder() {
        let mut all = processes(4, 1, LEASE).await;
        let sleeper = all.pop().unwrap();
        let asked_at = Instant::now();
        assert_eq!(sleeper.hold().await.unwrap(), Seating::Held);
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let held = holders(&all).await.into_iter().filter(|held| *held).count();
            assert!(held <= 1, "{held} hold the one seat");
            if held == 1 {
                break;
            }
            assert!(Instant::now() < deadline, "nobody took the seat that lapsed");
        }
        let promised = LEASE - LEASE_MARGIN;
        assert!(asked_at.elapsed() >= promised, "taken after {:?}", asked_at.elapsed());
        let seat = sleeper.held().unwrap();
        assert!(!sleeper.renew(seat).await.unwrap(), "the row is another's");
        assert_eq!(sleeper.hold().await.unwrap(), Seating::AllTaken, "and there is no other seat");
        sleeper.leave().await.unwrap();
        assert_eq!(holders_reach(&all, 1).await.len(), 3, "leaving took nobody's seat away");
    }

    #[tokio::test]
    async fn who_divides_by_another_number_gets_no_seat_while_others_hold_one() {
        let (session, pool) = (fixture::session().await, fixture::unique());
        let by = |seats| CqlSeats::in_pool(Arc::clone(&session), &pool, seats, SEAT_LAPSES_AFTER + WAIT_MAX);
        let (few, many) = (by(3).await.unwrap(), by(SEATS_MAX).await.unwrap());
        assert_eq!(few.hold().await.unwrap(), Seating::Held);
        let refused = Seating::DividedOtherwise { ours: SEATS_MAX, theirs: 3 };
        assert_eq!(many.hold().await.unwrap(), refused);

        few.leave().await.unwrap();
        assert_eq!(many.hold().await.unwrap(), Seating::Held);
        let refused = Seating::DividedOtherwise { ours: 3, theirs: SEATS_MAX };
        assert_eq!(few.hold().await.unwrap(), refused, "whichever of the seats the other one has");
    }

    /// Both find all seats free, and each takes another one.
    #[tokio::test]
    async fn of_two_who_divide_by_different_numbers_and_come_at_once_never_both_hold() {
        let session = fixture::session().await;
        for _ in 0..RACES {
            let pool = fixture::unique();
            let by =
                |seats| CqlSeats::in_pool(Arc::clone(&session), &pool, seats, SEAT_LAPSES_AFTER + WAIT_MAX);
            let (three, four) = (by(3).await.unwrap(), by(4).await.unwrap());
            let deadline = Instant::now() + WAIT_MAX;
            loop {
                let both = tokio::join!(holds(&three), holds(&four));
                assert_ne!(both, (true, true));
                if both.0 || both.1 {
                    break;
                }
                assert!(Instant::now() < deadline, "each gives way to the other for ever");
            }
        }
    }

    #[tokio::test]
    async fn a_seat_taken_without_an_answer_is_found_again() {
        use std::sync::atomic::Ordering::SeqCst;
        let session = CqlSession::open(&fixture::shared_settings()).await.unwrap();
        let pool = fixture::unique();
        let lease = SEAT_LAPSES_AFTER + WAIT_MAX;
        let process = CqlSeats::in_pool(Arc::clone(&session), &pool, 1, lease).await.unwrap();
        session.swap_answers_lost.store(1, SeqCst);
        process.hold().await.unwrap_err();
        assert_eq!(process.hold().await.unwrap(), Seating::Held, "the one seat is ours");
    }
}
