//! Seats: how many processes share a gateway's rate.
//!
//! A gateway's contract names one rate for the whole city. Each process is given the same share of it, the rate over the
//! number of seats, and sends only while it holds a seat: so the processes together never exceed what was agreed (L1),
//! however many are started.

use std::time::Duration;

use async_trait::async_trait;

use super::PortError;

/// A seat that was not renewed for so long is free again, in real time. Longer than a confirmation counts, so that whoever
/// fell asleep holds its lanes before another process takes its place.
pub const SEAT_LAPSES_AFTER: Duration = Duration::from_secs(15);

/// More processes than anybody starts, by far: nobody divides the rates by more.
pub const SEATS_MAX: u32 = 64;

/// What came of asking for a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seating {
    /// The seat is ours.
    Held,
    /// Others hold all there are.
    AllTaken,
    /// Somebody holds a seat who divides the rates by another number: a share of theirs and one of ours could be more than
    /// the whole.
    DividedOtherwise {
        /// The number of seats by which this process divides.
        ours: u32,
        /// And the other one.
        theirs: u32,
    },
}

/// Where processes take their seats. One task owns it.
///
/// *Promises:* no more processes hold a seat at once than there are seats, and none beside one that divides by another number;
/// a seat that was taken or renewed stays ours for
/// [`SEAT_LAPSES_AFTER`].
#[async_trait]
pub trait Seats: Send + Sync {
    /// Takes a seat or renews ours. After an error it may be ours for some time, and is not counted on.
    async fn hold(&self) -> Result<Seating, PortError>;

    /// Gives our seat back, if we hold one.
    async fn leave(&self) -> Result<(), PortError>;
}

/// The one seat of a process that owns its data directory: the directory's lock has seen to it.
#[derive(Debug)]
pub struct OnlySeat;

#[async_trait]
impl Seats for OnlySeat {
    async fn hold(&self) -> Result<Seating, PortError> {
        Ok(Seating::Held)
    }

    async fn leave(&self) -> Result<(), PortError> {
        Ok(())
    }
}
