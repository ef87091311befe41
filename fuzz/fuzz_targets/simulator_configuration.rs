//! libFuzzer's way into [`simulator_configuration`](gatebell_fuzz::targets::simulator_configuration).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatebell_fuzz::targets::simulator_configuration(bytes));
