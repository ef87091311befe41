//! One pupil's morning, told from the records: what the reader reported, what the parent read, what the gateway said, and
//! what it cost. Texts are those in the simulator's log, so they are what a phone would have shown.

use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::notice::{Channel, Language, NoticeKind, Passages};
use gatebell_engine::registry::Relation;
use gatebell_engine::time::Timestamp;
use gatebell_gateway_sim::SimLog;

use super::city::{City, Pupil};
use super::families::{Binding, Guardian, Order};
use super::morning::{Upload, instant, local_time};
use super::page::Page;

/// What the story is told from.
pub(crate) struct Records<'a> {
    pub(crate) city: &'a City,
    pub(crate) uploads: &'a [Upload],
    /// The ledger, in the order written.
    pub(crate) entries: &'a [LedgerEntry],
    pub(crate) gateway: &'a SimLog,
}

/// A story that can be told to its end.
pub(crate) struct Story<'a> {
    records: &'a Records<'a>,
    charged: &'a LedgerEntry,
    number: usize,
    pupil: &'a Pupil,
    guardian: &'a Guardian,
    binding: &'a Binding,
    order: &'a Order,
}

impl<'a> Story<'a> {
    /// Finds a child of about 07:31 whose guardian was told by app and by SMS, best one that tapped twice. `None` when
    /// nothing was delivered to anybody.
    pub(crate) fn find(records: &'a Records<'a>) -> Option<Self> {
        let ideal = instant(jiff::civil::time(7, 31, 0, 0));
        let charged =
            records.entries.iter().filter(|it| it.event == Event::Charged && it.kind == NoticeKind::Arrival);
        let stories = charged.filter_map(|it| Self::of(records, it));
        stories.min_by_key(|story| {
            let told_by_both = story.entry(Channel::App, Event::Accepted).is_some();
            let tapped_twice = story.reports().count() == 2;
            let off_ms = story.charged.at.as_millis().abs_diff(ideal.as_millis());
            (story.guardian.language != Language::ZhTw, !told_by_both, !tapped_twice, off_ms)
        })
    }

    fn of(records: &'a Records<'a>, charged: &'a LedgerEntry) -> Option<Self> {
        let City { pupils, families, .. } = records.city;
        let paid_by = charged.order.as_ref()?;
        let number = pupils.binary_search_by(|it| it.code.as_str().cmp(charged.pupil.as_str())).ok()?;
        let guardian =
            families.guardians.binary_search_by(|it| it.code.as_str().cmp(charged.guardian.as_str())).ok()?;
        let order = families.orders.binary_search_by(|it| it.code.as_str().cmp(paid_by.as_str())).ok()?;
        Some(Self {
            records,
            charged,
            number,
            pupil: pupils.get(number)?,
            guardian: families.guardians.get(guardian)?,
            binding: families.bindings.iter().find(|it| (it.pupil, it.guardian) == (number, guardian))?,
            order: families.orders.get(order)?,
        })
    }

    /// The pupil's code, for commands to try.
    pub(crate) fn pupil_code(&self) -> &str {
        &self.pupil.code
    }

    /// The index of the pupil's school.
    pub(crate) fn school(&self) -> usize {
        self.pupil.school
    }

    /// What readers reported of the pupil, in the order sent.
    fn reports(&self) -> impl Iterator<Item = &'a str> {
        let number = self.number;
        let reports = self.records.uploads.iter().flat_map(|upload| &upload.reports);
        reports.filter(move |it| it.tap.is_some_and(|(pupil, _)| pupil == number)).map(|it| it.line.as_str())
    }

    /// What the ledger says of this arrival to this guardian.
    fn entry(&self, channel: Channel, event: Event) -> Option<&'a LedgerEntry> {
        let mut entries = self.records.entries.iter();
        entries.find(|it| {
            it.position == self.charged.position
                && it.guardian == self.charged.guardian
                && it.channel == channel
                && it.event == event
        })
    }

    fn sms_text(&self) -> Option<&'a str> {
        let notice = self.charged.notice.to_string();
        let taken = self.records.gateway.messages.iter().find(|it| it.clientid.starts_with(&notice))?;
        Some(&taken.smbody)
    }

    fn app_text(&self) -> Option<&'a str> {
        let ours = |it: &&gatebell_gateway_sim::TakenPush| {
            it.pupil == self.pupil.code
                && it.guardian == self.guardian.code
                && it.kind == NoticeKind::Arrival.name()
        };
        let taken = self.records.gateway.pushes.iter().find(ours)?;
        Some(&taken.text)
    }

    /// Tells it, line by line at the city's time.
    pub(crate) fn tell(&self, page: &mut Page) {
        let Self { pupil, guardian, binding, order, charged, .. } = self;
        let school = self.records.city.schools.get(pupil.school).map_or("", |it| it.name.as_str());
        let passed = local_time(charged.at);
        let mut told: Vec<(Timestamp, String)> = Vec::new();
        told.push((
            charged.at,
            format!(
                "{} (class {}, seat {}) passes the gate of {school}",
                pupil.name, pupil.class, pupil.seat
            ),
        ));
        let mut reports = self.reports();
        told.extend(reports.next().map(|report| (charged.at, format!("the reader reports\n      {report}"))));
        told.extend(reports.map(|_| {
            (charged.at, "and again, to be sure that it beeped: a duplicate, nobody is told twice".to_owned())
        }));
        if let (Some(accepted), Some(text)) = (self.entry(Channel::App, Event::Accepted), self.app_text()) {
            told.push((
                accepted.time,
                format!("{} ({}) reads in the app  「{text}」", guardian.name, relation(binding)),
            ));
        }
        if let (Some(submitted), Some(text)) = (self.entry(Channel::Sms, Event::Submitted), self.sms_text()) {
            told.push((submitted.time, format!("and by SMS, to {}  「{text}」", guardian.phone)));
            told.push((
                submitted.time,
                format!("(“arrived at {passed:.0}”; the name is masked, as an SMS can reach a wrong number)"),
            ));
        }
        if let Some(delivered) = self.entry(Channel::Sms, Event::Delivered) {
            told.push((
                delivered.time,
                "the gateway's receipt for this one message: delivered to the phone".to_owned(),
            ));
        }
        told.push((
            charged.time,
            format!(
                "charged, as it was delivered: NT$0.75 on order {} ({}, NT${} prepaid)",
                order.code,
                plan(order),
                order.prepaid_dollars()
            ),
        ));
        for (at, line) in told {
            page.line(format!("{:.0}  {line}", local_time(at)));
        }
    }
}

fn relation(binding: &Binding) -> &'static str {
    match binding.relation {
        Relation::Father => "father",
        Relation::Mother => "mother",
        Relation::PaternalGrandparent | Relation::MaternalGrandparent => "grandparent",
        Relation::Other => "guardian",
    }
}

fn plan(order: &Order) -> &'static str {
    match order.plan {
        Passages::Arrival => "arrivals",
        Passages::Departure => "departures",
        Passages::Both => "both ways",
    }
}
