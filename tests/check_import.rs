//! `gatebell check`, `gatebell import` and the commands that change one thing, as they are called.

#![allow(clippy::unwrap_used)]

mod city_fixture;

use std::sync::Arc;
use std::time::Duration;

use city_fixture::{City, Run, text};
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::registry::EmbeddedRegistry;
use gatebell_connectors::store::embedded::registry_feed::EmbeddedRegistryFeed;
use gatebell_engine::ids::CardNumber;
use gatebell_engine::ports::registry_feed::RegistryFeed as _;
use gatebell_engine::registry::{CHANGE_LEAD, DayKind, Entry, EntryKey, OrderState};
use gatebell_engine::time::Timestamp;

fn registry(city: &City) -> EmbeddedRegistry {
    EmbeddedRegistry::open(&DataDir::existing(&city.data()).unwrap()).unwrap()
}

fn order_state(city: &City, order: &str) -> OrderState {
    match registry(city).entry(&EntryKey::Order(order.parse().unwrap())).unwrap() {
        Some(Entry::Order(order)) => order.state,
        other => panic!("an order: {other:?}"),
    }
}

/// Who holds `card` at `at`.
fn holder(city: &City, card: &str, at: Timestamp) -> Option<String> {
    match registry(city).entry(&EntryKey::Card(CardNumber::new(card).unwrap())).unwrap() {
        Some(Entry::Card(card)) => card
            .holders
            .iter()
            .find(|holder| holder.stretch.contains(at))
            .map(|holder| holder.pupil.to_string()),
        _ => None,
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// When every change made so far counts.
fn soon() -> Timestamp {
    now().plus(CHANGE_LEAD)
}

fn assert_refused(run: &Run, why: &str) {
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains(why), "{}", run.stderr);
}

#[test]
fn check_prints_every_mistake_and_says_so_by_its_exit_code() {
    let city = City::new();
    let dir = city.dir();
    let run = city.gatebell(&["check", text(&dir)]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.contains("no mistakes, no warnings"), "{}", run.stdout);

    city.edit("guardians.csv", "token-1", "");
    let run = city.gatebell(&["check", text(&dir)]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.contains(
        "warning: subscriptions.csv:2: channel: found an app subscription of \"G1\" without a token"
    ));

    city.edit("guardians.csv", "0912345678", "0912345678;0911111111");
    city.edit("cards.csv", "04BB", "04-BB");
    let run = city.gatebell(&["check", text(&dir)]);
    assert_eq!(run.code, 1);
    let mistakes: Vec<&str> = run.stdout.lines().filter(|line| line.starts_with("mistake: ")).collect();
    assert_eq!(mistakes.len(), 2, "{}", run.stdout);
    for personal in ["0912345678", "0911111111", "04-BB", "王"] {
        assert!(
            !run.stdout.contains(personal) && !run.stderr.contains(personal),
            "{}{}",
            run.stdout,
            run.stderr
        );
    }
    assert!(!city.data().exists(), "a check stores nothing");
}

#[test]
fn a_directory_with_mistakes_is_not_imported_at_all() {
    let city = City::new();
    city.edit("days.csv", "off", "closed");
    let dir = city.dir();
    let run = city.gatebell(&["import", text(&dir)]);
    assert_refused(&run, "days.csv:2: kind: found \"closed\"");
    assert!(!city.data().exists());
}

#[test]
fn a_dry_run_shows_the_difference_and_writes_nothing() {
    let city = City::new();
    let run = city.import(&["--dry-run"]);
    assert!(run.stdout.contains("dry run: nothing was written"), "{}", run.stdout);
    assert!(!city.data().exists());

    city.import(&[]);
    let version = registry(&city).version().unwrap();
    city.edit("pupils.csv", "王小明", "王大同");
    let run = city.import(&["--dry-run"]);
    assert!(run.stdout.contains("changed pupil: P1: name"), "{}", run.stdout);
    assert!(!run.stdout.contains("王"), "{}", run.stdout);
    assert_eq!(registry(&city).version().unwrap(), version);
}

#[test]
fn the_first_import_counts_since_ever_and_a_later_one_from_now_on() {
    let city = City::new();
    let run = city.import(&[]);
    assert!(run.stdout.contains("imported; in effect when gatebell serve starts"), "{}", run.stdout);
    let first = registry(&city).changes(0, 100).unwrap();
    assert!(first.iter().all(|it| it.change.applied == Timestamp::MIN && it.who == "tester"));

    let run = city.import(&[]);
    assert!(run.stdout.contains("no difference"), "{}", run.stdout);

    let before = now();
    city.edit("pupils.csv", "P2,S1,302", "P2,S1,303");
    city.import(&["--by", "registrar"]);
    let later = registry(&city).changes(first.len() as u64, 100).unwrap();
    assert_eq!(later.len(), 1);
    assert!(later[0].change.applied >= before && later[0].who == "registrar");
}

#[test]
fn removing_more_than_one_in_a_hundred_must_be_allowed() {
    let city = City::new();
    city.import(&[]);
    city.write("days.csv", "date,school,kind,name\n");
    city.edit("cards.csv", "04BB,P2,,\n", "");
    let dir = city.dir();
    let run = city.gatebell(&["import", text(&dir)]);
    assert_refused(&run, "1 of 2 entries of kind card, 1 of 1 entries of kind day");
    assert!(run.stdout.contains("removed card: a card of P2"), "{}", run.stdout);
    assert_eq!(holder(&city, "04BB", now()).as_deref(), Some("P2"));

    city.import(&["--allow-removals"]);
    assert_eq!(holder(&city, "04BB", soon()), None);
    let a_minute_ago = Timestamp::from_millis(now().as_millis() - 60_000);
    assert_eq!(holder(&city, "04BB", a_minute_ago).as_deref(), Some("P2"), "taps from before may still come");
}

#[test]
fn a_made_up_city_and_a_real_one_do_not_mix() {
    let (made_up, real) = (City::new(), City::new());
    made_up.import(&["--made-up"]);
    assert!(registry(&made_up).is_made_up().unwrap());
    let dir = made_up.dir();
    assert_refused(&made_up.gatebell(&["import", text(&dir)]), "is a made-up one");
    made_up.import(&["--made-up"]);

    real.import(&[]);
    assert!(!registry(&real).is_made_up().unwrap());
    let dir = real.dir();
    assert_refused(&real.gatebell(&["import", text(&dir), "--made-up"]), "is a real one");
}

#[test]
fn a_directory_that_the_demo_made_is_known_until_somebody_changes_it() {
    let city = City::new();
    let made = city.beside("made");
    let run = city.gatebell(&["demo", "city", text(&made), "--pupils", "50", "--schools", "1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let imported = city.gatebell(&["import", text(&made)]);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    assert!(registry(&city).is_made_up().unwrap());

    // Real files beside an old mark.
    std::fs::copy(city.dir().join("pupils.csv"), made.join("pupils.csv")).unwrap();
    let other = City::new();
    for name in ["schools.csv", "readers.csv", "cards.csv", "guardians.csv", "bindings.csv", "orders.csv"] {
        std::fs::copy(city.dir().join(name), made.join(name)).unwrap();
    }
    std::fs::copy(city.dir().join("subscriptions.csv"), made.join("subscriptions.csv")).unwrap();
    let refused = other.gatebell(&["import", text(&made)]);
    assert_refused(&refused, "its files were changed since");
    assert!(!other.data().exists());
}

#[test]
fn no_import_lifts_a_protection() {
    let city = City::new();
    city.import(&[]);
    let is_protected = || {
        let key = EntryKey::Protection("G1".parse().unwrap(), "P1".parse().unwrap());
        matches!(registry(&city).entry(&key).unwrap(), Some(Entry::Protection(it)) if it.protected)
    };
    assert_refused(&city.gatebell(&["protect", "G9", "P1"]), "there is no guardian G9");
    assert_refused(&city.gatebell(&["protect", "G1", "P9"]), "there is no pupil P9");
    assert_refused(&city.gatebell(&["unprotect", "G1", "P1"]), "is not protected");

    let run = city.gatebell(&["protect", "G1", "P1", "--by", "counsellor"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("no notice about P1 goes to G1"), "{}", run.stdout);
    assert!(is_protected());
    let last = registry(&city).changes(registry(&city).version().unwrap() - 1, 1).unwrap();
    assert_eq!(last[0].who, "counsellor");

    let run = city.import(&[]);
    assert!(run.stdout.contains("no difference"), "{}", run.stdout);
    assert!(is_protected());

    assert_eq!(city.gatebell(&["unprotect", "G1", "P1"]).code, 0);
    assert!(!is_protected());
    let run = city.gatebell(&["protect", "G1", "P2"]);
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("warning: guardian G1 is not bound to pupil P2"), "{}", run.stderr);
}

#[test]
fn a_day_is_made_one_off_or_one_of_school() {
    let city = City::new();
    city.import(&[]);
    let rule = |date: &str, school: Option<&str>| {
        let key = EntryKey::Day(date.parse().unwrap(), school.map(|school| school.parse().unwrap()));
        match registry(&city).entry(&key).unwrap() {
            Some(Entry::Day(day)) => day.rule,
            _ => None,
        }
    };
    let run = city.gatebell(&["days", "off", "2025-10-01", "--name", "颱風停課"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(rule("2025-10-01", None), Some(DayKind::Off));
    assert_eq!(
        city.gatebell(&["days", "school", "2025-10-01", "--school", "S1", "--name", "照常上課"]).code,
        0
    );
    assert_eq!(rule("2025-10-01", Some("S1")), Some(DayKind::School));

    assert_refused(
        &city.gatebell(&["days", "off", "2025-10-01", "--school", "S9", "--name", "x"]),
        "there is no school S9",
    );
    assert_refused(&city.gatebell(&["days", "off", "2025-10-01", "--name", ""]), "the day needs a name");
    assert_eq!(city.gatebell(&["days", "off", "2025-10-1", "--name", "x"]).code, 2);
    assert_eq!(city.gatebell(&["days", "off", "2025-10-01"]).code, 2);
    let run = city.gatebell(&["days", "school", "2026-02-01", "--name", "補課"]);
    assert!(run.code == 0 && run.stderr.contains("is outside term 114-1"), "{}", run.stderr);

    let run = city.import(&[]);
    assert!(run.stdout.contains("kept day: 2025-10-01 of all schools (off)"), "{}", run.stdout);
    assert_eq!(rule("2025-10-01", None), Some(DayKind::Off), "the directory does not know of it");
    let run = city.import(&["--undo-commands"]);
    assert!(run.stdout.contains("removed day: 2025-10-01 of all schools (off)"), "{}", run.stdout);
    assert_eq!(rule("2025-10-01", None), None);
}

#[test]
fn an_import_that_would_undo_single_commands_names_each_and_writes_nothing() {
    let city = City::new();
    city.import(&[]);
    for args in [
        &["order", "cancel", "O1", "--by", "lin"][..],
        &["card", "replace", "04AA", "04CC", "--by", "chen"],
        &["days", "school", "2025-09-29", "--name", "照常上課", "--by", "wang"],
    ] {
        assert_eq!(city.gatebell(args).code, 0);
    }
    let version = registry(&city).version().unwrap();
    let refused = city.gatebell(&["import", text(&city.dir())]);
    for line in [
        "order O1: cancelled by lin on 20",
        "a card of P1: taken back by chen on 20",
        "the directory says P1 holds it",
        "a card of P1: given to P1 by chen on 20",
        "the directory says nobody holds it",
        "day 2025-09-29 of all schools: set to school by wang on 20",
        "import with --undo-commands if that is meant",
    ] {
        assert_refused(&refused, line);
    }
    for personal in ["04AA", "04CC", "王"] {
        assert!(!refused.stdout.contains(personal) && !refused.stderr.contains(personal));
    }
    assert_eq!(registry(&city).version().unwrap(), version);
    assert_refused(&city.gatebell(&["import", text(&city.dir()), "--dry-run"]), "--undo-commands");

    city.import(&["--undo-commands"]);
    assert_eq!(order_state(&city, "O1"), OrderState::Approved);
    assert_eq!(holder(&city, "04AA", soon()).as_deref(), Some("P1"));
    assert_eq!(holder(&city, "04CC", soon()), None);
    let run = city.import(&[]);
    assert!(run.stdout.contains("no difference"), "{}", run.stdout);
}

#[test]
fn a_directory_that_says_what_the_commands_did_is_imported_and_rules_from_then_on() {
    let city = City::new();
    city.import(&[]);
    for args in [
        &["order", "cancel", "O1"][..],
        &["card", "replace", "04AA", "04CC"],
        &["days", "off", "2025-10-01", "--name", "颱風停課"],
    ] {
        assert_eq!(city.gatebell(args).code, 0);
    }
    city.edit("orders.csv", "approved,68,2025-09-05,", "cancelled,68,2025-09-05,2026-01-05");
    city.edit("cards.csv", "04AA,P1,,", "04AA,P1,,2025-10-01\n04CC,P1,2025-10-01,");
    city.edit("days.csv", "2025-09-29,,off,教師節\n", "2025-09-29,,off,教師節\n2025-10-01,,off,颱風停課\n");
    city.import(&[]);
    assert_eq!(holder(&city, "04CC", soon()).as_deref(), Some("P1"));

    // The directory knew, so what it says now is no slip.
    city.edit("days.csv", "2025-10-01,,off", "2025-10-01,,school");
    city.edit("cards.csv", "04CC,P1,2025-10-01,", "04CC,P1,2025-10-01,2026-01-01");
    city.import(&[]);
    assert_eq!(holder(&city, "04CC", soon()), None);
}

#[test]
fn an_order_is_approved_only_when_paid_and_cancelled_only_once() {
    let city = City::new();
    city.import(&[]);
    assert_refused(&city.gatebell(&["order", "approve", "O9"]), "there is no order O9");
    assert_refused(&city.gatebell(&["order", "approve", "O3"]), "order O3 is not paid");
    assert_refused(&city.gatebell(&["order", "approve", "O1"]), "order O1 is approved already");

    assert_eq!(city.gatebell(&["order", "approve", "O2"]).code, 0);
    assert_eq!(order_state(&city, "O2"), OrderState::Approved);
    let run = city.gatebell(&["import", text(&city.dir()), "--dry-run"]);
    assert!(run.stdout.contains("changed order: O2 (paid): approved before"), "{}", run.stdout);

    assert_eq!(city.gatebell(&["order", "cancel", "O2"]).code, 0);
    assert_eq!(order_state(&city, "O2"), OrderState::Cancelled);
    assert_refused(&city.gatebell(&["order", "cancel", "O2"]), "order O2 is cancelled already");
    assert_refused(&city.gatebell(&["order", "approve", "O2"]), "order O2 is cancelled");
    assert_eq!(city.gatebell(&["order", "cancel", "O3"]).code, 0, "also what was never approved");
}

#[test]
fn two_orders_for_the_same_passages_are_not_approved_both() {
    let city = City::new();
    city.edit("orders.csv", "O2,G1,P1,departure", "O2,G1,P1,both");
    city.import(&[]);
    assert_refused(
        &city.gatebell(&["order", "approve", "O2"]),
        "order O1 of the same guardian and pupil is in force",
    );
    assert_eq!(city.gatebell(&["order", "cancel", "O1"]).code, 0);
    assert_eq!(city.gatebell(&["order", "approve", "O2"]).code, 0);
}

#[test]
fn a_replaced_card_gives_way_to_the_new_one() {
    let city = City::new();
    city.import(&[]);
    assert_refused(&city.gatebell(&["card", "replace", "04FF", "04CC"]), "there is no such old card");
    assert_refused(
        &city.gatebell(&["card", "replace", "04AA", "04bb"]),
        "the new card is held by pupil P2 already",
    );
    assert_refused(&city.gatebell(&["card", "replace", "04AA", "04aa"]), "are the same");
    let run = city.gatebell(&["card", "replace", "04-77", "04CC"]);
    assert_refused(&run, "the old card");
    assert!(!run.stderr.contains("04-77"), "{}", run.stderr);

    let before = Timestamp::from_millis(now().as_millis() - 1);
    let run = city.gatebell(&["card", "replace", "04aa", "04cc"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("pupil P1 holds the new card"), "{}", run.stdout);
    assert_eq!(holder(&city, "04AA", before).as_deref(), Some("P1"));
    assert_eq!(holder(&city, "04AA", soon()), None);
    assert_eq!(holder(&city, "04CC", soon()).as_deref(), Some("P1"));
    assert_refused(&city.gatebell(&["card", "replace", "04AA", "04DD"]), "nobody holds the old card now");
}

#[tokio::test]
async fn a_command_returns_when_the_running_engine_has_the_change_and_it_counts() {
    let city = Arc::new(City::new());
    city.import(&[]);
    let data = DataDir::existing(&city.data()).unwrap();
    let _lock = data.lock_engine().unwrap();
    let mut feed = EmbeddedRegistryFeed::open(&data).unwrap();
    let running = Arc::clone(&city);
    let mut command = tokio::task::spawn_blocking(move || running.gatebell(&["order", "approve", "O2"]));

    // The engine's part: it reads the feed over and over and reports how far it is.
    let mut version = 0;
    let run = loop {
        while let Some(last) = feed.read(version, Timestamp::MIN).await.unwrap().last() {
            version = last.version;
        }
        feed.report_applied(version).await.unwrap();
        tokio::select! {
            biased;
            run = &mut command => break run.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    };
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("in effect in the running engine"), "{}", run.stdout);
    assert_eq!(version, registry(&city).version().unwrap());
    let last = registry(&city).changes(version - 1, 1).unwrap();
    assert!(last[0].change.applied <= now(), "it counts once the command has returned");
}

#[test]
fn changes_count_in_the_order_in_which_they_were_made() {
    let city = City::new();
    city.import(&[]);
    for args in [["order", "approve", "O2"], ["order", "cancel", "O2"], ["order", "cancel", "O1"]] {
        assert_eq!(city.gatebell(&args).code, 0);
    }
    let applied: Vec<Timestamp> =
        registry(&city).changes(0, 1000).unwrap().iter().map(|it| it.change.applied).collect();
    assert!(applied.is_sorted(), "{applied:?}");
}

#[test]
fn commands_without_a_city_say_what_to_do() {
    let city = City::new();
    for args in [["protect", "G1", "P1"], ["order", "approve", "O1"], ["card", "replace", "04AA"]] {
        let args = if args[0] == "card" { vec!["card", "replace", "04AA", "04CC"] } else { args.to_vec() };
        assert_refused(&city.gatebell(&args), "gatebell import");
    }
}

#[test]
fn commands_about_money_say_that_there_is_no_city_or_no_such_pupil() {
    let city = City::new();
    for args in [&["bill"][..], &["token", "add", "--label", "gates"]] {
        assert_refused(&city.gatebell(args), "no data directory");
    }
    DataDir::open(&city.data()).unwrap();
    for args in [&["bill"][..], &["term", "close", "114-1", "--force"], &["notices", "--pupil", "P1"]] {
        assert_refused(&city.gatebell(args), "there is no city in");
    }
    city.import(&[]);
    let export = |pupil| {
        city.gatebell(&["ledger", "export", "--from", "2025-09-01", "--to", "2025-09-30", "--pupil", pupil])
    };
    assert_refused(&export("NOPE"), "no pupil NOPE on record");
    assert_eq!(export("P1").code, 0);
    assert_refused(&city.gatebell(&["token", "add", "--label", " "]), "the token needs a label");
}

#[test]
fn approving_in_a_closed_term_says_that_nothing_is_billed() {
    let city = City::new();
    city.import(&[]);
    assert_eq!(city.gatebell(&["term", "close", "114-1", "--force"]).code, 0);
    let run = city.gatebell(&["order", "approve", "O2"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("warning: term 114-1 was closed on"), "{}", run.stderr);
    assert!(run.stderr.contains("billed to nobody"), "{}", run.stderr);
}
