//! The registry's topic as commands see it: what stands, what changed, and which processes have it.
//!
//! Everything here blocks. What is kept in memory of a city is where the last value of each key lies, some tens of bytes a
//! key; the values themselves are read when they are asked for. Every question first reads the topic to its end, so that
//! a command sees what was committed before it asked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use gatebell_engine::ports::PortError;
use gatebell_engine::registry::{Entry, EntryKey, RegistryChange};
use gatebell_engine::time::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::super::{Applied, ChangeOrigin, PORT, ProcessReports, RecordedChange, RegistryStore};
use super::record::{HEAD_KEY, Head, Value, key_of, kind_of};
use super::topic::{Record, TopicReader};
use super::transactions::Transactions;
use super::writer::Writer;
use crate::kafka::KafkaSettings;
use crate::sealing::ContactKey;

/// Others may write in between, or the broker may fail; a transaction is tried so often.
const ATTEMPTS_MAX: u32 = 6;
/// The first wait before another attempt; it doubles, and up to as much is added at random, so that two writers do not
/// fence each other for ever.
const ATTEMPT_WAIT_FIRST_MS: u64 = 20;
/// The longest wait until a committed transaction can be read.
const VISIBLE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it is looked for.
const VISIBLE_EVERY: Duration = Duration::from_millis(2);
/// How often the processes' reports are looked at while a command waits for them.
const REPORTS_EVERY: Duration = Duration::from_millis(50);

/// The processes that follow the topic, and the runtime on which their reports can be read.
pub struct Processes {
    /// Where they report.
    pub reports: Arc<dyn ProcessReports>,
    /// Drives the connection to it; a runtime of several threads, since this one waits.
    pub runtime: tokio::runtime::Handle,
}

/// The registry in a compacted topic.
pub struct KafkaRegistry {
    settings: KafkaSettings,
    contact_key: ContactKey,
    processes: Processes,
    known: Mutex<Known>,
}

/// What was read of the topic.
struct Known {
    reader: TopicReader,
    /// The offset up to which it was read; 0 when it has to be read from its beginning.
    position: u64,
    /// Where the value of each key lies that has one, by the hash of the key.
    live: HashMap<u128, u64>,
    /// The offsets of those that single commands brought.
    by_single_command: BTreeSet<u64>,
    /// The offsets between which the values of each kind lie.
    kinds: HashMap<CompactString, OffsetRange>,
    transactions: Transactions,
}

#[derive(Clone, Copy)]
struct OffsetRange {
    first: u64,
    last: u64,
}

/// What a transaction is to write.
pub(super) struct Wanted<'a> {
    entries: &'a [Entry],
    since: Timestamp,
    who: &'a str,
    origin: ChangeOrigin,
    made_up: bool,
    /// The version that it must follow on; `None`: any.
    follows: Option<u64>,
    /// The writer's own name for it, whichever attempt succeeds.
    written_as: CompactString,
}

/// What became of an attempt to write.
enum Written {
    /// It was committed just now, up to this version.
    Committed(u64),
    /// An earlier attempt was committed, up to this version, though its answer was lost.
    Known(u64),
    /// It follows on a version that is not the last any more, and was not written.
    Outdated,
}

