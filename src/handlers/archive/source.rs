//! The readers that every byte passes: the archive as it comes in, and what it unpacks to.
//!
//! They ask for a stop, tell a failing source from a damaged archive, and hold the ratio of
//! output to input. Must not know formats or entries.

use std::io::{self, Read, Seek, SeekFrom};

use super::control::{Meter, STEP};
use super::error::ArchiveError;

/// Nobody is refused for a high ratio below this: small archives of very regular files are common.
const RATIO_FREE_BYTES: u64 = 16 * 1024 * 1024;
/// A single field of an archive's own tables larger than this is an attack on our memory.
const MAX_FIELD_BYTES: usize = 1024 * 1024;

/// The archive as given.
pub(super) struct Source<'m, 'c, R> {
    inner: R,
    meter: &'m Meter<'c>,
}

impl<'m, 'c, R> Source<'m, 'c, R> {
    pub(super) fn new(inner: R, meter: &'m Meter<'c>) -> Self {
        Self { inner, meter }
    }

    fn failed(&self, source: io::Error) -> io::Error {
        self.meter.fail(ArchiveError::Source { what: "the archive".into(), source })
    }
}

impl<R: Read> Read for Source<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.meter.poll()?;
        if buffer.len() > MAX_FIELD_BYTES {
            // The zip crate sizes its buffers by what the archive claims; a claim that is never
            // read into costs address space only.
            let reason = format!("it claims a header field of {} bytes", buffer.len());
            return Err(self.meter.fail(ArchiveError::bad(reason)));
        }
        let window = buffer.len().min(STEP);
        match self.inner.read(&mut buffer[..window]) {
            Ok(count) => {
                self.meter.advance(count as u64);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.failed(error)),
        }
    }
}

impl<R: Seek> Seek for Source<'_, '_, R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.meter.poll()?;
        self.inner.seek(position).map_err(|error| match error.kind() {
            // The archive named a place that cannot be: its own fault, not the source's.
            io::ErrorKind::InvalidInput => error,
            _ => self.failed(error),
        })
    }
}

/// What comes out of a decoder.
pub(super) struct Unpacked<'m, 'c, R> {
    inner: R,
    meter: &'m Meter<'c>,
    output: &'m Output,
}

/// How much was unpacked in this run, and how many times the input that may be.
pub(super) struct Output {
    bytes: std::cell::Cell<u64>,
    max_ratio: u64,
}

impl Output {
    pub(super) fn new(max_ratio: u64) -> Self {
        Self { bytes: std::cell::Cell::new(0), max_ratio }
    }
}

impl<'m, 'c, R> Unpacked<'m, 'c, R> {
    pub(super) fn new(inner: R, meter: &'m Meter<'c>, output: &'m Output) -> Self {
        Self { inner, meter, output }
    }
}

impl<R: Read> Read for Unpacked<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.meter.poll()?;
        let window = buffer.len().min(STEP);
        let count = self.inner.read(&mut buffer[..window])?;
        let bytes = self.output.bytes.get().saturating_add(count as u64);
        self.output.bytes.set(bytes);
        let allowed = self.output.max_ratio.saturating_mul(self.meter.done());
        if bytes > RATIO_FREE_BYTES && bytes > allowed {
            return Err(self.meter.fail(ArchiveError::TooLarge {
                what: "the ratio of unpacked to packed size",
                allowed: self.output.max_ratio,
                entry: None,
            }));
        }
        Ok(count)
    }
}
