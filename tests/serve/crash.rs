//! One process, killed again and again with `kill -9` at random moments of a morning, while it starts as well as while it
//! works; and what is left when the day is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::accounts::{books_when_settled, nasty};
use crate::front::Front;
use crate::kills::Kills;
use crate::morning::morning;
use crate::process::{Serving, Station};
use crate::{simulator, tell};

/// Kills in `dev/test` …
const KILLS: usize = 3;
/// … and at most, whatever `GATEBELL_KILLS` asks of several processes: more of one process shows nothing new.
const KILLS_MAX: usize = 30;
/// A process is killed at any moment up to this long after it was started …
const LIFE_MAX: Duration = Duration::from_secs(3);
/// … one of this share while it starts …
const KILLED_YOUNG: f64 = 0.3;
/// … which takes about so long.
const YOUTH: Duration = Duration::from_millis(300);
/// Pupils who pass in the time of one life, about.
const PUPILS_PER_LIFE: usize = 40;
/// The morning goes on for so many lives after the last kill.
const LIVES_AFTER: usize = 2;

/// What stands before the process, which has other addresses in every life.
struct Fronts {
    taps: Front,
    callbacks: Front,
}

impl Fronts {
    fn put_behind(&self, serving: Option<&Serving>) {
        self.taps.put_behind(serving.map(Serving::taps_address));
        self.callbacks.put_behind(serving.map(Serving::callbacks_address));
    }
}

#[tokio::test]
async fn a_process_that_is_killed_at_random_moments_loses_and_doubles_nothing() {
    let mut kills = Kills::asked("one process", KILLS, KILLS_MAX);
    let lives = kills.count + LIVES_AFTER;
    let (pupils, lasts) = (PUPILS_PER_LIFE * lives, LIFE_MAX / 2 * u32::try_from(lives).unwrap());

    let sim = simulator(nasty()).await;
    let fronts = Fronts { taps: Front::open().await, callbacks: Front::open().await };
    let gateway = [("gateway", "submit_timeout_s = 1\nrate_per_s = 50\nburst = 50")];
    let station = Station::called_back_at(fronts.callbacks.address, pupils, &sim, &gateway);
    let url = format!("http://{}/v1/taps", fronts.taps.address);
    let readers = tokio::spawn(morning(url, station.token.clone(), pupils, lasts));

    let mut serving = station.begin_to_serve();
    let mut killed_while_starting = 0;
    for _ in 0..kills.count {
        let longest = if kills.chance(KILLED_YOUNG) { YOUTH } else { LIFE_MAX };
        let dies_at = Instant::now() + kills.time(Duration::ZERO..longest);
        if tokio::time::timeout_at(dies_at, serving.until_listening()).await.is_ok() {
            fronts.put_behind(Some(&serving));
            tokio::time::sleep_until(dies_at).await;
        } else {
            killed_while_starting += 1;
        }
        serving.kill();
        fronts.put_behind(None);
        serving = station.begin_to_serve();
    }
    serving.until_listening().await;
    fronts.put_behind(Some(&serving));

    let reported = readers.await.unwrap();
    let books = books_when_settled(&station, pupils).await;
    station.until_decided().await;
    assert!(serving.stop("TERM").await.success(), "{}", serving.logged());
    station.assert_all_kept_and_decided(&reported);
    let accounts = books.compared(pupils, &reported, &sim.stop().await);
    tell(format_args!(
        "{} kills of one process, {killed_while_starting} while it started: {accounts}",
        kills.count
    ));
}
