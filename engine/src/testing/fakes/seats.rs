//! Seats in memory, which lapse.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::{Faults, locked};
use crate::ports::PortError;
use crate::ports::clock::Clock;
use crate::ports::seats::{SEAT_LAPSES_AFTER, Seating, Seats};

/// What survives a crash: who sits, and until when.
#[derive(Clone)]
pub struct FakeSeats {
    seats: usize,
    taken: Arc<Mutex<BTreeMap<u64, Duration>>>,
    clock: Arc<dyn Clock>,
}

impl FakeSeats {
    /// So many seats, all free.
    pub fn new(seats: usize, clock: Arc<dyn Clock>) -> Self {
        Self { seats, taken: Arc::default(), clock }
    }

    /// A new process's view; no two processes have the same number.
    pub fn connect(&self, process: u64, faults: Faults) -> FakeSeat {
        FakeSeat { seats: self.clone(), process, faults }
    }

    fn hold(&self, process: u64, faults: &Faults) -> Seating {
        let now = self.clock.monotonic();
        let mut taken = locked(&self.taken);
        if taken.get(&process).is_some_and(|lapses_at| *lapses_at <= now) {
            faults.journal().reached("seats that lapsed under a living process");
        }
        taken.retain(|_, lapses_at| *lapses_at > now);
        if taken.len() < self.seats || taken.contains_key(&process) {
            if taken.insert(process, now + SEAT_LAPSES_AFTER).is_none() {
                faults.note(|| "takes a seat".to_owned());
            }
            return Seating::Held;
        }
        faults.journal().reached("seats all taken");
        Seating::AllTaken
    }
}

/// One process's view of [`FakeSeats`].
pub struct FakeSeat {
    seats: FakeSeats,
    process: u64,
    faults: Faults,
}

#[async_trait]
impl Seats for FakeSeat {
    async fn hold(&self) -> Result<Seating, PortError> {
        let (seats, process, faults) = (self.seats.clone(), self.process, self.faults.clone());
        self.faults.call("seats", move || seats.hold(process, &faults)).await
    }

    async fn leave(&self) -> Result<(), PortError> {
        let (seats, process) = (self.seats.clone(), self.process);
        self.faults
            .call("seats", move || {
                locked(&seats.taken).remove(&process);
            })
            .await
    }
}
