//! Connections for reading: a few, kept open, and replaced when they no longer answer. Must not know
//! what is read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::{StoreError, StoreResult};
use super::location::{Backend, Location};

/// Connections that are kept at most.
const MOST: u32 = 4;

/// How long one that has answered is taken to answer again. To ask costs as much as most reads do,
/// and a server that has nothing to do reads several times a second.
const ANSWERS_FOR: Duration = Duration::from_secs(1);

/// How long a read waits for a connection.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The connections.
pub(super) type Pool = r2d2::Pool<Readers>;

pub(super) struct Readers {
    location: Location,
    last_loss: LastLoss,
}

/// When one of them was last lost: perhaps the others are lost as well.
type LastLoss = Arc<Mutex<Option<Instant>>>;

/// A connection, and what is known of it.
pub(super) struct Reader {
    connection: Connection,
    /// When it last did what it was asked for; none while nothing can be said of it.
    answered: Option<Instant>,
    is_lost: bool,
    last_loss: LastLoss,
}

/// Nothing is opened before it is needed.
pub(super) fn pool(location: &Location) -> Pool {
    r2d2::Pool::builder()
        .max_size(MOST)
        .min_idle(Some(0))
        .connection_timeout(LONGEST_WAIT)
        .test_on_check_out(location.backend == Backend::Postgres)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(Readers { location: location.clone(), last_loss: LastLoss::default() })
}

impl Reader {
    /// Runs reads; a connection that is lost in one is not used again.
    pub(super) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Connection) -> StoreResult<T>,
    ) -> StoreResult<T> {
        // So it stays should the read panic, perhaps in the middle of a transaction.
        (self.answered, self.is_lost) = (None, true);
        let result = read(&mut self.connection);
        match &result {
            Ok(_) => (self.answered, self.is_lost) = (Some(Instant::now()), false),
            Err(StoreError::Unavailable(_)) => {
                *self.last_loss.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Instant::now());
            }
            Err(_) => self.is_lost = false,
        }
        result
    }

    /// Whether it has answered just now, and since the last loss of any of them.
    fn is_trusted(&self) -> bool {
        let last_loss = *self.last_loss.lock().unwrap_or_else(PoisonError::into_inner);
        self.answered.is_some_and(|at| {
            at.elapsed() < ANSWERS_FOR && last_loss.is_none_or(|lost_at| lost_at < at)
        })
    }
}

impl r2d2::ManageConnection for Readers {
    type Connection = Reader;
    type Error = StoreError;

    fn connect(&self) -> Result<Reader, StoreError> {
        let connection = Connection::open_reader(&self.location)?;
        let (answered, last_loss) = (Some(Instant::now()), Arc::clone(&self.last_loss));
        Ok(Reader { connection, answered, is_lost: false, last_loss })
    }

    fn is_valid(&self, reader: &mut Reader) -> Result<(), StoreError> {
        if reader.is_trusted() { Ok(()) } else { reader.read(Connection::ping) }
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        reader.is_lost
    }
}
