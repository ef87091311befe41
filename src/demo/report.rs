//! The report: one pupil's story, then everybody's figures, then what proves them, then what to type next.

use std::path::Path;

use gatebell_engine::billing::BillLine;
use gatebell_engine::money::Dollars;
use gatebell_engine::notice::Channel;
use gatebell_engine::runtime::status::StatusSnapshot;

use super::account::Account;
use super::city::{City, School};
use super::limiter_use::LimiterUse;
use super::page::{Check, Page, count, percentiles, time};
use super::stage::Pace;
use super::story::{Records, Story};

/// Everything that the report is made from.
pub(crate) struct Findings<'a> {
    pub(crate) account: Account<'a>,
    pub(crate) records: Records<'a>,
    pub(crate) status: &'a StatusSnapshot,
    /// What the SMS lane was allowed …
    pub(crate) pace: Pace,
    /// … and what it used.
    pub(crate) sms_lane: LimiterUse,
    /// The bill of the whole city.
    pub(crate) bill: &'a [BillLine],
    /// Where the books are.
    pub(crate) data: &'a Path,
    /// Whether the city lives on servers, and only its configuration in `data`.
    pub(crate) is_shared: bool,
}

/// Lines of the school's bill that are shown.
const BILL_LINES_SHOWN: usize = 6;

/// Writes the report; gives what does not hold.
pub(crate) fn write(findings: &Findings<'_>, page: &mut Page) -> usize {
    let story = Story::find(&findings.records);
    page.section("One pupil's morning");
    match &story {
        Some(story) => story.tell(page),
        None => page.line("no SMS was delivered to anybody: there is no story to tell"),
    }
    let mut checks = Vec::new();
    page.section("What became of the taps");
    checks.extend(findings.account.taps(page));
    page.section("How the notices ended");
    checks.extend(findings.account.notices(page));
    latencies(findings, page);
    checks.push(limiter(findings, page));
    school_bill(findings, story.as_ref().map_or(0, Story::school), page);
    checks.extend(findings.account.books());
    page.section("Why to trust it: four records of this morning, each kept by another hand");
    for check in &checks {
        page.check(check);
    }
    next(findings, story.as_ref(), page);
    checks.iter().filter(|check| !check.holds).count()
}

fn latencies(findings: &Findings<'_>, page: &mut Page) {
    page.section("How long it took (real time, not the city's)");
    let header = ["", "how many", "half", "90 %", "99 %", "longest"].map(str::to_owned).to_vec();
    let row = |name: &str, of| {
        let mut row = vec![name.to_owned()];
        row.extend(percentiles(of));
        row
    };
    let mut rows =
        vec![header, row("a reader's upload → 202, its taps on disk", &findings.account.played.answer_us)];
    let answered = &findings.status.tap_to_answer_us;
    rows.extend(
        answered.get(&Channel::App).map(|it| row("tap in the log → the app's push backend has it", it)),
    );
    rows.extend(answered.get(&Channel::Sms).map(|it| row("tap in the log → the SMS gateway has it", it)));
    page.table(1, rows);
}

fn limiter(findings: &Findings<'_>, page: &mut Page) -> Check {
    page.section("The SMS lane and its limit");
    let counts = findings.account.gateway.counts;
    let LimiterUse { waiting, queued_max, .. } = findings.sms_lane;
    page.line(format!(
        "agreed: {} messages a second, {} of them at once; the gateway counted {} in its busiest second",
        findings.pace.rate_per_s,
        findings.pace.burst,
        count(counts.peak_per_s)
    ));
    match findings.sms_lane.rate_per_s() {
        Some(rate) => page.line(format!(
            "up to {} waited, for {} in all; {rate:.1} a second went out meanwhile: {:.1} % of the agreed rate",
            count(queued_max as u64),
            time(waiting),
            100.0 * rate / f64::from(findings.pace.rate_per_s),
        )),
        None => page.line("nothing had to wait: the rate was never the limit"),
    }
    Check::equal(
        "the gateway never got more than agreed",
        ("agreed beyond", 0),
        ("overruns it counted", counts.overruns),
    )
}

fn school_bill(findings: &Findings<'_>, school: usize, page: &mut Page) {
    let City { schools, .. } = findings.records.city;
    let Some(School { code, name, .. }) = schools.get(school) else { return };
    page.section(&format!("The bill of {name} ({code})"));
    let lines: Vec<&BillLine> = findings.bill.iter().filter(|line| line.school.as_str() == code).collect();
    let header = ["order", "pupil", "guardian", "plan", "state", "prepaid", "delivered", "fee"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(lines.iter().take(BILL_LINES_SHOWN).map(|line| {
        vec![
            line.order.to_string(),
            line.pupil.to_string(),
            line.guardian.to_string(),
            line.plan.to_string(),
            line.state.name().to_owned(),
            line.prepaid.to_string(),
            count(line.delivered),
            line.fee.to_string(),
        ]
    }));
    let sum = |of: fn(&BillLine) -> i64| lines.iter().map(|line| of(line)).sum::<i64>();
    rows.push(vec![
        format!("all {}", count(lines.len() as u64)),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        Dollars(sum(|line| line.prepaid.0)).to_string(),
        count(lines.iter().map(|line| line.delivered).sum()),
        Dollars(sum(|line| line.fee.0)).to_string(),
    ]);
    page.table(5, rows);
    page.line("NT$0.75 a delivered message, rounded up once a pupil and guardian: one message makes NT$1");
}

fn next(findings: &Findings<'_>, story: Option<&Story<'_>>, page: &mut Page) {
    let data = findings.data.display();
    // A shared city is found by its configuration, which lies beside the data.
    let city =
        if findings.is_shared { format!("--config {data}/gatebell.toml") } else { format!("--data {data}") };
    let school = story.map_or(0, Story::school);
    let school = findings.records.city.schools.get(school).map_or("900001", |it| it.code.as_str());
    let pupil = story.map_or("P0000001", Story::pupil_code);
    page.section("What to type next");
    for line in [
        format!("dev/run notices {city} --pupil {pupil}"),
        format!("dev/run bill {city} --term 114-1 --school {school}"),
        format!("dev/run recount {city}"),
        format!("dev/run ledger export {city} --from 2025-09-08 --to 2025-09-08 | head"),
        format!("rm -r {data}"),
    ] {
        page.line(line);
    }
}
