//! The commands about money, run as a user runs them, on a data directory that was filled through the ports.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use compact_str::CompactString;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::registry::EmbeddedRegistry;
use gatebell_connectors::store::embedded::store_db::EmbeddedStore;
use gatebell_engine::ids::{
    GuardianId, LaneName, LogPosition, NoticeId, OrderId, Personal, PupilId, SchoolId,
};
use gatebell_engine::ledger::{Charge, Claim, ClaimKey, ClaimState, Event, LedgerEntry, OwnerToken};
use gatebell_engine::notice::{Channel, Notice, NoticeKind, Passages};
use gatebell_engine::ports::clock::{Clock as _, SystemClock};
use gatebell_engine::ports::ledger::Ledger as _;
use gatebell_engine::registry::{Entry, Level, Order, OrderState, Pupil, School};
use gatebell_engine::term::Term;
use gatebell_engine::time::{Day, Timestamp};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A city with two schools and two pupils, whose store holds what `deliver` put there.
struct City {
    directory: TempDir,
    term: Term,
}

impl City {
    fn new(orders: Vec<Order>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let city = Self { directory, term: Term::parse(Term::built_in("114-1").unwrap()).unwrap() };
        let school = |school: &str| {
            Entry::School(School {
                school: SchoolId::new(school).unwrap(),
                name: CompactString::new("某國小"),
                level: Level::Elementary,
                departure_opens_min: 690,
                removed: None,
            })
        };
        let pupil = |pupil: &str, school: &str| {
            Entry::Pupil(Pupil {
                pupil: PupilId::new(pupil).unwrap(),
                school: SchoolId::new(school).unwrap(),
                class: CompactString::new("301"),
                seat: CompactString::new("5"),
                name: Personal::new("王小明"),
                removed: None,
            })
        };
        let mut entries = vec![school("S1"), school("S2"), pupil("P1", "S1"), pupil("P2", "S2")];
        entries.extend(orders.into_iter().map(Entry::Order));
        city.registry().apply(entries, Timestamp::MIN, "test").unwrap();
        city
    }

    fn data_dir(&self) -> DataDir {
        DataDir::open(&self.directory.path().join("data")).unwrap()
    }

    fn registry(&self) -> EmbeddedRegistry {
        EmbeddedRegistry::open(&self.data_dir()).unwrap()
    }

