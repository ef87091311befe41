//! `gatebell order approve|cancel`: the school's last word on an SMS order.
//!
//! An order goes from ordered to paid to approved, and may be cancelled at any time (the city's letter). Payment is recorded
//! with the city's list of orders; approving what nobody has paid is refused.

use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use gatebell_engine::ids::OrderId;
use gatebell_engine::registry::{Entry, EntryKey, Order, OrderState};
use gatebell_engine::time::{Stretch, Timestamp};

use super::Globals;
use super::registry_change::{By, Decided, RegistryOfCity};
use crate::city::removal::cancelled;
use crate::home::Home;

/// Approves a paid SMS order, which is in force from then on, or cancels an order at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is done
    what: What,
    /// The order's code
    order: OrderId,
    #[command(flatten)]
    by: By,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// A paid order comes into force now
    Approve,
    /// The order ends now; what is left of the money is refunded by the bill
    Cancel,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let city = RegistryOfCity::open(globals)?;
    let closed = closed_term(city.home(), globals)?;
    city.change(&args.by, |city, now| {
        let Some(Entry::Order(order)) = city.entry(&EntryKey::Order(args.order.clone()))? else {
            bail!("there is no order {}", args.order);
        };
        match args.what {
            What::Approve => {
                let mut decided = approve(city, order, now)?;
                decided.warnings.extend(closed.clone());
                Ok(decided)
            }
            What::Cancel => cancel(&order, now),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What an approval means once the term's bill is final; `None` while it is not.
fn closed_term(home: &Home, globals: &Globals) -> anyhow::Result<Option<String>> {
    if !home.has_store() {
        return Ok(None);
    }
    let term = globals.term_of(home, None)?;
    let closed = home.books()?.term(&term.name)?.closed;
    Ok(closed.map(|closed| {
        format!(
            "term {} was closed on {}: what this order brings in it is billed to nobody, and its bill stays as it is",
            term.name,
            term.day_of(closed.at)
        )
    }))
}

fn approve(city: &RegistryOfCity, order: Order, now: Timestamp) -> anyhow::Result<Decided> {
    let id = &order.order;
    match order.state {
        OrderState::Paid => {}
        OrderState::Ordered => {
            bail!(
                "order {id} is not paid: record the payment in the city's orders.csv and import it, then approve"
            )
        }
        OrderState::Approved => {
            let since = order.approved_at.map(|since| format!(", since {since}")).unwrap_or_default();
            bail!("order {id} is approved already{since}")
        }
        OrderState::Cancelled => {
            bail!("order {id} is cancelled, which is for good: a new order has a code of its own")
        }
    }
    refuse_second_order(city, &order, now)?;
    let mut warnings = Vec::new();
    if city.guardian(&order.guardian)?.phone.is_empty() {
        warnings.push(format!("guardian {} has no phone: no SMS can be sent for order {id}", order.guardian));
    }
    if order.prepaid_dollars == 0 {
        warnings.push(format!("order {id} is paid with NT$0 on record"));
    }
    let message = format!("order {id} is approved and in force: {} of {}", order.plan, order.pupil);
    let approved = Order { state: OrderState::Approved, approved_at: Some(now), cancelled_at: None, ..order };
    Ok(Decided { entries: vec![Entry::Order(approved)], message, warnings })
}

/// Two orders in force at once would make two bills for one message.
fn refuse_second_order(city: &RegistryOfCity, order: &Order, now: Timestamp) -> anyhow::Result<()> {
    let from_now_on = Stretch { from: now, until: Timestamp::MAX };
    let mut other = None;
    city.for_each("order", |entry| {
        if let Entry::Order(it) = entry
            && it.order != order.order
            && (&it.guardian, &it.pupil) == (&order.guardian, &order.pupil)
            && it.plan.overlap(order.plan)
            && it
                .in_force()
                .is_some_and(|stretch| stretch.from < stretch.until && stretch.overlaps(&from_now_on))
        {
            other = Some(it.order);
        }
    })?;
    match other {
        Some(other) => bail!(
            "order {other} of the same guardian and pupil is in force and includes the same passages: cancel one of the two"
        ),
        None => Ok(()),
    }
}

fn cancel(order: &Order, now: Timestamp) -> anyhow::Result<Decided> {
    let id = &order.order;
    let Some(after) = cancelled(order, now) else {
        let since = order.cancelled_at.map(|since| format!(", since {since}")).unwrap_or_default();
        bail!("order {id} is cancelled already{since}");
    };
    let message = format!("order {id} is cancelled");
    Ok(Decided { entries: vec![Entry::Order(after)], message, warnings: Vec::new() })
}
