//! Connections for reading: a few, kept open, and replaced when they no longer answer. Must not know
//! what is read.

use std::time::{Duration, Instant};

use super::connection::{Backend, Connection, Location};
use super::error::{StoreError, StoreResult};

/// Connections that are kept at most.
const MOST: u32 = 4;

/// How long one that has answered is taken to answer again. To ask costs as much as most reads do,
/// and a server that has nothing to do reads several times a second.
const ANSWERS_FOR: Duration = Duration::from_secs(1);

/// How long a read waits for a connection.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The connections.
pub(super) type Pool = r2d2::Pool<Readers>;

pub(super) struct Readers(Location);

/// A connection, and what is known of it.
pub(super) struct Reader {
    connection: Connection,
    /// When it last did what it was asked for; none while nothing can be said of it.
    answered: Option<Instant>,
    is_lost: bool,
}

/// Nothing is opened before it is needed.
pub(super) fn pool(location: &Location) -> Pool {
    r2d2::Pool::builder()
        .max_size(MOST)
        .min_idle(Some(0))
        .connection_timeout(LONGEST_WAIT)
        .test_on_check_out(location.backend == Backend::Postgres)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(Readers(location.clone()))
}

impl Reader {
    /// Runs reads; a connection that is lost in one is not used again.
    pub(super) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Connection) -> StoreResult<T>,
    ) -> StoreResult<T> {
        self.answered = None;
        let result = read(&mut self.connection);
        match &result {
            Ok(_) => self.answered = Some(Instant::now()),
            Err(StoreError::Unavailable(_)) => self.is_lost = true,
            Err(_) => {}
        }
        result
    }
}

impl r2d2::ManageConnection for Readers {
    type Connection = Reader;
    type Error = StoreError;

    fn connect(&self) -> Result<Reader, StoreError> {
        let connection = Connection::open_reader(&self.0)?;
        Ok(Reader { connection, answered: Some(Instant::now()), is_lost: false })
    }

    fn is_valid(&self, reader: &mut Reader) -> Result<(), StoreError> {
        match reader.answered {
            Some(at) if at.elapsed() < ANSWERS_FOR => Ok(()),
            _ => reader.read(Connection::ping),
        }
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        reader.is_lost
    }
}
