//! An entry's bytes on their way into an archive: exactly as many as were promised.
//!
//! A file that was cut on the way would look whole in the archive, so both too few and too many
//! bytes fail it. Must not know archive formats.

use std::io::{self, Read};

use super::control::{Meter, STEP};
use super::error::{ArchiveError, shown};
use super::write::Entry;

/// A source that must yield exactly what it promised.
pub(super) struct Measured<'a, 'm, 'c> {
    inner: Box<dyn Read + 'a>,
    path: String,
    size: u64,
    read: u64,
    meter: &'m Meter<'c>,
}

impl<'a, 'm, 'c> Measured<'a, 'm, 'c> {
    pub(super) fn open(entry: Entry<'a>, meter: &'m Meter<'c>) -> io::Result<Self> {
        meter.poll()?;
        let Entry { path_in_archive: path, size, open, .. } = entry;
        let inner = open()
            .map_err(|source| meter.fail(ArchiveError::Source { what: shown(&path), source }))?;
        Ok(Self { inner, path, size, read: 0, meter })
    }

    fn wrong_size(&self, found: &'static str) -> io::Error {
        let (entry, expected) = (shown(&self.path), self.size);
        self.meter.fail(ArchiveError::WrongSize { entry, expected, found })
    }
}

impl Read for Measured<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.meter.poll()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.read;
        // At the end one byte more is asked for, to see that there is none.
        let window = buffer.len().min(STEP).min(usize::try_from(left.max(1)).unwrap_or(STEP));
        match self.inner.read(&mut buffer[..window]) {
            Ok(0) if left > 0 => Err(self.wrong_size("less")),
            Ok(0) => Ok(0),
            Ok(_) if left == 0 => Err(self.wrong_size("more")),
            Ok(count) => {
                self.read += count as u64;
                self.meter.advance(count as u64);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(source) => {
                let what = shown(&self.path);
                Err(self.meter.fail(ArchiveError::Source { what, source }))
            }
        }
    }
}
