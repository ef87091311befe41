//! libFuzzer's way into [`receipt_records`](gatebell_fuzz::targets::receipt_records).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::receipt_records(bytes));
