//! For tests, of this crate and of others: what the ports promise, and (with faults on order) ports in memory.

pub mod contract;
pub mod fakes;
pub mod registry;
