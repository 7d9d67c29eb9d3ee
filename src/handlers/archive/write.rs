//! Packing: entries in, one archive out, in bounded memory.
//!
//! The same entries give the same bytes: nothing of this machine or moment goes in. Entries are
//! opened when their turn comes, and one that yields other than it promised fails the whole
//! archive, because a shortened file in it would look whole. Must not know where sources live.

use std::collections::HashSet;
use std::io::{self, BufWriter, Read, Seek, Write};

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;

use super::control::{Control, Meter, STEP};
use super::entry_path::safe_entry_path;
use super::error::{ArchiveError, shown};
use super::format::ArchiveFormat;
use super::measured::Measured;
use super::write_zip::write_zip;

/// Opens an entry's bytes when its turn comes.
pub type Open<'a> = Box<dyn FnOnce() -> io::Result<Box<dyn Read + 'a>> + 'a>;

/// One file to pack.
pub struct Entry<'a> {
    pub path_in_archive: String,
    pub size: u64,
    /// Unix seconds.
    pub modified: i64,
    pub open: Open<'a>,
}

/// Refuses two entries with one path, and a file where another entry needs a folder: neither
/// could be unpacked again.
pub fn unique_paths<'a>(
    paths: impl IntoIterator<Item = &'a str> + Clone,
) -> Result<(), ArchiveError> {
    let mut seen = HashSet::new();
    for path in paths.clone() {
        if !seen.insert(path) {
            let clash = "is given twice".into();
            return Err(ArchiveError::DuplicatePath { path: shown(path), clash });
        }
    }
    for path in paths {
        for (slash, _) in path.match_indices('/') {
            let folder = &path[..slash];
            if seen.contains(folder) {
                let clash = format!("is a file and also the folder of {}", shown(path));
                return Err(ArchiveError::DuplicatePath { path: shown(folder), clash });
            }
        }
    }
    Ok(())
}

/// Writes all entries in their order and gives the output back, flushed. After an error what is
/// in the output is of no use.
pub fn write_archive<'a, W: Write + Seek>(
    out: W,
    format: ArchiveFormat,
    entries: impl IntoIterator<Item = Entry<'a>>,
    control: &mut dyn Control,
) -> Result<W, ArchiveError> {
    let mut packed = Vec::new();
    let mut total = 0_u64;
    for mut entry in entries {
        entry.path_in_archive = safe_entry_path(&entry.path_in_archive)?;
        total = total.saturating_add(entry.size);
        packed.push(entry);
    }
    unique_paths(packed.iter().map(|entry| entry.path_in_archive.as_str()))?;

    let meter = Meter::new(control);
    meter.begin(total);
    let out = BufWriter::with_capacity(STEP, out);
    let written = match format {
        ArchiveFormat::Zip => write_zip(out, packed, &meter),
        ArchiveFormat::Tar => write_tar(out, packed, &meter),
        ArchiveFormat::TarGz => {
            // A gzip header without name and time.
            let encoder = GzEncoder::new(out, flate2::Compression::default());
            write_tar(encoder, packed, &meter).and_then(|encoder| encoder.finish())
        }
        ArchiveFormat::TarBz2 => {
            let encoder = BzEncoder::new(out, bzip2::Compression::best());
            write_tar(encoder, packed, &meter).and_then(|encoder| encoder.finish())
        }
    };
    let out = written
        .and_then(|out| out.into_inner().map_err(|error| error.into_error()))
        .and_then(|mut out| out.flush().map(|()| out))
        .map_err(|error| meter.explain(|| ArchiveError::Output(error)))?;
    meter.complete();
    Ok(out)
}

fn write_tar<W: Write>(out: W, entries: Vec<Entry<'_>>, meter: &Meter<'_>) -> io::Result<W> {
    let mut builder = tar::Builder::new(out);
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(entry.modified).unwrap_or(0));
        header.set_size(entry.size);
        let path = entry.path_in_archive.clone();
        builder.append_data(&mut header, path, Measured::open(entry, meter)?)?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_must_be_unique_and_unpackable() {
        assert!(unique_paths([]).is_ok());
        assert!(unique_paths(["a", "b/a", "b/c/a", "ab"]).is_ok());
        let twice = unique_paths(["a", "b", "a"]).unwrap_err();
        assert_eq!(twice.code(), "duplicate_path");
        assert!(twice.to_string().contains("\"a\""));
        assert!(unique_paths(["x/y/z", "x/y"]).unwrap_err().to_string().contains("\"x/y\""));
    }
}
