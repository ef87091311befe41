//! libFuzzer's way into [`ledger_entries`](gatebell_fuzz::targets::ledger_entries).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::ledger_entries(bytes));
