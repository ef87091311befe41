//! The rows of every file of a city directory: cells of the right form, keys that come once, references that lead
//! somewhere.
//!
//! A row with a mistake is left out, but its key stays known, so that one mistake does not turn every reference to it into
//! another. What rows say of each other is left to [`super::relations`].

use std::collections::HashMap;
use std::hash::Hash;

use gatebell_engine::ids::{CardNumber, GuardianId, OrderId, PupilId, ReaderId, SchoolId};
use gatebell_engine::notice::Channel;
use gatebell_engine::registry::{
    Bond, CardHolder, DayRule, Guardian, Order, OrderState, Pupil, Reader, School, SubscriptionLine,
};
use gatebell_engine::time::{Stretch, Timestamp};
use jiff::tz::TimeZone;

use super::findings::{Findings, quoted};
use super::forms;
use super::table::{
    BINDINGS, CARDS, CityFiles, DAYS, FileFound, FileSpec, GUARDIANS, KEY_COLUMN, ORDERS, PUPILS, READERS,
    Row, SCHOOLS, SUBSCRIPTIONS, Table,
};

/// Something read from a row, with the line on which the row begins.
#[derive(Debug)]
pub(super) struct Line<T> {
    pub(super) line: u64,
    pub(super) it: T,
}

/// The keys of a file, each with the line that first has it. `None`: the file or its key column is unusable, so that
/// references to it cannot be judged.
type Keys<K> = Option<HashMap<K, u64>>;

/// A row of `cards.csv`.
#[derive(Debug)]
pub(super) struct CardRow {
    pub(super) card: CardNumber,
    pub(super) holder: CardHolder,
}

/// A row of `bindings.csv`.
#[derive(Debug)]
pub(super) struct BindingRow {
    pub(super) guardian: GuardianId,
    pub(super) pupil: PupilId,
    pub(super) bond: Bond,
}

/// A row of `subscriptions.csv`.
#[derive(Debug)]
pub(super) struct SubscriptionRow {
    pub(super) guardian: GuardianId,
    pub(super) pupil: PupilId,
    pub(super) channel: Channel,
    pub(super) includes: SubscriptionLine,
}

/// Every row without a mistake of its own.
#[derive(Debug)]
pub(super) struct CityRows {
    pub(super) schools: Vec<Line<School>>,
    pub(super) readers: Vec<Line<Reader>>,
    pub(super) pupils: Vec<Line<Pupil>>,
    pub(super) cards: Vec<Line<CardRow>>,
    pub(super) guardians: Vec<Line<Guardian>>,
    pub(super) bindings: Vec<Line<BindingRow>>,
    pub(super) subscriptions: Vec<Line<SubscriptionRow>>,
    pub(super) orders: Vec<Line<Order>>,
    pub(super) days: Vec<Line<DayRule>>,
}

impl CityRows {
    /// Reads every file, those first that others refer to.
    pub(super) fn read(files: CityFiles<'_>, zone: &TimeZone, findings: &mut Findings) -> Self {
        let (schools, school_keys) = read_schools(files, findings);
        let readers = read_readers(files, &school_keys, findings);
        let (pupils, pupil_keys) = read_pupils(files, &school_keys, findings);
        let cards = read_cards(files, zone, &pupil_keys, findings);
        let (guardians, guardian_keys) = read_guardians(files, findings);
        let pairs = Pairs { guardians: &guardian_keys, pupils: &pupil_keys };
        let bindings = read_bindings(files, zone, &pairs, findings);
        let subscriptions = read_subscriptions(files, zone, &pairs, findings);
        let orders = read_orders(files, zone, &pairs, findings);
        let days = read_days(files, &school_keys, findings);
        Self { schools, readers, pupils, cards, guardians, bindings, subscriptions, orders, days }
    }
}

