//! The bill: what each order's delivered messages cost, what is waived, what is given back.
//!
//! Owns the arithmetic of the public format's "Bill" and nothing else: it takes orders with the number of
//! their charges and returns lines. Messages of one pupil and guardian are rounded up once over the whole
//! term, so that a parent who cancels and orders again pays no dollar twice. It leaves to others: where
//! orders and charges come from, and which lines are already frozen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{GuardianId, OrderId, PupilId, SchoolId};
use crate::money::{Cents, Dollars};
use crate::notice::Passages;
use crate::registry::{Order, OrderState};
use crate::term::Term;
use crate::time::{Day, Timestamp};

/// A cancelled order's line stays a draft for so long, since receipts may still come (the public format).
pub const SETTLES_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A term can be closed so many days after its last service day (the public format).
pub const CLOSES_AFTER_DAYS: i32 = 7;

/// An order and what was delivered under it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderAccount {
    /// The order.
    pub order: Order,
    /// The pupil's school.
    pub school: SchoolId,
    /// The number of its charges in this term; adjusted messages are not among them.
    pub delivered: u64,
}

/// What the term says of money.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tariff {
    /// The price of one delivered SMS.
    pub price: Cents,
    /// Whether a parent never owes more than was prepaid.
    pub cap_at_prepaid: bool,
    /// Whether the term is closed: what was not used is given back.
    pub closed: bool,
}

impl Tariff {
    /// The tariff of `term`, which is `closed` or not.
    pub fn of(term: &Term, closed: bool) -> Self {
        Self { price: term.sms_price, cap_at_prepaid: term.cap_at_prepaid, closed }
    }
}

/// One line of the bill, in the order of the public format's columns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BillLine {
    /// The order.
    pub order: OrderId,
    /// The pupil's school.
    pub school: SchoolId,
    /// About whom.
    pub pupil: PupilId,
    /// Who pays.
    pub guardian: GuardianId,
    /// What was ordered.
    pub plan: Passages,
    /// How far the order has come.
    pub state: OrderState,
    /// Money received; 0 while the order is only placed.
    pub prepaid: Dollars,
    /// Messages delivered under this order.
    pub delivered: u64,
    /// What they cost the parent.
    pub fee: Dollars,
    /// What they would have cost beyond that, cut off by the cap.
    pub waived: Dollars,
    /// What the school gives back; negative (only without the cap) is what the parent still owes.
    pub refund: Dollars,
}

/// The bill of all `accounts`, sorted by order.
///
/// For each order `raw = ceil(N × price) − ceil(M × price)`, with *N* the messages under it and all earlier
/// ones of the same pupil and guardian (by `approved_at`, then order) and *M* those under the earlier ones
/// only.
pub fn bill(accounts: &[OrderAccount], tariff: Tariff) -> Vec<BillLine> {
    let mut in_force_order: Vec<&OrderAccount> = accounts.iter().collect();
    // An order that was never approved has no messages; it goes last, where it cannot move anybody's
    // rounding.
    in_force_order.sort_by_key(|account| {
        let order = &account.order;
        (order.approved_at.unwrap_or(Timestamp::MAX), order.order.clone())
    });
    let mut delivered_before: BTreeMap<(&PupilId, &GuardianId), u64> = BTreeMap::new();
    let mut lines = Vec::with_capacity(accounts.len());
    for account in in_force_order {
        let pair = (&account.order.pupil, &account.order.guardian);
        let earlier = delivered_before.entry(pair).or_default();
        lines.push(line(account, *earlier, tariff));
        *earlier += account.delivered;
    }
    lines.sort_by(|one, other| one.order.cmp(&other.order));
    lines
}

fn line(account: &OrderAccount, delivered_before: u64, tariff: Tariff) -> BillLine {
    let order = &account.order;
    let delivered_with_this = delivered_before + account.delivered;
    let raw = tariff.price.times(delivered_with_this).rounded_up()
        - tariff.price.times(delivered_before).rounded_up();
    let prepaid = match order.state {
        OrderState::Ordered => Dollars(0),
        OrderState::Paid | OrderState::Approved | OrderState::Cancelled => Dollars(order.prepaid_dollars),
    };
    let fee = if tariff.cap_at_prepaid { raw.min(prepaid) } else { raw };
    let settled = tariff.closed || order.state == OrderState::Cancelled;
    BillLine {
        order: order.order.clone(),
        school: account.school.clone(),
        pupil: order.pupil.clone(),
        guardian: order.guardian.clone(),
        plan: order.plan,
        state: order.state,
        prepaid,
        delivered: account.delivered,
        fee,
        waived: raw - fee,
        refund: if settled { prepaid - fee } else { Dollars(0) },
    }
}

