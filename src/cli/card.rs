//! `gatebell card replace`: a lost or broken card gives way to a new one, at once.
//!
//! Card numbers are personal and show neither in messages nor in errors; pupils are named by their code.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail, ensure};
use gatebell_engine::ids::CardNumber;
use gatebell_engine::registry::{Card, CardHolder, Entry, EntryKey};
use gatebell_engine::time::{Stretch, Timestamp};

use super::Globals;
use super::registry_change::{By, Decided, RegistryOfCity};

/// Changes of cards.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The pupil who holds OLD holds NEW from now on; OLD is nobody's any more
    Replace {
        /// The card that is lost or broken
        old: String,
        /// The card that takes its place
        new: String,
        #[command(flatten)]
        by: By,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let Command::Replace { old, new, by } = &args.command;
    let (old, new) = (card_of(old).context("the old card")?, card_of(new).context("the new card")?);
    ensure!(old != new, "the old and the new card are the same");
    RegistryOfCity::open(globals)?.change(by, |city, now| replace(city, old, new, now))?;
    Ok(ExitCode::SUCCESS)
}

fn replace(
    city: &RegistryOfCity,
    old: CardNumber,
    new: CardNumber,
    now: Timestamp,
) -> anyhow::Result<Decided> {
    let mut old_holders = holders(city, old)?.ok_or_else(|| anyhow!("there is no such old card"))?;
    let Some(held) = old_holders.iter_mut().find(|holder| holder.stretch.contains(now)) else {
        bail!("nobody holds the old card now");
    };
    let successor =
        CardHolder { pupil: held.pupil.clone(), stretch: Stretch { from: now, until: held.stretch.until } };
    held.stretch.until = now;
    // A stretch that begins this very instant would be empty.
    old_holders.retain(|holder| holder.stretch.from < holder.stretch.until);

    let mut new_holders = holders(city, new)?.unwrap_or_default();
    if let Some(other) = new_holders.iter().find(|holder| now < holder.stretch.until) {
        bail!("the new card is held by pupil {} already, or will be", other.pupil);
    }
    let pupil = successor.pupil.clone();
    new_holders.push(successor);
    new_holders.sort_unstable();
    let entries = [(old, old_holders), (new, new_holders)]
        .map(|(card, holders)| Entry::Card(Card { card, holders }))
        .to_vec();
    Ok(Decided {
        entries,
        message: format!("pupil {pupil} holds the new card, and nobody the old one"),
        warnings: Vec::new(),
    })
}

fn holders(city: &RegistryOfCity, card: CardNumber) -> anyhow::Result<Option<Vec<CardHolder>>> {
    Ok(match city.entry(&EntryKey::Card(card))? {
        Some(Entry::Card(card)) => Some(card.holders),
        _ => None,
    })
}

/// Not a parser of clap's, which would quote the card in its error.
fn card_of(text: &str) -> anyhow::Result<CardNumber> {
    CardNumber::new(text).map_err(|_| anyhow!("a card is 1 to 32 of [0-9A-Za-z]"))
}
