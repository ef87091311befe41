//! libFuzzer's way into [`configuration`](gatebell_fuzz::targets::configuration).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::configuration(bytes));
