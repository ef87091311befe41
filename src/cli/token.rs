//! `gatebell token`: the tokens with which readers' vendors report taps. Works beside a running `serve`,
//! which asks the store at every request. A token is shown once, when it is made; the store keeps its hash.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets};
use gatebell_connectors::store::tokens::{TokenRecord, TokenScope};
use gatebell_engine::ids::SchoolId;
use gatebell_engine::registry::EntryKey;
use secrecy::ExposeSecret as _;

use super::operator::operator;
use super::{Globals, now};
use crate::home::Home;
use crate::standard_error::say;

/// What to do with tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a token and print it, this once
    Add {
        /// For one school: only its own readers may be reported. Without it, for every reader of the city
        #[arg(long, value_name = "SCHOOL")]
        school: Option<SchoolId>,
        /// What it is for, such as the vendor's name
        #[arg(long, value_name = "TEXT")]
        label: String,
    },
    /// List every token ever made, without the tokens themselves
    List,
    /// Make a token invalid at once
    Revoke {
        /// Its number in the list
        id: u64,
    },
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let home = globals.home()?;
    match &args.action {
        Action::Add { school, label } => add(&home, school.as_ref(), label),
        Action::List => list(&home),
        Action::Revoke { id } => revoke(&home, *id),
    }
}

fn add(home: &Home, school: Option<&SchoolId>, label: &str) -> anyhow::Result<ExitCode> {
    ensure!(
        !label.trim().is_empty(),
        "the token needs a label, such as the vendor's name: --label \"gates north\""
    );
    ensure!(!label.contains(char::is_control), "the label must be on one line");
    let scope = match school {
        None => TokenScope::City,
        Some(school) => {
            warn_of_unknown(home, school)?;
            TokenScope::School(school.clone())
        }
    };
    let (record, token) = home.tokens()?.add(&scope, label, &operator(), now())?;
    // The token alone on standard output, so that a script can take it from there.
    writeln!(std::io::stdout(), "{}", token.expose_secret())?;
    say(format_args!("token {} for {}; it is not shown again", record.id, scope_name(&record.scope)));
    Ok(ExitCode::SUCCESS)
}

/// A token may be made before its school is imported; until then its taps are not allowed.
fn warn_of_unknown(home: &Home, school: &SchoolId) -> anyhow::Result<()> {
    let registry = home.registry()?;
    if registry.entry(&EntryKey::School(school.clone()))?.is_none() {
        say(format_args!(
            "warning: no school {school} is registered yet; its taps are not_allowed until it is imported"
        ));
    }
    Ok(())
}

fn list(home: &Home) -> anyhow::Result<ExitCode> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["id", "scope", "label", "made by", "made at", "revoked"]);
    for TokenRecord { id, scope, label, made_by, made_at, revoked } in home.tokens()?.list()? {
        let revoked = revoked.map_or_else(|| "-".to_owned(), |at| at.to_string());
        table.add_row([id.to_string(), scope_name(&scope), label, made_by, made_at.to_string(), revoked]);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(ExitCode::SUCCESS)
}

fn revoke(home: &Home, id: u64) -> anyhow::Result<ExitCode> {
    let revoked = home.tokens()?.revoke(id, now()).context("cannot revoke the token")?;
    if !revoked {
        bail!("there is no valid token {id}; gatebell token list shows all");
    }
    say(format_args!("token {id} is not valid any more"));
    Ok(ExitCode::SUCCESS)
}

fn scope_name(scope: &TokenScope) -> String {
    match scope {
        TokenScope::City => "city".to_owned(),
        TokenScope::School(school) => format!("school {school}"),
    }
}
