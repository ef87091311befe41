//! What operators are given must fit what the program says: names of figures, and where help stands.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;

const ALERTS: &str = include_str!("../../../config/prometheus/alerts.yml");
const ALERT_EXAMPLES: &str = include_str!("../../../config/prometheus/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../../config/grafana/gatebell.json");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Names of figures in `text`, as the tables have them: without the suffixes of a histogram's series.
fn figures_named_in(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("gatebell_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

fn figures_described() -> BTreeSet<&'static str> {
    COUNTERS.iter().chain(&GAUGES).chain(&HISTOGRAMS).map(|(name, _)| *name).collect()
}

#[test]
fn alerts_dashboard_and_runbook_name_only_figures_that_exist() {
    for (place, text) in [
        ("alerts", ALERTS),
        ("examples of alerts", ALERT_EXAMPLES),
        ("dashboard", DASHBOARD),
        ("operations.md", OPERATIONS),
    ] {
        let named = figures_named_in(text);
        assert!(!named.is_empty(), "{place} names no figure");
        let unknown: Vec<_> = named.difference(&figures_described()).copied().collect();
        assert!(unknown.is_empty(), "{place}: no such figures: {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_json_whose_panels_all_ask_something() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let asks = panel["targets"].as_array().is_some_and(|targets| !targets.is_empty());
        assert!(asks, "{} asks nothing", panel["title"]);
    }
}

#[test]
fn every_alert_has_its_place_in_the_runbook_and_every_place_its_alert() {
    let alerts: BTreeSet<_> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let headings: BTreeSet<_> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|heading| heading.starts_with("Gatebell"))
        .collect();
    assert_eq!(alerts, headings);
    let anchors: Vec<_> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("runbook: docs/operations.md#")).collect();
    let expected: BTreeSet<_> = alerts.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(anchors.len(), expected.len(), "each alert names one place");
    assert_eq!(anchors.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
}
