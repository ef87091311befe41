//! The consumer group of a tap log in memory: which member reads which partition, and how partitions move.
//!
//! Partitions move as in a cooperative group: only those that change hands are taken from their owner, who is told, calls in
//! once more when it has let go, and only then the next one gets them. Who does not call in for too long is no member any
//! more: its partitions go to others at once, and it learns that it lost them when it comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A member of the group, from joining until it is given up. A process that joins again is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct MemberId(u64);

/// What a member is to be told when it calls in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    Assigned(u32),
    Revoked(Vec<u32>),
}

/// What the group went through, for the coverage of faults.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Partitions asked back from an owner that lives.
    pub revoked: usize,
    /// Members given up because they did not call in.
    pub given_up: usize,
    /// Commits refused because the partition was not the member's.
    pub commits_refused: usize,
    /// Partitions that came back to the member that had just given them up.
    pub came_back: usize,
    /// Members that said good-bye while they had partitions.
    pub left: usize,
}

#[derive(Default)]
struct Member {
    heard_at: Duration,
    news: VecDeque<News>,
    /// Asked back and not given back yet.
    asked_back: BTreeSet<u32>,
}

/// See the module. Time comes in as an argument.
pub(super) struct Group {
    owners: Vec<Option<MemberId>>,
    wanted: Vec<Option<MemberId>>,
    last_owners: Vec<Option<MemberId>>,
    members: BTreeMap<MemberId, Member>,
    next_member: u64,
    /// Who has not called in for so long is given up.
    patience: Duration,
    pub(super) tally: Tally,
}

impl Group {
    pub(super) fn new(partitions: usize, patience: Duration) -> Self {
        Self {
            owners: vec![None; partitions],
            wanted: vec![None; partitions],
            last_owners: vec![None; partitions],
            members: BTreeMap::new(),
            next_member: 0,
            patience,
            tally: Tally::default(),
        }
    }

    /// A process joins; partitions move so that all members have about as many.
    pub(super) fn join(&mut self, now: Duration) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        self.members.insert(id, Member { heard_at: now, ..Member::default() });
        self.spread_evenly();
        id
    }

    /// A member says good-bye: its partitions go to others at once.
    pub(super) fn leave(&mut self, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.tally.left += usize::from(self.owners.contains(&Some(id)));
            self.forget(id);
            self.spread_evenly();
        }
    }

    /// A member calls in: what it was told to give up by `told` it has given up. `false` when it is no member any more.
    pub(super) fn call_in(&mut self, id: MemberId, now: Duration, told: &[u32]) -> bool {
        self.give_up_the_silent(now);
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.heard_at = now;
        for partition in told {
            member.asked_back.remove(partition);
            self.owners[*partition as usize] = None;
            self.last_owners[*partition as usize] = Some(id);
        }
        self.move_on();
        true
    }

    /// The next thing that `id` is to be told.
    pub(super) fn news_for(&mut self, id: MemberId) -> Option<News> {
        self.members.get_mut(&id)?.news.pop_front()
    }

    /// Whether the partition may be committed by `id` now.
    pub(super) fn is_owner(&self, id: MemberId, partition: u32) -> bool {
        self.owners[partition as usize] == Some(id)
    }

    /// Partitions that nobody has, and nobody is asked to give back.
    pub(super) fn unowned(&self) -> usize {
        self.owners.iter().filter(|owner| owner.is_none()).count()
    }

    /// Wants each partition to go to some member or other, be it sensible or not.
    pub(super) fn shuffle(&mut self, random: &mut ChaCha8Rng) {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        if members.is_empty() {
            return;
        }
        for wanted in &mut self.wanted {
            *wanted = Some(members[random.random_range(0..members.len())]);
        }
        self.move_on();
    }

    fn give_up_the_silent(&mut self, now: Duration) {
        let patience = self.patience;
        let silent = |member: &Member| now.saturating_sub(member.heard_at) > patience;
        let gone: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| silent(member)).map(|(id, _)| *id).collect();
        if gone.is_empty() {
            return;
        }
        for id in gone {
            self.members.remove(&id);
            self.forget(id);
            self.tally.given_up += 1;
        }
        self.spread_evenly();
    }

    fn forget(&mut self, id: MemberId) {
        for places in [&mut self.owners, &mut self.wanted] {
            places.iter_mut().filter(|place| **place == Some(id)).for_each(|place| *place = None);
        }
    }

    /// Wants every partition to have an owner and no member to have more than its share, moving as few as that needs.
    fn spread_evenly(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let share = self.wanted.len().div_ceil(self.members.len());
        let mut held: BTreeMap<MemberId, usize> = self.members.keys().map(|id| (*id, 0)).collect();
        for wanted in &mut self.wanted {
            let Some(count) = wanted.and_then(|id| held.get_mut(&id)) else { continue };
            if *count < share {
                *count += 1;
            } else {
                *wanted = None;
            }
        }
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.is_none()) {
            if let Some((id, count)) = held.iter_mut().min_by_key(|(id, count)| (**count, **id)) {
                *wanted = Some(*id);
                *count += 1;
            }
        }
        self.move_on();
    }

    /// Hands over what is free, and asks back what is to go elsewhere.
    fn move_on(&mut self) {
        let mut revoked: BTreeMap<MemberId, Vec<u32>> = BTreeMap::new();
        for (place, partition) in (0..self.owners.len()).zip(0u32..) {
            match (self.owners[place], self.wanted[place]) {
                (None, Some(next)) => {
                    self.owners[place] = Some(next);
                    self.tally.came_back += usize::from(self.last_owners[place].take() == Some(next));
                    if let Some(member) = self.members.get_mut(&next) {
                        member.news.push_back(News::Assigned(partition));
                    }
                }
                (Some(owner), wanted) if wanted != Some(owner) => {
                    let Some(member) = self.members.get_mut(&owner) else { continue };
                    if member.asked_back.insert(partition) {
                        revoked.entry(owner).or_default().push(partition);
                        self.tally.revoked += 1;
                    }
                }
                _ => {}
            }
        }
        for (owner, partitions) in revoked {
            if let Some(member) = self.members.get_mut(&owner) {
                member.news.push_back(News::Revoked(partitions));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn all_news(group: &mut Group, id: MemberId) -> Vec<News> {
        std::iter::from_fn(|| group.news_for(id)).collect()
    }

    #[test]
    fn only_what_moves_is_asked_back_and_it_moves_when_its_owner_calls_in_again() {
        let mut group = Group::new(2, PATIENCE);
        let first = group.join(at(0));
        assert_eq!(all_news(&mut group, first), [News::Assigned(0), News::Assigned(1)]);
        let second = group.join(at(1));
        assert_eq!(all_news(&mut group, first), [News::Revoked(vec![1])]);
        assert_eq!(all_news(&mut group, second), []);
        assert!(group.is_owner(first, 1), "until it has let go");
        assert!(group.call_in(first, at(2), &[1]));
        assert_eq!(all_news(&mut group, second), [News::Assigned(1)]);
        assert!(group.is_owner(first, 0) && group.is_owner(second, 1));
    }

    #[test]
    fn who_does_not_call_in_is_given_up_and_learns_it_when_it_does() {
        let mut group = Group::new(1, PATIENCE);
        let first = group.join(at(0));
        let second = group.join(at(1));
        assert!(group.call_in(second, at(9), &[]));
        assert!(group.is_owner(first, 0));
        assert!(group.call_in(second, at(11), &[]));
        assert!(group.is_owner(second, 0));
        assert!(!group.call_in(first, at(12), &[]));
    }
}
