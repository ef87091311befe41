//! Who decided each partition when, told from what the processes logged; and for how long nobody did.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Something that concerns the owner of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process decides a partition from now on.
    Took { process: usize, partition: u64 },
    /// A process has given partitions back.
    HandedOver { process: usize, partitions: Vec<u64> },
    /// A process decides nothing any more, for this reason.
    Gone { process: usize, why: &'static str },
}

/// What `process` wrote into its log about partitions, over all its lives.
pub(crate) fn events_in(log: &str, process: usize) -> Vec<(Timestamp, Event)> {
    log.lines().filter_map(|line| event_in(&serde_json::from_str(line).ok()?, process)).collect()
}

fn event_in(line: &Value, process: usize) -> Option<(Timestamp, Event)> {
    let at = line["timestamp"].as_str()?.parse().ok()?;
    let event = match line["message"].as_str()? {
        "took the partition over" => Event::Took { process, partition: line["partition"].as_u64()? },
        "handed the partitions over" => {
            let partitions = serde_json::from_str(line["partitions"].as_str()?).ok()?;
            Event::HandedOver { process, partitions }
        }
        _ => return None,
    };
    Some((at, event))
}

/// The longest time that any partition was without an owner, by what took its owner away; apart from each other where
/// nothing else happened meanwhile, and where processes went one after the other: the group settles only when all are back
/// or given up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WithoutOwner(BTreeMap<(&'static str, Meanwhile), Longest>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meanwhile {
    Nothing,
    OthersWent,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Longest {
    times: usize,
    longest: SignedDuration,
    /// When the longest began.
    from: Timestamp,
    /// The longest from the moment on when the last process went.
    settling: SignedDuration,
}

enum Owner {
    Process(usize),
    NobodySince(Timestamp, &'static str),
}

impl WithoutOwner {
    /// From `events` in any order, in a group that gives a silent member up after `session_timeout`.
    pub(crate) fn of(mut events: Vec<(Timestamp, Event)>, session_timeout: Duration) -> Self {
        events.sort_by_key(|(at, _)| *at);
        let gone = |(at, event): &(Timestamp, Event)| matches!(event, Event::Gone { .. }).then_some(*at);
        let went: Vec<Timestamp> = events.iter().filter_map(gone).collect();
        let last_went = |since: Timestamp, until: Timestamp| {
            went.iter().copied().filter(|at| *at < until).fold(since, Timestamp::max)
        };
        let meanwhile = |since: Timestamp, until: Timestamp| {
            let others = went.iter().any(|at| *at != since && since - session_timeout < *at && *at < until);
            if others { Meanwhile::OthersWent } else { Meanwhile::Nothing }
        };
        let mut owners: BTreeMap<u64, Owner> = BTreeMap::new();
        let mut found = Self::default();
        for (at, event) in events {
            match event {
                Event::Took { process, partition } => {
                    let before = owners.insert(partition, Owner::Process(process));
                    if let Some(Owner::NobodySince(since, why)) = before {
                        found.add((why, meanwhile(since, at)), since, last_went(since, at), at);
                    }
                }
                Event::HandedOver { process, partitions } => {
                    let of_its = |partition: &u64| partitions.contains(partition);
                    leave(&mut owners, process, of_its, at, "a partition that was handed over");
                }
                Event::Gone { process, why } => leave(&mut owners, process, |_| true, at, why),
            }
        }
        found
    }