/// Reads the rows of one file. `keys` holds what `take` put into it, or nothing when the file cannot tell its keys.
fn read_file<T, K>(
    files: CityFiles<'_>,
    spec: &'static FileSpec,
    findings: &mut Findings,
    mut take: impl FnMut(&mut Row<'_>, &mut HashMap<K, u64>) -> Option<T>,
) -> (Vec<Line<T>>, Keys<K>) {
    let mut rows = Vec::new();
    let mut keys = HashMap::new();
    let table = match Table::open(files, spec, findings) {
        FileFound::Table(table) => table,
        FileFound::Absent => return (rows, Some(keys)),
        FileFound::Unusable => return (rows, None),
    };
    let has_every_key = table.for_each_row(findings, |row| {
        let line = row.line;
        if let Some(it) = take(row, &mut keys) {
            rows.push(Line { line, it });
        }
    });
    (rows, (has_every_key && table.has_column(KEY_COLUMN)).then_some(keys))
}

impl Row<'_> {
    /// The next column's value as the row's key, which no earlier row has.
    fn key<K: Clone + Eq + Hash>(
        &mut self,
        form: impl Fn(&str) -> Result<K, forms::Allowed>,
        shown: impl Fn(&K) -> String,
        keys: &mut HashMap<K, u64>,
    ) -> Option<K> {
        let column = self.next_column();
        let key = self.cell(form)?;
        self.once(column, key, shown, keys)
    }

    /// `key`, unless an earlier row has it.
    fn once<K: Clone + Eq + Hash>(
        &mut self,
        column: usize,
        key: K,
        shown: impl Fn(&K) -> String,
        keys: &mut HashMap<K, u64>,
    ) -> Option<K> {
        if let Some(first) = keys.get(&key) {
            let allowed = format!("each key once, and it is on line {first}");
            self.mistake(column, format!("{} again", shown(&key)), allowed);
            return None;
        }
        keys.insert(key.clone(), self.line);
        Some(key)
    }

    /// The next column's value as the key of a row in the file of `target`.
    fn reference<K: Eq + Hash>(
        &mut self,
        form: impl Fn(&str) -> Result<K, forms::Allowed>,
        shown: impl Fn(&K) -> String,
        keys: &Keys<K>,
        target: &'static FileSpec,
    ) -> Option<K> {
        let column = self.next_column();
        let key = self.cell(form)?;
        if keys.as_ref().is_some_and(|keys| !keys.contains_key(&key)) {
            self.mistake(column, shown(&key), format!("a {} of {}", target.columns[KEY_COLUMN], target.name));
            return None;
        }
        Some(key)
    }

    /// The next two columns as `[from, until)`.
    fn stretch(&mut self, zone: &TimeZone) -> Option<Stretch> {
        let from = self.cell(|text| forms::time(text, zone));
        let column = self.next_column();
        let until = self.cell(|text| forms::time(text, zone));
        let from = from?.unwrap_or(Timestamp::MIN);
        let until = until?.unwrap_or(Timestamp::MAX);
        if from >= until {
            let value = self.value(column);
            self.mistake(column, value, "a time after from");
            return None;
        }
        Some(Stretch { from, until })
    }
}

fn shown_school(school: &SchoolId) -> String {
    quoted(school.as_str())
}

fn shown_pupil(pupil: &PupilId) -> String {
    quoted(pupil.as_str())
}

fn shown_guardian(guardian: &GuardianId) -> String {
    quoted(guardian.as_str())
}

fn read_schools(files: CityFiles<'_>, findings: &mut Findings) -> (Vec<Line<School>>, Keys<SchoolId>) {
    read_file(files, &SCHOOLS, findings, |row, keys| {
        let school = row.key(forms::identifier, shown_school, keys);
        let name = row.cell(forms::text);
        let level = row.cell(forms::level);
        let departure_opens_min = row.cell(forms::departure_opens);
        Some(School {
            school: school?,
            name: name?,
            level: level?,
            departure_opens_min: departure_opens_min?,
            removed: None,
        })
    })
}

fn read_readers(
    files: CityFiles<'_>,
    schools: &Keys<SchoolId>,
    findings: &mut Findings,
) -> Vec<Line<Reader>> {
    let (rows, _) = read_file(files, &READERS, findings, |row, keys| {
        let reader = row.key(forms::identifier, |reader: &ReaderId| quoted(reader.as_str()), keys);
        let school = row.reference(forms::identifier, shown_school, schools, &SCHOOLS);
        let name = row.cell(forms::text);
        let direction = row.cell(forms::direction);
        Some(Reader { reader: reader?, school: school?, name: name?, direction: direction?, removed: None })
    });
    rows
}

