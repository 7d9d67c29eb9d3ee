//! What handlers that make files share: a folder for work files, blocking work that can be
//! stopped, staged bytes that are removed unless they are published, and how failures end a job.
//!
//! A handler's future may be dropped at any await. Whatever it began then ends by itself: blocking
//! work sees the wish, folders and staged bytes are removed by their guards.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::archive::{ArchiveError, SinkError};
use super::context::{Context, Ending, Services, Stop};
use crate::engine::Output;
use crate::files::{BlobError, Blobs, FilePath, Staged};
use crate::ids::new_id;

/// Reasons for blocking work to end early: the job's stop, or that nobody waits for it any more.
#[derive(Clone)]
pub struct Wish {
    stop: Stop,
    abandoned: Stop,
}

impl Wish {
    /// Whether the work should end.
    pub fn requested(&self) -> bool {
        self.stop.requested() || self.abandoned.requested()
    }

    /// Resolves when the work should end.
    pub async fn wait(&self) {
        tokio::select! {
            () = self.stop.wait() => {}
            () = self.abandoned.wait() => {}
        }
    }
}

/// Tells blocking work that its handler is gone.
struct Abandon(watch::Sender<bool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Runs blocking work. Its panic becomes the handler's own.
pub async fn blocking<T, F>(stop: &Stop, work: F) -> Result<T, Ending>
where
    T: Send + 'static,
    F: FnOnce(Wish) -> T + Send + 'static,
{
    let (switch, abandoned) = Stop::new();
    let _guard = Abandon(switch);
    let wish = Wish { stop: stop.clone(), abandoned };
    match tokio::task::spawn_blocking(move || work(wish)).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Ending::transient("interrupted", "the server shut down during the work")),
    }
}

/// Waits for work that ends where it is when a stop is asked for.
pub async fn unless_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Result<T, Ending> {
    tokio::select! {
        biased;
        () = stop.wait() => Err(Ending::Stopped),
        done = work => Ok(done),
    }
}

/// A folder for the work files of one try, removed with everything in it.
pub fn folder(services: &Services) -> Result<TempDir, Ending> {
    tempfile::Builder::new().prefix("job-").tempdir_in(&services.temporary).map_err(|error| {
        tracing::warn!(%error, "no folder for work files");
        Ending::transient("work_folder_failed", "the server could not make a folder for work files")
    })
}

/// Keys that are written for one job; the bytes are removed unless they are kept.
#[derive(Clone)]
pub struct StagedKeys(Arc<Keys>);

struct Keys {
    blobs: Blobs,
    runtime: Handle,
    keys: Mutex<Vec<Uuid>>,
}

impl StagedKeys {
    /// None yet.
    pub fn new(blobs: &Blobs) -> StagedKeys {
        let (blobs, runtime) = (blobs.clone(), Handle::current());
        StagedKeys(Arc::new(Keys { blobs, runtime, keys: Mutex::default() }))
    }

    /// A key for bytes that are about to be written.
    pub fn next(&self) -> Uuid {
        let key = new_id();
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        key
    }

    /// Everything written so far will be published.
    pub fn keep(&self) {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let keys = std::mem::take(self.keys.get_mut().unwrap_or_else(PoisonError::into_inner));
        if keys.is_empty() {
            return;
        }
        let blobs = self.blobs.clone();
        // Not waited for: what is left behind when the server ends now is an orphan and is swept.
        self.runtime.spawn(async move {
            for key in keys {
                if let Err(error) = blobs.delete(key).await {
                    tracing::debug!(%key, %error, "staged bytes are left to the sweep");
                }
            }
        });
    }
}

/// Staged bytes on their way to a path.
pub fn output(path: &FilePath, staged: &Staged, media_type: String, acl: &str) -> Output {
    Output {
        path: path.as_str().to_owned(),
        version: staged.key,
        file_id: new_id(),
        size: staged.size,
        sha256: staged.sha256_hex.clone(),
        media_type,
        acl: acl.to_owned(),
    }
}

/// A result's payload. What is made of our own values always serialises.
pub fn payload(value: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The stored specification of the job.
pub fn specification(context: &Context) -> serde_json::Value {
    serde_json::from_str(context.job.submission.specification.get()).unwrap_or_default()
}

/// The ending for bytes that could not be read or stored. `what` says whose.
pub fn blob_failure(what: &str, error: &BlobError) -> Ending {
    match error {
        BlobError::Stopped => Ending::Stopped,
        BlobError::NotFound { .. } => {
            Ending::permanent(error.code(), format!("the bytes of {what} are not stored any more"))
        }
        BlobError::TooLarge { cap } => Ending::permanent(
            error.code(),
            format!("{what} is larger than {cap} bytes, the most that is allowed"),
        ),
        BlobError::Exists { .. } | BlobError::Range { .. } => {
            Ending::permanent(error.code(), format!("{what}: {error}"))
        }
        _ => {
            // The message may name folders of this server, so it goes to the log only.
            tracing::warn!(what, error = error as &dyn Error, "bytes were not read or stored");
            let detail = format!("the server's storage failed while it worked on {what}");
            Ending::transient(error.code(), detail)
        }
    }
}

/// The ending for an archive that could not be read or written.
pub fn archive_failure(error: &ArchiveError) -> Ending {
    let (what, source) = match error {
        ArchiveError::Stopped => return Ending::Stopped,
        ArchiveError::Source { what, source } => (what.as_str(), source),
        // Files are stored several at a time, so it may not have been the one that is named.
        ArchiveError::Sink { source: SinkError::Io(source), .. } => ("the extracted files", source),
        ArchiveError::Output(source) if is_full(source) => {
            return Ending::transient("storage_full", "the server has no room for the archive");
        }
        _ => return by_itself(error),
    };
    match source.get_ref().and_then(|inner| inner.downcast_ref::<BlobError>()) {
        Some(error) => blob_failure(what, error),
        None => by_itself(error),
    }
}

fn by_itself(error: &ArchiveError) -> Ending {
    if error.is_transient() {
        Ending::transient(error.code(), error.to_string())
    } else {
        Ending::permanent(error.code(), error.to_string())
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
