//! Writing bytes under a key: hashed on the way, in bounded memory, all or nothing, on disk before
//! it is reported.
//!
//! Small content is one request; larger content is a multipart upload with one part on its way
//! while the next one fills.
//!
//! Must not know: names, owners, or when a key is published.

use std::error::Error;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayloadMut, WriteMultipart,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::blob::{Blobs, located};
use super::chunks::chunks;
use super::error::BlobError;

/// How much of the beginning is kept, enough to tell media types apart.
const HEAD_BYTES: usize = 512;
/// The smallest part S3 takes, and the most parts.
const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;
const MAX_PART_BYTES: u64 = 64 * 1024 * 1024;
const MAX_PARTS: u64 = 10_000;

/// Bytes that are stored for good but that nothing points to yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    pub key: Uuid,
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256_hex: String,
    /// The first 512 bytes, or fewer when there are no more.
    pub head: Vec<u8>,
}

impl Blobs {
    /// Stores a stream. Nothing is left behind when it fails or exceeds `cap` bytes. A key is
    /// written once; writing it again is [`BlobError::Exists`].
    ///
    /// Memory: two parts at most. A part is 5 MiB for a cap up to 52 GB and grows with the cap to
    /// 64 MiB, so give a true cap. When the returned future is dropped half way, a local upload is
    /// removed; on S3 the bucket's rule for incomplete uploads has to do it.
    pub async fn stage<S, E>(&self, key: Uuid, stream: S, cap: u64) -> Result<Staged, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn Error + Send + Sync>> + Send,
    {
        let stream = stream.map_err(|error| BlobError::Source(error.into()));
        self.stage_checked(key, stream, cap).await
    }

    /// Stores a local file, which must be a regular one. `progress` gets the bytes read so far and
    /// may break off, which ends in [`BlobError::Stopped`].
    pub async fn stage_file<P>(
        &self,
        key: Uuid,
        path: &Path,
        mut progress: P,
    ) -> Result<Staged, BlobError>
    where
        P: FnMut(u64) -> ControlFlow<()> + Send,
    {
        let at = |source| BlobError::File { path: path.to_owned(), source };
        let kind = tokio::fs::symlink_metadata(path).await.map_err(at)?;
        if !kind.is_file() {
            // A pipe would never end and a link may lead out of a job's folder.
            return Err(at(std::io::Error::other("not a regular file")));
        }
        let file: File = tokio::fs::File::open(path).await.map_err(at)?.into_std().await;
        let length = file.metadata().map_err(at)?.len();

        let mut read = 0;
        let stream = chunks(file, length).map(|chunk| {
            let chunk = chunk.map_err(at)?;
            read += chunk.len() as u64;
            match progress(read) {
                ControlFlow::Continue(()) => Ok(chunk),
                ControlFlow::Break(()) => Err(BlobError::Stopped),
            }
        });
        self.stage_checked(key, stream, length).await
    }

    async fn stage_checked(
        &self,
        key: Uuid,
        stream: impl Stream<Item = Result<Bytes, BlobError>> + Send,
        cap: u64,
    ) -> Result<Staged, BlobError> {
        self.prepare(key).await?;
        let mut tally = Tally::new(cap);
        let mut upload = Upload::new(self.store(), key, part_bytes(cap));
        match fill(stream, &mut tally, &mut upload).await {
            Ok(()) => upload.finish().await?,
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        }
        Ok(tally.staged(key))
    }
}

async fn fill(
    stream: impl Stream<Item = Result<Bytes, BlobError>> + Send,
    tally: &mut Tally,
    upload: &mut Upload<'_>,
) -> Result<(), BlobError> {
    let mut stream = pin!(stream);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        tally.take(&chunk)?;
        upload.write(&chunk).await?;
    }
    Ok(())
}

/// A part size with which `cap` bytes fit into the number of parts S3 takes.
fn part_bytes(cap: u64) -> usize {
    let bytes = cap.div_ceil(MAX_PARTS).clamp(MIN_PART_BYTES, MAX_PART_BYTES);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What is known of the bytes that went by.
struct Tally {
    cap: u64,
    size: u64,
    hash: Sha256,
    head: Vec<u8>,
}

impl Tally {
    fn new(cap: u64) -> Tally {
        Tally { cap, size: 0, hash: Sha256::new(), head: Vec::new() }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), BlobError> {
        self.size = self.size.saturating_add(chunk.len() as u64);
        if self.size > self.cap {
            return Err(BlobError::TooLarge { cap: self.cap });
        }
        self.hash.update(chunk);
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&chunk[..missing.min(chunk.len())]);
        Ok(())
    }

    fn staged(self, key: Uuid) -> Staged {
        let sha256_hex = hex::encode(self.hash.finalize());
        Staged { key, size: self.size, sha256_hex, head: self.head }
    }
}

/// One object on its way into the store.
struct Upload<'a> {
    store: &'a dyn ObjectStore,
    key: Uuid,
    part: usize,
    state: State,
}

enum State {
    /// So far it fits into one part, and perhaps into one request.
    Small(PutPayloadMut),
    Parts(WriteMultipart),
}

impl<'a> Upload<'a> {
    fn new(store: &'a dyn ObjectStore, key: Uuid, part: usize) -> Upload<'a> {
        let state = State::Small(PutPayloadMut::new());
        Upload { store, key, part, state }
    }

    async fn write(&mut self, chunk: &[u8]) -> Result<(), BlobError> {
        if let State::Small(buffer) = &mut self.state {
            if buffer.content_length() + chunk.len() <= self.part {
                // Copied, because a short chunk may keep a long receive buffer alive.
                buffer.extend_from_slice(chunk);
                return Ok(());
            }
            let buffer = std::mem::take(buffer);
            self.state = State::Parts(begin_parts(self.store, self.key, self.part, buffer).await?);
        }
        if let State::Parts(parts) = &mut self.state {
            for piece in chunk.chunks(self.part) {
                parts.wait_for_capacity(2).await.map_err(BlobError::Storage)?;
                parts.write(piece);
            }
        }
        Ok(())
    }

    async fn finish(self) -> Result<(), BlobError> {
        let finished = match self.state {
            State::Small(buffer) => {
                let once = PutOptions::from(PutMode::Create);
                self.store.put_opts(&located(self.key), buffer.freeze(), once).await
            }
            State::Parts(parts) => parts.finish().await,
        };
        match finished {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Err(BlobError::Exists { key: self.key })
            }
            Err(error) => Err(BlobError::Storage(error)),
        }
    }

    /// The first error is the one to report; one of cleaning up adds nothing to it.
    async fn abort(self) {
        if let State::Parts(parts) = self.state {
            let _ = parts.abort().await;
        }
    }
}

/// Goes over to a multipart upload, with what was buffered as its beginning.
async fn begin_parts(
    store: &dyn ObjectStore,
    key: Uuid,
    part: usize,
    buffer: PutPayloadMut,
) -> Result<WriteMultipart, BlobError> {
    // Completing a multipart upload would replace what is there.
    match store.head(&located(key)).await {
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(BlobError::Storage(error)),
        Ok(_) => return Err(BlobError::Exists { key }),
    }
    let upload = store.put_multipart(&located(key)).await.map_err(BlobError::Storage)?;
    let mut parts = WriteMultipart::new_with_chunk_size(upload, part);
    buffer.freeze().into_iter().for_each(|bytes| parts.put(bytes));
    Ok(parts)
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;
