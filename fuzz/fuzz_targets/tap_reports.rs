//! libFuzzer's way into [`tap_reports`](gatebell_fuzz::targets::tap_reports).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::tap_reports(bytes));