fn read_pupils(
    files: CityFiles<'_>,
    schools: &Keys<SchoolId>,
    findings: &mut Findings,
) -> (Vec<Line<Pupil>>, Keys<PupilId>) {
    read_file(files, &PUPILS, findings, |row, keys| {
        let pupil = row.key(forms::identifier, shown_pupil, keys);
        let school = row.reference(forms::identifier, shown_school, schools, &SCHOOLS);
        let class = row.cell(forms::text);
        let seat = row.cell(forms::text);
        let name = row.personal(forms::name);
        Some(Pupil { pupil: pupil?, school: school?, class: class?, seat: seat?, name: name?, removed: None })
    })
}

fn read_cards(
    files: CityFiles<'_>,
    zone: &TimeZone,
    pupils: &Keys<PupilId>,
    findings: &mut Findings,
) -> Vec<Line<CardRow>> {
    let (rows, _) = read_file(files, &CARDS, findings, |row, _: &mut HashMap<(), u64>| {
        let card = row.personal(forms::card);
        let pupil = row.reference(forms::identifier, shown_pupil, pupils, &PUPILS);
        let stretch = row.stretch(zone);
        Some(CardRow { card: card?, holder: CardHolder { pupil: pupil?, stretch: stretch? } })
    });
    rows
}

fn read_guardians(files: CityFiles<'_>, findings: &mut Findings) -> (Vec<Line<Guardian>>, Keys<GuardianId>) {
    read_file(files, &GUARDIANS, findings, |row, keys| {
        let guardian = row.key(forms::identifier, shown_guardian, keys);
        let name = row.personal(forms::name);
        let phone = row.personal(forms::phone);
        let email = row.personal(forms::email);
        let app_token = row.personal(forms::token);
        let line_user = row.personal(forms::token);
        let language = row.cell(forms::language);
        Some(Guardian {
            guardian: guardian?,
            name: name?,
            phone: phone?,
            email: email?,
            app_token: app_token?,
            line_user: line_user?,
            language: language?,
            removed: None,
        })
    })
}

/// What a pair of guardian and pupil refers to.
struct Pairs<'a> {
    guardians: &'a Keys<GuardianId>,
    pupils: &'a Keys<PupilId>,
}

impl Pairs<'_> {
    fn read(&self, row: &mut Row<'_>) -> Option<(GuardianId, PupilId)> {
        let guardian = row.reference(forms::identifier, shown_guardian, self.guardians, &GUARDIANS);
        let pupil = row.reference(forms::identifier, shown_pupil, self.pupils, &PUPILS);
        Some((guardian?, pupil?))
    }
}

fn read_bindings(
    files: CityFiles<'_>,
    zone: &TimeZone,
    pairs: &Pairs<'_>,
    findings: &mut Findings,
) -> Vec<Line<BindingRow>> {
    let (rows, _) = read_file(files, &BINDINGS, findings, |row, _: &mut HashMap<(), u64>| {
        let pair = pairs.read(row);
        let relation = row.cell(forms::relation);
        let stretch = row.stretch(zone);
        let (guardian, pupil) = pair?;
        Some(BindingRow { guardian, pupil, bond: Bond { relation: relation?, stretch: stretch? } })
    });
    rows
}

fn read_subscriptions(
    files: CityFiles<'_>,
    zone: &TimeZone,
    pairs: &Pairs<'_>,
    findings: &mut Findings,
) -> Vec<Line<SubscriptionRow>> {
    let (rows, _) = read_file(files, &SUBSCRIPTIONS, findings, |row, _: &mut HashMap<(), u64>| {
        let pair = pairs.read(row);
        let channel = row.cell(forms::free_channel);
        let passages = row.cell(forms::passages);
        let stretch = row.stretch(zone);
        let (guardian, pupil) = pair?;
        let includes = SubscriptionLine { passages: passages?, stretch: stretch? };
        Some(SubscriptionRow { guardian, pupil, channel: channel?, includes })
    });
    rows
}

