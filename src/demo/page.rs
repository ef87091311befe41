//! How the demo's report is set: sections, tables, numbers, at most [`WIDTH`] columns wide.

use std::fmt::Display;
use std::time::Duration;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table};
use hdrhistogram::Histogram;
use unicode_width::UnicodeWidthStr as _;

/// Columns of a page.
pub(crate) const WIDTH: u16 = 100;
const INDENT: &str = "   ";

/// A report under way.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// Begins a section.
    pub(crate) fn section(&mut self, title: &str) {
        // A Chinese character is two columns wide.
        let rule = "─".repeat(usize::from(WIDTH).saturating_sub(title.width() + 4));
        self.text.push_str(&format!("\n── {title} {rule}\n"));
    }

    /// One line; indented under its section.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.text.push_str(&format!("{INDENT}{text}\n"));
    }

    /// A table: the first `left` columns are words, the others numbers.
    pub(crate) fn table(&mut self, left: usize, rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        for row in rows {
            table.add_row(row);
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if place >= left {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        for line in table.lines() {
            self.line(line.trim_end());
        }
    }

    /// Something that must hold, and what was found.
    pub(crate) fn check(&mut self, check: &Check) {
        let mark = if check.holds { "✓" } else { "✗ DIFFERS:" };
        self.line(format!("{mark} {}", check.what));
        if !check.holds {
            for line in &check.found {
                self.line(format!("    {line}"));
            }
        }
    }

    /// The finished text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What, as a sentence that is true when it holds.
    pub(crate) what: String,
    /// Whether it does.
    pub(crate) holds: bool,
    /// What was found otherwise; a few lines.
    pub(crate) found: Vec<String>,
}

impl Check {
    /// Two numbers that must be equal.
    pub(crate) fn equal(what: impl Into<String>, left: (&str, u64), right: (&str, u64)) -> Self {
        let found =
            vec![format!("{}: {}", left.0, count(left.1)), format!("{}: {}", right.0, count(right.1))];
        Self { what: what.into(), holds: left.1 == right.1, found }
    }

    /// A list that must be empty; the first few of it are shown.
    pub(crate) fn none<T: Display>(
        what: impl Into<String>,
        differences: impl IntoIterator<Item = T>,
    ) -> Self {
        const SHOWN_MAX: usize = 10;
        let mut found: Vec<String> = Vec::new();
        let mut more = 0_u64;
        for difference in differences {
            if found.len() < SHOWN_MAX {
                found.push(difference.to_string());
            } else {
                more += 1;
            }
        }
        let holds = found.is_empty();
        if more > 0 {
            found.push(format!("… and {} more", count(more)));
        }
        Self { what: what.into(), holds, found }
    }
}

/// `12 345`: groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A duration as a person reads it: `850 µs`, `3.2 ms`, `42 ms`, `1.25 s`.
pub(crate) fn time(duration: Duration) -> String {
    match duration.as_micros() {
        us @ 0..1_000 => format!("{us} µs"),
        us @ 1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        us @ 10_000..1_000_000 => format!("{} ms", us / 1_000),
        us => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// The columns of a row of percentiles, from a histogram in microseconds: how many, p50, p90, p99, the largest.
pub(crate) fn percentiles(of: &Histogram<u64>) -> Vec<String> {
    let us = |value: u64| time(Duration::from_micros(value));
    vec![
        count(of.len()),
        us(of.value_at_quantile(0.5)),
        us(of.value_at_quantile(0.9)),
        us(of.value_at_quantile(0.99)),
        us(of.max()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (12_345_678, "12 345 678")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        for (us, text) in [(7, "7 µs"), (3_249, "3.2 ms"), (42_900, "42 ms"), (1_254_000, "1.25 s")] {
            assert_eq!(time(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn a_list_that_must_be_empty_shows_its_first_few() {
        assert!(Check::none("nothing", Vec::<String>::new()).holds);
        let check = Check::none("nothing", (0..25).map(|it| it.to_string()));
        assert!(!check.holds);
        assert_eq!((check.found.len(), check.found.last().map(String::as_str)), (11, Some("… and 15 more")));
    }

    #[test]
    fn a_section_fills_the_width() {
        let mut page = Page::default();
        page.section("The bill of 市立海棠高中");
        assert_eq!(page.text().trim().width(), usize::from(WIDTH));
    }
}
