//! The demo: a made-up city, one school morning in it, and the account of what became of every tap.
//!
//! [`city`] makes the city and [`city_files`] writes it in the public format; [`morning`] makes what its readers report,
//! and what must come of it. Whatever is drawn is drawn from a seed: the same seed gives the same city and the same
//! morning on every machine.

pub(crate) mod city;
pub(crate) mod city_files;
pub(crate) mod families;
pub(crate) mod morning;
pub(crate) mod names;

#[cfg(test)]
mod tests;
