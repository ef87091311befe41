//! Every target over its corpus and over what a fixed seed makes of it: a bounded number of inputs, the same each time.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gatebell_fuzz::corpus;
use gatebell_fuzz::mutation::Mutator;
use gatebell_fuzz::targets::{TARGETS, Target};

const SEED: u64 = 114;
/// Corpora are kept small: they are read by people, and every change of a format touches them.
const CORPUS_FILES_MAX: usize = 40;
const CORPUS_FILE_BYTES_MAX: usize = 5_000;

fn holds(target: &Target) {
    let inputs = corpus::inputs(target.name).unwrap();
    let mut mutator = Mutator::new(target, &inputs, SEED);
    let made = (0..target.test_inputs).map(|_| mutator.next_input());
    for input in inputs.iter().cloned().chain(made) {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let name = target.name;
            panic!(
                "{name} does not hold for {:?}; to keep it as a test, put it into corpus/{name}",
                bytes(&input)
            );
        }
    }
}

fn bytes(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

macro_rules! each_holds {
    ($($target:ident)+) => {
        const TESTED: &[&str] = &[$(stringify!($target)),+];
        $(
            #[test]
            fn $target() {
                holds(TARGETS.iter().find(|target| target.name == stringify!($target)).unwrap());
            }
        )+
    };
}

each_holds! {
    tap_decode tap_files tap_reports mitake_replies mitake_callbacks app_replies city_import configuration term texts
    simulator_configuration ledger_entries ledger_rows ledger_lines receipt_records receipt_rows registry_records registry_rows
}

#[test]
fn every_target_is_tested_and_has_a_program_and_a_small_corpus() {
    let names = |directory: &str| -> BTreeSet<String> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        let files = std::fs::read_dir(directory).unwrap();
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets, TESTED.iter().map(ToString::to_string).collect());
    assert_eq!(targets, names("fuzz_targets"));
    assert_eq!(targets, names("corpus"));
    for target in TARGETS {
        let inputs = corpus::inputs(target.name).unwrap();
        assert!((1..=CORPUS_FILES_MAX).contains(&inputs.len()), "{}: {} files", target.name, inputs.len());
        let longest = inputs.iter().map(Vec::len).max();
        assert!(longest <= Some(CORPUS_FILE_BYTES_MAX), "{}: {longest:?} bytes", target.name);
    }
}
