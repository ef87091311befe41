//! Who cares for the pupils of a made-up city: guardians, bindings, app subscriptions and SMS orders.
//!
//! One child in four has a brother or sister at some school of the city, under the same guardians; a third of the families
//! have two guardians on record. About a third of the pupils have an SMS order in force; a few orders are unpaid,
//! cancelled, or ordered a second time, a few guardians have no phone or no app, as in any city.

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use gatebell_engine::notice::{Language, Passages};
use gatebell_engine::registry::{OrderState, Relation};

use super::city::Pupil;
use super::names;

/// Everybody who is told something, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) guardians: Vec<Guardian>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) orders: Vec<Order>,
}

/// A guardian and how to reach them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Guardian {
    pub(crate) code: String,
    pub(crate) name: String,
    /// Empty: none on record.
    pub(crate) phone: String,
    /// Empty: the app is not installed.
    pub(crate) app_token: String,
    pub(crate) language: Language,
}

/// A guardian's relation to a pupil, both as indices.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) guardian: usize,
    pub(crate) pupil: usize,
    pub(crate) relation: Relation,
    /// Ended in the summer.
    pub(crate) ended: bool,
}

/// A subscription to app pushes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) guardian: usize,
    pub(crate) pupil: usize,
    pub(crate) passages: Passages,
}

/// An SMS order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) code: String,
    pub(crate) guardian: usize,
    pub(crate) pupil: usize,
    pub(crate) plan: Passages,
    pub(crate) state: OrderState,
    /// Approved and cancelled on these days of September 2025; `None`: not (yet).
    pub(crate) approved_on: Option<i8>,
    pub(crate) cancelled_on: Option<i8>,
}

impl Order {
    /// Whole NT$ paid in advance; the city's letter: 68 for one kind of passage, 136 for both.
    pub(crate) fn prepaid_dollars(&self) -> u32 {
        match (self.state, self.plan) {
            (OrderState::Ordered, _) => 0,
            (_, Passages::Both) => 136,
            (_, Passages::Arrival | Passages::Departure) => 68,
        }
    }

    /// Whether it is in force on the first day of service.
    pub(crate) fn is_in_force(&self) -> bool {
        self.approved_on.is_some() && self.cancelled_on.is_none()
    }
}

/// Draws families around `pupils`, gives the pupils their names, and says who is told what.
pub(crate) fn draw(pupils: &mut [Pupil], random: &mut ChaCha8Rng) -> Families {
    let mut unplaced: Vec<usize> = (0..pupils.len()).collect();
    // Siblings go to different schools and classes.
    unplaced.shuffle(random);
    let mut families = Families::default();
    while !unplaced.is_empty() {
        let children = match random.random_range(0..100) {
            0..80 => 1,
            80..97 => 2,
            _ => 3,
        };
        let children = unplaced.split_off(unplaced.len().saturating_sub(children));
        families.add(&children, pupils, random);
    }
    families.bindings.sort_unstable_by_key(|it| (it.pupil, it.guardian));
    families.subscriptions.sort_unstable_by_key(|it| (it.pupil, it.guardian));
    families.orders.sort_by_key(|it| (it.pupil, it.guardian));
    for (number, order) in families.orders.iter_mut().enumerate() {
        order.code = format!("O{:07}", number + 1);
    }
    families
}

impl Families {
    /// One family with these `children`.
    fn add(&mut self, children: &[usize], pupils: &mut [Pupil], random: &mut ChaCha8Rng) {
        let surname = names::surname(random);
        for child in children {
            if let Some(pupil) = pupils.get_mut(*child) {
                pupil.name = names::full_name(random, surname);
            }
        }
        let language = if random.random_ratio(1, 25) { Language::En } else { Language::ZhTw };
        let first = self.add_guardian(surname, language, random);
        let relation = match random.random_range(0..20) {
            0..9 => Relation::Mother,
            9..18 => Relation::Father,
            18 => Relation::PaternalGrandparent,
            _ => Relation::MaternalGrandparent,
        };
        self.bind(first, relation, children, random);
        if random.random_ratio(1, 3) {
            let own_surname = names::surname(random);
            let second = self.add_guardian(own_surname, language, random);
            let other_parent = if relation == Relation::Mother { Relation::Father } else { Relation::Mother };
            self.bind(second, other_parent, children, random);
        }
        for child in children {
            self.order(first, *child, random);
        }
    }

