//! The demo from beginning to end: sets the stage, plays the morning, waits until everything has ended, and reports.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use gatebell_connectors::store::books::Books;
use gatebell_engine::billing::BillLine;
use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::notice::Channel;
use gatebell_engine::term::Term;
use gatebell_engine::time::Day;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::account::{Account, endings};
use super::city::{City, CityPlan, FIRST_DAY};
use super::limiter_use;
use super::morning::{BEGINS, ENDS, Morning, instant};
use super::page::{Page, count};
use super::player::play;
use super::progress::{self, Watched, step};
use super::report::{self, Findings};
use super::stage::{self, Pace, Servers, Stage};
use super::story::Records;
use crate::home::Home;
use crate::standard_error::say;
use crate::statement::{OrderBook, statement};

/// What to play.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) city: CityPlan,
    /// How many times faster than real time the city's clock runs.
    pub(crate) speed: f64,
    /// Where to keep the data: empty or not there.
    pub(crate) data: PathBuf,
    /// Kafka and the CQL store, when the city is not to live in `data` alone.
    pub(crate) servers: Option<Servers>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every check holds.
    Holds,
    /// So many do not.
    Differs(usize),
    /// It was stopped before the morning was over.
    Stopped,
}

/// After the last tap everything must have ended within this: the last receipts, and what had to be asked for.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at.
const SETTLE_LOOK: Duration = Duration::from_millis(500);
/// Readers send what they have collected this often, in real time …
const COLLECT: Duration = Duration::from_millis(200);
/// … and not more often than this by the city's clock.
const COLLECT_MS_MIN: i64 = 2_000;

/// Plays the demo until its end or until `stop`; the report goes into `page`.
///
/// # Errors
/// When the stage cannot be set, the gate refuses taps, or the engine fails.
pub(crate) async fn perform(
    plan: &Plan,
    term: Term,
    page: &mut Page,
    stop: CancellationToken,
) -> anyhow::Result<Verdict> {
    let pace = Pace::of(plan.city.pupils, plan.speed);
    let city = City::generate(plan.city);
    #[allow(clippy::cast_possible_truncation)]
    let collect_ms = (COLLECT.as_secs_f64() * 1_000.0 * plan.speed) as i64;
    let Morning { uploads, expected } = Morning::draw(&city, plan.city.seed, collect_ms.max(COLLECT_MS_MIN));
    introduce(plan, &city, pace);

    step(&format!("making the city in {} and importing it", plan.data.display()));
    let setting = (plan.city, pace, plan.servers.as_ref());
    let prepared = stage::prepare(&city, &plan.data, &term, setting).await?;
    step("starting the gateway simulator, the engine and its HTTP listeners");
    let home = prepared.home.clone();
    let stage = Stage::set(prepared, term.clone(), pace).await?;
    let books = block_in_place(|| home.books())?;

    step(&format!("the morning begins; operators look at {}", stage.metrics_url()));
    let stop_watching = CancellationToken::new();
    let answered = Arc::new(AtomicU64::new(0));
    let watched = Watched {
        clock: stage.clock(),
        status: stage.status(),
        answered: Arc::clone(&answered),
        reports: expected.sent,
    };
    let watching = tokio::spawn(progress::watch(watched, stop_watching.clone()));
    let measuring = tokio::spawn(limiter_use::measure(
        stage.status(),
        Channel::Sms,
        pace.rate_per_s,
        stop_watching.clone(),
    ));
    let uploads = Arc::new(uploads);
    let played = play(Arc::clone(&uploads), &stage.gate(), stage.clock(), answered, stop.clone()).await;
    if played.is_ok() {
        settle(&stage, &*books, &stop).await?;
    }
    stop_watching.cancel();
    watching.await.context("the progress display failed")??;
    let sms_lane = measuring.await.context("the lane's meter failed")?;
    let status = stage.status().snapshot();
    let gateway = stage.strike().await?;
    let played = played?;
    if stop.is_cancelled() {
        return Ok(Verdict::Stopped);
    }

    step("reading the books");
    let (entries, recount, bill) = block_in_place(|| {
        anyhow::Ok((ledger(&*books)?, books.recount(&term.name)?, bill(&home, &term, &*books)?))
    })?;
    let findings = Findings {
        account: Account {
            city: &city,
            expected: &expected,
            played: &played,
            taps: &status.taps,
            entries: &entries,
            gateway: &gateway,
            recount: &recount,
        },
        records: Records { city: &city, uploads: &uploads, entries: &entries, gateway: &gateway },
        status: &status,
        pace,
        sms_lane,
        bill: &bill,
        data: &plan.data,
        is_shared: plan.servers.is_some(),
    };
    Ok(match report::write(&findings, page) {
        0 => Verdict::Holds,
        differing => Verdict::Differs(differing),
    })
}

/// What this is, before anything moves.
fn introduce(plan: &Plan, city: &City, pace: Pace) {
    let in_force = city.families.orders.iter().filter(|it| it.is_in_force()).count();
    let real = instant(ENDS).since(instant(BEGINS)).div_f64(plan.speed);
    say(format_args!(
        "
 Gatebell · Monday 2025-09-08, first school morning of term 114-1, in a made-up city (seed {seed})
 {schools} schools, {pupils} pupils, {guardians} guardians, {orders} SMS orders in force

 The whole service runs here, as `gatebell serve` runs it: readers report taps over HTTP and get
 their 202 once these are on disk; the engine decides, notices leave by app push and SMS, receipts
 come back, and the bill follows from them. Made up are the people, the readers and, at the other
 end, the gateway simulator, which speaks a real provider's protocol, with limits, faults and late
 receipts.

 The city's clock runs {speed} times faster: 06:50 to 08:30 in {seconds} s. Limits, latencies and
 time-outs are real: the SMS gateway takes {rate} messages a second, too few at half past seven.
",
        seed = plan.city.seed,
        schools = count(city.schools.len() as u64),
        pupils = count(city.pupils.len() as u64),
        guardians = count(city.families.guardians.len() as u64),
        orders = count(in_force as u64),
        speed = plan.speed,
        seconds = real.as_secs(),
        rate = pace.rate_per_s,
    ));
}

/// Waits until every notice has its end and every delivered SMS its charge. What has none by then shows in the report.
async fn settle(stage: &Stage, books: &dyn Books, stop: &CancellationToken) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    while !stop.is_cancelled() && Instant::now() < deadline {
        tokio::time::sleep(SETTLE_LOOK).await;
        if stage.is_idle()
            && stage.gateway_has_told_everything().await
            && is_settled(&block_in_place(|| ledger(books))?)
        {
            break;
        }
    }
    Ok(())
}

fn is_settled(entries: &[LedgerEntry]) -> bool {
    let of = |event| entries.iter().filter(|entry| entry.event == event).count();
    let charged = of(Event::Charged);
    let delivered =
        entries.iter().filter(|it| it.event == Event::Delivered && it.channel == Channel::Sms).count();
    charged == delivered && endings(entries).values().all(super::account::Ending::is_over)
}

/// The ledger of the day, read from the store.
fn ledger(books: &dyn Books) -> anyhow::Result<Vec<LedgerEntry>> {
    let day = Day::from_date(FIRST_DAY);
    Ok(books.entries(day..=day)?.collect::<Result<_, _>>()?)
}

fn bill(home: &Home, term: &Term, books: &dyn Books) -> anyhow::Result<Vec<BillLine>> {
    let orders = OrderBook::of(home)?;
    let statement = statement(term, &orders, &books.term(&term.name)?);
    Ok(statement.lines.into_iter().map(|it| it.line).collect())
}
