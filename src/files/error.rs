//! What can go wrong with bytes, as callers need to tell it apart.
//!
//! Must not know: answers of an API. A code here is for the failure of a job or a log.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use uuid::Uuid;

/// Why bytes were not stored or read. Causes are sources, for the log and not for callers.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the content is larger than the {cap} bytes allowed")]
    TooLarge { cap: u64 },
    #[error("nothing is stored under the key {key}")]
    NotFound { key: Uuid },
    #[error("the key {key} is already written, and a key is written once")]
    Exists { key: Uuid },
    #[error("the range {}..{} holds none of the {size} bytes", range.start, range.end)]
    Range { range: Range<u64>, size: u64 },
    #[error("stopped by request")]
    Stopped,
    #[error("the content could not be read to its end")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    #[error("the local file {path:?} could not be read or written")]
    File { path: PathBuf, source: io::Error },
    #[error("the folder for files {path:?} could not be used")]
    Folder { path: PathBuf, source: io::Error },
    #[error("the storage for files failed")]
    Storage(#[source] object_store::Error),
}

impl BlobError {
    /// A stable code. A full disk has one of its own, whatever it was that failed to be written.
    pub fn code(&self) -> &'static str {
        match self {
            BlobError::TooLarge { .. } => "file_too_large",
            BlobError::NotFound { .. } => "blob_not_found",
            BlobError::Exists { .. } => "blob_exists",
            BlobError::Range { .. } => "range_not_satisfiable",
            BlobError::Stopped => "stopped",
            BlobError::Source(_) => "source_failed",
            _ if self.is_full() => "storage_full",
            BlobError::File { .. } => "local_file_failed",
            BlobError::Folder { .. } | BlobError::Storage(_) => "storage_failed",
        }
    }

    fn is_full(&self) -> bool {
        let causes = std::iter::successors(self.source(), |&cause| cause.source());
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
            matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
    }
}
