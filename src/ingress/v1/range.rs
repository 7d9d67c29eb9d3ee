//! Which bytes of a file a request wants, and whether it has them already. Pure.

use std::ops::Range;

/// What to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Whole,
    /// These bytes.
    Bytes(Range<u64>),
    /// The range holds none of the bytes there are.
    Nothing,
}

/// Reads `Range` for a file of that size. Several ranges, another unit or something unreadable
/// get the whole file.
pub fn wanted(header: Option<&str>, size: u64) -> Part {
    header.and_then(|header| single(header, size)).unwrap_or(Part::Whole)
}

fn single(header: &str, size: u64) -> Option<Part> {
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || last.contains('-') {
        return None;
    }
    let range = match (first.trim(), last.trim()) {
        ("", length) => size.saturating_sub(number(length)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if range.is_empty() { Part::Nothing } else { Part::Bytes(range) })
}

/// Digits; a number too large to count with is only a very large one.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether `If-None-Match` names the tag, weakly or not.
pub fn has_tag(header: &str, etag: &str) -> bool {
    let tags = header.split(',').map(str::trim);
    header.trim() == "*"
        || tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|it| it == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, part) in [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=2-", Part::Bytes(2..10)),
            ("bytes=-3", Part::Bytes(7..10)),
            ("bytes=-30", Part::Bytes(0..10)),
            ("Bytes = 4-99", Part::Bytes(4..10)),
            ("bytes=9-18446744073709551615", Part::Bytes(9..10)),
            ("bytes=10-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=99999999999999999999999-", Part::Nothing),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=0--1", Part::Whole),
            ("items=0-1", Part::Whole),
            ("bytes", Part::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), part, "{header}");
        }
        assert_eq!(wanted(None, 10), Part::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Part::Nothing);
        assert_eq!(wanted(Some("bytes=-1"), 0), Part::Nothing);
    }

    #[test]
    fn tags() {
        for header in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*", " * "] {
            assert!(has_tag(header, "\"a\""), "{header}");
        }
        for header in ["", "a", "\"b\"", "\"A\""] {
            assert!(!has_tag(header, "\"a\""), "{header}");
        }
    }
}
