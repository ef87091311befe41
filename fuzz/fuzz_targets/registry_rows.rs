//! libFuzzer's way into [`registry_rows`](gatebell_fuzz::targets::registry_rows).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::registry_rows(bytes));
