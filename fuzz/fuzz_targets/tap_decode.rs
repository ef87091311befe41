//! libFuzzer's way into [`tap_decode`](gatebell_fuzz::targets::tap_decode).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::tap_decode(bytes));
