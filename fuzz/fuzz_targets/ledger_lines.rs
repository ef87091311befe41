//! libFuzzer's way into [`ledger_lines`](gatebell_fuzz::targets::ledger_lines).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::ledger_lines(bytes));
