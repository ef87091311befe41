//! For tests, of this crate and of others: what the ports promise, (with faults on order) ports in memory, and the
//! rules once more in the plainest way.

pub mod contract;
pub mod fakes;
pub mod lane;
pub mod naive;
pub mod registry;
