//! `gatebell notices`: what was sent about a pupil, when, what became of it, and the fee so far; for parents
//! and schools.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::bail;
use comfy_table::{CellAlignment, Table, presets};
use gatebell_engine::ids::{GuardianId, NoticeId, PupilId};
use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::notice::{Channel, NoticeKind};
use gatebell_engine::term::Term;
use gatebell_engine::time::{Day, Timestamp};

use super::{Globals, now};
use crate::cli::operator::operator;
use crate::statement::{OrderBook, StatementLine, current_statement};

/// Shows what was sent about a pupil, to whom, when, what became of it, and the fee so far.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pupil's code
    #[arg(long, value_name = "PUPIL")]
    pupil: PupilId,
    /// One day only, such as 2025-09-08
    #[arg(long, value_name = "DAY")]
    day: Option<Day>,
    /// The term: a name or a file [default: the one that is served]
    #[arg(long)]
    term: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    let term = globals.term_of(&home, args.term.as_deref())?;
    let books = home.books()?;
    let orders = OrderBook::of(&home)?;
    let days = args.day.map_or(term.first_day..=term.last_day, |day| day..=day);
    let entries = books.entries_of_pupil(days.clone(), &args.pupil)?;
    if entries.is_empty() && !orders.has_pupil(&args.pupil) {
        bail!("no pupil {} on record", args.pupil);
    }
    let mut bill = current_statement(&term, &orders, &*books, now(), &operator())?;
    bill.lines.retain(|line| line.line.pupil == args.pupil);

    let mut out = BufWriter::new(std::io::stdout().lock());
    writeln!(out, "學生 pupil {}  學期 term {}  {} – {}", args.pupil, term.name, days.start(), days.end())?;
    if entries.is_empty() {
        writeln!(out, "沒有通知 no notices")?;
    } else {
        writeln!(out, "{}", notices_table(&entries, &term))?;
    }
    if !bill.lines.is_empty() {
        writeln!(out, "{}", fee_table(&bill.lines))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One row a notice, in the order of the taps.
fn notices_table(entries: &[LedgerEntry], term: &Term) -> Table {
    let mut notices: BTreeMap<(Timestamp, &GuardianId, Channel, NoticeId), Vec<&LedgerEntry>> =
        BTreeMap::new();
    for entry in entries {
        let place = (entry.at, &entry.guardian, entry.channel, entry.notice);
        notices.entry(place).or_default().push(entry);
    }
    let mut table = table([
        "日期\nday",
        "刷卡\ntap",
        "事由\nkind",
        "管道\nchannel",
        "家長\nguardian",
        "結果\nwhat became of it",
        "時間\nwhen",
        "訂單\norder",
        "計費\ncharged",
    ]);
    for history in notices.values() {
        let Some(decisive) = decisive_entry(history) else { continue };
        table.add_row([
            decisive.day.to_string(),
            clock_time(decisive.at, term),
            kind_words(decisive.kind).to_owned(),
            channel_words(decisive.channel).to_owned(),
            decisive.guardian.to_string(),
            what_became_of_it(decisive),
            clock_time(decisive.time, term),
            decisive.order.as_ref().map(ToString::to_string).unwrap_or_default(),
            charged(history, term),
        ]);
    }
    table
}

/// One row an order.
fn fee_table(lines: &[StatementLine]) -> Table {
    let mut table = table([
        "訂單\norder",
        "家長\nguardian",
        "方案\nplan",
        "狀態\nstate",
        "預繳\nprepaid",
        "成功通數\ndelivered",
        "費用\nfee so far",
        "減免\nwaived",
        "退費\nrefund",
        "",
    ]);
    for StatementLine { line, is_draft } in lines {
        table.add_row([
            line.order.to_string(),
            line.guardian.to_string(),
            line.plan.to_string(),
            line.state.name().to_owned(),
            line.prepaid.to_string(),
            line.delivered.to_string(),
            line.fee.to_string(),
            line.waived.to_string(),
            line.refund.to_string(),
            if *is_draft { "暫計 draft" } else { "結清 final" }.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(4).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    table
}

/// The entry that says what became of a notice: proof of delivery, else its last end, else the last thing
/// that happened. What was charged says nothing of that.
fn decisive_entry<'a>(history: &[&'a LedgerEntry]) -> Option<&'a LedgerEntry> {
    let is_booking = |entry: &&&LedgerEntry| matches!(entry.event, Event::Charged | Event::Adjusted);
    let told: Vec<&&LedgerEntry> = history.iter().filter(|entry| !is_booking(entry)).collect();
    let delivered = told.iter().find(|entry| entry.event == Event::Delivered);
    let ended = || told.iter().rev().find(|entry| entry.event.is_end());
    delivered.or_else(ended).or(told.last()).copied().or(history.last()).copied()
}

fn charged(history: &[&LedgerEntry], term: &Term) -> String {
    if history.iter().any(|entry| entry.event == Event::Charged) {
        return term.sms_price.to_string();
    }
    if history.iter().any(|entry| entry.event == Event::Adjusted) {
        return "已結帳,不計 after closing: free".to_owned();
    }
    String::new()
}

fn what_became_of_it(entry: &LedgerEntry) -> String {
    let words = match entry.event {
        Event::Claimed | Event::Submitted => "傳送中 on its way",
        Event::Accepted => "已送出 sent",
        Event::Delivered | Event::Charged | Event::Adjusted => "已送達 delivered",
        Event::Failed => "未送達 failed",
        Event::Expired => "逾時未送 too late, not sent",
        Event::Suppressed => "未送 not sent",
    };
    match &entry.reason {
        Some(reason) => format!("{words} ({reason})"),
        None => words.to_owned(),
    }
}

fn kind_words(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Arrival => "到校 arrival",
        NoticeKind::Departure => "離校 departure",
        NoticeKind::Absence => "未到校 absence",
        NoticeKind::Correction => "更正 correction",
        NoticeKind::Emergency => "緊急 emergency",
    }
}

fn channel_words(channel: Channel) -> &'static str {
    match channel {
        Channel::App => "酷課 app",
        Channel::Email => "電子郵件 e-mail",
        Channel::Line => "LINE",
        Channel::Sms => "簡訊 SMS",
    }
}

/// Hours, minutes and seconds in the city.
fn clock_time(at: Timestamp, term: &Term) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(instant) => instant.to_zoned(term.time_zone().clone()).strftime("%H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}
