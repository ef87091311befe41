//! libFuzzer's way into [`registry_records`](gatebell_fuzz::targets::registry_records).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::registry_records(bytes));