impl KafkaRegistry {
    /// The registry in the topic of `settings`, which must be there. Nothing is asked of a broker yet.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub fn new(
        settings: &KafkaSettings,
        contact_key: ContactKey,
        processes: Processes,
    ) -> Result<Self, PortError> {
        let known = Known {
            reader: TopicReader::new(settings)?,
            position: 0,
            live: HashMap::new(),
            by_single_command: BTreeSet::new(),
            kinds: HashMap::new(),
            transactions: Transactions::default(),
        };
        Ok(Self { settings: settings.clone(), contact_key, processes, known: Mutex::new(known) })
    }

    /// What is known, after reading the topic to its end.
    fn known(&self) -> Result<MutexGuard<'_, Known>, PortError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.refresh()?;
        Ok(known)
    }

    fn decode(&self, known: &Known, record: &Record<'_>, payload: &[u8]) -> Result<Value, PortError> {
        Value::decode(record.key(), payload, &self.contact_key)
            .map_err(|error| known.reader.unreadable(record.offset, &error))
    }

    fn recorded(
        &self,
        known: &Known,
        record: &Record<'_>,
        payload: &[u8],
    ) -> Result<RecordedChange, PortError> {
        let value = self.decode(known, record, payload)?;
        let applied = known.transactions.counts_from(value.version, record.stamp, value.since);
        Ok(RecordedChange {
            change: RegistryChange { version: value.version, applied, entry: value.entry },
            written_at: record.stamp.at(),
            who: value.who,
        })
    }

    /// Writes what is `wanted`; the version of the last change, or `None` when something else was written first.
    pub(super) fn write(&self, wanted: &Wanted<'_>) -> Result<Option<u64>, PortError> {
        let mut trouble = None;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                std::thread::sleep(wait_before(attempt)?);
            }
            match self.try_to_write(wanted) {
                Ok(Written::Committed(version)) => {
                    self.wait_until_visible(&wanted.written_as);
                    return Ok(Some(version));
                }
                Ok(Written::Known(version)) => return Ok(Some(version)),
                Ok(Written::Outdated) => return Ok(None),
                Err(error) => trouble = Some(error),
            }
        }
        let error = trouble.map_or_else(String::new, |error| error.cause);
        let cause =
            format!("nothing was written, or it is not known to be, in {ATTEMPTS_MAX} attempts: {error}");
        Err(PortError::new(PORT, cause))
    }

    /// One attempt. After an error it may have succeeded all the same, which the next one finds.
    fn try_to_write(&self, wanted: &Wanted<'_>) -> Result<Written, PortError> {
        let writer = Writer::begin(&self.settings)?;
        let known = self.known()?;
        if let Some(ours) = known.transactions.written_as(&wanted.written_as) {
            return Ok(Written::Known(ours.last));
        }
        let before = known.transactions.last();
        let last = before.map_or(0, |before| before.last);
        if wanted.follows.is_some_and(|follows| follows != last) {
            return Ok(Written::Outdated);
        }
        let mut new_keys = HashSet::new();
        let mut version = last;
        for entry in wanted.entries {
            version += 1;
            let key = key_of(&entry.key());
            let hash = xxh3_128(key.as_bytes());
            if !known.live.contains_key(&hash) {
                new_keys.insert(hash);
            }
            let value =
                Value { version, since: wanted.since, who: wanted.who.to_owned(), entry: entry.clone() };
            let value = value.encode(&self.contact_key).map_err(|error| PortError::new(PORT, error))?;
            writer.write_value(key.as_bytes(), &value, wanted.origin)?;
        }
        let head = Head {
            first: last + 1,
            last: version,
            keys: (known.live.len() + new_keys.len()) as u64,
            made_up: wanted.made_up || before.is_some_and(|before| before.made_up),
            since: wanted.since,
            not_before: before.map_or(Timestamp::MIN, |before| before.counts_from),
            written_as: wanted.written_as.clone(),
        };
        let head = head.encode().map_err(|error| PortError::new(PORT, error))?;
        writer.write(HEAD_KEY, Some(&head))?;
        drop(known);
        writer.commit()?;
        Ok(Written::Committed(version))
    }

    /// A commit returns once it is certain; readers see it when the broker has marked it in the topic, a moment later. What
    /// goes wrong here changes nothing of that.
    fn wait_until_visible(&self, written_as: &str) {
        let started = Instant::now();
        let is_visible =
            || self.known().is_ok_and(|known| known.transactions.written_as(written_as).is_some());
        while !is_visible() && started.elapsed() < VISIBLE_WAIT_MAX {
            std::thread::sleep(VISIBLE_EVERY);
        }
    }

    fn live(&self) -> Result<Vec<(String, u64)>, PortError> {
        self.processes.runtime.block_on(self.processes.reports.live())
    }
}

impl RegistryStore for KafkaRegistry {
    fn current(&self) -> Result<BTreeMap<EntryKey, Entry>, PortError> {
        let known = self.known()?;
        let mut entries = BTreeMap::new();
        known.each_live(0, known.position, |record, payload| {
            let entry = self.decode(&known, record, payload)?.entry;
            entries.insert(entry.key(), entry);
            Ok(())
        })?;
        Ok(entries)
    }

