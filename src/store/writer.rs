//! Group commit: operations that arrive while a commit is in flight share the next one.
//!
//! SQLite has one writer thread, Postgres several. A thread takes what is waiting, at most one
//! operation a subject, runs it all in one transaction and answers every caller after the commit.
//! When a batch fails, it is undone and its operations are run one by one, so that one bad
//! operation spoils only itself. Must not know what the operations do.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::connection::Connection;
use super::error::{StoreError, StoreResult};
use super::location::{Backend, Location};

mod queue;
mod transaction;
use queue::{Queue, Waiting};
use transaction::KeyBlock;
pub use transaction::Transaction;

/// Writer threads on Postgres: enough that one batch is built while others wait for the disk.
const POSTGRES_WRITERS: usize = 3;

/// A write as a value. It must be safe to run twice: a connection that breaks during COMMIT
/// leaves open whether the first run lasted.
pub trait Operation: Send + Sync + 'static {
    /// What the caller gets.
    type Outcome: Send + 'static;

    /// What comes of a whole transaction besides; dropped when it is undone.
    type Aside: Send + 'static;

    /// Hashes of the subjects it changes; two operations that share one never share a batch.
    fn subjects(&self, add: &mut dyn FnMut(u64));

    /// How many rows' worth of work it is, roughly.
    fn weight(&self) -> usize {
        1
    }

    /// Whether nobody waits for it, so that it may wait a little for a commit it can share.
    fn may_wait(&self) -> bool {
        false
    }
}

/// One answer an operation, in order, and what else came of it.
pub type Executed<O> = (Vec<<O as Operation>::Outcome>, <O as Operation>::Aside);

/// Runs a batch inside a transaction.
pub type Executor<O> =
    dyn Fn(&mut Transaction<'_>, &[&O], Run) -> StoreResult<Executed<O>> + Send + Sync;

/// Whether an operation may have been run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// No.
    First,
    /// No, but in a transaction that was undone: now each is run for itself.
    Alone,
    /// Perhaps: its commit got no answer.
    Repeated,
}

struct Shared<O: Operation> {
    queue: Mutex<Queue<O>>,
    bell: Condvar,
    committed: Box<dyn Fn(usize, O::Aside) + Send + Sync>,
}

