//! libFuzzer's way into [`city_import`](gatebell_fuzz::targets::city_import).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::city_import(bytes));
