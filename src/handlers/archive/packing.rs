//! The blocking side of `archive.create`: stored bytes in, one local archive out.
//!
//! Each source is opened when its turn comes and read as the archive asks for it, so memory holds
//! a piece of one file. Must not know specifications or how a job ends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{ArchiveError, ArchiveFormat, Control, Entry, write_archive};
use crate::files::{BlobError, Blobs};
use crate::handlers::context::Progress;
use crate::handlers::work::Wish;

/// A stored file on its way into an archive.
pub(super) struct Pinned {
    pub version: Uuid,
    pub size: u64,
    pub path_in_archive: String,
}

/// Writes the archive to a new file and gives its size, which is at most `cap` bytes.
pub(super) fn pack(
    blobs: &Blobs,
    sources: Vec<Pinned>,
    format: ArchiveFormat,
    to: &Path,
    cap: u64,
    mut watch: Watch,
) -> Result<u64, ArchiveError> {
    let runtime = Handle::current();
    let entries = sources.into_iter().map(|source| {
        let (blobs, runtime, wish) = (blobs.clone(), runtime.clone(), watch.wish.clone());
        Entry {
            path_in_archive: source.path_in_archive,
            size: source.size,
            modified: stored_at(source.version),
            open: Box::new(move || {
                let stream = waited(&runtime, &wish, blobs.open(source.version, None))?.stream;
                Ok(Box::new(Stored { runtime, wish, stream, chunk: Bytes::new() }))
            }),
        }
    });
    let entries: Vec<Entry<'_>> = entries.collect();
    let file = File::create_new(to).map_err(ArchiveError::Output)?;
    let mut out = Capped { file, position: 0, end: 0, cap, over: false };
    let written = write_archive(&mut out, format, entries, &mut watch).map(|_| ());
    if out.over {
        let what = "the size of the archive in bytes";
        return Err(ArchiveError::TooLarge { what, allowed: cap, entry: None });
    }
    written.map(|()| out.end)
}

/// When a version was stored, from its id: the same for the same bytes, whoever packs them.
fn stored_at(version: Uuid) -> i64 {
    let seconds = version.get_timestamp().map_or(0, |time| time.to_unix().0);
    i64::try_from(seconds).unwrap_or(0)
}

/// What the archive core tells and asks while it works.
pub(super) struct Watch {
    pub wish: Wish,
    pub progress: Progress,
    /// The part of the job's progress that this work is.
    pub from: f64,
    pub to: f64,
}

impl Control for Watch {
    fn progress(&mut self, done_bytes: u64, total_bytes: u64) {
        if total_bytes > 0 {
            let part = done_bytes as f64 / total_bytes as f64;
            self.progress.set(self.from + (self.to - self.from) * part.min(1.0));
        }
    }

    fn stop_requested(&self) -> bool {
        self.wish.requested()
    }
}

/// Waits, on a blocking thread, for something of the store; a stop ends the wait.
fn waited<T>(
    runtime: &Handle,
    wish: &Wish,
    work: impl Future<Output = Result<T, BlobError>>,
) -> io::Result<T> {
    let done = runtime.block_on(async {
        tokio::select! {
            biased;
            () = wish.wait() => Err(BlobError::Stopped),
            done = work => done,
        }
    });
    done.map_err(io::Error::other)
}

/// Stored bytes as a blocking reader.
struct Stored {
    runtime: Handle,
    wish: Wish,
    stream: BoxStream<'static, Result<Bytes, BlobError>>,
    chunk: Bytes,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let next = async { self.stream.next().await.transpose() };
            match waited(&self.runtime, &self.wish, next)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// A file that does not grow beyond a size.
struct Capped {
    file: File,
    position: u64,
    end: u64,
    cap: u64,
    over: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.over || self.position.saturating_add(bytes.len() as u64) > self.cap {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.file.write(bytes)?;
        self.position += count as u64;
        self.end = self.end.max(self.position);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Capped {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capped_file_may_be_rewritten_but_not_grow() {
        let file = tempfile::tempfile().unwrap();
        let mut out = Capped { file, position: 0, end: 0, cap: 4, over: false };
        out.write_all(b"abcd").unwrap();
        out.seek(SeekFrom::Start(1)).unwrap();
        out.write_all(b"xy").unwrap();
        assert_eq!((out.end, out.over), (4, false));
        out.seek(SeekFrom::End(0)).unwrap();
        assert_eq!(out.write_all(b"e").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(out.over);
    }

    #[test]
    fn a_version_tells_when_it_was_stored() {
        let version = Uuid::parse_str("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
        assert_eq!(stored_at(version), 1_718_360_049);
        assert_eq!(stored_at(Uuid::nil()), 0);
    }
}