/// When the line of `order` stops being a draft by itself: [`SETTLES_AFTER`] its cancellation. `None`: only
/// when the term is closed.
pub fn settles_at(order: &Order) -> Option<Timestamp> {
    if order.state != OrderState::Cancelled {
        return None;
    }
    order.cancelled_at.map(|cancelled_at| cancelled_at.plus(SETTLES_AFTER))
}

/// The first day on which `term` can be closed.
pub fn closes_from(term: &Term) -> Day {
    Day::from_epoch_days(term.last_day.epoch_days() + CLOSES_AFTER_DAYS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARIFF: Tariff = Tariff { price: Cents(75), cap_at_prepaid: true, closed: false };

    fn account(order: &str, state: OrderState, prepaid_dollars: i64, delivered: u64) -> OrderAccount {
        let approved = matches!(state, OrderState::Approved | OrderState::Cancelled);
        OrderAccount {
            order: Order {
                order: OrderId::new(order).unwrap(),
                guardian: GuardianId::new("G1").unwrap(),
                pupil: PupilId::new("P1").unwrap(),
                plan: Passages::Arrival,
                state,
                prepaid_dollars,
                approved_at: approved.then_some(Timestamp::from_millis(1_000)),
                cancelled_at: (state == OrderState::Cancelled).then_some(Timestamp::from_millis(2_000)),
            },
            school: SchoolId::new("353604").unwrap(),
            delivered,
        }
    }

    fn approved_at(mut account: OrderAccount, ms: i64) -> OrderAccount {
        account.order.approved_at = Some(Timestamp::from_millis(ms));
        account
    }

    /// (fee, waived, refund) of a single line.
    fn amounts(line: &BillLine) -> (i64, i64, i64) {
        (line.fee.0, line.waived.0, line.refund.0)
    }

    #[test]
    fn each_state_of_an_order_settles_as_the_city_says() {
        use OrderState::{Approved, Cancelled, Ordered, Paid};
        let uncapped = Tariff { cap_at_prepaid: false, ..TARIFF };
        let closed = Tariff { closed: true, ..TARIFF };
        let cases = [
            ("nothing delivered, nothing owed", Approved, 68, 0, TARIFF, (0, 0, 0)),
            ("a fraction rounds up", Approved, 68, 1, TARIFF, (1, 0, 0)),
            ("four are exactly three dollars", Approved, 68, 4, TARIFF, (3, 0, 0)),
            ("91 settle at 69, the cap waives one", Approved, 68, 91, TARIFF, (68, 1, 0)),
            ("182 settle at 137 against 136", Approved, 136, 182, TARIFF, (136, 1, 0)),
            ("cancelled gives back the rest", Cancelled, 68, 10, TARIFF, (8, 0, 60)),
            ("closed gives back the rest", Approved, 68, 10, closed, (8, 0, 60)),
            ("paid but never approved gives all back when closed", Paid, 68, 0, closed, (0, 0, 68)),
            ("only placed was never paid", Ordered, 68, 0, closed, (0, 0, 0)),
            ("without the cap nothing is waived", Approved, 68, 91, uncapped, (69, 0, 0)),
            (
                "without the cap a parent may still owe",
                Cancelled,
                68,
                91,
                Tariff { cap_at_prepaid: false, ..TARIFF },
                (69, 0, -1),
            ),
            (
                "another price is another bill",
                Approved,
                68,
                3,
                Tariff { price: Cents(133), ..TARIFF },
                (4, 0, 0),
            ),
        ];
        for (case, state, prepaid, delivered, tariff, expected) in cases {
            let lines = bill(&[account("O1", state, prepaid, delivered)], tariff);
            assert_eq!(amounts(&lines[0]), expected, "{case}");
        }
    }

    #[test]
    fn an_order_that_is_only_placed_shows_no_prepayment() {
        assert_eq!(bill(&[account("O1", OrderState::Ordered, 68, 0)], TARIFF)[0].prepaid, Dollars(0));
        assert_eq!(bill(&[account("O1", OrderState::Paid, 68, 0)], TARIFF)[0].prepaid, Dollars(68));
    }

    #[test]
    fn a_pair_with_two_orders_is_rounded_up_once() {
        // 1 message is 0.75, 2 are 1.50: the second order adds only what the first rounding left over.
        let first = approved_at(account("O2", OrderState::Cancelled, 68, 1), 1);
        let second = approved_at(account("O1", OrderState::Approved, 68, 1), 2);
        let third = approved_at(account("O3", OrderState::Approved, 68, 2), 3);
        let lines = bill(&[third, second, first], TARIFF);
        let fees: Vec<_> = lines.iter().map(|line| (line.order.as_str(), line.fee.0)).collect();
        assert_eq!(fees, [("O1", 1), ("O2", 1), ("O3", 1)]);
    }

    #[test]
    fn orders_approved_at_the_same_instant_go_by_their_code() {
        let lines = bill(
            &[account("O2", OrderState::Approved, 68, 3), account("O1", OrderState::Approved, 68, 1)],
            TARIFF,
        );
        // O1 first: ceil(0.75) = 1; then ceil(3.00) - 1 = 2.
        assert_eq!((lines[0].fee, lines[1].fee), (Dollars(1), Dollars(2)));
    }

    #[test]
    fn another_pupil_or_guardian_is_rounded_apart() {
        let mut sibling = account("O2", OrderState::Approved, 68, 1);
        sibling.order.pupil = PupilId::new("P2").unwrap();
        let mut other_parent = account("O3", OrderState::Approved, 68, 1);
        other_parent.order.guardian = GuardianId::new("G2").unwrap();
        let lines = bill(&[account("O1", OrderState::Approved, 68, 1), sibling, other_parent], TARIFF);
        assert!(lines.iter().all(|line| line.fee == Dollars(1)), "{lines:?}");
    }

    #[test]
    fn a_line_prints_the_public_columns_in_their_order() {
        let lines = bill(&[account("O1", OrderState::Cancelled, 68, 10)], TARIFF);
        let json = serde_json::to_string(&lines[0]).unwrap();
        assert_eq!(
            json,
            r#"{"order":"O1","school":"353604","pupil":"P1","guardian":"G1","plan":"arrival","state":"cancelled","prepaid":68,"delivered":10,"fee":8,"waived":0,"refund":60}"#
        );
    }

    #[test]
    fn only_a_cancelled_order_settles_by_itself() {
        let cancelled = account("O1", OrderState::Cancelled, 68, 0).order;
        assert_eq!(settles_at(&cancelled), Some(Timestamp::from_millis(2_000 + 7 * 86_400_000)));
        assert_eq!(settles_at(&account("O1", OrderState::Approved, 68, 0).order), None);
    }

    prop_compose! {
        fn accounts_of_a_pair()(
            orders in prop::collection::vec((0u64..200, 0i64..5, 0i64..150), 1..8),
        ) -> Vec<OrderAccount> {
            orders
                .into_iter()
                .enumerate()
                .map(|(number, (delivered, approved_ms, prepaid))| {
                    approved_at(account(&format!("O{number}"), OrderState::Approved, prepaid, delivered), approved_ms)
                })
                .collect()
        }
    }

    proptest! {
        #[test]
        fn fees_of_a_pair_without_a_cap_add_up_to_one_rounding(accounts in accounts_of_a_pair(), price in 0i64..500) {
            let lines = bill(&accounts, Tariff { price: Cents(price), cap_at_prepaid: false, closed: true });
            let messages: u64 = accounts.iter().map(|account| account.delivered).sum();
            let fees: i64 = lines.iter().map(|line| line.fee.0).sum();
            prop_assert_eq!(fees, Cents(price).times(messages).rounded_up().0);
        }

        #[test]
        fn with_the_cap_nobody_pays_more_than_was_prepaid(accounts in accounts_of_a_pair(), price in 0i64..500) {
            let tariff = Tariff { price: Cents(price), cap_at_prepaid: true, closed: true };
            let uncapped = bill(&accounts, Tariff { cap_at_prepaid: false, ..tariff });
            for (line, raw) in bill(&accounts, tariff).iter().zip(uncapped) {
                prop_assert!(line.fee <= line.prepaid);
                prop_assert_eq!(line.fee + line.waived, raw.fee);
                prop_assert_eq!(line.fee + line.refund, line.prepaid);
            }
        }

        #[test]
        fn the_bill_does_not_depend_on_the_order_of_its_input(
            accounts in accounts_of_a_pair(), rotation in 0usize..8,
        ) {
            let mut rotated = accounts.clone();
            rotated.rotate_left(rotation % accounts.len());
            prop_assert_eq!(bill(&accounts, TARIFF), bill(&rotated, TARIFF));
        }
    }
}