    fn add(
        &mut self,
        why: (&'static str, Meanwhile),
        since: Timestamp,
        last_went: Timestamp,
        until: Timestamp,
    ) {
        let known = self.0.entry(why).or_default();
        known.times += 1;
        known.settling = known.settling.max(until.duration_since(last_went));
        let lasted = until.duration_since(since);
        if lasted > known.longest {
            (known.longest, known.from) = (lasted, since);
        }
    }

    /// The longest that any partition had no owner where nothing else went before or meanwhile.
    pub(crate) fn longest_alone(&self) -> Duration {
        let alone = self.0.iter().filter(|((_, meanwhile), _)| *meanwhile == Meanwhile::Nothing);
        alone.map(|(_, longest)| longest.longest.unsigned_abs()).max().unwrap_or_default()
    }

    /// The longest that any partition had no owner although nothing went any more.
    pub(crate) fn longest_settling(&self) -> Duration {
        self.0.values().map(|longest| longest.settling.unsigned_abs()).max().unwrap_or_default()
    }
}

fn leave(
    owners: &mut BTreeMap<u64, Owner>,
    process: usize,
    concerned: impl Fn(&u64) -> bool,
    at: Timestamp,
    why: &'static str,
) {
    for (_, owner) in owners.iter_mut().filter(|(partition, _)| concerned(partition)) {
        if matches!(owner, Owner::Process(owning) if *owning == process) {
            *owner = Owner::NobodySince(at, why);
        }
    }
}

impl fmt::Display for WithoutOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "longest without an owner:")?;
        for ((why, meanwhile), Longest { times, longest, from, settling }) in &self.0 {
            write!(f, " {:.1} s after {why}", longest.as_secs_f64())?;
            if *meanwhile == Meanwhile::OthersWent {
                write!(f, ", others went meanwhile, {:.1} s after the last", settling.as_secs_f64())?;
            }
            write!(f, " ({times} partitions, the longest from {from:.0});")?;
        }
        Ok(())
    }
}

#[test]
fn a_partition_is_without_an_owner_from_the_death_of_its_last_one_until_it_is_taken_over() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let took = |process, partition| Event::Took { process, partition };
    let events = vec![
        (at(0), took(0, 1)),
        (at(0), took(0, 2)),
        (at(0), took(1, 3)),
        (at(5), Event::HandedOver { process: 0, partitions: vec![2] }),
        (at(6), took(1, 2)),
        (at(10), Event::Gone { process: 0, why: "a kill" }),
        // It was not its own any more when it died, and it is when it lives again.
        (at(14), took(0, 2)),
        (at(18), took(1, 1)),
        (at(20), Event::Gone { process: 0, why: "a kill" }),
        (at(21), took(1, 2)),
    ];
    let found = WithoutOwner::of(events, Duration::from_secs(6));
    let longest = |times, from, seconds| {
        let lasted = SignedDuration::from_secs(seconds);
        Longest { times, longest: lasted, from: at(from), settling: lasted }
    };
    let expected = [
        (("a kill", Meanwhile::Nothing), longest(2, 10, 8)),
        (("a partition that was handed over", Meanwhile::Nothing), longest(1, 5, 1)),
    ];
    assert_eq!(found.longest_alone(), Duration::from_secs(8));
    assert_eq!(found.0, BTreeMap::from(expected));
}

#[test]
fn a_gap_is_told_apart_where_another_process_went_before_the_group_had_settled() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let gone = |process| Event::Gone { process, why: "a kill" };
    let events = vec![
        (at(0), Event::Took { process: 0, partition: 1 }),
        (at(0), Event::Took { process: 1, partition: 2 }),
        (at(10), gone(0)),
        (at(14), gone(1)),
        (at(20), Event::Took { process: 2, partition: 1 }),
        (at(20), Event::Took { process: 2, partition: 2 }),
    ];
    let found = WithoutOwner::of(events, Duration::from_secs(6));
    let seconds = SignedDuration::from_secs;
    let longest = Longest { times: 2, longest: seconds(10), from: at(10), settling: seconds(6) };
    assert_eq!(found.longest_settling(), Duration::from_secs(6));
    assert_eq!(found.longest_alone(), Duration::ZERO);
    assert_eq!(found.0, BTreeMap::from([(("a kill", Meanwhile::OthersWent), longest)]));
}

#[test]
fn what_processes_log_of_partitions_is_understood() {
    let log = r#"{"timestamp":"2025-09-08T07:31:04.5Z","level":"INFO","message":"took the partition over","partition":3,"live_from":0,"target":"x"}
no JSON
{"timestamp":"2025-09-08T07:31:05Z","level":"INFO","message":"handed the partitions over","partitions":"[3, 4]","target":"x"}"#;
    let events: Vec<Event> = events_in(log, 7).into_iter().map(|(_, event)| event).collect();
    assert_eq!(
        events,
        [Event::Took { process: 7, partition: 3 }, Event::HandedOver { process: 7, partitions: vec![3, 4] }]
    );
}
