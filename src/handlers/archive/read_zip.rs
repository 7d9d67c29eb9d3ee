//! Reads a zip by its central directory: first every entry is judged, then files come out.
//!
//! So nothing reaches the sink from an archive that has an attack in its last entry. The crate's
//! ordinary `ZipArchive` loads the whole directory, at the size that the archive claims, and keeps
//! one of two entries with the same name; `ZipIterable` does neither but is marked unstable, so the
//! version of the zip crate has to be pinned. Must not know other formats or where files go.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use zip::read::{ArchiveOffset, Config, ZipFileEntry};
use zip::result::ZipError;
use zip::unstable::read::{ZipIterable, ZipIterableFiles};
use zip::{CompressionMethod, HasZipMetadata, ZipReadOptions};

use super::error::{ArchiveError, shown};
use super::read::Sink;
use super::run::Run;
use super::source::{Source, Unpacked};

/// Where the upper half of the external attributes keeps the kind of file, as in `st_mode`.
const KIND_MASK: u32 = 0o170_000;
const KIND_REGULAR: u32 = 0o100_000;
const KIND_FOLDER: u32 = 0o040_000;
const KIND_SYMLINK: u32 = 0o120_000;

type Input<'m, 'c, R> = BufReader<Source<'m, 'c, R>>;

pub(super) fn extract<'m, 'c, R: Read + Seek>(
    source: Source<'m, 'c, R>,
    length: u64,
    sink: &mut dyn Sink,
    run: &mut Run<'m, 'c>,
) -> Result<(), ArchiveError> {
    let (meter, output) = (run.meter, run.output);
    let broken = |error: ZipError| meter.explain(|| ArchiveError::bad(error));
    // Nothing in front of the archive: what is there would be a program that unpacks itself.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipIterable::try_new(BufReader::new(source), config).map_err(broken)?;
    let files = archive.files().map_err(broken)?;
    let directory_end = judge(files, run)?;
    check_end(files.reader_mut(), directory_end, length)
        .map_err(|error| meter.explain(|| ArchiveError::bad(error)))?;
    // Tools that go by local headers must see the same files as we do.
    let mut archive = archive.enforce_header_consistency(true);
    archive.files().map_err(broken)?.try_for_each(|entry| entry.map(drop)).map_err(broken)?;

    meter.begin(length);
    let mut archive = archive.enforce_header_consistency(false);
    let files = archive.files().map_err(broken)?;
    while let Some(entry) = files.next() {
        let entry = entry.map_err(broken)?;
        if is_folder(&entry) {
            continue;
        }
        let (path, size) = (run.path(entry.name_raw())?, entry.size());
        let content = entry
            .with_reader(files.reader_mut(), ZipReadOptions::new())
            .map_err(|error| meter.explain(|| ArchiveError::bad_entry(&path, error)))?;
        run.deliver(&path, size, &mut Unpacked::new(content, meter, output), sink)?;
    }
    Ok(())
}

/// Everything that can be refused before a byte is unpacked. Gives the directory's end.
fn judge<R: Read + Seek>(
    files: &mut ZipIterableFiles<Input<'_, '_, R>>,
    run: &mut Run<'_, '_>,
) -> Result<u64, ArchiveError> {
    let meter = run.meter;
    if files.len() as u64 > run.limits.max_entries {
        return Err(run.too_large("the number of entries", run.limits.max_entries, None));
    }
    let mut ranges = Vec::new();
    let (mut total, mut directory_start, mut directory_end) = (0_u64, u64::MAX, 0);
    while let Some(entry) = files.next() {
        let entry = entry.map_err(|error| meter.explain(|| ArchiveError::bad(error)))?;
        directory_end = files
            .reader_mut()
            .stream_position()
            .map_err(|error| meter.explain(|| ArchiveError::bad(error)))?;
        run.count_entry()?;
        check_kind(&entry)?;
        if is_folder(&entry) {
            run.folder(entry.name_raw())?;
        } else {
            let path = run.new_path(entry.name_raw())?;
            run.check_declared(&path, entry.size(), total)?;
            total = total.saturating_add(entry.size());
        }
        let data_start = entry
            .get_metadata()
            .data_start(files.reader_mut())
            .map_err(|error| meter.explain(|| ArchiveError::bad(error)))?;
        ranges.push((entry.header_start(), data_start.saturating_add(entry.compressed_size())));
        directory_start = directory_start.min(entry.central_header_start());
    }
    check_overlap(ranges, directory_start)?;
    Ok(directory_end)
}

/// Between the directory and the end of the file there may be the end records and their comment,
/// and nothing else. With two archives in one file, tools differ on which of them it is.
fn check_end(input: &mut (impl Read + Seek), mut end: u64, length: u64) -> io::Result<()> {
    const END: [u8; 4] = *b"PK\x05\x06";
    const END64: [u8; 4] = *b"PK\x06\x06";
    const LOCATOR64_BYTES: u64 = 20;
    let mut record = [0; 22];
    input.seek(SeekFrom::Start(end))?;
    input.read_exact(&mut record)?;
    if let [a, b, c, d, size @ .., _, _, _, _, _, _, _, _, _, _] = record
        && [a, b, c, d] == END64
    {
        let after = u64::from_le_bytes(size).saturating_add(12 + LOCATOR64_BYTES);
        end = end.saturating_add(after);
        input.seek(SeekFrom::Start(end))?;
        input.read_exact(&mut record)?;
    }
    let comment = u64::from(u16::from_le_bytes([record[20], record[21]]));
    if record[..4] != END || end.checked_add(22 + comment) != Some(length) {
        return Err(io::Error::other("its end record is not where the directory and file end"));
    }
    Ok(())
}

/// Entries that share bytes are how a small zip unpacks to petabytes.
fn check_overlap(mut ranges: Vec<(u64, u64)>, directory: u64) -> Result<(), ArchiveError> {
    ranges.sort_unstable();
    let overlap = ranges.windows(2).any(|pair| pair[0].1 > pair[1].0);
    let into_directory = ranges.iter().any(|(start, end)| *start < directory && *end > directory);
    if overlap || into_directory {
        return Err(ArchiveError::bad("entries overlap"));
    }
    Ok(())
}

fn check_kind(entry: &ZipFileEntry<'_>) -> Result<(), ArchiveError> {
    // Whatever system the entry says it was made on: some tools set the mode and name another.
    let kind = (entry.external_attributes() >> 16) & KIND_MASK;
    let (found, hint) = if kind == KIND_SYMLINK {
        ("a symbolic link".to_owned(), "")
    } else if !matches!(kind, 0 | KIND_REGULAR | KIND_FOLDER) {
        ("a device, pipe or socket".to_owned(), "")
    } else if entry.encrypted() {
        ("encrypted".to_owned(), ", not encrypted")
    } else if !matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        let found = format!("compressed with {}", entry.compression());
        (found, ", compressed with deflate or not at all")
    } else if is_folder(entry) && entry.size() != 0 {
        ("a folder with content of its own".to_owned(), "")
    } else {
        return Ok(());
    };
    Err(ArchiveError::UnsupportedEntry { entry: shown(entry.name_raw()), found, hint })
}

fn is_folder(entry: &ZipFileEntry<'_>) -> bool {
    let kind = (entry.external_attributes() >> 16) & KIND_MASK;
    kind == KIND_FOLDER || entry.name_raw().ends_with(b"/")
}