    fn for_each(&self, kind: &str, each: &mut dyn FnMut(Entry)) -> Result<(), PortError> {
        let known = self.known()?;
        let Some(range) = known.kinds.get(kind).copied() else {
            return Ok(());
        };
        let mut entries = BTreeMap::new();
        known.each_live(range.first, range.last + 1, |record, payload| {
            if kind_of(record.key()) == Some(kind) {
                let entry = self.decode(&known, record, payload)?.entry;
                entries.insert(entry.key().expose(), entry);
            }
            Ok(())
        })?;
        entries.into_values().for_each(each);
        Ok(())
    }

    fn entry(&self, key: &EntryKey) -> Result<Option<Entry>, PortError> {
        let known = self.known()?;
        let name = key_of(key);
        let Some(offset) = known.live.get(&xxh3_128(name.as_bytes())).copied() else {
            return Ok(None);
        };
        let mut found = None;
        known.each_live(offset, offset + 1, |record, payload| {
            found = Some(self.decode(&known, record, payload)?.entry);
            Ok(())
        })?;
        found.map(Some).ok_or_else(|| known.reader.unfit("a value vanished while it was read: try again"))
    }

    fn version(&self) -> Result<u64, PortError> {
        Ok(self.known()?.transactions.last().map_or(0, |last| last.last))
    }

    /// Since when the entries count is for the broker to say: [`CHANGE_LEAD`](gatebell_engine::registry::CHANGE_LEAD) after it
    /// took the end of the transaction. `applied` counts where it is [`Timestamp::MIN`], and in a made-up city.
    fn apply(&self, entries: Vec<Entry>, applied: Timestamp, who: &str) -> Result<u64, PortError> {
        let written = self.write(&Wanted::new(&entries, applied, who, None)?)?;
        written.ok_or_else(|| PortError::new(PORT, "a transaction that follows on any version was refused"))
    }

    fn apply_to_version(
        &self,
        version: u64,
        entries: Vec<Entry>,
        applied: Timestamp,
        who: &str,
        origin: ChangeOrigin,
    ) -> Result<Option<u64>, PortError> {
        let wanted = Wanted::new(&entries, applied, who, Some(version))?;
        self.write(&Wanted { origin, ..wanted })
    }

    fn standing_by_single_commands(&self) -> Result<Vec<RecordedChange>, PortError> {
        let known = self.known()?;
        let wanted = &known.by_single_command;
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            return Ok(Vec::new());
        };
        let mut changes = Vec::new();
        known.each_live(*first, last + 1, |record, payload| {
            if wanted.contains(&record.offset) {
                changes.push(self.recorded(&known, record, payload)?);
            }
            Ok(())
        })?;
        Ok(changes)
    }

    /// Changes that a later one of their key replaced are told for two days at least; then the topic's compaction may take
    /// them away, and only the last change of each key can be told.
    fn changes(&self, version: u64, changes_max: usize) -> Result<Vec<RecordedChange>, PortError> {
        let known = self.known()?;
        let from = known.transactions.last_up_to(version).map_or(0, |before| before.offset + 1);
        let mut changes = Vec::new();
        known.each(from, known.position, |record| {
            let Some(payload) = record.payload().filter(|_| !record.is_head()) else {
                return Ok(true);
            };
            let recorded = self.recorded(&known, record, payload)?;
            if recorded.change.version > version && changes.len() < changes_max {
                changes.push(recorded);
            }
            Ok(changes.len() < changes_max)
        })?;
        Ok(changes)
    }

    fn mark_made_up(&self) -> Result<(), PortError> {
        if self.is_made_up()? {
            return Ok(());
        }
        let mut wanted = Wanted::new(&[], Timestamp::MIN, "", None)?;
        wanted.made_up = true;
        self.write(&wanted).map(drop)
    }

    fn is_made_up(&self) -> Result<bool, PortError> {
        Ok(self.known()?.transactions.last().is_some_and(|last| last.made_up))
    }

    /// Which processes are alive is told by their reports, so that one that crashed is waited for as long as its last report
    /// lives ([`REPORT_LIVES`](super::super::REPORT_LIVES)), and one that hangs without being gone until `timeout`.
    fn wait_applied(&self, version: u64, timeout: Duration) -> Result<Applied, PortError> {
        let started = Instant::now();
        loop {
            let Some(reached) = self.live()?.into_iter().map(|(_, version)| version).min() else {
                return Ok(Applied::NoEngineRuns);
            };
            if reached >= version {
                return Ok(Applied::ByTheEngine);
            }
            if started.elapsed() >= timeout {
                return Ok(Applied::NotInTime { reached });
            }
            std::thread::sleep(REPORTS_EVERY);
        }
    }
}

