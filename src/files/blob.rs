//! The bytes of file versions, each under an immutable key, in a local folder or a bucket.
//!
//! Writing is in [`super::staging`]. A key is `ef/ff/<uuid>` with the uuid's *last* two bytes in
//! front: the first bytes of a UUIDv7 are its time, so all files of a month would share one folder.
//!
//! Must not know: paths, names, descriptors, or which keys are still needed.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::chunks::chunks;
use super::error::BlobError;
use super::local_folder::LocalFolder;

/// Access to the bytes; cheap to copy.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Only for a local folder, which needs care that a bucket does not.
    folder: Option<Arc<LocalFolder>>,
}

/// Bytes being read.
pub struct Opened {
    /// Of the whole content, whatever part of it is read.
    pub size: u64,
    /// The part that the stream yields: what was asked for, cut at the end of the content.
    pub range: Range<u64>,
    pub stream: BoxStream<'static, Result<Bytes, BlobError>>,
}

impl Blobs {
    /// Bytes in a folder of this machine, made when it is not there. What is stored is synced to
    /// disk before it is reported.
    pub fn local(folder: &Path) -> Result<Blobs, BlobError> {
        let at = |source| BlobError::Folder { path: folder.to_owned(), source };
        let folder = LocalFolder::create(folder).map_err(at)?;
        let store = LocalFileSystem::new_with_prefix(folder.root()).map_err(BlobError::Storage)?;
        Ok(Blobs { store: Arc::new(store.with_fsync(true)), folder: Some(Arc::new(folder)) })
    }

    /// Bytes in any other store, which must be durable once it has answered.
    pub fn remote(store: Arc<dyn ObjectStore>) -> Blobs {
        Blobs { store, folder: None }
    }

    /// Reads the content or a part of it. A range beyond the end is cut; one that holds nothing is
    /// [`BlobError::Range`].
    pub async fn open(&self, key: Uuid, range: Option<Range<u64>>) -> Result<Opened, BlobError> {
        let options =
            GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
        let found = match (self.store.get_opts(&located(key), options).await, range) {
            (Ok(found), _) => found,
            (Err(object_store::Error::NotFound { .. }), _) => {
                return Err(BlobError::NotFound { key });
            }
            (Err(error), None) => return Err(BlobError::Storage(error)),
            (Err(error), Some(range)) => return Err(self.explained(key, range, error).await),
        };
        let (size, range) = (found.meta.size, found.range.clone());
        let stream = match found.payload {
            GetResultPayload::File(file, path) => local_stream(file, path.clone(), range.clone())
                .await
                .map_err(|source| BlobError::File { path, source })?,
            GetResultPayload::Stream(stream) => stream.map_err(BlobError::Storage).boxed(),
        };
        Ok(Opened { size, range, stream })
    }

    /// Copies the content into a new local file and returns its size. `progress` gets the bytes
    /// written so far and may break off. The file must not exist; it is removed on failure, and
    /// not synced: it is a job's working copy.
    pub async fn download_to<P>(
        &self,
        key: Uuid,
        path: &Path,
        progress: P,
    ) -> Result<u64, BlobError>
    where
        P: FnMut(u64) -> ControlFlow<()> + Send,
    {
        let at = |source| BlobError::File { path: path.to_owned(), source };
        let opened = self.open(key, None).await?;
        let file = tokio::fs::File::create_new(path).await.map_err(at)?;
        let copied = copy(opened, file, progress, at).await;
        if copied.is_err() {
            // The error to report is the first one.
            let _ = tokio::fs::remove_file(path).await;
        }
        copied
    }

    /// Removes the content. That there is none is fine: the aim is reached.
    pub async fn delete(&self, key: Uuid) -> Result<(), BlobError> {
        match self.store.delete(&located(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BlobError::Storage(error)),
        }
    }

    /// All keys last written before `cutoff`, in no order, for a sweep that asks elsewhere which of
    /// them are still pointed to. What is not ours in the folder or bucket is passed over.
    pub fn list_older_than(
        &self,
        cutoff: DateTime<Utc>,
    ) -> BoxStream<'static, Result<Uuid, BlobError>> {
        self.store
            .list(None)
            .map_err(BlobError::Storage)
            .try_filter_map(move |found| async move {
                let key = found.location.filename().and_then(|name| name.parse::<Uuid>().ok());
                let ours = |key: &Uuid| located(*key) == found.location;
                Ok(key.filter(ours).filter(|_| found.last_modified < cutoff))
            })
            .boxed()
    }

    /// Removes what processes that died left half written before `cutoff`, and says how much that
    /// was. Only a local folder has such files within our reach.
    pub async fn remove_unfinished(&self, cutoff: DateTime<Utc>) -> Result<u64, BlobError> {
        let Some(folder) = self.folder.clone() else {
            return Ok(0);
        };
        self.in_folder(&folder.clone(), move || folder.remove_unfinished(cutoff)).await
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// Makes a place for a key that is about to be written.
    pub(super) async fn prepare(&self, key: Uuid) -> Result<(), BlobError> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let place = shelf(key);
        if folder.is_prepared(&place) {
            return Ok(());
        }
        self.in_folder(&folder.clone(), move || folder.prepare(&place)).await
    }

    async fn in_folder<T: Send + 'static>(
        &self,
        folder: &LocalFolder,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
        done.map_err(|source| BlobError::Folder { path: folder.root().to_owned(), source })
    }

    /// Stores fail in different ways for a range that holds nothing; the size tells it apart.
    async fn explained(
        &self,
        key: Uuid,
        range: Range<u64>,
        error: object_store::Error,
    ) -> BlobError {
        match self.store.head(&located(key)).await {
            Ok(found) if range.start >= range.end.min(found.size) => {
                BlobError::Range { range, size: found.size }
            }
            _ => BlobError::Storage(error),
        }
    }
}

/// Where a key's content lies.
pub(super) fn located(key: Uuid) -> Location {
    let [first, second] = shelf_names(key);
    Location::from_iter([first, second, key.to_string()])
}

fn shelf(key: Uuid) -> PathBuf {
    shelf_names(key).iter().collect()
}

fn shelf_names(key: Uuid) -> [String; 2] {
    let [.., first, second] = *key.as_bytes();
    [first, second].map(|byte| format!("{byte:02x}"))
}

async fn local_stream(
    file: std::fs::File,
    path: PathBuf,
    range: Range<u64>,
) -> io::Result<BoxStream<'static, Result<Bytes, BlobError>>> {
    let mut file = tokio::fs::File::from_std(file);
    if range.start > 0 {
        tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(range.start)).await?;
    }
    let stream = chunks(file.into_std().await, range.end - range.start);
    Ok(stream.map_err(move |source| BlobError::File { path: path.clone(), source }).boxed())
}

async fn copy(
    mut opened: Opened,
    mut file: tokio::fs::File,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
    at: impl Fn(io::Error) -> BlobError,
) -> Result<u64, BlobError> {
    let mut written = 0;
    while let Some(chunk) = opened.stream.try_next().await? {
        file.write_all(&chunk).await.map_err(&at)?;
        written += chunk.len() as u64;
        if progress(written).is_break() {
            return Err(BlobError::Stopped);
        }
    }
    file.flush().await.map_err(&at)?;
    Ok(written)
}
