//! The demo: a made-up city, one school morning in it, and the account of what became of every tap.
//!
//! [`city`] makes the city, [`families`] who is told what, and [`city_files`] writes both in the public format;
//! [`morning`] makes what the readers report, and what must come of it. Whatever is drawn is drawn from a seed: the same
//! seed gives the same city and the same morning on every machine.
//!
//! [`performance`] runs it: [`stage`] starts the service and the gateway simulator, [`player`] plays the readers,
//! [`progress`] shows what happens. Then [`account`] holds the four records of the morning against each other, and
//! [`report`] tells it, with one pupil's [`story`] first.

pub(crate) mod account;
pub(crate) mod city;
pub(crate) mod city_files;
pub(crate) mod families;
pub(crate) mod limiter_use;
pub(crate) mod morning;
pub(crate) mod names;
pub(crate) mod page;
pub(crate) mod performance;
pub(crate) mod player;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod stage;
pub(crate) mod story;
#[cfg(test)]
mod tests;
