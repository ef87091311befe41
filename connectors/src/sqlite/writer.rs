//! The writer thread of a database: many commands, one commit.
//!
//! Commands wait in a bounded queue. The thread takes what has gathered (up to [`GROUP_MAX`]), runs each inside one
//! transaction and a savepoint of its own, commits, and only then answers: an `Ok` is on the disk. A command that fails
//! takes nothing back but its own effects; a commit that fails answers every command of the group with the error, and the
//! next group is tried afresh, so that a full disk that has room again needs no restart. While a commit syncs the disk the
//! next group gathers, which is what makes it one sync for many.

use std::fmt;
use std::thread::JoinHandle;
use std::time::Instant;

use gatebell_engine::ports::PortError;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::DatabaseFile;

/// Commands in one commit, at most.
const GROUP_MAX: usize = 1024;

/// Why a command was not queued by [`Writer::try_write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full.
    Full,
    /// The thread has ended.
    Stopped,
}

/// The writing side of a database: a thread with a connection of its own. Dropping it writes what is queued and ends the
/// thread.
pub(crate) struct Writer {
    file: DatabaseFile,
    commands: Option<mpsc::Sender<Box<dyn Command>>>,
    commits: watch::Receiver<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread on `file`, with room for `queue_commands_max` waiting commands.
    pub(crate) fn start(file: &DatabaseFile, queue_commands_max: usize) -> Result<Self, PortError> {
        let connection = file.connect()?;
        let (commands, queue) = mpsc::channel(queue_commands_max.max(1));
        let (commit_counter, commits) = watch::channel(0);
        let group_file = file.clone();
        let thread = std::thread::Builder::new()
            .name(format!("{} writer", file.port()))
            .spawn(move || write_groups(&group_file, &connection, queue, &commit_counter))
            .map_err(|error| {
                PortError::new(file.port(), format_args!("cannot start the writer thread: {error}"))
            })?;
        Ok(Self { file: file.clone(), commands: Some(commands), commits, thread: Some(thread) })
    }

    /// Runs `command` in the next commit, and returns once it is on the disk. Waits for room in the queue. A command whose
    /// caller stops waiting is carried out all the same once it is queued.
    pub(crate) async fn write<T, F>(&self, command: F) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (queued, answer) = Queued::new(command);
        self.sender()?.send(Box::new(queued)).await.map_err(|_| self.stopped())?;
        answer.await.map_err(|_| self.stopped())?.map_err(|failure| self.explain(failure))
    }

    /// As [`write`](Self::write), but never waits for room: the answer comes over the returned channel.
    pub(crate) fn try_write<T, F>(&self, command: F) -> Result<Answer<T>, Refused>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (queued, answer) = Queued::new(command);
        let sender = self.commands.as_ref().ok_or(Refused::Stopped)?;
        match sender.try_send(Box::new(queued)) {
            Ok(()) => Ok(Answer { file: self.file.clone(), receiver: answer }),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refused::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Stopped),
        }
    }

    /// Counts this writer's commits: whoever reads the database waits for it to change.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    fn sender(&self) -> Result<&mpsc::Sender<Box<dyn Command>>, PortError> {
        self.commands.as_ref().ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> PortError {
        stopped(&self.file)
    }

    fn explain(&self, failure: Failure) -> PortError {
        failure.explain(&self.file)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing the channel lets the thread write what is queued, then end.
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(port = self.file.port(), "the writer thread panicked");
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("file", &self.file).finish_non_exhaustive()
    }
}

fn stopped(file: &DatabaseFile) -> PortError {
    PortError::new(file.port(), "the writer thread has ended")
}

/// The answer to come of a command that [`Writer::try_write`] has queued.
pub(crate) struct Answer<T> {
    file: DatabaseFile,
    receiver: oneshot::Receiver<Result<T, Failure>>,
}

impl<T> Answer<T> {
    /// Waits until the command is on the disk, or has failed.
    pub(crate) async fn wait(self) -> Result<T, PortError> {
        let Self { file, receiver } = self;
        receiver.await.map_err(|_| stopped(&file))?.map_err(|failure| failure.explain(&file))
    }
}

/// What became of a command that failed: by itself, or with its whole group.
enum Failure {
    Own(rusqlite::Error),
    Group(PortError),
}

impl Failure {
    fn explain(self, file: &DatabaseFile) -> PortError {
        match self {
            Self::Own(error) => file.error(&error),
            Self::Group(error) => error,
        }
    }
}

/// One command in the queue, its type of result forgotten.
trait Command: Send {
    /// Carries it out inside the group's transaction.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// Answers the caller: with its own result when the group was committed.
    fn answer(self: Box<Self>, committed: &Result<(), PortError>);
}

struct Queued<T, F> {
    command: Option<F>,
    result: Option<rusqlite::Result<T>>,
    caller: oneshot::Sender<Result<T, Failure>>,
}

impl<T, F> Queued<T, F> {
    fn new(command: F) -> (Self, oneshot::Receiver<Result<T, Failure>>) {
        let (caller, answer) = oneshot::channel();
        (Self { command: Some(command), result: None, caller }, answer)
    }
}

impl<T, F> Command for Queued<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(command) = self.command.take() else { return Ok(()) };
        connection.prepare_cached("SAVEPOINT command")?.execute([])?;
        let result = command(connection);
        if result.is_err() && !connection.is_autocommit() {
            connection.prepare_cached("ROLLBACK TO command")?.execute([])?;
        }
        let group_is_open = !connection.is_autocommit();
        self.result = Some(result);
        if !group_is_open {
            return Err(group_lost());
        }
        connection.prepare_cached("RELEASE command")?.execute([])?;
        Ok(())
    }

    fn answer(self: Box<Self>, committed: &Result<(), PortError>) {
        let answer = match (self.result, committed) {
            (Some(Err(error)), _) => Err(Failure::Own(error)),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(Failure::Group(error.clone())),
            // Every command of a committed group was run. Dropping the channel would tell the caller that the thread ended.
            (None, Ok(())) => return,
        };
        // A caller that stopped waiting needs no answer.
        let _ = self.caller.send(answer);
    }
}