    fn add_guardian(&mut self, surname: &str, language: Language, random: &mut ChaCha8Rng) -> usize {
        let number = self.guardians.len();
        let has_phone = !random.random_ratio(1, 400);
        let has_app = !random.random_ratio(1, 200);
        self.guardians.push(Guardian {
            code: format!("G{:07}", number + 1),
            name: names::full_name(random, surname),
            phone: if has_phone { format!("{:010}", 900_000_000 + number) } else { String::new() },
            app_token: if has_app {
                format!("madeup-{:016x}", random.random::<u64>())
            } else {
                String::new()
            },
            language,
        });
        number
    }

    /// Binds the guardian to every child and subscribes most pairs to the app's pushes.
    fn bind(&mut self, guardian: usize, relation: Relation, children: &[usize], random: &mut ChaCha8Rng) {
        for pupil in children {
            let ended = random.random_ratio(1, 300);
            self.bindings.push(Binding { guardian, pupil: *pupil, relation, ended });
            if random.random_ratio(7, 10) {
                let passages = match random.random_range(0..10) {
                    0..8 => Passages::Both,
                    8 => Passages::Arrival,
                    _ => Passages::Departure,
                };
                self.subscriptions.push(Subscription { guardian, pupil: *pupil, passages });
            }
        }
    }

    /// An SMS order for about two children in five, in force for a third of all.
    fn order(&mut self, guardian: usize, pupil: usize, random: &mut ChaCha8Rng) {
        if !random.random_ratio(2, 5) {
            return;
        }
        let plan = match random.random_range(0..10) {
            0..6 => Passages::Both,
            6..9 => Passages::Arrival,
            _ => Passages::Departure,
        };
        let mut order = Order {
            code: String::new(),
            guardian,
            pupil,
            plan,
            state: OrderState::Approved,
            approved_on: Some(random.random_range(1..=5)),
            cancelled_on: None,
        };
        match random.random_range(0..100) {
            0..6 => (order.state, order.approved_on) = (OrderState::Ordered, None),
            6..12 => (order.state, order.approved_on) = (OrderState::Paid, None),
            12..15 => (order.state, order.cancelled_on) = (OrderState::Cancelled, Some(6)),
            15 => {
                // Cancelled and ordered again, with another plan: two orders, each with its own line on the bill.
                self.orders.push(Order {
                    code: String::new(),
                    state: OrderState::Cancelled,
                    approved_on: Some(1),
                    cancelled_on: Some(4),
                    ..order
                });
                (order.plan, order.approved_on) = (Passages::Both, Some(5));
            }
            _ => {}
        }
        self.orders.push(order);
    }
}

#[cfg(test)]
mod tests {
    use super::super::city::{City, CityPlan};

    #[test]
    fn about_a_third_of_the_pupils_have_an_order_in_force() {
        let city = City::generate(CityPlan { schools: 20, pupils: 12_000, seed: 1 });
        let in_force = city.families.orders.iter().filter(|it| it.is_in_force()).count();
        assert!((3_700..4_600).contains(&in_force), "{in_force}");
    }

    #[test]
    fn every_pupil_has_a_name_and_one_or_two_guardians() {
        let city = City::generate(CityPlan { schools: 3, pupils: 900, seed: 2 });
        for (number, pupil) in city.pupils.iter().enumerate() {
            let guardians = city.families.bindings.iter().filter(|it| it.pupil == number).count();
            assert!(!pupil.name.is_empty() && (1..=2).contains(&guardians), "{}", pupil.code);
        }
    }
}
