//! Writes a made-up city as a city directory in the public format, ready for `gatebell check` and `gatebell import`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use gatebell_engine::notice::Language;
use gatebell_engine::registry::{Level, OrderState, ReaderDirection, Relation};

use super::city::{CARDS_REPLACED, City};
use crate::city::made_up;

/// Writes every file of the directory, which is made when it is not there.
///
/// # Errors
/// When a file of that name is there already (somebody's city must not be overwritten), or cannot be written.
pub(crate) fn write(city: &City, dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    ensure!(
        !dir.join("schools.csv").exists() && !dir.join("pupils.csv").exists(),
        "{} has a city in it already: name another directory",
        dir.display()
    );
    let directory = CityDirectory { dir };
    directory.table("schools.csv", &["school", "name", "level", "departure_opens"], schools(city))?;
    directory.table("readers.csv", &["reader", "school", "name", "direction"], readers(city))?;
    directory.table("pupils.csv", &["pupil", "school", "class", "seat", "name"], pupils(city))?;
    directory.table("cards.csv", &["card", "pupil", "from", "until"], cards(city))?;
    directory.table(
        "guardians.csv",
        &["guardian", "name", "phone", "email", "app_token", "line_user", "language"],
        guardians(city),
    )?;
    directory.table("bindings.csv", &["guardian", "pupil", "relation", "from", "until"], bindings(city))?;
    directory.table(
        "subscriptions.csv",
        &["guardian", "pupil", "channel", "passages", "from", "until"],
        subscriptions(city),
    )?;
    directory.table(
        "orders.csv",
        &["order", "guardian", "pupil", "plan", "state", "prepaid", "approved_at", "cancelled_at"],
        orders(city),
    )?;
    directory.table("days.csv", &["date", "school", "kind", "name"], day_rules(city))?;
    made_up::mark(dir)
}

struct CityDirectory<'a> {
    dir: &'a Path,
}

impl CityDirectory<'_> {
    fn table<const N: usize>(
        &self,
        name: &str,
        header: &[&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let file = fs::File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut writer = csv::Writer::from_writer(file);
        let fill = || -> csv::Result<()> {
            writer.write_record(header)?;
            for row in rows {
                writer.write_record(&row)?;
            }
            Ok(writer.flush()?)
        };
        fill().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn schools(city: &City) -> impl Iterator<Item = [String; 4]> {
    city.schools.iter().map(|it| {
        let level = match it.level {
            Level::Elementary => "elementary",
            Level::Junior => "junior",
            Level::Senior => "senior",
            Level::Vocational => "vocational",
        };
        [
            it.code.clone(),
            it.name.clone(),
            level.to_owned(),
            it.departure_opens.unwrap_or_default().to_owned(),
        ]
    })
}

fn readers(city: &City) -> impl Iterator<Item = [String; 4]> {
    city.schools.iter().flat_map(|school| {
        school.readers.iter().map(|it| {
            let direction = match it.direction {
                ReaderDirection::In => "in",
                ReaderDirection::Out => "out",
                ReaderDirection::Both => "both",
            };
            [it.code.clone(), school.code.clone(), it.name.to_owned(), direction.to_owned()]
        })
    })
}

fn school_code(city: &City, school: usize) -> String {
    city.schools.get(school).map(|it| it.code.clone()).unwrap_or_default()
}

fn pupil_code(city: &City, pupil: usize) -> String {
    city.pupils.get(pupil).map(|it| it.code.clone()).unwrap_or_default()
}

fn guardian_code(city: &City, guardian: usize) -> String {
    city.families.guardians.get(guardian).map(|it| it.code.clone()).unwrap_or_default()
}

fn pupils(city: &City) -> impl Iterator<Item = [String; 5]> {
    city.pupils.iter().map(|it| {
        [
            it.code.clone(),
            school_code(city, it.school),
            it.class.clone(),
            format!("{:02}", it.seat),
            it.name.clone(),
        ]
    })
}

fn cards(city: &City) -> impl Iterator<Item = [String; 4]> {
    city.pupils.iter().flat_map(|it| {
        let since = if it.lost_card.is_some() { CARDS_REPLACED.to_string() } else { String::new() };
        let lost = it
            .lost_card
            .as_ref()
            .map(|lost| [lost.clone(), it.code.clone(), String::new(), CARDS_REPLACED.to_string()]);
        lost.into_iter().chain([[it.card.clone(), it.code.clone(), since, String::new()]])
    })
}

fn guardians(city: &City) -> impl Iterator<Item = [String; 7]> {
    city.families.guardians.iter().map(|it| {
        let language =
            if it.language == Language::ZhTw { String::new() } else { it.language.tag().to_owned() };
        [
            it.code.clone(),
            it.name.clone(),
            it.phone.clone(),
            String::new(),
            it.app_token.clone(),
            String::new(),
            language,
        ]
    })
}

fn bindings(city: &City) -> impl Iterator<Item = [String; 5]> {
    city.families.bindings.iter().map(|it| {
        let relation = match it.relation {
            Relation::Father => "father",
            Relation::Mother => "mother",
            Relation::PaternalGrandparent => "paternal_grandparent",
            Relation::MaternalGrandparent => "maternal_grandparent",
            Relation::Other => "other",
        };
        let until = if it.ended { "2025-08-25".to_owned() } else { String::new() };
        [
            guardian_code(city, it.guardian),
            pupil_code(city, it.pupil),
            relation.to_owned(),
            String::new(),
            until,
        ]
    })
}

fn subscriptions(city: &City) -> impl Iterator<Item = [String; 6]> {
    city.families.subscriptions.iter().map(|it| {
        [
            guardian_code(city, it.guardian),
            pupil_code(city, it.pupil),
            "app".to_owned(),
            it.passages.name().to_owned(),
            "2025-09-01".to_owned(),
            String::new(),
        ]
    })
}

fn orders(city: &City) -> impl Iterator<Item = [String; 8]> {
    city.families.orders.iter().map(|it| {
        let state = match it.state {
            OrderState::Ordered => "ordered",
            OrderState::Paid => "paid",
            OrderState::Approved => "approved",
            OrderState::Cancelled => "cancelled",
        };
        let stamp =
            |day: Option<i8>, time: &str| day.map(|it| format!("2025-09-{it:02}T{time}")).unwrap_or_default();
        [
            it.code.clone(),
            guardian_code(city, it.guardian),
            pupil_code(city, it.pupil),
            it.plan.name().to_owned(),
            state.to_owned(),
            it.prepaid_dollars().to_string(),
            stamp(it.approved_on, "10:00"),
            stamp(it.cancelled_on, "16:00"),
        ]
    })
}

fn day_rules(city: &City) -> impl Iterator<Item = [String; 4]> {
    city.day_rules.iter().map(|it| {
        let school = it.school.map(|school| school_code(city, school)).unwrap_or_default();
        [it.date.to_string(), school, it.kind.to_owned(), it.name.to_owned()]
    })
}
