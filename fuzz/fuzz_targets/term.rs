//! libFuzzer's way into [`term`](gatebell_fuzz::targets::term).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::term(bytes));
