//! Keeps this process's seat: its share of every gateway's rate.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::status::Status;
use super::vitals::Vitals;
use crate::ports::clock::Clock;
use crate::ports::seats::{Seating, Seats};

/// How often the seat is renewed, in real time.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// What the keeping of the seat needs.
pub(crate) struct SeatContext {
    pub(crate) seats: Arc<dyn Seats>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) status: Arc<Status>,
}

/// Takes a seat as soon as one is free and keeps it until `stop`; then leaves it to the next process.
pub(crate) async fn run(context: SeatContext, stop: CancellationToken) {
    loop {
        let asked_at = context.clock.monotonic();
        match context.seats.hold().await {
            Ok(Seating::Held) => {
                context.vitals.seat_confirmed(asked_at);
                context.status.recovered("seat");
            }
            Ok(Seating::AllTaken) => {
                context.vitals.seat_lost();
                context.status.trouble("seat", &"as many processes send already as may; this one waits");
            }
            Ok(Seating::DividedOtherwise { ours, theirs }) => {
                context.vitals.seat_lost();
                let why = format_args!(
                    "processes_max is {ours} here and {theirs} in a process that runs or died within the last half minute, \
                     and the gateways' rates are divided by one number: start this one with the same, or stop the others first"
                );
                context.status.trouble("seat", &why);
            }
            Err(cause) => context.status.trouble("seat", &cause),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
    }
    if let Err(cause) = context.seats.leave().await {
        tracing::warn!(%cause, "the seat could not be given back; it lapses by itself");
    }
}