/// Hands operations to the writer threads.
pub struct Writer<O: Operation> {
    shared: Arc<Shared<O>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl<O: Operation> Writer<O> {
    /// Starts the threads. `committed` is told the size of every batch after its commit, and what
    /// came of it besides.
    pub fn start(
        location: &Location,
        executor: Arc<Executor<O>>,
        committed: impl Fn(usize, O::Aside) + Send + Sync + 'static,
    ) -> StoreResult<Writer<O>> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new()),
            bell: Condvar::new(),
            committed: Box::new(committed),
        });
        let count = match location.backend {
            Backend::Sqlite => 1,
            Backend::Postgres => POSTGRES_WRITERS,
        };
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let mut worker = Worker {
                location: location.clone(),
                connection: Some(Connection::open(location)?),
                keys: KeyBlock::default(),
                shared: Arc::clone(&shared),
                executor: Arc::clone(&executor),
            };
            let thread = std::thread::Builder::new()
                .name(format!("writer-{number}"))
                .spawn(move || worker.run())
                .map_err(|error| StoreError::Setup(format!("no writer thread: {error}")))?;
            threads.push(thread);
        }
        Ok(Writer { shared, threads: Mutex::new(threads) })
    }

    /// Runs one operation; resolves after its commit.
    pub async fn execute(&self, operation: O) -> StoreResult<O::Outcome> {
        let (answer, outcome) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Err(StoreError::Closed);
            }
            queue.push(operation, answer);
        }
        self.shared.bell.notify_one();
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more operations, runs what is waiting and ends the threads.
    pub fn close(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.bell.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl<O: Operation> Drop for Writer<O> {
    fn drop(&mut self) {
        self.close();
    }
}

struct Worker<O: Operation> {
    location: Location,
    connection: Option<Connection>,
    keys: KeyBlock,
    shared: Arc<Shared<O>>,
    executor: Arc<Executor<O>>,
}

impl<O: Operation> Worker<O> {
    fn run(&mut self) {
        while let Some(batch) = self.take() {
            self.commit(batch);
        }
    }

    /// Waits for work; `None` when closed and nothing is left.
    fn take(&self) -> Option<Vec<Waiting<O>>> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.is_empty() {
                if queue.closed {
                    return None;
                }
                queue = self.shared.bell.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let Some(left) = queue.wait_left().filter(|_| !queue.closed) else {
                return Some(queue.select());
            };
            let waited = self.shared.bell.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn commit(&mut self, batch: Vec<Waiting<O>>) {
        let operations: Vec<&O> = batch.iter().map(|waiting| &waiting.operation).collect();
        match self.attempt(&operations, Run::First) {
            Ok(outcomes) => {
                for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                    let _ = waiting.answer.send(Ok(outcome));
                }
            }
            // Without a database there is no use in trying each one for itself.
            Err(Failed { error: StoreError::Unavailable(cause), ambiguous: false, .. }) => {
                let mut cause = Some(cause);
                for waiting in batch {
                    let error = StoreError::Unavailable(cause.take().flatten());
                    let _ = waiting.answer.send(Err(error));
                }
            }
            Err(Failed { error, ambiguous: false, carried: false })
                if batch.len() == 1 && !matches!(error, StoreError::Undone(_)) =>
            {
                if !error.is_passing() {
                    tracing::error!(error = &error as &dyn std::error::Error, "write failed");
                }
                if let Some(waiting) = batch.into_iter().next() {
                    let _ = waiting.answer.send(Err(error));
                }
            }
            Err(Failed { error, ambiguous, .. }) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    operations = batch.len(),
                    "a batch was undone; running its operations one by one"
                );
                let run = if ambiguous { Run::Repeated } else { Run::Alone };
                for waiting in batch {
                    let outcome = self.attempt_alone(&waiting.operation, run);
                    if let Err(Failed { error, .. }) = &outcome
                        && !error.is_passing()
                    {
                        tracing::error!(error = error as &dyn std::error::Error, "write failed");
                    }
                    let outcome = outcome
                        .map_err(|failed| failed.error)
                        .and_then(|outcomes| outcomes.into_iter().next().ok_or(StoreError::Closed));
                    let _ = waiting.answer.send(outcome);
                }
            }
        }
    }

    /// One transaction over one operation. That somebody else was in the way is no answer to it, and
    /// neither is a commit that got none.
    fn attempt_alone(&mut self, operation: &O, run: Run) -> Result<Vec<O::Outcome>, Failed> {
        let (mut tries, mut run) = (1, run);
        loop {
            match self.attempt(&[operation], run) {
                Err(Failed { error: StoreError::Undone(_), ambiguous: false, .. })
                    if tries < MOST_TRIES =>
                {
                    tries += 1;
                }
                Err(Failed { ambiguous: true, .. }) if run != Run::Repeated => run = Run::Repeated,
                other => return other,
            }
        }
    }

    /// One transaction over `operations`.
    fn attempt(&mut self, operations: &[&O], run: Run) -> Result<Vec<O::Outcome>, Failed> {
        let before = |error| Failed { error, ambiguous: false, carried: false };
        if let Err(error) = self.begin() {
            self.mend(&error);
            return Err(before(error));
        }
        let Worker { connection: Some(connection), keys, executor, .. } = self else {
            return Err(before(StoreError::Closed));
        };
        let mut transaction = Transaction::new(connection, keys, run);
        // A defect in one operation must not take the writer, and with it the server, along.
        let run = AssertUnwindSafe(|| {
            let executed = executor(&mut transaction, operations, run)?;
            // Here, since what fails before the commit is sent has certainly not been done.
            transaction.flush()?;
            Ok(executed)
        });
        let executed = std::panic::catch_unwind(run)
            .unwrap_or_else(|_| Err(StoreError::Corrupt("an operation panicked".to_owned())));
        let carried = transaction.carries();
        match executed {
            Ok((outcomes, aside)) => match connection.commit() {
                Ok(()) => {
                    self.keys.committed();
                    let tell = || (self.shared.committed)(operations.len(), aside);
                    if std::panic::catch_unwind(AssertUnwindSafe(tell)).is_err() {
                        tracing::error!("what came of a commit could not be told");
                    }
                    Ok(outcomes)
                }
                Err(error) => {
                    let ambiguous = matches!(error, StoreError::Unavailable(_));
                    self.mend(&error);
                    Err(Failed { error, ambiguous, carried })
                }
            },
            Err(error) => {
                self.mend(&error);
                Err(Failed { error, ambiguous: false, carried })
            }
        }
    }

    /// After an error: undo, and drop a connection that no longer answers.
    fn mend(&mut self, error: &StoreError) {
        self.keys.undone();
        if let Some(connection) = &mut self.connection {
            connection.rollback();
            if matches!(error, StoreError::Unavailable(_)) || connection.ping().is_err() {
                self.connection = None;
            }
        }
    }

    /// Begins a transaction. A connection that broke while it lay idle is replaced once: nothing
    /// has run on it, so nobody needs to be told.
    fn begin(&mut self) -> StoreResult<()> {
        if let Some(connection) = &mut self.connection {
            match connection.begin() {
                Err(StoreError::Unavailable(_)) => self.connection = None,
                result => return result,
            }
        }
        let mut opened = Connection::open(&self.location)?;
        let begun = opened.begin();
        self.connection = Some(opened);
        begun
    }
}

/// How often an operation is run that the database undoes for the sake of others.
const MOST_TRIES: u32 = 10;

struct Failed {
    error: StoreError,
    /// The commit was sent and got no answer.
    ambiguous: bool,
    /// It may be the fault of what was run along.
    carried: bool,
}
