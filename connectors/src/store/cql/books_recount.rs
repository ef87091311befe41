//! The recount on a shared store: charges and counters derived again from the ledger's days.
//!
//! A day's evidence is read from its buckets; its charges, which are kept by pupil, are looked up for the pupils of the
//! evidence. What is left, charges of which the ledger knows nothing, is found by going through all charges once. Needs
//! the memory of one day's SMS, and four bytes for each day on which a pupil had one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use futures::{StreamExt, TryStreamExt, stream};
use gatebell_engine::ids::PupilId;
use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::PortError;
use gatebell_engine::recount::{BookedCharge, ChargeKey, Difference, Recount};
use gatebell_engine::time::Day;
use scylla::response::PagingState;
use scylla::value::CqlDate;

use super::books::Tables;
use super::ledger_rows::{date, day, word};
use super::session::{CqlSession, Read};

/// Buckets of a day, or pupils, that are asked about at once.
const READS_AT_ONCE: usize = 32;
/// Notices of a day that are asked for their term.
const TERM_SAMPLES_MAX: usize = 4;

/// The statements of a recount.
#[derive(Debug)]
pub(super) struct Statements {
    select_claim: Read,
    select_charge: Read,
    select_charges_of_day: Read,
    pub(super) select_all_charges: Read,
}

/// A charge as it is read with its partition.
pub(super) type ChargeOfAll = (String, String, String, String, CqlDate, String, Option<bool>);

/// The pupils, and of each the days, whose charges were compared.
type Compared = BTreeMap<(CompactString, PupilId), Vec<Day>>;

impl Statements {
    pub(super) async fn new(session: &Arc<CqlSession>) -> Result<Self, PortError> {
        let select_claim = session.prepare_read(
            "SELECT state FROM keyspace.claims WHERE term = ? AND pupil = ? AND guardian = ? AND kind = ? AND day = ?",
        );
        let select_charge = session.prepare_read(
            "SELECT kind FROM keyspace.charges WHERE term = ? AND pupil = ? AND guardian = ? AND order_code = ? AND day = ? LIMIT 1",
        );
        // Filtering is confined to one partition: a pupil's charges of a term.
        let select_charges_of_day = session.prepare_read(
            "SELECT guardian, order_code, kind, adjusted FROM keyspace.charges WHERE term = ? AND pupil = ? AND day = ?
             ALLOW FILTERING",
        );
        let select_all_charges = session.prepare_read(
            "SELECT term, pupil, guardian, order_code, day, kind, adjusted FROM keyspace.charges",
        );
        Ok(Self {
            select_claim: select_claim.await?,
            select_charge: select_charge.await?,
            select_charges_of_day: select_charges_of_day.await?,
            select_all_charges: select_all_charges.await?,
        })
    }
}

impl Tables {
    /// Every difference between the ledger and the books.
    pub(super) async fn recounted(
        &self,
        term_otherwise: CompactString,
    ) -> Result<Vec<Difference>, PortError> {
        let counters = self.counters().await?;
        let terms: BTreeSet<CompactString> =
            counters.iter().map(|counter| counter.term.clone()).chain([term_otherwise.clone()]).collect();
        let mut recount = Recount::new();
        let mut compared = Compared::new();
        // Terms change seldom: the day before most often tells.
        let mut term_before = term_otherwise.clone();
        for day in self.entries.days().await? {
            let evidence = self.charge_evidence(day).await?;
            if evidence.is_empty() {
                continue;
            }
            let told = self.term_of(&evidence, &term_before, &terms).await?;
            if let Some(term) = &told {
                term_before.clone_from(term);
            }
            let term = told.unwrap_or_else(|| term_otherwise.clone());
            let pupils: BTreeSet<PupilId> = evidence.iter().map(|entry| entry.pupil.clone()).collect();
            let booked: Vec<Vec<BookedCharge>> = stream::iter(pupils.clone())
                .map(|pupil| self.charges_of_day(&term, pupil, day))
                .buffered(READS_AT_ONCE)
                .try_collect()
                .await?;
            recount.add(&term, &evidence, &booked.concat());
            for pupil in pupils {
                compared.entry((term.clone(), pupil)).or_default().push(day);
            }
        }
        self.add_charges_beside(&compared, &mut recount).await?;
        Ok(recount.finish(&counters))
    }

