//! File names that others chose: the last part of a URL, or a `Content-Disposition` header.
//!
//! What comes out is always a single component that [`super::FilePath::join`] accepts and that can
//! be saved on common systems.
//!
//! Must not know: HTTP clients, or what the file is for.

use super::path::MAX_COMPONENT_BYTES;

/// An extension longer than this is no extension but part of the name.
const MAX_EXTENSION_BYTES: usize = 32;
/// What some system or shell gives a meaning to.
const RESERVED: &[char] = &['<', '>', ':', '"', '|', '?', '*', '/', '\\'];

/// A safe name from a still percent-encoded one, such as the last segment of a URL: decoded,
/// directories dropped, reserved and control characters dropped, no dots in front, at most 255
/// bytes with the extension kept. `None` when nothing is left.
pub fn clean_name(raw: &str) -> Option<String> {
    clean(&lossy(percent_decoded(raw)))
}

/// The file name a `Content-Disposition` header proposes (RFC 6266), already cleaned: do not
/// decode or clean it again. `filename*` is preferred, then `filename`, quoted or not.
pub fn name_from_content_disposition(header: &str) -> Option<String> {
    let parameters = parameters(header);
    let value = |name: &str| {
        parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    value("filename*")
        .and_then(|text| extended(text))
        .and_then(|name| clean(&name))
        .or_else(|| value("filename").and_then(|name| clean(name)))
}

fn clean(name: &str) -> Option<String> {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !is_dropped(*c)).collect();
    let name = name
        .trim_start_matches(|c: char| c == '.' || c.is_whitespace())
        .trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    (!name.is_empty()).then(|| shortened(name))
}

/// Reserved and control characters, and those that turn the direction of writing around, with
/// which `exe.txt` can be made to look like something else.
fn is_dropped(c: char) -> bool {
    c.is_control()
        || RESERVED.contains(&c)
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffd}')
}

fn shortened(name: &str) -> String {
    if name.len() <= MAX_COMPONENT_BYTES {
        return name.to_owned();
    }
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if name.len() - dot <= MAX_EXTENSION_BYTES => name.split_at(dot),
        _ => (name, ""),
    };
    let end = stem.floor_char_boundary(MAX_COMPONENT_BYTES - extension.len());
    let stem = stem[..end].trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    format!("{stem}{extension}")
}

/// Bytes with `%41` read as `A`; what is no such escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit =
            |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Bytes that are no UTF-8 become the replacement character, which [`clean`] drops.
fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// `charset'language'percent-encoded`, in the two charsets that servers send.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    let bytes = percent_decoded(encoded);
    if charset.eq_ignore_ascii_case("utf-8") {
        String::from_utf8(bytes).ok()
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.into_iter().map(char::from).collect())
    } else {
        None
    }
}

/// The parameters after the disposition type. In a quoted value only `\"` and `\\` are escapes:
/// some servers send Windows paths there without escaping them.
fn parameters(header: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_type, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        // A parameter without a value is skipped, not read as part of the next one's name.
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let after = after.trim_start();
        let (value, remaining) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end().to_owned(), &after[end..])
            }
        };
        found.push((name, value));
        rest = remaining.find(';').map_or("", |at| &remaining[at + 1..]);
    }
    found
}

/// A quoted value, after its opening quote, and what follows its closing one.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{DirectoryPath, FilePath};

    #[test]
    fn names_are_cleaned() {
        for (raw, name) in [
            ("movie.mp4", "movie.mp4"),
            ("caf%C3%A9%20%E2%82%AC.txt", "café €.txt"),
            ("100%.txt", "100%.txt"),
            ("a%2", "a%2"),
            ("..%2F..%2fetc%2Fpasswd", "passwd"),
            ("C%3A%5Cdir%5Cx.doc", "x.doc"),
            ("...hidden", "hidden"),
            (". .a", "a"),
            ("a%00b%0a.txt", "ab.txt"),
            ("a<b>:\"|?*.txt", "ab.txt"),
            ("name. . ", "name"),
            ("bad%FF.bin", "bad.bin"),
            ("gpj%E2%80%AEtxt.exe", "gpjtxt.exe"),
        ] {
            assert_eq!(clean_name(raw).as_deref(), Some(name), "{raw}");
        }
        for raw in ["", ".", "..", "%2e%2E", "a/", "%20", "???", "%00", "dir%5C"] {
            assert_eq!(clean_name(raw), None, "{raw}");
        }
    }

    #[test]
    fn long_names_keep_their_extension() {
        let long = clean_name(&format!("{}.mp4", "é".repeat(300))).unwrap();
        assert!(long.len() <= 255 && long.len() > 250 && long.ends_with("é.mp4"));
        let odd = clean_name(&format!("a.{}", "x".repeat(300))).unwrap();
        assert_eq!(odd.len(), 255);
    }

    #[test]
    fn content_dispositions_name_files() {
        for (header, name) in [
            ("attachment; filename=plain.txt", "plain.txt"),
            (
                "attachment;FileName = \"with space; and \\\"quote.txt\" ; x=y",
                "with space; and quote.txt",
            ),
            ("inline; filename=\"100%25.txt\"", "100%25.txt"),
            ("attachment; filename=\"C:\\dir\\file.txt\"", "file.txt"),
            ("attachment; filename=\"../../x\"", "x"),
            (
                "attachment; filename=\"fall.txt\"; filename*=UTF-8''%e2%82%ac%20rates.txt",
                "€ rates.txt",
            ),
            ("attachment; filename*=iso-8859-1'en'%A3%20rates; filename=x", "£ rates"),
            ("attachment; filename*=UTF-8''%FF; filename=x.txt", "x.txt"),
            ("attachment; filename*=koi8-r''%FF; filename=x.txt", "x.txt"),
            ("attachment; filename*=UTF-8''..%2f; filename=x.txt", "x.txt"),
            ("attachment; flag; filename=x.txt", "x.txt"),
            ("attachment; filename=\"open.txt", "open.txt"),
        ] {
            assert_eq!(name_from_content_disposition(header).as_deref(), Some(name), "{header}");
        }
        for header in
            ["", "attachment", "attachment; filename=", "attachment; filename=\"..\"", "filename=x"]
        {
            assert_eq!(name_from_content_disposition(header), None, "{header}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
            failure_persistence: None,
            ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn a_clean_name_is_a_component(raw in "(\\PC|[%./\\\\\u{0}-\u{1f}]|%[0-9a-fA-F]{2}){0,400}") {
            if let Some(name) = clean_name(&raw) {
                let path = FilePath::join(&DirectoryPath::root(), &name).unwrap();
                proptest::prop_assert_eq!(path.name(), name);
            }
            name_from_content_disposition(&format!("attachment; filename=\"{raw}\""));
            name_from_content_disposition(&raw);
        }
    }
}
