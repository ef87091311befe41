//! libFuzzer's way into [`texts`](gatebell_fuzz::targets::texts).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::texts(bytes));
