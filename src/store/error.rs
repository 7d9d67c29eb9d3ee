//! What can go wrong below the engine.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A failure of the database or of the way to it; never a refusal of the rules.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it broke; the same thing may work in a moment.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Option<DieselError>),
    /// Waited too long for a row that another transaction holds.
    #[error("another transaction holds what is needed")]
    Contended(#[source] DieselError),
    /// The database has undone this transaction, because another one held what it wanted and wanted
    /// what it held: done again, it will work.
    #[error("another transaction was in the way")]
    Undone(#[source] DieselError),
    /// The file or disk refuses writes (full, read-only, I/O error).
    #[error("the database cannot be written")]
    Storage(#[source] DieselError),
    /// A statement failed for a reason of its own: a defect of ours.
    #[error("a statement failed")]
    Statement(#[source] DieselError),
    /// A stored value does not read as what it should be: a defect of ours or a damaged file.
    #[error("stored data is not readable: {0}")]
    Corrupt(String),
    /// The URL names no database that we know, or the database refuses us.
    #[error("{0}")]
    Setup(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed a little later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            StoreError::Unavailable(_)
                | StoreError::Contended(_)
                | StoreError::Undone(_)
                | StoreError::Storage(_)
        )
    }

    /// Whether a row came and does not read as what it should be.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, StoreError::Statement(DieselError::DeserializationError(_)))
    }
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> StoreError {
        let (broken, message) = match &error {
            DieselError::DatabaseError(kind, information) => (
                matches!(kind, DatabaseErrorKind::ClosedConnection),
                information.message().to_ascii_lowercase(),
            ),
            DieselError::BrokenTransactionManager => (true, String::new()),
            _ => (false, String::new()),
        };
        let has = |needles: &[&str]| needles.iter().any(|needle| message.contains(needle));
        if broken
            || has(&[
                "server closed the connection",
                "no connection to the server",
                "connection refused",
                "could not connect",
                "could not receive data",
                "could not send data",
                "terminating connection",
                "the database system is",
                "ssl syscall",
                "connection reset",
                "broken pipe",
            ])
        {
            StoreError::Unavailable(Some(error))
        } else if has(&["deadlock", "could not serialize"]) {
            StoreError::Undone(error)
        } else if has(&["database is locked", "lock timeout"]) {
            StoreError::Contended(error)
        } else if has(&[
            "disk is full",
            "disk i/o error",
            "readonly database",
            "no space left",
            "unable to open database",
        ]) {
            StoreError::Storage(error)
        } else {
            StoreError::Statement(error)
        }
    }
}

/// Result of anything in the store.
pub type StoreResult<T> = Result<T, StoreError>;
