//! One unpacking: the limits, the paths seen so far, and handing each file over.
//!
//! Limits hold on bytes that really came out; what an archive declares about itself can only make
//! the refusal come earlier. Must not know archive formats.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};

use super::control::{Meter, STEP};
use super::entry_path::{file_path, folder_path};
use super::error::{ArchiveError, shown};
use super::format::ArchiveFormat;
use super::read::{Limits, Sink, Summary};
use super::source::Output;

/// What both readers share: the limits, the paths seen, and handing a file over.
pub(super) struct Run<'m, 'c> {
    pub(super) limits: &'m Limits,
    pub(super) meter: &'m Meter<'c>,
    pub(super) output: &'m Output,
    summary: Summary,
    entries: u64,
    /// Two keyed hashes and not the paths: memory stays small however long the names are.
    paths: HashSet<(u64, u64)>,
    keys: (RandomState, RandomState),
}

impl<'m, 'c> Run<'m, 'c> {
    pub(super) fn new(
        format: ArchiveFormat,
        limits: &'m Limits,
        meter: &'m Meter<'c>,
        output: &'m Output,
    ) -> Self {
        Self {
            limits,
            meter,
            output,
            summary: Summary { format, files: 0, folders: 0, bytes: 0 },
            entries: 0,
            paths: HashSet::new(),
            keys: (RandomState::new(), RandomState::new()),
        }
    }

    pub(super) fn count_entry(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(self.too_large("the number of entries", self.limits.max_entries, None));
        }
        Ok(())
    }

    pub(super) fn folder(&mut self, raw: &[u8]) -> Result<(), ArchiveError> {
        folder_path(raw, self.limits.max_path_bytes)?;
        self.summary.folders += 1;
        Ok(())
    }

    /// The path of a file that has not come before.
    pub(super) fn new_path(&mut self, raw: &[u8]) -> Result<String, ArchiveError> {
        let path = self.path(raw)?;
        let key = (self.keys.0.hash_one(&path), self.keys.1.hash_one(&path));
        if !self.paths.insert(key) {
            return Err(ArchiveError::DuplicatePath {
                path: shown(&path),
                clash: "is in the archive twice".into(),
            });
        }
        Ok(path)
    }

    pub(super) fn path(&self, raw: &[u8]) -> Result<String, ArchiveError> {
        file_path(raw, self.limits.max_path_bytes)
    }

    /// Refuses early what says of itself that it is too large.
    pub(super) fn check_declared(
        &self,
        path: &str,
        size: u64,
        total: u64,
    ) -> Result<(), ArchiveError> {
        let limits = self.limits;
        if size > limits.max_entry_bytes {
            return Err(self.too_large(ENTRY_SIZE, limits.max_entry_bytes, Some(path)));
        }
        if total.saturating_add(size) > limits.max_total_bytes {
            return Err(self.too_large(TOTAL_SIZE, limits.max_total_bytes, Some(path)));
        }
        Ok(())
    }

    pub(super) fn summary(self) -> Summary {
        self.summary
    }

    pub(super) fn bytes(&self) -> u64 {
        self.summary.bytes
    }

    /// Gives one file to the sink and makes sure it was read to its proper end.
    pub(super) fn deliver(
        &mut self,
        path: &str,
        size: u64,
        inner: &mut dyn Read,
        sink: &mut dyn Sink,
    ) -> Result<(), ArchiveError> {
        let mut content = Content { inner, run: self, path, size, read: 0 };
        let taken = sink.file(path, &mut content);
        if taken.is_ok() {
            // A failure in here is remembered by the meter, as is one that the sink swallowed.
            let _ = io::copy(&mut content, &mut io::sink());
        }
        if let Some(failure) = self.meter.failure() {
            return Err(failure);
        }
        taken.map_err(|source| ArchiveError::Sink { entry: shown(path), source })?;
        self.summary.files += 1;
        Ok(())
    }

    pub(super) fn too_large(
        &self,
        what: &'static str,
        allowed: u64,
        entry: Option<&str>,
    ) -> ArchiveError {
        ArchiveError::TooLarge { what, allowed, entry: entry.map(shown) }
    }
}

const ENTRY_SIZE: &str = "the size of an entry in bytes";
const TOTAL_SIZE: &str = "the unpacked size of all entries in bytes";

/// One file's bytes on their way to the sink.
struct Content<'a, 'm, 'c> {
    inner: &'a mut dyn Read,
    run: &'a mut Run<'m, 'c>,
    path: &'a str,
    size: u64,
    read: u64,
}

impl Read for Content<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let meter = self.run.meter;
        meter.poll()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        let window = buffer.len().min(STEP);
        let count = match self.inner.read(&mut buffer[..window]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(meter.fail(ArchiveError::bad_entry(self.path, error))),
        };
        self.read += count as u64;
        if self.read > self.size || (count == 0 && self.read < self.size) {
            let reason = format!("it holds not the {} bytes that it declares", self.size);
            return Err(meter.fail(ArchiveError::bad_entry(self.path, reason)));
        }
        let total = self.run.summary.bytes.saturating_add(count as u64);
        self.run.summary.bytes = total;
        let limits = self.run.limits;
        let over = if self.read > limits.max_entry_bytes {
            self.run.too_large(ENTRY_SIZE, limits.max_entry_bytes, Some(self.path))
        } else if total > limits.max_total_bytes {
            self.run.too_large(TOTAL_SIZE, limits.max_total_bytes, Some(self.path))
        } else {
            return Ok(count);
        };
        Err(meter.fail(over))
    }
}
