//! The blocking side of `archive.extract`: one local archive in, stored bytes out.
//!
//! Small files are stored several at a time, because each waits for the disk; a large one streams
//! through a short channel while it is unpacked. Memory stays bounded by both. Must not know
//! specifications, reports or how a job ends.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::packing::Watch;
use super::{ArchiveError, Limits, Sink, SinkError, Summary, extract};
use crate::engine::Output;
use crate::files::{BlobError, Blobs, DirectoryPath, FilePath, Staged, media_type};
use crate::handlers::work::{StagedKeys, Wish, output};

/// A file up to this size is held in memory until it is stored.
const SMALL_BYTES: usize = 256 * 1024;
/// Files that are being stored at once.
const AT_ONCE: usize = 8;
/// Pieces of a large file on their way.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 64 * 1024;

/// Where the files go and under what terms.
pub(super) struct Shelf {
    pub blobs: Blobs,
    pub staged_keys: StagedKeys,
    pub directory: DirectoryPath,
    pub acl: &'static str,
    pub limits: Limits,
}

/// Stores every file of the archive; the outputs are in the archive's order.
pub(super) fn unpack(
    archive: &Path,
    shelf: Shelf,
    mut watch: Watch,
) -> Result<(Summary, Vec<Output>), ArchiveError> {
    let what = || "the archive".to_owned();
    let failed = |source| ArchiveError::Source { what: what(), source };
    let file = File::open(archive).map_err(failed)?;
    let limits = shelf.limits.clone();
    let mut storing = Storing {
        shelf,
        runtime: Handle::current(),
        wish: watch.wish.clone(),
        tasks: JoinSet::new(),
        files: Vec::new(),
    };
    let summary = extract(file, &mut storing, &limits, &mut watch)?;
    storing
        .settle(0)
        .map_err(|source| ArchiveError::Sink { entry: what(), source: SinkError::Io(source) })?;
    Ok((summary, storing.files.into_iter().filter_map(|(_, output)| output).collect()))
}

struct Storing {
    shelf: Shelf,
    runtime: Handle,
    wish: Wish,
    tasks: JoinSet<(usize, Result<Staged, BlobError>)>,
    files: Vec<(FilePath, Option<Output>)>,
}

impl Sink for Storing {
    fn file(&mut self, path: &str, content: &mut dyn Read) -> Result<(), SinkError> {
        let target = FilePath::parse(&format!("{}/{path}", self.shelf.directory))
            .map_err(|why| SinkError::Refused(format!("it has no place in files: {why}")))?;
        let place = self.files.len();
        self.files.push((target, None));
        self.settle(AT_ONCE - 1)?;
        let mut start = Vec::new();
        Read::take(&mut *content, SMALL_BYTES as u64 + 1).read_to_end(&mut start)?;
        if start.len() <= SMALL_BYTES {
            self.store(place, stream::iter([Ok(Bytes::from(start))]));
            return Ok(());
        }
        Ok(self.store_large(place, start, content)?)
    }
}

impl Storing {
    fn store(
        &mut self,
        place: usize,
        content: impl stream::Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) {
        let (blobs, key) = (self.shelf.blobs.clone(), self.shelf.staged_keys.next());
        let cap = self.shelf.limits.max_entry_bytes;
        let work = async move { (place, blobs.stage(key, content, cap).await) };
        self.tasks.spawn_on(work, &self.runtime);
    }

    fn store_large(
        &mut self,
        place: usize,
        start: Vec<u8>,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let pieces = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        self.store(place, pieces.boxed());
        let mut fed = self.send(&sender, Ok(start.into()));
        let mut buffer = vec![0; PIECE_BYTES];
        while fed.is_ok() {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => fed = self.send(&sender, Ok(Bytes::copy_from_slice(&buffer[..count]))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Otherwise half a file would be stored as if it were whole.
                    let _ = self.send(&sender, Err(error.kind().into()));
                    return Err(error);
                }
            }
        }
        drop(sender);
        // A piece that found nobody to take it: the store's own error says why.
        self.settle(0).and(fed)
    }

    fn send(
        &self,
        sender: &mpsc::Sender<io::Result<Bytes>>,
        piece: io::Result<Bytes>,
    ) -> io::Result<()> {
        let sent = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.wish.wait() => Err(BlobError::Stopped),
                sent = sender.send(piece) => {
                    sent.map_err(|_| BlobError::Source("nobody stores it".into()))
                }
            }
        });
        sent.map_err(io::Error::other)
    }

    /// Waits until at most `left` files are still being stored.
    fn settle(&mut self, left: usize) -> io::Result<()> {
        while self.tasks.len() > left {
            let next = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = self.wish.wait() => None,
                    next = self.tasks.join_next() => next,
                }
            });
            let (place, staged) = match next {
                None => return Err(io::Error::other(BlobError::Stopped)),
                Some(Err(error)) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic())
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(done)) => done,
            };
            let staged = staged.map_err(io::Error::other)?;
            let (path, file) = &mut self.files[place];
            let kind = media_type(path.as_str(), None, &staged.head);
            *file = Some(output(path, &staged, kind, self.shelf.acl));
        }
        Ok(())
    }
}
