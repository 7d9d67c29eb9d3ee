//! Which paths an archive entry may have: pure text in, normalised text or a refusal out.
//!
//! A path that could mean different things to different tools is refused, not repaired; only
//! what every tool reads alike (`./`, doubled slashes) is tidied. Must not know archives.

use super::error::{ArchiveError, shown};

/// Longest path that is written, and that is read unless the caller's limits are tighter.
pub const MAX_ENTRY_PATH_BYTES: usize = 4096;

/// The path of a file in an archive: relative, `/` between components, no way out. Both names
/// found in archives and the `pathInArchive` that a caller gives come through here.
pub fn safe_entry_path(raw: impl AsRef<[u8]>) -> Result<String, ArchiveError> {
    file_path(raw.as_ref(), MAX_ENTRY_PATH_BYTES)
}

pub(super) fn file_path(raw: &[u8], max_bytes: usize) -> Result<String, ArchiveError> {
    if raw.last() == Some(&b'/') {
        return Err(refused(raw, "it ends in a slash, so it names a folder and not a file"));
    }
    let path = normalised(raw, max_bytes)?;
    if path.is_empty() {
        return Err(refused(raw, "it is empty; a file needs a name"));
    }
    Ok(path)
}

/// As `file_path`, but a folder may end in a slash, and may be the root itself (`./`).
pub(super) fn folder_path(raw: &[u8], max_bytes: usize) -> Result<String, ArchiveError> {
    if raw.is_empty() {
        return Err(refused(raw, "it is empty; a folder needs a name"));
    }
    normalised(raw, max_bytes)
}

fn normalised(raw: &[u8], max_bytes: usize) -> Result<String, ArchiveError> {
    if raw.len() > max_bytes {
        return Err(refused(raw, "it is longer than allowed"));
    }
    let Ok(text) = str::from_utf8(raw) else {
        return Err(refused(raw, "it is not UTF-8"));
    };
    if text.chars().any(char::is_control) {
        return Err(refused(raw, "it contains a control character"));
    }
    if text.contains('\\') {
        return Err(refused(raw, "it contains a backslash; components are separated by '/'"));
    }
    if text.starts_with('/') {
        return Err(refused(raw, "it is absolute; only relative paths are allowed"));
    }
    let components: Vec<&str> =
        text.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
    if components.contains(&"..") {
        return Err(refused(raw, "it contains '..'"));
    }
    if components.first().is_some_and(|first| has_drive_letter(first)) {
        return Err(refused(raw, "it starts with a drive letter"));
    }
    Ok(components.join("/"))
}

fn has_drive_letter(component: &str) -> bool {
    matches!(component.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

fn refused(raw: &[u8], reason: &'static str) -> ArchiveError {
    ArchiveError::UnsafePath { path: shown(raw), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass_and_are_tidied() {
        for (raw, path) in [
            ("a.txt", "a.txt"),
            ("a/b/c.txt", "a/b/c.txt"),
            ("./a//b/./c", "a/b/c"),
            ("...", "..."),
            ("a/..b/c..", "a/..b/c.."),
            ("Straße/日本/😀.txt", "Straße/日本/😀.txt"),
            ("with space/and:colon", "with space/and:colon"),
            ("~/x", "~/x"),
        ] {
            assert_eq!(safe_entry_path(raw).unwrap(), path);
        }
    }

    #[test]
    fn every_way_out_is_refused() {
        for raw in [
            &b""[..],
            b".",
            b"./",
            b"./.",
            b"a/",
            b"..",
            b"../a",
            b"a/../b",
            b"a/..",
            b"./../a",
            b"/etc/passwd",
            b"//server/share",
            b"\\\\server\\share",
            b"..\\a",
            b"a\\b",
            b"C:",
            b"C:x",
            b"c:/x",
            b"./C:/x",
            b"a\0b",
            b"a\nb",
            b"a\rb",
            b"\x1b[2J",
            b"a\x7f",
            b"\xff\xfe",
            b"caf\xe9.txt",
            "a\u{85}b".as_bytes(),
        ] {
            let error = safe_entry_path(raw).unwrap_err();
            assert_eq!(error.code(), "unsafe_path", "{raw:?}");
        }
    }

    #[test]
    fn length_counts_bytes() {
        assert!(safe_entry_path("é".repeat(MAX_ENTRY_PATH_BYTES / 2)).is_ok());
        assert!(safe_entry_path("é".repeat(MAX_ENTRY_PATH_BYTES / 2 + 1)).is_err());
        assert!(file_path(b"abcd", 3).is_err());
    }

    #[test]
    fn a_folder_may_be_the_root_but_not_leave_it() {
        assert_eq!(folder_path(b"./", 10).unwrap(), "");
        assert_eq!(folder_path(b"a/b/", 10).unwrap(), "a/b");
        for raw in [&b""[..], b"/", b"../", b"a/../"] {
            assert!(folder_path(raw, 10).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn the_refusal_names_the_path_and_the_rule() {
        let message = safe_entry_path("../../etc/passwd").unwrap_err().to_string();
        assert_eq!(message, "the path \"../../etc/passwd\" is refused: it contains '..'");
    }
}
