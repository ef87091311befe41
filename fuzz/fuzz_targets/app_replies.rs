//! libFuzzer's way into [`app_replies`](gatebell_fuzz::targets::app_replies).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::app_replies(bytes));