/// On some errors (a full disk, an I/O error) SQLite itself takes back the whole transaction.
fn group_lost() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
        Some("the transaction was taken back by an error of another command in it".to_owned()),
    )
}

fn write_groups(
    file: &DatabaseFile,
    connection: &Connection,
    mut queue: mpsc::Receiver<Box<dyn Command>>,
    commit_counter: &watch::Sender<u64>,
) {
    let commit_seconds = metrics::histogram!("gatebell_commit_seconds", "port" => file.port());
    let commits_failed = metrics::counter!("gatebell_commits_failed_total", "port" => file.port());
    let mut group = Vec::new();
    while queue.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        let started = Instant::now();
        let committed = write_group(connection, &mut group).map_err(|error| file.error(&error));
        if committed.is_ok() {
            commit_counter.send_modify(|count| *count += 1);
            commit_seconds.record(started.elapsed());
        } else {
            commits_failed.increment(1);
        }
        for command in group.drain(..) {
            command.answer(&committed);
        }
    }
}

fn write_group(connection: &Connection, group: &mut [Box<dyn Command>]) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let written = group
        .iter_mut()
        .try_for_each(|command| command.run(connection))
        .and_then(|()| connection.prepare_cached("COMMIT")?.execute([]).map(drop));
    if written.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK")?.execute([])?;
    }
    written
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Schema;
    use super::*;

    const NOTES: Schema = Schema {
        name: "notes",
        steps: &["CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"],
    };

    fn notes(directory: &tempfile::TempDir) -> DatabaseFile {
        DatabaseFile::open(&directory.path().join("x.db"), "test store", &NOTES).unwrap()
    }

    fn insert(id: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static {
        move |connection| connection.execute("INSERT INTO note VALUES (?1, 'x')", [id])
    }

    fn ids(file: &DatabaseFile) -> Vec<i64> {
        let connection = file.connect().unwrap();
        let mut statement = connection.prepare("SELECT id FROM note ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn a_command_that_fails_takes_nothing_of_the_others_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = notes(&directory);
        let writer = Writer::start(&file, 16).unwrap();
        let half = |connection: &Connection| {
            connection.execute("INSERT INTO note VALUES (2, 'half')", [])?;
            connection.execute("INSERT INTO note VALUES (2, 'again')", [])
        };
        let (first, broken, last) =
            tokio::join!(writer.write(insert(1)), writer.write(half), writer.write(insert(3)));
        first.unwrap();
        last.unwrap();
        assert!(broken.unwrap_err().to_string().contains("UNIQUE"));
        assert_eq!(ids(&file), [1, 3]);
    }

    #[tokio::test]
    async fn what_gathers_while_the_writer_is_busy_is_one_commit() {
        let directory = tempfile::tempdir().unwrap();
        let file = notes(&directory);
        let writer = Writer::start(&file, 64).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = writer.try_write(move |_| Ok(held.recv().is_ok())).unwrap();
        let waiting: Vec<_> = (0..50).map(|id| writer.try_write(insert(id)).unwrap()).collect();
        release.send(()).unwrap();
        assert!(busy.wait().await.unwrap());
        for answer in waiting {
            answer.wait().await.unwrap();
        }
        assert!(*writer.commits().borrow() <= 2, "{} commits", *writer.commits().borrow());
        assert_eq!(ids(&file).len(), 50);
    }

    #[tokio::test]
    async fn a_full_queue_is_said_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let writer = Writer::start(&notes(&directory), 1).unwrap();
        let (started, running) = std::sync::mpsc::channel::<()>();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = writer
            .try_write(move |_| {
                let _ = started.send(());
                Ok(held.recv().is_ok())
            })
            .unwrap();
        running.recv().unwrap();
        let queued = writer.try_write(insert(1)).unwrap();
        assert_eq!(writer.try_write(insert(2)).err(), Some(Refused::Full));
        release.send(()).unwrap();
        busy.wait().await.unwrap();
        queued.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_disk_without_room_fails_the_command_and_room_again_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = notes(&directory);
        let writer = Writer::start(&file, 16).unwrap();
        writer.write(|connection| connection.pragma_update(None, "max_page_count", 8)).await.unwrap();
        let large = |connection: &Connection| {
            connection.execute("INSERT INTO note VALUES (1, hex(zeroblob(100000)))", [])
        };
        let (small, refused) = tokio::join!(writer.write(insert(2)), writer.write(large));
        assert!(refused.unwrap_err().to_string().contains("full"));
        let small_is_written = small.is_ok();
        assert_eq!(
            ids(&file),
            if small_is_written { vec![2] } else { vec![] },
            "exactly what was acknowledged"
        );
        writer.write(|connection| connection.pragma_update(None, "max_page_count", 100_000)).await.unwrap();
        writer.write(large).await.unwrap();
        assert!(ids(&file).contains(&1));
    }

    #[test]
    fn dropping_the_writer_writes_what_is_queued() {
        let directory = tempfile::tempdir().unwrap();
        let file = notes(&directory);
        let writer = Writer::start(&file, 64).unwrap();
        let _answers: Vec<_> = (0..20).map(|id| writer.try_write(insert(id)).unwrap()).collect();
        drop(writer);
        assert_eq!(ids(&file).len(), 20);
    }
}
