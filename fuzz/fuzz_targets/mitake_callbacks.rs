//! libFuzzer's way into [`mitake_callbacks`](gatebell_fuzz::targets::mitake_callbacks).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::mitake_callbacks(bytes));
