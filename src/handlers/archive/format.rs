//! The four archive formats, and telling them apart by what is in the file.
//!
//! Names and MIME types are what a sender claims; only the content decides. Must not know how an
//! archive is unpacked beyond its first block.

use std::io::{BufReader, Read, Seek, SeekFrom};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;

use super::control::{Meter, Unwatched};
use super::error::ArchiveError;
use super::source::Source;
use super::tar_header::{self, BLOCK};

/// So much of a compressed file is looked at to find the first block in it; bzip2 unpacks nothing
/// before it has a whole block of up to 900 kB.
const LOOK_AHEAD: u64 = 2 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    Zip,
    Tar,
    TarGz,
    TarBz2,
}

impl ArchiveFormat {
    pub fn parse(value: &str) -> Result<Self, ArchiveError> {
        match value {
            "zip" => Ok(Self::Zip),
            "tar" => Ok(Self::Tar),
            "tar.gz" => Ok(Self::TarGz),
            "tar.bz2" => Ok(Self::TarBz2),
            _ => Err(ArchiveError::UnknownFormat {
                value: value.chars().take(40).collect(),
                allowed: "zip, tar, tar.gz, tar.bz2",
            }),
        }
    }

    /// Also the name that `parse` takes.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarBz2 => "tar.bz2",
        }
    }

    pub fn mime_type(self) -> &'static str {
        match self {
            Self::Zip => "application/zip",
            Self::Tar => "application/x-tar",
            Self::TarGz => "application/gzip",
            Self::TarBz2 => "application/x-bzip2",
        }
    }
}

/// Which archive this is, by its content. Leaves the input at its start.
pub fn detect(input: &mut (impl Read + Seek)) -> Result<ArchiveFormat, ArchiveError> {
    let mut unwatched = Unwatched;
    let meter = Meter::new(&mut unwatched);
    look(&mut Source::new(input, &meter), &meter)
}

pub(super) fn look<R: Read + Seek>(
    source: &mut Source<'_, '_, R>,
    meter: &Meter<'_>,
) -> Result<ArchiveFormat, ArchiveError> {
    let rewound = |source: &mut Source<'_, '_, R>| {
        source.seek(SeekFrom::Start(0)).map_err(|e| meter.explain(|| ArchiveError::bad(e)))
    };
    rewound(source)?;
    let mut block = [0; BLOCK];
    let length = tar_header::fill(source, &mut block)
        .map_err(|error| meter.explain(|| ArchiveError::bad(error)))?;
    rewound(source)?;

    let packed = |result: Result<Content, std::io::Error>, format, found: &str| match result {
        Ok(Content::Tar) => Ok(format),
        Ok(Content::Other) => Err(not_an_archive(format!("{found} that holds no tar archive"))),
        Err(error) => Err(meter.explain(|| ArchiveError::bad(format!("{found}: {error}")))),
    };
    let format = match &block[..length] {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 6, 6, ..] => {
            ArchiveFormat::Zip
        }
        [0x1f, 0x8b, 8, ..] => {
            let input = BufReader::new(source.by_ref().take(LOOK_AHEAD));
            packed(first_block(MultiGzDecoder::new(input)), ArchiveFormat::TarGz, "a gzip file")?
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            let input = BufReader::new(source.by_ref().take(LOOK_AHEAD));
            packed(first_block(MultiBzDecoder::new(input)), ArchiveFormat::TarBz2, "a bzip2 file")?
        }
        _ if length == BLOCK && tar_header::is_header_or_end(&block) => ArchiveFormat::Tar,
        start => return Err(not_an_archive(name_of(start))),
    };
    rewound(source)?;
    Ok(format)
}

enum Content {
    Tar,
    Other,
}

fn first_block(mut decoder: impl Read) -> std::io::Result<Content> {
    let mut block = [0; BLOCK];
    let length = tar_header::fill(&mut decoder, &mut block)?;
    let tar = length == BLOCK && tar_header::is_header_or_end(&block);
    Ok(if tar { Content::Tar } else { Content::Other })
}

/// People send the wrong file more often than a broken one, so the message says what it is.
fn name_of(start: &[u8]) -> String {
    let name = match start {
        [] => "empty",
        [b'M', b'Z', ..] | [0x7f, b'E', b'L', b'F', ..] | [b'#', b'!', ..] => {
            "a program (self-extracting archives are refused)"
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "an xz file",
        [b'7', b'z', 0xbc, 0xaf, ..] => "a 7z archive",
        [b'R', b'a', b'r', b'!', ..] => "a RAR archive",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        _ if start.get(257..262) == Some(b"ustar") => "a tar with a damaged first header",
        _ => "not an archive",
    };
    name.to_owned()
}

fn not_an_archive(found: String) -> ArchiveError {
    ArchiveError::NotAnArchive { found }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::io::Write;

    use super::*;

    fn code(bytes: Vec<u8>) -> &'static str {
        detect(&mut Cursor::new(bytes)).unwrap_err().code()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn names_are_parsed_and_come_back() {
        for name in ["zip", "tar", "tar.gz", "tar.bz2"] {
            assert_eq!(ArchiveFormat::parse(name).unwrap().extension(), name);
        }
        for name in ["", "ZIP", "tgz", "rar"] {
            let message = ArchiveFormat::parse(name).unwrap_err().to_string();
            assert!(message.contains(&format!("{name:?}")) && message.contains("tar.bz2"));
        }
    }

    #[test]
    fn what_holds_no_archive_is_not_one() {
        let text = b"hello, world\n".repeat(100);
        for bytes in [
            vec![],
            vec![0],
            b"PK".to_vec(),
            text.clone(),
            gzip(&text),
            gzip(b""),
            gzip(b"short"),
            bzip2(&text),
            bzip2(b""),
            [b"MZ".to_vec(), vec![0; 600], b"PK\x03\x04".to_vec()].concat(),
        ] {
            assert_eq!(code(bytes), "not_an_archive");
        }
    }

    #[test]
    fn a_gzip_of_text_says_so() {
        let error = detect(&mut Cursor::new(gzip(b"text"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file is a gzip file that holds no tar archive; \
             accepted are zip, tar, tar.gz and tar.bz2"
        );
    }

    #[test]
    fn zero_blocks_are_an_empty_tar() {
        let zeros = vec![0; 1024];
        assert_eq!(detect(&mut Cursor::new(&zeros)).unwrap(), ArchiveFormat::Tar);
        assert_eq!(detect(&mut Cursor::new(gzip(&zeros))).unwrap(), ArchiveFormat::TarGz);
        assert_eq!(detect(&mut Cursor::new(bzip2(&zeros))).unwrap(), ArchiveFormat::TarBz2);
    }

    #[test]
    fn a_cut_or_damaged_stream_is_a_bad_archive() {
        let mut cut = gzip(&[0; 1024]);
        cut.truncate(15);
        assert_eq!(code(cut), "bad_archive");
        let mut cut = bzip2(&[0; 1024]);
        cut.truncate(20);
        assert_eq!(code(cut), "bad_archive");
    }

    #[test]
    fn the_input_is_left_at_its_start() {
        let mut input = Cursor::new(vec![0; 1024]);
        input.set_position(700);
        detect(&mut input).unwrap();
        assert_eq!(input.position(), 0);
    }
}
