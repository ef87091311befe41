//! Fuzzing of every decoder: the targets, their corpora, and how inputs are made of these without libFuzzer.
//!
//! A target is one plain function ([`targets`]). libFuzzer calls it from `fuzz_targets/`; the test in `tests/` and the
//! program of this crate call it with what [`mutation`] makes of its [`corpus`], from a seed. `README.md` has the commands.

pub mod corpus;
pub mod mutation;
pub mod targets;