    /// Term 114-1 with another last day and the dates that follow from it.
    fn term_file(&self, name: &str, first_day: &str, last_day: &str) -> PathBuf {
        let text = format!(
            "name = \"{name}\"\ntime_zone = \"Asia/Taipei\"\nfirst_day = {first_day}\nlast_day = {last_day}\n\
             weekdays = [\"mon\"]\nchannels = [\"sms\"]\nsms_price = 75\n\
             [plans]\narrival = 6800\ndeparture = 6800\nboth = 13600\n"
        );
        let file = self.directory.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Runs `gatebell ARGS --data DIR`.
    fn gatebell(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gatebell"))
            .args(arguments)
            .arg("--data")
            .arg(self.data_dir().path())
            .env_remove("GATEBELL_CONFIG")
            .env_remove("GATEBELL_DATA")
            .env("USER", "cashier")
            .env_remove("SUDO_USER")
            .output()
            .unwrap()
    }

    /// What the command prints, which must end well.
    fn printed(&self, arguments: &[&str]) -> String {
        let output = self.gatebell(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn notice(&self, order: &Order, day: Day, kind: NoticeKind) -> Notice {
        let number = u64::try_from(day.epoch_days()).unwrap() * 10 + u64::from(kind == NoticeKind::Departure);
        let position = LogPosition { partition: 0, offset: number };
        let at = self.term.midnight(day).plus(Duration::from_millis(27_064_250));
        Notice {
            id: NoticeId::derive("money", position, &order.guardian, Channel::Sms),
            position,
            kind,
            channel: Channel::Sms,
            pupil: order.pupil.clone(),
            guardian: order.guardian.clone(),
            order: Some(order.order.clone()),
            place: SchoolId::new("S1").unwrap(),
            at,
            day,
            received: at,
            deadline: at.plus(Duration::from_secs(3600)),
        }
    }

    /// Sends one SMS under `order` and has it delivered, step by step as an engine does.
    async fn deliver(&self, store: &EmbeddedStore, order: &Order, day: &str, kind: NoticeKind) {
        let ledger = store.ledger();
        let notice = self.notice(order, day.parse().unwrap(), kind);
        let lane = LaneName::new("sms-main").unwrap();
        let after = |seconds| notice.at.plus(Duration::from_secs(seconds));
        let claim = Claim {
            key: ClaimKey::of(&self.term.name, &notice),
            notice: notice.id,
            position: notice.position,
            owner: OwnerToken(1),
            attempt: 1,
            lane: lane.clone(),
            claimed_at: after(1),
            deadline: notice.deadline,
            state: ClaimState::Open,
        };
        let claimed = LedgerEntry::of(&notice, Event::Claimed, after(1)).through(&lane, 1);
        let submitted = claimed.followed_by(Event::Submitted, after(2)).known_as("M1");
        let delivered = submitted.followed_by(Event::Delivered, after(6));
        ledger.claim(None, claim.clone(), claimed).await.unwrap();
        let moved_on =
            Claim { state: ClaimState::Submitted { gateway_id: CompactString::new("M1") }, ..claim.clone() };
        ledger.advance(claim.stamp(), moved_on.clone(), vec![submitted]).await.unwrap();
        let ended = ClaimState::Ended { event: Event::Delivered, reason: None };
        let ended = Claim { state: ended, ..moved_on.clone() };
        ledger.advance(moved_on.stamp(), ended, vec![delivered.clone()]).await.unwrap();
        let charge = Charge {
            term: self.term.name.clone(),
            pupil: notice.pupil.clone(),
            guardian: notice.guardian.clone(),
            order: order.order.clone(),
            day: notice.day,
            kind,
            proof: delivered,
        };
        ledger.charge(charge).await.unwrap();
    }

    fn store(&self) -> EmbeddedStore {
        EmbeddedStore::open(&self.data_dir()).unwrap()
    }
}

fn order(order: &str, pupil: &str, state: OrderState, prepaid_dollars: i64) -> Order {
    Order {
        order: OrderId::new(order).unwrap(),
        guardian: GuardianId::new("G1").unwrap(),
        pupil: PupilId::new(pupil).unwrap(),
        plan: Passages::Both,
        state,
        prepaid_dollars,
        approved_at: matches!(state, OrderState::Approved | OrderState::Cancelled)
            .then(|| "2025-09-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap())
            .map(|at| Timestamp::from_millis(at.as_millisecond())),
        cancelled_at: None,
    }
}

fn cancelled(order_code: &str, pupil: &str, ago: Duration) -> Order {
    let cancelled_at = Some(SystemClock::new().now().minus(ago));
    Order { cancelled_at, ..order(order_code, pupil, OrderState::Cancelled, 68) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_bill_has_the_public_columns_and_says_which_lines_are_drafts() {
    let running = order("O2", "P1", OrderState::Approved, 136);
    let long_cancelled = cancelled("O1", "P2", 8 * DAY);
    let just_cancelled = cancelled("O4", "P2", DAY);
    let placed = order("O3", "P2", OrderState::Ordered, 68);
    let city = City::new(vec![running.clone(), long_cancelled.clone(), just_cancelled, placed]);
    let store = city.store();
    city.deliver(&store, &running, "2025-09-08", NoticeKind::Arrival).await;
    city.deliver(&store, &running, "2025-09-08", NoticeKind::Departure).await;
    city.deliver(&store, &long_cancelled, "2025-09-09", NoticeKind::Arrival).await;

    let output = city.gatebell(&["bill", "--term", "114-1", "--format", "csv"]);
    let header = "order,school,pupil,guardian,plan,state,prepaid,delivered,fee,waived,refund\n";
    let lines = [
        "O1,S2,P2,G1,both,cancelled,68,1,1,0,67\n",
        "O2,S1,P1,G1,both,approved,136,2,2,0,0\n",
        "O3,S2,P2,G1,both,ordered,0,0,0,0,0\n",
        "O4,S2,P2,G1,both,cancelled,68,0,0,0,68\n",
    ];
    assert_eq!(text(&output.stdout), format!("{header}{}", lines.concat()));
    assert!(text(&output.stderr).contains("3 of 4 lines are drafts: O2, O3, O4"), "{}", text(&output.stderr));

    let of_school = city.printed(&["bill", "--term", "114-1", "--school", "S1", "--format", "csv"]);
    assert_eq!(of_school, format!("{header}{}", lines[1]));
    let json = city.printed(&["bill", "--term", "114-1", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 4);
    assert_eq!((&json[0]["fee"], &json[0]["state"]), (&1.into(), &"cancelled".into()));
    let table = city.printed(&["bill"]);
    assert!(table.contains("waived") && table.contains("O4"), "{table}");
}

#[tokio::test]
async fn a_line_that_is_final_stays_as_it_was() {
    let long_cancelled = cancelled("O1", "P2", 8 * DAY);
    let city = City::new(vec![long_cancelled.clone()]);
    let store = city.store();
    city.deliver(&store, &long_cancelled, "2025-09-08", NoticeKind::Arrival).await;
    let bill = ["bill", "--format", "csv"];
    let before = city.printed(&bill);
    city.deliver(&store, &long_cancelled, "2025-09-09", NoticeKind::Arrival).await;
    assert_eq!(city.printed(&bill), before);
    assert!(before.contains("O1,S2,P2,G1,both,cancelled,68,1,1,0,67"), "{before}");

    let export = city.printed(&["ledger", "export", "--from", "2025-09-09", "--to", "2025-09-09"]);
    assert!(export.contains(r#""entry":"adjusted""#) && !export.contains(r#""entry":"charged""#), "{export}");
    city.printed(&["recount"]);
}

#[tokio::test]
async fn recount_finds_no_difference_until_the_books_are_tampered_with() {
    let running = order("O1", "P1", OrderState::Approved, 68);
    let city = City::new(vec![running.clone()]);
    let store = city.store();
    for day in ["2025-09-08", "2025-09-09", "2025-09-10"] {
        city.deliver(&store, &running, day, NoticeKind::Arrival).await;
    }
    let output = city.gatebell(&["recount"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("no difference: 3 charged messages under 1 orders"));

    let books = rusqlite::Connection::open(city.data_dir().store()).unwrap();
    books.execute("UPDATE counters SET delivered = 4", []).unwrap();
    let output = city.gatebell(&["recount"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "term 114-1 order O1 pupil P1 guardian G1: the counter says 4, the ledger 3\n";
    assert_eq!(text(&output.stdout), expected);
}

#[tokio::test]
async fn an_export_has_the_public_fields_in_the_citys_time() {
    let running = order("O1", "P1", OrderState::Approved, 68);
    let city = City::new(vec![running.clone()]);
    let store = city.store();
    city.deliver(&store, &running, "2025-09-08", NoticeKind::Arrival).await;
    city.deliver(&store, &running, "2025-09-09", NoticeKind::Arrival).await;
    let mut app = LedgerEntry::of(
        &city.notice(&running, "2025-09-08".parse().unwrap(), NoticeKind::Departure),
        Event::Suppressed,
        Timestamp::from_millis(0),
    )
    .because("unbound");
    (app.channel, app.order, app.pupil) = (Channel::App, None, PupilId::new("P2").unwrap());
    store.ledger().append(vec![app]).await.unwrap();

    let export = ["ledger", "export", "--from", "2025-09-08", "--to", "2025-09-08"];
    let printed = city.printed(&export);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 5, "{printed}");
    let notice = city.notice(&running, "2025-09-08".parse().unwrap(), NoticeKind::Arrival).id;
    assert_eq!(
        lines[1],
        format!(
            r#"{{"notice":"{notice}","pupil":"P1","guardian":"G1","channel":"sms","kind":"arrival","day":"2025-09-08","at":"2025-09-08T07:31:04.250+08:00","entry":"submitted","time":"2025-09-08T07:31:06.250+08:00","order":"O1","gateway":"sms-main","gateway_id":"M1"}}"#
        )
    );
    let entries: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["entry"].to_string())
        .collect();
    let expected = ["claimed", "submitted", "delivered", "charged", "suppressed"];
    assert_eq!(entries, expected.map(|entry| format!("\"{entry}\"")));

    let of_pupil = city.printed(&[&export[..], &["--pupil", "P2"]].concat());
    assert_eq!(of_pupil.lines().collect::<Vec<_>>(), [lines[4]]);
    assert!(
        lines[4].ends_with(r#""time":"1970-01-01T08:00:00.000+08:00","reason":"unbound"}"#),
        "{}",
        lines[4]
    );
    let backwards = city.gatebell(&["ledger", "export", "--from", "2025-09-09", "--to", "2025-09-08"]);
    assert!(text(&backwards.stderr).contains("is after"), "{}", text(&backwards.stderr));
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_of_an_export_is_no_failure() {
    let running = order("O1", "P1", OrderState::Approved, 68);
    let city = City::new(vec![running.clone()]);
    let day: Day = "2025-09-08".parse().unwrap();
    let entry = LedgerEntry::of(
        &city.notice(&running, day, NoticeKind::Arrival),
        Event::Suppressed,
        Timestamp::from_millis(0),
    );
    let many = (1..2000).map(|attempt| LedgerEntry { attempt, ..entry.clone() }).collect();
    city.store().ledger().append(many).await.unwrap();

    let mut export = Command::new(env!("CARGO_BIN_EXE_gatebell"))
        .args(["ledger", "export", "--from", "2025-09-08", "--to", "2025-09-08", "--data"])
        .arg(city.data_dir().path())
        .env_remove("GATEBELL_CONFIG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(export.stdout.take());
    let ended = export.wait_with_output().unwrap();
    assert_eq!((ended.status.success(), text(&ended.stderr)), (true, String::new()));
}

#[tokio::test]
async fn a_parent_sees_what_was_sent_and_what_it_costs() {
    let running = order("O1", "P1", OrderState::Approved, 136);
    let city = City::new(vec![running.clone()]);
    let store = city.store();
    city.deliver(&store, &running, "2025-09-08", NoticeKind::Arrival).await;
    city.deliver(&store, &running, "2025-09-09", NoticeKind::Departure).await;

    let shown = city.printed(&["notices", "--pupil", "P1"]);
    for part in
        ["到校 arrival", "離校 departure", "07:31:04", "07:31:10", "已送達 delivered", "NT$0.75", "NT$2"]
    {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
    assert!(!shown.contains("王小明"), "names stay in the registry");
    let one_day = city.printed(&["notices", "--pupil", "P1", "--day", "2025-09-09"]);
    assert!(one_day.contains("離校") && !one_day.contains("到校 arrival"), "{one_day}");

    assert!(city.printed(&["notices", "--pupil", "P2"]).contains("no notices"));
    let unknown = city.gatebell(&["notices", "--pupil", "P9"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("no pupil P9 on record"), "{}", text(&unknown.stderr));
}

#[tokio::test]
async fn a_closed_term_is_final_and_closing_it_again_changes_nothing() {
    let running = order("O1", "P1", OrderState::Approved, 136);
    let never_approved = order("O2", "P2", OrderState::Paid, 68);
    let mut city = City::new(vec![running.clone(), never_approved]);
    let file = city.term_file("past", "2025-09-01", "2025-09-30");
    let term = file.to_str().unwrap();
    city.term = Term::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let store = city.store();
    city.deliver(&store, &running, "2025-09-08", NoticeKind::Arrival).await;

    assert_eq!(city.printed(&["term", "close", term]), "term past is closed: its 2 lines are final\n");
    let bill = city.gatebell(&["bill", "--term", term, "--format", "csv"]);
    let lines = text(&bill.stdout);
    assert!(lines.contains("\nO1,S1,P1,G1,both,approved,136,1,1,0,135\n"), "{lines}");
    assert!(lines.contains("\nO2,S2,P2,G1,both,paid,68,0,0,0,68\n"), "{lines}");
    assert!(text(&bill.stderr).contains("2 lines, all final"), "{}", text(&bill.stderr));

    city.deliver(&store, &running, "2025-09-09", NoticeKind::Arrival).await;
    let again = city.printed(&["term", "close", term, "--force"]);
    assert!(again.contains("was closed before") && again.contains("by cashier"), "{again}");
    assert_eq!(city.printed(&["bill", "--term", term, "--format", "csv"]), lines);
    city.printed(&["recount", "--term", term]);
}

#[test]
fn a_term_is_not_closed_before_its_time_unless_forced() {
    let city = City::new(vec![order("O1", "P1", OrderState::Approved, 68)]);
    let file = city.term_file("future", "2090-09-01", "2091-01-20");
    let term = file.to_str().unwrap();
    let refusal = city.gatebell(&["term", "close", term]);
    assert_eq!(refusal.status.code(), Some(1));
    let reason = text(&refusal.stderr);
    assert!(reason.contains("can be closed from 2091-01-27 on; --force closes it now"), "{reason}");
    assert!(city.printed(&["term", "close", term, "--force"]).contains("is closed"));
}

#[test]
fn a_data_directory_that_is_not_there_is_said_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("typo");
    let commands: [&[&str]; 5] = [
        &["bill"],
        &["recount"],
        &["ledger", "export", "--from", "2025-09-08", "--to", "2025-09-08"],
        &["notices", "--pupil", "P1"],
        &["term", "close", "114-1", "--force"],
    ];
    for arguments in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_gatebell"))
            .args(arguments)
            .arg("--data")
            .arg(&missing)
            .env_remove("GATEBELL_CONFIG")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains("no data directory at"), "{}", text(&output.stderr));
        assert!(!missing.exists());
    }
}
