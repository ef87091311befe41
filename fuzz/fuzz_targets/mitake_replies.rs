//! libFuzzer's way into [`mitake_replies`](gatebell_fuzz::targets::mitake_replies).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::mitake_replies(bytes));
