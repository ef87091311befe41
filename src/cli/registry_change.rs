//! One change of the registry by a command: who makes it, that it follows from what stands, and that the running engine
//! has it before the command returns.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use gatebell_connectors::registry::{Applied, ChangeOrigin, RegistryStore};
use gatebell_engine::ids::{GuardianId, PupilId, SchoolId};
use gatebell_engine::registry::{CHANGE_LEAD, Entry, EntryKey, Guardian, Pupil, School};
use gatebell_engine::time::Timestamp;

use super::Globals;
use super::operator::operator;
use crate::home::Home;

/// How long a command waits for the running processes, which follow the registry within a second.
const WAIT_S_MAX: u64 = 30;

/// Other commands may write in between; a change is decided anew so often.
const ATTEMPTS_MAX: usize = 5;

/// Who a change is recorded under.
#[derive(Debug, clap::Args)]
pub(super) struct By {
    /// Who makes the change, for the record [default: the user who runs the command]
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
}

impl By {
    /// The option, else whoever runs the command.
    pub(super) fn who(&self) -> String {
        self.by.clone().filter(|by| !by.is_empty()).unwrap_or_else(operator)
    }
}

/// The registry that a command changes.
pub(super) struct RegistryOfCity {
    home: Home,
    store: Arc<dyn RegistryStore>,
}

/// A decision about the registry: the entries to write, or nothing when it is so already.
pub(super) struct Decided {
    /// What to write.
    pub(super) entries: Vec<Entry>,
    /// What the user is told once it is in effect.
    pub(super) message: String,
    /// What the user should know besides.
    pub(super) warnings: Vec<String>,
}

impl RegistryOfCity {
    /// Opens the registry of the city, which must be there.
    pub(super) fn open(globals: &Globals) -> anyhow::Result<Self> {
        let home = globals.home()?;
        ensure!(home.has_city()?, home.no_city());
        let store = home.registry()?;
        Ok(Self { home, store })
    }

    /// Where it lies.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The value of `key`, removed or not.
    pub(super) fn entry(&self, key: &EntryKey) -> anyhow::Result<Option<Entry>> {
        Ok(self.store.entry(key)?)
    }

    /// Hands every entry of `kind` to `each`.
    pub(super) fn for_each(&self, kind: &str, mut each: impl FnMut(Entry)) -> anyhow::Result<()> {
        Ok(self.store.for_each(kind, &mut each)?)
    }

    /// The pupil called `id`.
    pub(super) fn pupil(&self, id: &PupilId) -> anyhow::Result<Pupil> {
        match self.entry(&EntryKey::Pupil(id.clone()))? {
            Some(Entry::Pupil(pupil)) => Ok(pupil),
            _ => bail!("there is no pupil {id}"),
        }
    }

    /// The guardian called `id`.
    pub(super) fn guardian(&self, id: &GuardianId) -> anyhow::Result<Guardian> {
        match self.entry(&EntryKey::Guardian(id.clone()))? {
            Some(Entry::Guardian(guardian)) => Ok(guardian),
            _ => bail!("there is no guardian {id}"),
        }
    }

    /// The school called `id`.
    pub(super) fn school(&self, id: &SchoolId) -> anyhow::Result<School> {
        match self.entry(&EntryKey::School(id.clone()))? {
            Some(Entry::School(school)) if school.removed.is_none() => Ok(school),
            Some(_) => bail!("school {id} was removed"),
            None => bail!("there is no school {id}"),
        }
    }

    /// Makes the change that `decide` makes of what stands at an instant: written, recorded under `by`, and in effect in the
    /// running engine. Says so on standard output.
    pub(super) fn change(
        &self,
        by: &By,
        decide: impl Fn(&Self, Timestamp) -> anyhow::Result<Decided>,
    ) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let version = self.store.version()?;
            let counts_from = counts_from(&*self.store, version, 1)?;
            let decided = decide(self, counts_from)?;
            let written = if decided.entries.is_empty() {
                Some(version)
            } else {
                let origin = ChangeOrigin::SingleCommand;
                self.store.apply_to_version(version, decided.entries, counts_from, &by.who(), origin)?
            };
            let Some(version) = written else {
                continue;
            };
            for warning in decided.warnings {
                writeln!(std::io::stderr(), "warning: {warning}")?;
            }
            let effect = wait(&*self.store, version, counts_from, Duration::from_secs(WAIT_S_MAX))
                .with_context(|| format!("recorded: {}", decided.message))?;
            writeln!(std::io::stdout(), "{}; {effect}", decided.message)?;
            return Ok(());
        }
        bail!("others kept writing to the registry, and nothing was changed: try again")
    }
}

/// Entries that are surely written within a second, on a slow disk too.
const ENTRIES_WRITTEN_PER_S: u64 = 20_000;

/// From when a change of so many entries counts that follows from `version` and is written now: by then a running engine
/// has read it, so that no tap was decided without it that it counts for. Never before an earlier change, such as a large
/// import that is still ahead.
pub(super) fn counts_from(
    store: &dyn RegistryStore,
    version: u64,
    entries: usize,
) -> anyhow::Result<Timestamp> {
    let writing_s = u64::try_from(entries).unwrap_or(u64::MAX) / ENTRIES_WRITTEN_PER_S;
    let from_now = super::now().plus(CHANGE_LEAD + Duration::from_secs(writing_s));
    let last = store.changes(version.saturating_sub(1), 1)?;
    let from_last = last.first().map_or(Timestamp::MIN, |last| last.change.applied);
    Ok(from_now.max(from_last))
}

/// Waits until `version`, which counts from `counts_from` on, is in effect, for at most `timeout`, and says how.
pub(super) fn wait(
    store: &dyn RegistryStore,
    version: u64,
    counts_from: Timestamp,
    timeout: Duration,
) -> anyhow::Result<String> {
    match store.wait_applied(version, timeout)? {
        Applied::ByTheEngine => {
            let ahead = counts_from.since(super::now());
            if ahead > timeout {
                return Ok(format!("known to the running engine, and in effect from {counts_from} on"));
            }
            std::thread::sleep(ahead);
            Ok("in effect in the running engine".to_owned())
        }
        Applied::NoEngineRuns => Ok("in effect when gatebell serve starts (none is running)".to_owned()),
        Applied::NotInTime { reached } => bail!(
            "not every running process has taken it up within {} s (the slowest is at version {reached} of {version}): \
             look at each one's /readyz and log; it takes effect in each as soon as it follows",
            timeout.as_secs()
        ),
    }
}
