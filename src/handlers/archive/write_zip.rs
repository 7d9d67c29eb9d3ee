//! Packs entries into a zip.
//!
//! Must not know where the sources live or how the output is kept.

use std::cell::Cell;
use std::io::{self, Seek, SeekFrom, Write};

use chrono::{DateTime, Datelike, Timelike};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::control::Meter;
use super::measured::Measured;
use super::write::Entry;

/// Entries from here on get zip64 headers: near 4 GiB, packing may make a file a little larger.
const ZIP64_FROM_BYTES: u64 = u32::MAX as u64 - (64 << 20);

pub(super) fn write_zip<W: Write + Seek>(
    mut out: W,
    entries: Vec<Entry<'_>>,
    meter: &Meter<'_>,
) -> io::Result<W> {
    let abandoned = Cell::new(false);
    let position = out.stream_position()?;
    let mut zip = ZipWriter::new(Abandonable { out, position, abandoned: &abandoned });
    for entry in entries {
        if let Err(error) = write_zip_entry(&mut zip, entry, meter) {
            abandoned.set(true);
            return Err(error);
        }
    }
    Ok(zip.finish()?.out)
}

fn write_zip_entry<W: Write + Seek>(
    zip: &mut ZipWriter<W>,
    entry: Entry<'_>,
    meter: &Meter<'_>,
) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .system(zip::System::Unix)
        .unix_permissions(0o644)
        .last_modified_time(dos_time(entry.modified))
        .large_file(entry.size >= ZIP64_FROM_BYTES);
    zip.start_file(&entry.path_in_archive, options)?;
    io::copy(&mut Measured::open(entry, meter)?, zip)?;
    Ok(())
}

/// Zip knows the years 1980 to 2107, in steps of two seconds, of no particular zone: UTC here.
fn dos_time(unix_seconds: i64) -> zip::DateTime {
    DateTime::from_timestamp(unix_seconds, 0)
        .and_then(|time| {
            zip::DateTime::from_date_and_time(
                u16::try_from(time.year()).ok()?,
                u8::try_from(time.month()).ok()?,
                u8::try_from(time.day()).ok()?,
                u8::try_from(time.hour()).ok()?,
                u8::try_from(time.minute()).ok()?,
                u8::try_from(time.second()).ok()?,
            )
            .ok()
        })
        .unwrap_or(zip::DateTime::DEFAULT)
}

/// The zip writer finishes its archive when dropped, and complains on stderr if it cannot. Once
/// abandoned, what it still writes goes nowhere.
struct Abandonable<'a, W> {
    out: W,
    /// Kept here because asking a buffered writer for it empties the buffer.
    position: u64,
    abandoned: &'a Cell<bool>,
}

impl<W: Write> Write for Abandonable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match self.abandoned.get() {
            true => bytes.len(),
            false => self.out.write(bytes)?,
        };
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.abandoned.get() { Ok(()) } else { self.out.flush() }
    }
}

impl<W: Seek> Seek for Abandonable<'_, W> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        self.position = match target {
            SeekFrom::Current(0) => self.position,
            SeekFrom::Start(position) if self.abandoned.get() => position,
            _ if self.abandoned.get() => self.position,
            _ => self.out.seek(target)?,
        };
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zip_times_are_utc_and_clamped() {
        let time = dos_time(1_700_000_001);
        assert_eq!((time.year(), time.month(), time.day()), (2023, 11, 14));
        assert_eq!((time.hour(), time.minute(), time.second()), (22, 13, 20));
        for odd in [i64::MIN, -1, 0, 9_999_999_999, i64::MAX] {
            assert_eq!(dos_time(odd), zip::DateTime::DEFAULT);
        }
    }
}
