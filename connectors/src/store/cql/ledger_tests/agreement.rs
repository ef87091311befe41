//! Whatever is asked of it in whatever order, the ledger answers as the one in memory does.

use std::collections::BTreeMap;

use gatebell_engine::ledger::{ClaimState, OwnerToken};
use gatebell_engine::testing::contract::ledger::{TERM, charge, entry, lane, sms_notice};
use gatebell_engine::testing::fakes::FakeLedger;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Notices that the steps are about.
const NOTICES: u64 = 4;
/// Runs against the real store; each has some dozens of steps.
const CASES: u32 = 12;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u64, Event, u32)>),
    Claim { number: u64, owner: u128, attempt: u32, expects: bool },
    Advance { number: u64, owner: u128, state: ClaimState },
    Charge(u64),
    LoadFrom(u64),
    Awaiting { page: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = prop::sample::select(vec![
        Event::Claimed,
        Event::Submitted,
        Event::Accepted,
        Event::Delivered,
        Event::Failed,
        Event::Expired,
    ]);
    let state = prop_oneof![
        Just(ClaimState::Open),
        Just(ClaimState::Refused),
        Just(ClaimState::Submitted { gateway_id: CompactString::new("M1") }),
        Just(ClaimState::Ended { event: Event::Expired, reason: None }),
        Just(ClaimState::Ended { event: Event::Failed, reason: Some("unknown".into()) }),
    ];
    let step = prop_oneof![
        4 => prop::collection::vec((0..NOTICES, event, 1..3_u32), 0..4).prop_map(Step::Append),
        3 => (0..NOTICES, 1..4_u128, 1..3_u32, any::<bool>())
            .prop_map(|(number, owner, attempt, expects)| Step::Claim { number, owner, attempt, expects }),
        3 => (0..NOTICES, 1..4_u128, state)
            .prop_map(|(number, owner, state)| Step::Advance { number, owner, state }),
        2 => (0..NOTICES).prop_map(Step::Charge),
        1 => (0..NOTICES).prop_map(Step::LoadFrom),
        2 => (1..4_usize).prop_map(|page| Step::Awaiting { page }),
    ];
    prop::collection::vec(step, 1..25)
}

fn claim_of(number: u64, owner: u128, attempt: u32) -> Claim {
    let notice = sms_notice(number);
    Claim {
        key: ClaimKey::of(TERM, &notice),
        notice: notice.id,
        position: notice.position,
        owner: OwnerToken(owner),
        attempt,
        lane: lane(),
        claimed_at: notice.at,
        deadline: notice.deadline,
        state: ClaimState::Open,
    }
}

fn attempt_of(number: u64, event: Event, attempt: u32) -> LedgerEntry {
    LedgerEntry { attempt, ..entry(number, event, 0) }
}

/// What `ledger` answers to `step`, as text.
async fn answer(ledger: &impl Ledger, step: &Step) -> String {
    match step {
        Step::Append(entries) => {
            let entries =
                entries.iter().map(|(number, event, attempt)| attempt_of(*number, *event, *attempt));
            format!("{:?}", ledger.append(entries.collect()).await.is_ok())
        }
        Step::Claim { number, owner, attempt, expects } => {
            let claim = claim_of(*number, *owner, *attempt);
            let held = ledger.claim_of(&claim.key).await.expect("a claim is read");
            let expected = held.filter(|_| *expects).map(|held| held.stamp());
            let claimed = attempt_of(*number, Event::Claimed, *attempt);
            format!("{:?}", ledger.claim(expected, claim, claimed).await.expect("a claim is decided"))
        }
        Step::Advance { number, owner, state } => {
            // A claim that is not there cannot be moved on: the store says so, the one in memory does not mind.
            let key = claim_of(*number, *owner, 1).key;
            let Some(held) = ledger.claim_of(&key).await.expect("a claim is read") else {
                return "no claim".to_owned();
            };
            let expected = ClaimStamp { owner: OwnerToken(*owner), ..held.stamp() };
            let moved = Claim { state: state.clone(), owner: OwnerToken(*owner), ..held };
            let entries = vec![attempt_of(*number, Event::Submitted, moved.attempt)];
            format!("{:?}", ledger.advance(expected, moved, entries).await.expect("a claim is decided"))
        }
        Step::Charge(number) => format!("{:?}", ledger.charge(charge(*number)).await.expect("charged")),
        Step::LoadFrom(offset) => {
            let loaded = ledger.load_from(3, *offset).await.expect("a partition is loaded");
            let mut loaded: Vec<_> = loaded.iter().map(|entry| format!("{entry:?}")).collect();
            loaded.sort_unstable();
            loaded.join("\n")
        }
        Step::Awaiting { page } => {
            let mut found: Vec<LedgerEntry> = Vec::new();
            loop {
                let since = Day::from_epoch_days(0);
                let next = ledger.awaiting_receipt(3, &lane(), since, found.last(), *page).await;
                let next = next.expect("waiting ones are read");
                if next.is_empty() {
                    return format!("{found:?}");
                }
                found.extend(next);
            }
        }
    }
}

async fn histories(ledger: &impl Ledger) -> BTreeMap<u64, Vec<LedgerEntry>> {
    let mut histories = BTreeMap::new();
    for number in 0..NOTICES {
        let notice = sms_notice(number);
        let entries = ledger.entries_of(notice.position, notice.id).await.expect("entries are read");
        histories.insert(number, entries);
    }
    histories
}

#[test]
fn the_ledger_answers_as_the_one_in_memory() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let session = runtime.block_on(fixture::session());
    let mut runner = TestRunner::new(Config { cases: CASES, max_shrink_iters: 0, ..Config::default() });
    let result = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let suffix = fixture::unique();
            let ledger = CqlLedger::new(Arc::clone(&session), &suffix).await.expect("the ledger opens");
            let (real, model) = (ApartLedger { ledger, suffix }, FakeLedger::default());
            for (number, step) in steps.iter().enumerate() {
                let (answered, expected) = (answer(&real, step).await, answer(&model, step).await);
                prop_assert_eq!(answered, expected, "step {} of {:?}", number, steps);
            }
            prop_assert_eq!(histories(&real).await, histories(&model).await);
            Ok(())
        })
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
