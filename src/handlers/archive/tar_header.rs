//! One tar header block and the extensions that go before it: bytes to facts, nothing is read.
//!
//! The tar crate's own entry iterator reads long names and pax records into memory at whatever
//! size the archive claims, so `read_tar` walks the blocks itself and takes only field parsing
//! from the crate. Must not know limits, sinks or streams.

use std::io::{self, Read};

use tar::{EntryType, Header};

pub(super) const BLOCK: usize = 512;
pub(super) type Block = [u8; BLOCK];

/// What a header block announces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// The payload is the next entry's name.
    LongName,
    /// The payload is the next entry's link target; links are refused when they come.
    LongLink,
    /// The payload overrides fields of the next entry.
    Pax,
    /// The payload overrides fields of all later entries.
    GlobalPax,
    Refused(&'static str),
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
}

pub(super) fn parse(block: &Block) -> Result<Parsed, String> {
    if !checksum_matches(block) {
        return Err("the checksum of a header does not match".into());
    }
    let header = Header::from_byte_slice(block);
    let name = header.path_bytes().into_owned();
    let size = size_field(header)?;
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::GNULongName => Kind::LongName,
        EntryType::GNULongLink => Kind::LongLink,
        EntryType::XHeader => Kind::Pax,
        EntryType::XGlobalHeader => Kind::GlobalPax,
        EntryType::Link => Kind::Refused("a hard link"),
        EntryType::Symlink => Kind::Refused("a symbolic link"),
        EntryType::Char => Kind::Refused("a character device"),
        EntryType::Block => Kind::Refused("a block device"),
        EntryType::Fifo => Kind::Refused("a named pipe"),
        EntryType::GNUSparse => Kind::Refused("a sparse file"),
        _ => Kind::Refused("of a kind of its own"),
    };
    Ok(Parsed { kind, name, size })
}

/// Whether a tar can start like this: a header that adds up, or the zeros of an empty archive.
pub(super) fn is_header_or_end(block: &Block) -> bool {
    is_zero(block) || checksum_matches(block)
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn checksum_matches(block: &Block) -> bool {
    let (before, field, after) = (&block[..148], [b' '; 8], &block[156..]);
    let sum: u32 = before.iter().chain(&field).chain(after).map(|byte| u32::from(*byte)).sum();
    Header::from_byte_slice(block).cksum().is_ok_and(|stored| stored == sum)
}

fn size_field(header: &Header) -> Result<u64, String> {
    // A binary number has room for 95 bits and a sign; the crate drops what is above 64 of them.
    if let [first, high @ .., _, _, _, _, _, _, _, _] = &header.as_old().size
        && first & 0x80 != 0
        && (*first != 0x80 || !is_zero(high))
    {
        return Err("a header names an impossible size".into());
    }
    header.entry_size().map_err(|error| format!("a header names no size: {error}"))
}

/// What a pax extension changes about the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
}

/// Records are `<length> <key>=<value>\n`; the length counts all of it, so values may hold anything.
pub(super) fn pax_overrides(mut records: &[u8]) -> Result<Overrides, String> {
    let mut overrides = Overrides::default();
    while !records.is_empty() {
        let (key, value, rest) = pax_record(records).ok_or("a pax record is malformed")?;
        records = rest;
        match key {
            b"path" => overrides.path = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => {
                let size = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                overrides.size = Some(size.ok_or("a pax record names no valid size")?);
            }
            b"SCHILY.realsize" => overrides.sparse = true,
            _ if key.starts_with(b"GNU.sparse.") => overrides.sparse = true,
            _ => {}
        }
    }
    Ok(overrides)
}

fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let content = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|byte| *byte == b'=')?;
    Some((&content[..equals], &content[equals + 1..], rest))
}

/// Reads until the block is full or the input ends; gives how much there was.
pub(super) fn fill(input: &mut impl Read, block: &mut Block) -> io::Result<usize> {
    let mut length = 0;
    while length < BLOCK {
        match input.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_newlines_and_equal_signs() {
        let records = b"17 comment=a\nb=c\n15 path=a=\xc3\xa9\n\xc3\n";
        let first = &records[..17];
        assert_eq!(pax_overrides(first).unwrap(), Overrides::default());
        let found = pax_overrides(b"14 path=a=b/c\n20 size=99999999999\n").unwrap();
        assert_eq!(found.path.as_deref(), Some(&b"a=b/c"[..]));
        assert_eq!(found.size, Some(99_999_999_999));
    }

    #[test]
    fn malformed_pax_is_refused() {
        for records in [
            &b"x"[..],
            b"5 a=b",
            b"99 path=a\n",
            b"0 a=b\n",
            b"3 a\n",
            b"18446744073709551615 path=a\n",
            b"10 size=-1\n",
            b"11 size=abc\n",
            b"\n",
        ] {
            assert!(pax_overrides(records).is_err(), "{records:?}");
        }
    }

    #[test]
    fn sparse_files_are_recognised() {
        assert!(pax_overrides(b"22 GNU.sparse.major=1\n").unwrap().sparse);
    }

    #[test]
    fn sizes_beyond_64_bits_are_refused() {
        let mut header = Header::new_gnu();
        header.set_size(9 << 30);
        header.set_cksum();
        assert_eq!(parse(header.as_bytes()).unwrap().size, 9 << 30);
        header.as_old_mut().size = [0xff; 12];
        header.set_cksum();
        assert!(parse(header.as_bytes()).is_err());
    }
}
