//! The world outside the engine while the day goes by: taps come in, the registry changes, partitions move, ports go away,
//! somebody sets the clock, receipts arrive.

use std::sync::Mutex;
use std::time::Duration;

use gatebell_engine::ids::{LogPosition, NoticeId};
use gatebell_engine::ports::channel::ChannelConnector;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::message_ids::{MessageIds as _, UnplacedReceipt};
use gatebell_engine::ports::receipts::{Receipt, ReceiptStatus};
use gatebell_engine::registry::{CHANGE_LEAD, DayKind as Declared, DayRule, Entry};
use gatebell_engine::testing::fakes::FakeReceiptLog;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::plan::Kind;
use crate::readers::Readers;
use crate::world::{ClockKind, DayKind, Living, Outcome, World};

/// Simulated time after which a day that has not come to rest never will.
const REST_MAX: Duration = Duration::from_secs(3 * 3600);
/// When everything is settled but what nobody can learn of, days pass.
const DAYS_PASS_AFTER: Duration = Duration::from_secs(20 * 60);
const DAYS_THAT_PASS_MS: i64 = 74 * 3600 * 1000;
/// Of records that are not settled, so many mean that lanes are full.
const LANES_ARE_FULL: u64 = 40;

impl World {
    /// Ends when everything that the day owes is settled (true), or when it never will be (false).
    pub(crate) async fn day_goes_by(&self, outcome: &Mutex<Outcome>) -> bool {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x7a95);
        let moments: u32 = random.random_range(30..120);
        // On some days the SMS lanes have more than they may send nearly all the time.
        let classes_in = if random.random_range(0..4) == 0 { 3 } else { 15 };
        let (one_move_in, one_cut_off_in) = if self.themes.unrest { (3, 6) } else { (12, 30) };
        let declared_off_at = random.random_range(5..30);
        let mut readers = Readers::default();
        for moment in (0..moments).filter(|moment| self.plan.moments.contains(moment)) {
            // Each moment draws for itself, so that one that is left out moves no other.
            let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0d47 ^ (u64::from(moment) << 32));
            tokio::time::sleep(Duration::from_millis(random.random_range(0..6000))).await;
            let last_read = self.taps_come_in(&mut random, &mut readers, classes_in);
            if self.kind == DayKind::DeclaredOff && moment == declared_off_at {
                self.declare_off();
            }
            if random.random_range(0..5) == 0 && self.plan.has(Kind::Changes) {
                self.registry_changes(&mut random, last_read);
            }
            if random.random_range(0..one_move_in) == 0 && self.plan.has(Kind::Rebalances) {
                self.partitions_move(random.random());
            }
            if random.random_range(0..one_cut_off_in) == 0 && self.plan.has(Kind::CutOffs) {
                self.cut_somebody_off(&mut random, outcome);
            }
            if random.random_range(0..60) == 0 && self.plan.has(Kind::Outages) {
                self.port_goes_away(&mut random);
            }
            self.somebody_sets_the_clock(&mut random);
            self.send_receipts().await;
            self.look_at_lanes();
        }
        self.evening(outcome).await
    }

    /// A reader or a whole class; the pupil who was read last.
    fn taps_come_in(&self, random: &mut ChaCha8Rng, readers: &mut Readers, classes_in: u32) -> u32 {
        // Now and then a whole class comes at once, and the SMS lane has more than it may send.
        let most_at_once = if random.random_range(0..classes_in) == 0 { 40 } else { 4 };
        let city = self.city.lock().expect("nobody panicked");
        let mut last_read = 0;
        for _ in 0..random.random_range(1..most_at_once) {
            for report in readers.read(random, &city, self.clock.now(), &self.plan, &self.journal) {
                self.journal.note(None, || format!("report {}", String::from_utf8_lossy(&report.value)));
                self.tap_log.report(&report.key, report.value);
                last_read = report.pupil;
            }
        }
        last_read
    }

    fn registry_changes(&self, random: &mut ChaCha8Rng, last_read: u32) {
        let counts_from = self.clock.now().plus(CHANGE_LEAD);
        let today = self.term.day_of(self.clock.now());
        let changed =
            self.city.lock().expect("nobody panicked").change(random, counts_from, today, last_read);
        for entry in changed {
            self.change(entry);
        }
    }

    fn declare_off(&self) {
        let date = self.term.day_of(self.clock.now());
        if self.plan.has(Kind::Changes) && self.clock_kind != ClockKind::SetBack {
            self.journal.reached("day declared off");
            let rule = Some(Declared::Off);
            self.change(Entry::Day(DayRule { date, school: None, rule, name: "颱風停課".into() }));
        }
    }

    fn change(&self, entry: Entry) {
        self.journal.reached(format!("registry changed: {}", entry.kind()));
        self.journal.note(None, || format!("registry: {entry:?}"));
        self.written_at.lock().expect("nobody panicked").push(self.clock.monotonic());
        self.registry.change(self.clock.now().plus(CHANGE_LEAD), entry);
    }

    fn partitions_move(&self, seed: u64) {
        if self.tap_log.uncommitted() >= LANES_ARE_FULL {
            self.journal.reached("rebalances while lanes are full");
        }
        self.journal.note(None, || "partitions move".to_owned());
        self.tap_log.rebalance(seed);
    }

    /// Some process and some port do not hear of each other for a while.
    fn cut_somebody_off(&self, random: &mut ChaCha8Rng, outcome: &Mutex<Outcome>) {
        let place = random.random_range(0..self.processes);
        let lasting = Duration::from_millis(random.random_range(1000..60_000));
        let port = ["tap log", "tap log", "registry", "seats"][random.random_range(0..4)];
        if let Some(living) = self.living.lock().expect("nobody panicked").get(&place) {
            living.faults.cut_off(port, lasting);
            outcome.lock().expect("nobody panicked").cut_offs += 1;
        }
    }

    /// Some port is away for everybody.
    fn port_goes_away(&self, random: &mut ChaCha8Rng) {
        let ports = ["ledger", "ledger", "receipts", "registry", "seats", "tap log", "rejected log"];
        let port = ports[random.random_range(0..ports.len())];
        let lasting = Duration::from_millis(random.random_range(1000..40_000));
        self.journal.reached(format!("outage of the {port}"));
        self.journal.note(None, || format!("the {port} is away for {} ms", lasting.as_millis()));
        self.outages.begin(port, lasting);
    }

    fn somebody_sets_the_clock(&self, random: &mut ChaCha8Rng) {
        let (often, rarely) = (random.random_range(0..10) == 0, random.random_range(0..60) == 0);
        let corrected_ms = random.random_range(-400..400);
        let forward_ms = random.random_range(1000..400_000);
        let by_ms = match self.clock_kind {
            ClockKind::Corrected if rarely => forward_ms,
            ClockKind::SetBack if rarely => -forward_ms,
            ClockKind::Corrected if often => corrected_ms,
            _ => return,
        };
        self.journal.reached(if by_ms < 0 { "clock set back" } else { "clock set forward" });
        self.journal.note(None, || format!("the wall clock is set by {by_ms} ms"));
        self.clock.set_by_ms(by_ms);
    }

    async fn send_receipts(&self) -> bool {
        let called_back = FakeReceiptLog::default();
        let sms = self.sms.send_due_receipts(&called_back);
        self.take_callbacks(&called_back).await;
        let app = self.app.send_due_receipts(&self.receipts);
        sms || app
    }

    /// What the SMS gateway calls back with reaches the log of receipts, by way of the message's id where it says nothing else.
    async fn take_callbacks(&self, called_back: &FakeReceiptLog) {
        for receipt in called_back.arrived() {
            let Some(message_ids) = &self.message_ids else {
                self.receipts.arrive(receipt);
                continue;
            };
            let Receipt { lane, gateway_id, status, arrived, .. } = receipt;
            let place = message_ids.find(&gateway_id).await.expect("nobody cuts off the callbacks");
            let unplaced = UnplacedReceipt { gateway_id, status, arrived };
            if let Some(place) = place {
                self.journal.reached("receipts placed by their message id");
                self.receipts.arrive(unplaced.placed(&lane, place));
            } else {
                self.journal.reached("receipts parked until their message id is known");
                message_ids.park(unplaced).await.expect("nobody cuts off the callbacks");
            }
        }
    }

    /// Counts why lanes hold.
    fn look_at_lanes(&self) {
        let living: Vec<Living> = self.living.lock().expect("nobody panicked").values().cloned().collect();
        for missing in living.iter().flat_map(|living| living.status.not_ready()) {
            match missing.what {
                "registry" | "assignment" | "seat" => {
                    self.journal.reached(format!("lanes held for the {}", missing.what));
                }
                _ => {}
            }
        }
    }

    /// No more taps: whatever is owed comes to its end.
    async fn evening(&self, outcome: &Mutex<Outcome>) -> bool {
        let last_tap = self.clock.monotonic();
        let mut days_have_passed = false;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let more_receipts = self.send_receipts().await;
            self.look_at_lanes();
            let everything_owned = self.tap_log.unowned() == 0;
            let settled = everything_owned
                && self.tap_log.is_settled()
                && self.receipts.is_settled()
                && self.everybody_knows_the_registry(outcome)
                && !more_receipts;
            let since_last_tap = self.clock.monotonic() - last_tap;
            if settled && !days_have_passed && self.sms.has_lost_receipts() {
                // Nobody asks whether all has ended: what is lost has not.
                if since_last_tap > DAYS_PASS_AFTER {
                    days_have_passed = true;
                    self.journal.note(None, || "days pass".to_owned());
                    self.stray_receipt_arrives();
                    self.clock.set_by_ms(DAYS_THAT_PASS_MS);
                }
            } else if settled && crate::judge::every_notice_has_ended(self) {
                if !days_have_passed || !self.sms.has_lost_receipts() || self.lost_receipts_were_found() {
                    return true;
                }
                let called_back = FakeReceiptLog::default();
                self.sms.find_lost_receipts(&called_back);
                self.take_callbacks(&called_back).await;
            }
            if since_last_tap > REST_MAX {
                return false;
            }
        }
    }

    /// A receipt for a message that nobody sent: it is kept for a while, in case its notice turns up.
    fn stray_receipt_arrives(&self) {
        let stranger = NoticeId::from_u128(u128::from(self.seed));
        self.receipts.arrive(Receipt {
            lane: self.sms.profile().name.clone(),
            notice: stranger,
            position: LogPosition { partition: 0, offset: 0 },
            gateway_id: "#stray".into(),
            status: ReceiptStatus::Delivered,
            arrived: self.clock.now(),
        });
    }

    /// Whether the receipts that come days late have come.
    fn lost_receipts_were_found(&self) -> bool {
        self.journal.tally().contains_key("receipts that came after everybody had given up")
    }

    /// Whether every process that lives to the end has said that it applied the last change.
    fn everybody_knows_the_registry(&self, outcome: &Mutex<Outcome>) -> bool {
        let last_change = self.registry.changes().len() as u64;
        let outcome = outcome.lock().expect("nobody panicked");
        outcome.survivors.iter().all(|process| self.registry.applied_by(*process) == last_change)
    }
}
