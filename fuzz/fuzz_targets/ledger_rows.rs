//! libFuzzer's way into [`ledger_rows`](gatebell_fuzz::targets::ledger_rows).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::ledger_rows(bytes));
