//! The lives of the engine's processes: each is started, goes through its misfortunes, crashes or is stopped, and is followed
//! by another one at its place.

use std::sync::Mutex;
use std::time::Duration;

use gatebell_engine::testing::fakes::Faults;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

use crate::plan::Kind;
use crate::world::{Living, Outcome, World};

impl World {
    /// One process after the other, at one place; the last one lives on, as a rule.
    pub(crate) async fn lives(&self, place: u32, outcome: &Mutex<Outcome>) {
        let note = || outcome.lock().expect("nobody panicked");
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0xc4a5 ^ (u64::from(place) << 32));
        let lives =
            if self.themes.short_lives { random.random_range(4..16) } else { random.random_range(0..6) };
        for life in 0..lives {
            let process = u64::from(place) * 100 + life + 1;
            let faults = self.misfortunes(process);
            self.plan_naps(&faults, &mut random, outcome);
            let is_told_to_stop = random.random_range(0..3) == 0;
            let (after_ms_max, calls_max) =
                if self.themes.short_lives { (30_000, 800) } else { (120_000, 4000) };
            let after = Duration::from_millis(random.random_range(0..after_ms_max));
            let calls = random.random_range(0..calls_max);
            // The dead process's tasks are gone before its successor starts, be it at once.
            let pause_ms_max = if random.random_range(0..2) == 0 { 50 } else { 20_000 };
            let pause = Duration::from_millis(random.random_range(1..pause_ms_max));
            if !self.plan.has(if is_told_to_stop { Kind::Stops } else { Kind::Crashes }) {
                continue;
            }
            self.journal.note(Some(process), || "starts".to_owned());
            let engine = self.start_engine(process, &faults);
            let living = Living { faults: faults.clone(), status: engine.status() };
            let stop = CancellationToken::new();
            let running = faults.doze().part(engine.run(stop.clone()));
            let crash = (!is_told_to_stop).then(|| faults.crash_after(calls));
            self.living.lock().expect("nobody panicked").insert(place, living);
            if let Some(crash) = crash {
                tokio::select! {
                    biased;
                    () = crash.cancelled() => note().crashes += 1,
                    ended = running => note().trouble.push(format!("the engine ended by itself: {ended:?}")),
                }
            } else {
                let told_to_stop = async {
                    tokio::time::sleep(after).await;
                    self.journal.note(Some(process), || "is told to stop".to_owned());
                    stop.cancel();
                    futures::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    ended = running => if let Err(cause) = ended {
                        note().trouble.push(format!("the engine failed: {cause}"));
                    },
                    () = told_to_stop => {}
                }
                note().stops += 1;
            }
            self.living.lock().expect("nobody panicked").remove(&place);
            note().naps += faults.doze().naps();
            tokio::time::sleep(pause).await;
        }
        let process = u64::from(place) * 100 + lives + 1;
        let faults = self.misfortunes(process);
        self.journal.note(Some(process), || "starts, and lives to the end".to_owned());
        let engine = self.start_engine(process, &faults);
        let living = Living { faults, status: engine.status() };
        self.living.lock().expect("nobody panicked").insert(place, living);
        note().survivors.push(process);
        let ended = engine.run(CancellationToken::new()).await;
        note().trouble.push(format!("the last engine ended by itself: {ended:?}"));
    }

    fn misfortunes(&self, process: u64) -> Faults {
        Faults::from_seed(self.seed ^ 0x5eed ^ (process << 32), self.rates).in_world(
            Some(process),
            &self.outages,
            &self.journal,
        )
    }

    /// When the process falls asleep, and for how long: shorter or longer than anybody waits for it.
    fn plan_naps(&self, faults: &Faults, random: &mut ChaCha8Rng, outcome: &Mutex<Outcome>) {
        let lasting = |random: &mut ChaCha8Rng| {
            let ms_max = if random.random_range(0..3) == 0 { 6000 } else { 120_000 };
            Duration::from_millis(random.random_range(500..ms_max))
        };
        let is_awake = random.random_range(0..2) == 0;
        if is_awake && !self.themes.unrest {
            return;
        }
        let naps_max = if self.themes.unrest { 8 } else { 3 };
        for _ in 0..random.random_range(0..naps_max) {
            let (calls, lasting) = (random.random_range(50..3000), lasting(random));
            if self.plan.has(Kind::Naps) {
                faults.nap_at(calls, lasting);
            }
        }
        if random.random_range(0..2) == 0 {
            let (submits, lasting) = (random.random_range(1..40), lasting(random));
            if self.plan.has(Kind::Naps) {
                faults.nap_at_submit(submits, lasting);
                outcome.lock().expect("nobody panicked").naps_in_mid_submit += 1;
            }
        }
    }
}