impl<'a> Wanted<'a> {
    pub(super) fn new(
        entries: &'a [Entry],
        since: Timestamp,
        who: &'a str,
        follows: Option<u64>,
    ) -> Result<Self, PortError> {
        let written_as = format!("{:016x}", random()?).into();
        Ok(Self { entries, since, who, origin: ChangeOrigin::Import, made_up: false, follows, written_as })
    }
}

impl Known {
    /// Reads on to the topic's end as it is now.
    fn refresh(&mut self) -> Result<(), PortError> {
        let bounds = self.reader.bounds()?;
        if bounds.end < self.position {
            self.forget();
        }
        if bounds.end == self.position {
            return Ok(());
        }
        let refreshed = self.read_on(bounds.low, bounds.end);
        if refreshed.is_err() {
            self.forget();
        }
        refreshed
    }

    fn forget(&mut self) {
        self.position = 0;
        self.live.clear();
        self.by_single_command.clear();
        self.kinds.clear();
        self.transactions = Transactions::default();
    }

    fn read_on(&mut self, low: u64, end: u64) -> Result<(), PortError> {
        let (live, by_single_command, kinds) = (&mut self.live, &mut self.by_single_command, &mut self.kinds);
        let transactions = self.reader.survey(self.position.max(low), end, self.position == 0, |record| {
            let hash = xxh3_128(record.key());
            let before = match record.payload() {
                Some(_) => live.insert(hash, record.offset),
                None => live.remove(&hash),
            };
            before.map(|offset| by_single_command.remove(&offset));
            if record.payload().is_none() {
                return;
            }
            if record.is_by_single_command() {
                by_single_command.insert(record.offset);
            }
            let kind = kind_of(record.key()).unwrap_or_default();
            match kinds.get_mut(kind) {
                Some(range) => range.last = record.offset,
                None => {
                    let range = OffsetRange { first: record.offset, last: record.offset };
                    kinds.insert(kind.into(), range);
                }
            }
        })?;
        for transaction in transactions.into_iter() {
            let offset = transaction.offset;
            self.transactions
                .push(transaction, self.position == 0)
                .map_err(|expected| self.reader.gap(expected, offset))?;
        }
        let keys = self.live.len() as u64;
        let promised = self.transactions.last().map_or(0, |last| last.keys);
        if keys != promised {
            return Err(self.reader.unfit(&format!(
                "it has values of {keys} keys, and its last transaction says {promised}: records were lost, or another \
                 program wrote to it"
            )));
        }
        self.position = end;
        Ok(())
    }

    /// Hands the records from `from` to `end` to `each` until that has enough.
    fn each(
        &self,
        from: u64,
        end: u64,
        mut each: impl FnMut(&Record<'_>) -> Result<bool, PortError>,
    ) -> Result<(), PortError> {
        if from >= end {
            return Ok(());
        }
        self.reader.seek(from)?;
        let mut read = || {
            while let Some(record) = self.reader.next(end)? {
                if !each(&record)? || record.offset + 1 >= end {
                    break;
                }
            }
            Ok(())
        };
        let outcome = read();
        self.reader.rest();
        outcome
    }

    /// Hands the values between `from` and `end` that stand to `each`.
    fn each_live(
        &self,
        from: u64,
        end: u64,
        mut each: impl FnMut(&Record<'_>, &[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        self.each(from, end, |record| {
            let stands = || self.live.get(&xxh3_128(record.key())) == Some(&record.offset);
            if let Some(payload) = record.payload().filter(|_| stands()) {
                each(record, payload)?;
            }
            Ok(true)
        })
    }
}

fn random() -> Result<u64, PortError> {
    getrandom::u64().map_err(|_| PortError::new(PORT, "the system gives no random bytes"))
}

fn wait_before(attempt: u32) -> Result<Duration, PortError> {
    let wait_ms = ATTEMPT_WAIT_FIRST_MS << attempt;
    Ok(Duration::from_millis(wait_ms + random()? % wait_ms))
}
