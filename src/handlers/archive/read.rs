//! Unpacking, seen from outside: what is allowed, where files go, and the way there by format.
//!
//! Must not know what the files are used for, nor the inside of any format.

use std::io::{BufReader, Read, Seek, SeekFrom};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;

use super::control::{Control, Meter, STEP};
use super::entry_path::MAX_ENTRY_PATH_BYTES;
use super::error::{ArchiveError, SinkError};
use super::format::{ArchiveFormat, look};
use super::run::Run;
use super::source::{Output, Source, Unpacked};
use super::{read_tar, read_zip};

/// Where the files go.
pub trait Sink {
    /// Takes one file. Whatever is left unread is read and checked all the same; an archive that
    /// turns out bad or too large makes `content` fail, and the run ends with that reason.
    fn file(&mut self, path: &str, content: &mut dyn Read) -> Result<(), SinkError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Files and folders together.
    pub max_entries: u64,
    pub max_total_bytes: u64,
    pub max_entry_bytes: u64,
    pub max_path_bytes: usize,
    /// Unpacked bytes for each byte of the archive; small archives are exempt.
    pub max_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_total_bytes: 16 << 30,
            max_entry_bytes: 16 << 30,
            max_path_bytes: MAX_ENTRY_PATH_BYTES,
            max_ratio: 250,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub format: ArchiveFormat,
    pub files: u64,
    pub folders: u64,
    pub bytes: u64,
}

/// Reads the archive to its end. Files reach the sink in the archive's order; after an error the
/// caller throws away what the sink has got.
pub fn extract<R: Read + Seek>(
    input: R,
    sink: &mut dyn Sink,
    limits: &Limits,
    control: &mut dyn Control,
) -> Result<Summary, ArchiveError> {
    let meter = Meter::new(control);
    let output = Output::new(limits.max_ratio);
    let mut source = Source::new(input, &meter);
    let format = look(&mut source, &meter)?;
    let length = source
        .seek(SeekFrom::End(0))
        .and_then(|length| source.seek(SeekFrom::Start(0)).map(|_| length))
        .map_err(|error| meter.explain(|| ArchiveError::bad(error)))?;
    meter.begin(length);

    let mut run = Run::new(format, limits, &meter, &output);
    let unpacked = |decoder| Unpacked::<Box<dyn Read + '_>>::new(decoder, &meter, &output);
    match format {
        ArchiveFormat::Zip => read_zip::extract(source, length, sink, &mut run)?,
        ArchiveFormat::Tar => {
            let input = BufReader::with_capacity(STEP, source);
            read_tar::extract(&mut unpacked(Box::new(input)), sink, &mut run)?;
        }
        ArchiveFormat::TarGz => {
            let decoder = MultiGzDecoder::new(BufReader::with_capacity(STEP, source));
            read_tar::extract(&mut unpacked(Box::new(decoder)), sink, &mut run)?;
        }
        ArchiveFormat::TarBz2 => {
            // A small buffer: it may hold hundreds of empty streams, each with megabytes to set
            // up, and a stop is seen only when the buffer is filled again.
            let decoder = MultiBzDecoder::new(BufReader::with_capacity(STEP / 16, source));
            read_tar::extract(&mut unpacked(Box::new(decoder)), sink, &mut run)?;
        }
    }
    meter.complete();
    Ok(run.summary())
}
