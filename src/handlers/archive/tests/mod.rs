//! Whole archives, in and out: what unit tests of the parts cannot show.

mod hostile;
mod interop;
mod limits;
mod round_trip;

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use super::*;

const ALL: [ArchiveFormat; 4] =
    [ArchiveFormat::Zip, ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::TarBz2];

/// Never stops; remembers the progress it was told.
#[derive(Default)]
struct Patient {
    reports: Vec<(u64, u64)>,
}

impl Control for Patient {
    fn progress(&mut self, done_bytes: u64, total_bytes: u64) {
        self.reports.push((done_bytes, total_bytes));
    }

    fn stop_requested(&self) -> bool {
        false
    }
}

/// Keeps the files in memory.
#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
}

impl Sink for Shelf {
    fn file(&mut self, path: &str, content: &mut dyn Read) -> Result<(), SinkError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.files.insert(path.to_owned(), bytes);
        Ok(())
    }
}

/// Reads and counts only.
#[derive(Default)]
struct Counter {
    files: u64,
    bytes: u64,
}

impl Sink for Counter {
    fn file(&mut self, _: &str, content: &mut dyn Read) -> Result<(), SinkError> {
        self.bytes += io::copy(content, &mut io::sink())?;
        self.files += 1;
        Ok(())
    }
}

fn entry(path: &str, content: impl Into<Vec<u8>>) -> Entry<'static> {
    let content: Vec<u8> = content.into();
    Entry {
        path_in_archive: path.to_owned(),
        size: content.len() as u64,
        modified: 1_700_000_000,
        open: Box::new(move || Ok(Box::new(Cursor::new(content)))),
    }
}

fn pack(format: ArchiveFormat, entries: Vec<Entry<'_>>) -> Result<Vec<u8>, ArchiveError> {
    let out = write_archive(Cursor::new(Vec::new()), format, entries, &mut Patient::default())?;
    Ok(out.into_inner())
}

fn unpack_within(bytes: &[u8], limits: &Limits) -> Result<(Shelf, Summary), ArchiveError> {
    let mut shelf = Shelf::default();
    let summary = extract(Cursor::new(bytes), &mut shelf, limits, &mut Patient::default())?;
    Ok((shelf, summary))
}

fn unpack(bytes: &[u8]) -> Result<(Shelf, Summary), ArchiveError> {
    unpack_within(bytes, &Limits::default())
}

fn refusal(bytes: &[u8]) -> ArchiveError {
    unpack(bytes).map(|(_, summary)| summary).expect_err("this archive must be refused")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

/// Bytes that no compressor can shorten.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