    /// The entries of SMS of `day` that bear on a charge.
    async fn charge_evidence(&self, day: Day) -> Result<Vec<LedgerEntry>, PortError> {
        let buckets = self.entries.buckets(day).await?;
        let mut reading = stream::iter(buckets)
            .map(|bucket| async move { self.entries.of_bucket(&bucket).await })
            .buffered(READS_AT_ONCE);
        let mut evidence = Vec::new();
        while let Some(entries) = reading.try_next().await? {
            evidence.extend(entries.into_iter().filter(bears_on_a_charge));
        }
        Ok(evidence)
    }

    /// An entry does not name its term; what was claimed or charged for it does.
    async fn term_of(
        &self,
        evidence: &[LedgerEntry],
        likely: &CompactString,
        terms: &BTreeSet<CompactString>,
    ) -> Result<Option<CompactString>, PortError> {
        for entry in evidence.iter().take(TERM_SAMPLES_MAX) {
            if self.knows(likely, entry).await? {
                return Ok(Some(likely.clone()));
            }
            let mut asking = stream::iter(terms.clone())
                .map(|term| async move { Ok::<_, PortError>((self.knows(&term, entry).await?, term)) })
                .buffered(READS_AT_ONCE);
            while let Some((knows, term)) = asking.try_next().await? {
                if knows {
                    return Ok(Some(term));
                }
            }
        }
        Ok(None)
    }

    /// Whether the SMS of `entry` was claimed or charged in `term`.
    async fn knows(&self, term: &str, entry: &LedgerEntry) -> Result<bool, PortError> {
        let (pupil, guardian, day) = (entry.pupil.as_str(), entry.guardian.as_str(), date(entry.day));
        let claim = (term, pupil, guardian, entry.kind.name(), day);
        let claimed: Option<(Option<String>,)> = self.session.row(&self.recount.select_claim, claim).await?;
        if claimed.is_some() {
            return Ok(true);
        }
        let Some(order) = &entry.order else { return Ok(false) };
        let charge = (term, pupil, guardian, order.as_str(), day);
        let charged: Option<(String,)> = self.session.row(&self.recount.select_charge, charge).await?;
        Ok(charged.is_some())
    }

    async fn charges_of_day(
        &self,
        term: &CompactString,
        pupil: PupilId,
        day: Day,
    ) -> Result<Vec<BookedCharge>, PortError> {
        let values = (term.as_str(), pupil.as_str(), date(day));
        let rows: Vec<(String, String, String, Option<bool>)> =
            self.session.rows(&self.recount.select_charges_of_day, values).await?;
        rows.into_iter()
            .map(|(guardian, order, kind, adjusted)| {
                let key = ChargeKey {
                    term: term.clone(),
                    pupil: pupil.clone(),
                    guardian: word(&guardian, "guardian")?,
                    order: word(&order, "order_code")?,
                    day,
                    kind: word(&kind, "kind")?,
                };
                Ok(BookedCharge { key, adjusted: adjusted.unwrap_or(false) })
            })
            .collect()
    }

    /// Adds the charges of pupils and days for which the ledger has no evidence.
    async fn add_charges_beside(&self, compared: &Compared, recount: &mut Recount) -> Result<(), PortError> {
        let mut next = Some(PagingState::start());
        while let Some(page) = next {
            let rows: Vec<ChargeOfAll>;
            (rows, next) = self.session.page(&self.recount.select_all_charges, (), page).await?;
            let mut beside = Vec::new();
            for row in rows {
                let charge = booked_charge(row)?;
                let of_pupil = (charge.key.term.clone(), charge.key.pupil.clone());
                let days = compared.get(&of_pupil);
                if days.is_none_or(|days| days.binary_search(&charge.key.day).is_err()) {
                    beside.push(charge);
                }
            }
            // Each names its own term.
            recount.add("", &[], &beside);
        }
        Ok(())
    }
}

fn bears_on_a_charge(entry: &LedgerEntry) -> bool {
    entry.channel == Channel::Sms
        && entry.kind.is_charged()
        && entry.order.is_some()
        && matches!(entry.event, Event::Accepted | Event::Delivered | Event::Charged | Event::Adjusted)
}

/// The charge in a row of all charges.
fn booked_charge(row: ChargeOfAll) -> Result<BookedCharge, PortError> {
    let (term, pupil, guardian, order, date, kind, adjusted) = row;
    let key = ChargeKey {
        term: CompactString::from(term),
        pupil: word(&pupil, "pupil")?,
        guardian: word(&guardian, "guardian")?,
        order: word(&order, "order_code")?,
        day: day(date)?,
        kind: word(&kind, "kind")?,
    };
    Ok(BookedCharge { key, adjusted: adjusted.unwrap_or(false) })
}
