//! `gatebell protect` and `gatebell unprotect`: a protected case (保護個案). From the moment the command returns, no notice
//! about the pupil reaches the guardian, not even one that is already queued.

use std::process::ExitCode;

use anyhow::ensure;
use gatebell_engine::ids::{GuardianId, PupilId};
use gatebell_engine::registry::{Entry, EntryKey, Protection};
use gatebell_engine::time::Timestamp;

use super::Globals;
use super::registry_change::{By, Decided, RegistryOfCity};

/// Stops every notice about a pupil to a guardian at once, also of those already queued. Returns when the running engine
/// obeys. No import lifts it; `gatebell unprotect` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    case: Case,
}

/// Lifts a protection: notices about the pupil may go to the guardian again, as bindings and subscriptions say.
#[derive(Debug, clap::Args)]
pub(crate) struct UnprotectArgs {
    #[command(flatten)]
    case: Case,
}

/// Whom a protection is about.
#[derive(Debug, clap::Args)]
struct Case {
    /// The guardian who must not learn
    guardian: GuardianId,
    /// The pupil
    pupil: PupilId,
    #[command(flatten)]
    by: By,
}

/// `gatebell protect`.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    RegistryOfCity::open(globals)?.change(&args.case.by, |city, now| protect(city, &args.case, now))?;
    Ok(ExitCode::SUCCESS)
}

/// `gatebell unprotect`.
pub(crate) fn run_unprotect(args: &UnprotectArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    RegistryOfCity::open(globals)?.change(&args.case.by, |city, _| unprotect(city, &args.case))?;
    Ok(ExitCode::SUCCESS)
}

fn protect(city: &RegistryOfCity, case: &Case, now: Timestamp) -> anyhow::Result<Decided> {
    let Case { guardian, pupil, .. } = case;
    city.guardian(guardian)?;
    city.pupil(pupil)?;
    let is_bound = match city.entry(&EntryKey::Binding(guardian.clone(), pupil.clone()))? {
        Some(Entry::Binding(binding)) => binding.bonds.iter().any(|bond| now < bond.stretch.until),
        _ => false,
    };
    let mut warnings = Vec::new();
    if !is_bound {
        // A slip of the finger here would leave the child whom it is about unprotected.
        warnings
            .push(format!("guardian {guardian} is not bound to pupil {pupil}: are these the two you mean?"));
    }
    let entries = if is_protected(city, case)? { Vec::new() } else { vec![entry(case, true)] };
    Ok(Decided {
        entries,
        message: format!("protected: no notice about {pupil} goes to {guardian}"),
        warnings,
    })
}

fn unprotect(city: &RegistryOfCity, case: &Case) -> anyhow::Result<Decided> {
    let Case { guardian, pupil, .. } = case;
    city.guardian(guardian)?;
    city.pupil(pupil)?;
    ensure!(is_protected(city, case)?, "pupil {pupil} is not protected from guardian {guardian}");
    let message = format!("no longer protected: notices about {pupil} may go to {guardian} again");
    Ok(Decided { entries: vec![entry(case, false)], message, warnings: Vec::new() })
}

fn is_protected(city: &RegistryOfCity, case: &Case) -> anyhow::Result<bool> {
    let key = EntryKey::Protection(case.guardian.clone(), case.pupil.clone());
    Ok(matches!(city.entry(&key)?, Some(Entry::Protection(Protection { protected: true, .. }))))
}

fn entry(case: &Case, protected: bool) -> Entry {
    Entry::Protection(Protection { guardian: case.guardian.clone(), pupil: case.pupil.clone(), protected })
}
