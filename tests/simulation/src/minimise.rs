//! The least of a plan that still fails: kinds of trouble left out, fewer processes, fewer moments.

use clap::ValueEnum;

use crate::runs::breaches_of;
use crate::{Kind, Plan};

/// Moments that no day has more of.
const MOMENTS_MAX: u32 = 128;
/// Plays after which the least found so far must do.
const PLAYS_MAX: u32 = 400;

/// The least of `plan` that breaches an invariant that `plan` breaches, too; `None` when `plan` breaches none. Says after each
/// step forward, to `progress`, what is left.
pub fn minimised(plan: &Plan, mut progress: impl FnMut(&Plan)) -> Option<Plan> {
    let wanted = names(plan);
    if wanted.is_empty() {
        return None;
    }
    let fails = |plan: &Plan| names(plan).iter().any(|name| wanted.contains(name));
    Some(least(plan, fails, &mut progress))
}

/// The least of `plan`, which fails, that still `fails`.
fn least(plan: &Plan, fails: impl Fn(&Plan) -> bool, progress: &mut impl FnMut(&Plan)) -> Plan {
    let mut least = plan.clone();
    let mut plays = 0;
    while plays < PLAYS_MAX {
        let next = smaller(&least).into_iter().find(|candidate| {
            plays += 1;
            plays <= PLAYS_MAX && fails(candidate)
        });
        let Some(next) = next else { break };
        progress(&next);
        least = next;
    }
    least
}

/// The invariants that a plan breaches: what its breaches begin with.
fn names(plan: &Plan) -> Vec<String> {
    let name = |breach: &String| breach.split(':').next().unwrap_or_default().to_owned();
    match breaches_of(plan.clone()) {
        Ok((_, breaches)) => breaches.iter().map(name).collect(),
        Err(panic) => vec![name(&panic)],
    }
}

/// Plans that are a step smaller, the biggest steps first.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    let (from, until) = (plan.moments.start, plan.moments.end.min(MOMENTS_MAX));
    for parts in [2, 4, 8, 16] {
        let part = (until - from) / parts;
        if part > 0 {
            smaller.push(Plan { moments: from..until - part, ..plan.clone() });
            smaller.push(Plan { moments: from + part..until, ..plan.clone() });
        }
    }
    for processes_max in 1..plan.processes_max.min(3) {
        smaller.push(Plan { processes_max, ..plan.clone() });
    }
    for kind in Kind::value_variants() {
        let mut without = plan.without.clone();
        if without.insert(*kind) {
            smaller.push(Plan { without, ..plan.clone() });
        }
    }
    smaller
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_smaller_plan_leaves_something_out() {
        let plan = Plan { moments: 3..40, processes_max: 2, ..Plan::of(7) };
        for smaller in smaller(&plan) {
            let fewer_moments = smaller.moments.len() < plan.moments.len();
            let fewer_kinds = smaller.without.len() > plan.without.len();
            let fewer_processes = smaller.processes_max < plan.processes_max;
            assert!(fewer_moments || fewer_kinds || fewer_processes, "{smaller}");
        }
    }

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let needs = |plan: &Plan| {
            let two_processes = plan.processes_max >= 2;
            two_processes && plan.moments.contains(&17) && plan.has(Kind::Naps) && plan.has(Kind::Changes)
        };
        let least = least(&Plan::of(7), needs, &mut |_| {});
        assert_eq!((least.moments, least.processes_max), (17..18, 2));
        let left: Vec<&Kind> =
            Kind::value_variants().iter().filter(|kind| !least.without.contains(kind)).collect();
        assert_eq!(left, [&Kind::Naps, &Kind::Changes]);
    }
}
