//! Walks the blocks of a tar that was already decompressed.
//!
//! Strict at both ends: without an end mark the archive was cut, and anything but zeros after it
//! would be lost unseen, so both are refused. Must not know compression or where files go.

use std::io::{self, Read};

use super::error::{ArchiveError, shown};
use super::read::Sink;
use super::run::Run;
use super::tar_header::{self, BLOCK, Block, Kind, Overrides, Parsed};

/// Long names and pax records beyond this are an attack on our memory.
const MAX_EXTENSION_BYTES: u64 = 1024 * 1024;
/// Tapes are padded to whole records, but never by this much.
const MAX_PADDING_BYTES: u64 = 16 * 1024 * 1024;

/// Said about the next entry by the headers before it.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: bool,
    pax: Option<Overrides>,
}

impl Extensions {
    fn any(&self) -> bool {
        self.long_name.is_some() || self.long_link || self.pax.is_some()
    }
}

pub(super) fn extract(
    stream: &mut dyn Read,
    sink: &mut dyn Sink,
    run: &mut Run<'_, '_>,
) -> Result<(), ArchiveError> {
    let mut extensions = Extensions::default();
    while let Some(header) = next_header(stream, run)? {
        match header.kind {
            Kind::LongName if extensions.long_name.is_none() => {
                let mut name = payload(stream, &header, run)?;
                if name.last() == Some(&0) {
                    name.pop();
                }
                extensions.long_name = Some(name);
            }
            Kind::LongLink if !extensions.long_link => {
                payload(stream, &header, run)?;
                extensions.long_link = true;
            }
            Kind::Pax if extensions.pax.is_none() => {
                let records = payload(stream, &header, run)?;
                let found = tar_header::pax_overrides(&records).map_err(ArchiveError::bad)?;
                extensions.pax = Some(found);
            }
            Kind::LongName | Kind::LongLink | Kind::Pax => {
                return Err(ArchiveError::bad("two headers of one kind describe the same entry"));
            }
            Kind::GlobalPax => global(stream, &header, run)?,
            Kind::File | Kind::Folder | Kind::Refused(_) => {
                entry(stream, header, std::mem::take(&mut extensions), sink, run)?;
            }
        }
    }
    if extensions.any() {
        return Err(ArchiveError::bad("it ends where an announced entry should be"));
    }
    padding(stream, run)
}

fn entry(
    stream: &mut dyn Read,
    header: Parsed,
    extensions: Extensions,
    sink: &mut dyn Sink,
    run: &mut Run<'_, '_>,
) -> Result<(), ArchiveError> {
    run.count_entry()?;
    let pax = extensions.pax.unwrap_or_default();
    let named_twice = extensions.long_name.is_some() && pax.path.is_some();
    let name = extensions.long_name.or(pax.path).unwrap_or(header.name);
    if named_twice {
        return Err(ArchiveError::bad_entry(name, "it has two long names"));
    }
    let size = pax.size.unwrap_or(header.size);
    let refused = |found: &str| {
        let (entry, found) = (shown(&name), found.to_owned());
        Err(ArchiveError::UnsupportedEntry { entry, found, hint: "" })
    };
    match header.kind {
        Kind::Refused(found) => return refused(found),
        _ if pax.sparse => return refused("a sparse file"),
        Kind::Folder => {
            if size != 0 {
                return refused("a folder with content of its own");
            }
            return run.folder(&name);
        }
        // Only an extension can name a file like this: an old tar's folder, with a long name.
        Kind::File if size == 0 && name.ends_with(b"/") => return run.folder(&name),
        _ => {}
    }
    let path = run.new_path(&name)?;
    run.check_declared(&path, size, run.bytes())?;
    run.deliver(&path, size, &mut stream.take(size), sink)?;
    skip_to_block(stream, size, run)
}

fn global(
    stream: &mut dyn Read,
    header: &Parsed,
    run: &mut Run<'_, '_>,
) -> Result<(), ArchiveError> {
    run.count_entry()?;
    let records = payload(stream, header, run)?;
    let found = tar_header::pax_overrides(&records).map_err(ArchiveError::bad)?;
    // `git archive` writes one with a comment; one that renames every file has no honest use.
    if found != Overrides::default() {
        return Err(ArchiveError::UnsupportedEntry {
            entry: shown(&header.name),
            found: "a global header that changes paths or sizes".into(),
            hint: "",
        });
    }
    Ok(())
}

fn next_header(stream: &mut dyn Read, run: &Run<'_, '_>) -> Result<Option<Parsed>, ArchiveError> {
    let mut block: Block = [0; BLOCK];
    let length = tar_header::fill(&mut &mut *stream, &mut block).map_err(|e| broken(run, e))?;
    match length {
        BLOCK if tar_header::is_zero(&block) => Ok(None),
        BLOCK => tar_header::parse(&block).map(Some).map_err(ArchiveError::bad),
        0 => Err(ArchiveError::bad("it was cut: the end mark is missing")),
        _ => Err(ArchiveError::bad("it was cut in the middle of a header")),
    }
}

fn payload(
    stream: &mut dyn Read,
    header: &Parsed,
    run: &Run<'_, '_>,
) -> Result<Vec<u8>, ArchiveError> {
    if header.size > MAX_EXTENSION_BYTES {
        let what = "the size of a header extension in bytes";
        return Err(run.too_large(what, MAX_EXTENSION_BYTES, None));
    }
    let mut bytes = Vec::new();
    stream.take(header.size).read_to_end(&mut bytes).map_err(|error| broken(run, error))?;
    if (bytes.len() as u64) < header.size {
        return Err(ArchiveError::bad("it was cut in the middle of a header extension"));
    }
    skip_to_block(stream, header.size, run)?;
    Ok(bytes)
}

fn skip_to_block(stream: &mut dyn Read, size: u64, run: &Run<'_, '_>) -> Result<(), ArchiveError> {
    let odd = size.next_multiple_of(BLOCK as u64) - size;
    let skipped = io::copy(&mut stream.take(odd), &mut io::sink());
    match skipped.map_err(|error| broken(run, error))? {
        count if count == odd => Ok(()),
        _ => Err(ArchiveError::bad("it was cut in the middle of an entry")),
    }
}

/// Reads on to the end of the stream: the checksum of a compressed one comes last.
fn padding(stream: &mut dyn Read, run: &Run<'_, '_>) -> Result<(), ArchiveError> {
    let mut block: Block = [0; BLOCK];
    let mut total = 0;
    loop {
        let length = tar_header::fill(&mut &mut *stream, &mut block).map_err(|e| broken(run, e))?;
        if length == 0 {
            return Ok(());
        }
        total += length as u64;
        if !tar_header::is_zero(&block[..length]) {
            return Err(ArchiveError::bad("there is data after its end mark"));
        }
        if total > MAX_PADDING_BYTES {
            return Err(ArchiveError::bad("the padding after its end mark does not end"));
        }
    }
}

fn broken(run: &Run<'_, '_>, error: io::Error) -> ArchiveError {
    run.meter.explain(|| ArchiveError::bad(error))
}
