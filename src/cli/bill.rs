//! `gatebell bill`: one line an order, as the public format has it.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::ensure;
use comfy_table::{CellAlignment, Table, presets};
use gatebell_engine::billing::BillLine;
use gatebell_engine::ids::SchoolId;

use super::{Globals, now};
use crate::cli::operator::operator;
use crate::statement::{OrderBook, Statement, StatementLine, current_statement};

/// The columns, in the order of the public format.
const COLUMNS: [&str; 11] = [
    "order",
    "school",
    "pupil",
    "guardian",
    "plan",
    "state",
    "prepaid",
    "delivered",
    "fee",
    "waived",
    "refund",
];
/// From this column on there are numbers.
const FIRST_NUMBER: usize = 6;

/// Prints the bill of a term: one line an order, in whole NT$. Which lines are drafts is said on standard
/// error. Lines of orders that were cancelled more than seven days ago become final with this.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The term: a name or a file [default: the one that is served]
    #[arg(long)]
    term: Option<String>,
    /// Only orders about pupils of this school
    #[arg(long, value_name = "SCHOOL")]
    school: Option<SchoolId>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// With a header row
    Csv,
    /// One array of objects
    Json,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    let term = globals.term_of(&home, args.term.as_deref())?;
    let books = home.books()?;
    let orders = OrderBook::of(&home)?;
    if let Some(school) = &args.school {
        ensure!(orders.has_school(school), "no pupil on record is at school {school}");
    }
    let mut bill = current_statement(&term, &orders, &*books, now(), &operator())?;
    if let Some(school) = &args.school {
        bill.lines.retain(|line| line.line.school == *school);
    }

    let lines: Vec<&BillLine> = bill.lines.iter().map(|line| &line.line).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    match args.format {
        Format::Table => print_table(&lines, &mut out)?,
        Format::Csv => print_csv(&lines, &mut out)?,
        Format::Json => print_json(&lines, &mut out)?,
    }
    out.flush()?;
    say_what_is_not_final(&bill, &term.name)?;
    Ok(ExitCode::SUCCESS)
}

fn print_table(lines: &[&BillLine], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(COLUMNS);
    for line in lines {
        table.add_row([
            line.order.as_str(),
            line.school.as_str(),
            line.pupil.as_str(),
            line.guardian.as_str(),
            line.plan.name(),
            line.state.name(),
            &line.prepaid.0.to_string(),
            &line.delivered.to_string(),
            &line.fee.0.to_string(),
            &line.waived.0.to_string(),
            &line.refund.0.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(FIRST_NUMBER) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{table}")
}

fn print_csv(lines: &[&BillLine], out: &mut impl Write) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(out);
    // By hand, so that an empty bill has its header too.
    writer.write_record(COLUMNS)?;
    for line in lines {
        writer.serialize(line)?;
    }
    writer.flush()
}

fn print_json(lines: &[&BillLine], out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, lines)?;
    writeln!(out)
}

fn say_what_is_not_final(bill: &Statement, term: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    let drafts: Vec<&StatementLine> = bill.lines.iter().filter(|line| line.is_draft).collect();
    let lines = bill.lines.len();
    match drafts.len() {
        0 => writeln!(err, "term {term}: {lines} lines, all final")?,
        all if all == lines => writeln!(err, "term {term}: all {lines} lines are drafts")?,
        some => {
            let names: Vec<&str> = drafts.iter().map(|draft| draft.line.order.as_str()).collect();
            writeln!(err, "term {term}: {some} of {lines} lines are drafts: {}", names.join(", "))?;
        }
    }
    for order in &bill.orders_not_on_record {
        writeln!(err, "warning: order {order} has charges but is not on record, so it has no line")?;
    }
    Ok(())
}
