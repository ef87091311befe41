//! libFuzzer's way into [`tap_files`](gatebell_fuzz::targets::tap_files).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::tap_files(bytes));