fn read_orders(
    files: CityFiles<'_>,
    zone: &TimeZone,
    pairs: &Pairs<'_>,
    findings: &mut Findings,
) -> Vec<Line<Order>> {
    let (rows, _) = read_file(files, &ORDERS, findings, |row, keys| {
        let order = row.key(forms::identifier, |order: &OrderId| quoted(order.as_str()), keys);
        let pair = pairs.read(row);
        let plan = row.cell(forms::passages);
        let state = row.cell(forms::order_state);
        let prepaid = row.cell(forms::prepaid);
        let stamps = row.stamps(state, zone);
        let (guardian, pupil) = pair?;
        let (approved_at, cancelled_at) = stamps?;
        let state = state?;
        // What is only ordered has not been paid, whatever the cell says (the public format).
        let prepaid_dollars = if state == OrderState::Ordered { 0 } else { prepaid? };
        Some(Order {
            order: order?,
            guardian,
            pupil,
            plan: plan?,
            state,
            prepaid_dollars,
            approved_at,
            cancelled_at,
        })
    });
    rows
}

impl Row<'_> {
    /// The next two columns as an order's stamps, which must fit its state.
    fn stamps(
        &mut self,
        state: Option<OrderState>,
        zone: &TimeZone,
    ) -> Option<(Option<Timestamp>, Option<Timestamp>)> {
        let approved_column = self.next_column();
        let approved_at = self.cell(|text| forms::time(text, zone));
        let cancelled_column = self.next_column();
        let cancelled_at = self.cell(|text| forms::time(text, zone));
        let (state, approved_at, cancelled_at) = (state?, approved_at?, cancelled_at?);
        let mut fits = true;
        let mut refuse = |row: &mut Self, column, allowed| {
            let value = row.value(column);
            row.mistake(column, value, allowed);
            fits = false;
        };
        match state {
            OrderState::Ordered | OrderState::Paid if approved_at.is_some() => {
                refuse(self, approved_column, "an empty cell, since the order is not approved yet");
            }
            OrderState::Approved if approved_at.is_none() => {
                refuse(self, approved_column, "a time, since the order is approved");
            }
            _ => {}
        }
        match (state, cancelled_at) {
            (OrderState::Cancelled, None) => {
                refuse(self, cancelled_column, "a time, since the order is cancelled");
            }
            (OrderState::Cancelled, Some(cancelled)) => {
                if approved_at.is_some_and(|approved| cancelled < approved) {
                    refuse(self, cancelled_column, "a time that is not before approved_at");
                }
            }
            (_, Some(_)) => refuse(self, cancelled_column, "an empty cell, since the order is not cancelled"),
            (_, None) => {}
        }
        fits.then_some((approved_at, cancelled_at))
    }
}

fn read_days(files: CityFiles<'_>, schools: &Keys<SchoolId>, findings: &mut Findings) -> Vec<Line<DayRule>> {
    let (rows, _) = read_file(files, &DAYS, findings, |row, keys| {
        let date = row.cell(forms::day);
        let school = row.school_or_all(schools);
        let kind = row.cell(forms::day_kind);
        let name = row.cell(forms::text);
        let shown = |(date, school): &(_, Option<SchoolId>)| match school {
            Some(school) => format!("{date} of {}", shown_school(school)),
            None => format!("{date} of all schools"),
        };
        let (date, school) = row.once(KEY_COLUMN, (date?, school?), shown, keys)?;
        Some(DayRule { date, school, rule: Some(kind?), name: name? })
    });
    rows
}

impl Row<'_> {
    /// The next column as a school, or as nothing, which is all schools.
    fn school_or_all(&mut self, schools: &Keys<SchoolId>) -> Option<Option<SchoolId>> {
        let column = self.next_column();
        let school: Option<SchoolId> = self.cell(forms::identifier_or_empty)?;
        let is_known = match (&school, schools) {
            (Some(school), Some(schools)) => schools.contains_key(school),
            _ => true,
        };
        if !is_known {
            let value = self.value(column);
            self.mistake(column, value, "empty, or a school of schools.csv");
            return None;
        }
        Some(school)
    }
}
