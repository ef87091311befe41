//! `gatebell days off|school`: a day off (a typhoon, say) or a makeup day, of one school or of all.

use std::process::ExitCode;

use anyhow::ensure;
use clap::ValueEnum;
use gatebell_engine::ids::SchoolId;
use gatebell_engine::registry::{DayKind, DayRule, Entry, EntryKey};
use gatebell_engine::time::Day;

use super::Globals;
use super::registry_change::{By, Decided, RegistryOfCity};

/// Makes a date a day off or a day of school. A line for a school goes before one for all, both before the term.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the date is made
    kind: Kind,
    /// The date, YYYY-MM-DD
    #[arg(value_parser = parse_date)]
    date: Day,
    /// Only this school; without it, all schools
    #[arg(long)]
    school: Option<SchoolId>,
    /// What the day is called, such as 颱風停課
    #[arg(long)]
    name: String,
    /// The term in which the date should lie: a name or a file [default: the one that is served]
    #[arg(long)]
    term: Option<String>,
    #[command(flatten)]
    by: By,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// No school
    Off,
    /// School, as on a makeup day
    School,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    ensure!(!args.name.trim().is_empty(), "the day needs a name: --name 颱風停課");
    ensure!(!args.name.contains(char::is_control), "the name of the day must be on one line");
    let city = RegistryOfCity::open(globals)?;
    let term = globals.term_of(city.home(), args.term.as_deref())?;
    let is_in_term = (term.first_day..=term.last_day).contains(&args.date);
    let outside = || {
        let (from, to) = (term.first_day, term.last_day);
        format!(
            "{} is outside term {} ({from} to {to}): there it stays a day without school",
            args.date, term.name
        )
    };
    city.change(&args.by, |city, _| {
        let mut decided = decide(city, args)?;
        if !is_in_term {
            decided.warnings.push(outside());
        }
        Ok(decided)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn decide(city: &RegistryOfCity, args: &Args) -> anyhow::Result<Decided> {
    if let Some(school) = &args.school {
        city.school(school)?;
    }
    let (kind, word) = match args.kind {
        Kind::Off => (DayKind::Off, "a day off"),
        Kind::School => (DayKind::School, "a day of school"),
    };
    let rule = DayRule {
        date: args.date,
        school: args.school.clone(),
        rule: Some(kind),
        name: args.name.as_str().into(),
    };
    let entry = Entry::Day(rule);
    let stands = city.entry(&EntryKey::Day(args.date, args.school.clone()))?;
    let whose = args.school.as_ref().map_or("all schools".to_owned(), |school| format!("school {school}"));
    let message = format!("{} is {word} for {whose} ({})", args.date, args.name);
    let entries = if stands.as_ref() == Some(&entry) { Vec::new() } else { vec![entry] };
    Ok(Decided { entries, message, warnings: Vec::new() })
}

fn parse_date(text: &str) -> Result<Day, String> {
    let is_form = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let day = if is_form { text.parse().ok() } else { None };
    day.ok_or_else(|| "a date is written YYYY-MM-DD".to_owned())
}
