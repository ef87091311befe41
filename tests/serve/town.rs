//! A small made-up town in the midst of its school day, whenever the test runs.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

/// Its only school.
pub(crate) const SCHOOL: &str = "353604";
/// The reader at its gate; it does not know the direction.
pub(crate) const READER: &str = "353604-G1";

/// Pupils `P0`, `P1` and so on, each with a card, a guardian of the same number, an approved SMS order for
/// both passages and a subscription by the app.
#[derive(Clone)]
pub(crate) struct Town {
    pub(crate) pupils: usize,
    pub(crate) directory: PathBuf,
    pub(crate) term: PathBuf,
    today: String,
}

impl Town {
    /// Writes city directory and term below `parent`.
    pub(crate) fn of(pupils: usize, parent: &Path) -> Self {
        let directory = parent.join("city");
        fs::create_dir_all(&directory).unwrap();
        let table = |name: &str, header: &str, row: &dyn Fn(usize) -> String| {
            let rows: String = (0..pupils).map(|pupil| row(pupil) + "\n").collect();
            fs::write(directory.join(name), format!("{header}\n{rows}")).unwrap();
        };
        fs::write(
            directory.join("schools.csv"),
            format!("school,name,level,departure_opens\n{SCHOOL},北一女中,senior,23:59\n"),
        )
        .unwrap();
        fs::write(
            directory.join("readers.csv"),
            format!("reader,school,name,direction\n{READER},{SCHOOL},大門,both\n"),
        )
        .unwrap();
        table("pupils.csv", "pupil,school,class,seat,name", &|n| {
            format!("P{n},{SCHOOL},101,{n},{}", name_of_pupil(n))
        });
        table("cards.csv", "card,pupil,from,until", &|n| format!("{},P{n},,", card(n)));
        table("guardians.csv", "guardian,name,phone,email,app_token,line_user,language", &|n| {
            format!("G{n},{},{},parent{n}@example.org,{},,", name_of_guardian(n), phone(n), app_token(n))
        });
        table("bindings.csv", "guardian,pupil,relation,from,until", &|n| format!("G{n},P{n},mother,,"));
        table("subscriptions.csv", "guardian,pupil,channel,passages,from,until", &|n| {
            format!("G{n},P{n},app,both,,")
        });
        table("orders.csv", "order,guardian,pupil,plan,state,prepaid,approved_at,cancelled_at", &|n| {
            format!("O{n},G{n},P{n},both,approved,136,2020-01-01,")
        });
        let zone = zone_at_noon();
        let today = Timestamp::now().in_tz(&zone).unwrap().date();
        let (yesterday, tomorrow) = (today.yesterday().unwrap(), today.tomorrow().unwrap());
        let term = parent.join("term.toml");
        fs::write(
            &term,
            format!(
                "name = \"trial\"\ntime_zone = \"{zone}\"\nfirst_day = {yesterday}\nlast_day = {tomorrow}\n\
                 weekdays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\n\
                 channels = [\"app\", \"sms\"]\nsms_price = 75\n\
                 [plans]\narrival = 6800\ndeparture = 6800\nboth = 13600\n"
            ),
        )
        .unwrap();
        Self { pupils, directory, term, today: today.to_string() }
    }

    /// The town's day.
    pub(crate) fn today(&self) -> &str {
        &self.today
    }

    /// Everything that must not be printed anywhere.
    pub(crate) fn personal(&self) -> Vec<String> {
        (0..self.pupils)
            .flat_map(|n| [name_of_pupil(n), name_of_guardian(n), phone(n), card(n), app_token(n), email(n)])
            .collect()
    }
}

/// A tap of pupil `n` just now.
pub(crate) fn tap(n: usize) -> Value {
    json!({"card": card(n), "reader": READER, "at": Timestamp::now().as_millisecond() - 2000})
}

pub(crate) fn card(n: usize) -> String {
    format!("04173918265{n:05}")
}

pub(crate) fn phone(n: usize) -> String {
    format!("09123{n:05}")
}

fn app_token(n: usize) -> String {
    format!("apptokenof{n:05}")
}

fn email(n: usize) -> String {
    format!("parent{n}@example.org")
}

/// No name is part of another one, nor of any other text.
fn name_of_pupil(n: usize) -> String {
    format!("王{}明", syllable(n))
}

fn name_of_guardian(n: usize) -> String {
    format!("林{}芬", syllable(n))
}

fn syllable(n: usize) -> char {
    char::from_u32(0x5000 + u32::try_from(n).unwrap()).unwrap()
}

/// A time zone in which it is about noon, so that no test runs over midnight.
fn zone_at_noon() -> String {
    let hour_utc = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour();
    // By POSIX, a zone east of Greenwich has the minus.
    match i32::from(hour_utc) - 12 {
        west @ 1.. => format!("Etc/GMT+{west}"),
        0 => "Etc/GMT".to_owned(),
        east => format!("Etc/GMT{east}"),
    }
}
