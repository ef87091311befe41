//! libFuzzer's way into [`receipt_rows`](gatebell_fuzz::targets::receipt_rows).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::receipt_rows(bytes));
