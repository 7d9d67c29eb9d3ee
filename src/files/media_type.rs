//! What kind of content a file has.
//!
//! The answer is recorded and shown, not trusted: HTML, SVG and XML are named as what they are, so
//! whoever serves bytes to browsers must send `X-Content-Type-Options: nosniff` and
//! `Content-Disposition: attachment` (or a sandboxing policy) with them.
//!
//! Must not know: where the bytes come from.

const UNKNOWN: &str = "application/octet-stream";

/// Types that upload clients and servers send when they do not know; they say nothing.
const UNSPECIFIC: &[&str] = &[
    UNKNOWN,
    "application/x-www-form-urlencoded",
    "application/unknown",
    "application/force-download",
    "application/x-download",
    "binary/octet-stream",
];

/// Containers of other formats: here the extension knows more than the first bytes.
const CONTAINERS: &[&str] = &["application/zip", "text/xml", "application/x-ole-storage"];

/// The media type, in lower case and without parameters: what was declared, when that is specific;
/// else what the first bytes (512 are enough) show; else what the extension of `path` suggests.
pub fn media_type(path: &str, declared: Option<&str>, head: &[u8]) -> String {
    if let Some(declared) = declared.and_then(specific) {
        return declared;
    }
    let by_extension = || mime_guess::from_path(path).first_raw();
    match infer::get(head).map(|kind| kind.mime_type()) {
        Some(container) if CONTAINERS.contains(&container) => by_extension().unwrap_or(container),
        Some(sniffed) => sniffed,
        None => by_extension().unwrap_or(UNKNOWN),
    }
    .to_owned()
}

/// `type/subtype` of a Content-Type header, when it is well formed and says something.
fn specific(declared: &str) -> Option<String> {
    let essence = declared.split(';').next()?.trim().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/')?;
    // A multipart type describes how the upload was framed, not the file in it.
    let says_something = is_name(kind)
        && is_name(subtype)
        && kind != "multipart"
        && !UNSPECIFIC.contains(&essence.as_str());
    says_something.then_some(essence)
}

/// A registered name's characters (RFC 6838), which leave out the `*` of wildcards.
fn is_name(part: &str) -> bool {
    part.len() <= 127
        && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0";

    #[test]
    fn a_specific_declaration_wins() {
        assert_eq!(media_type("/a.txt", Some("Image/JPEG; q=1"), PNG), "image/jpeg");
        assert_eq!(media_type("/a", Some("image/svg+xml"), b""), "image/svg+xml");
    }

    #[test]
    fn a_declaration_that_says_nothing_is_passed_over() {
        for declared in [
            "",
            "image",
            "image/",
            "/png",
            "image/*",
            "*/*",
            "a b/c",
            "image/png,text/html",
            "application/octet-stream",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "binary/octet-stream",
        ] {
            assert_eq!(media_type("/a.txt", Some(declared), PNG), "image/png", "{declared}");
        }
    }

    #[test]
    fn content_comes_before_the_extension_except_in_containers() {
        assert_eq!(media_type("/a.jpg", None, PNG), "image/png");
        assert_eq!(media_type("/a.epub", None, ZIP), "application/epub+zip");
        assert_eq!(media_type("/a.zip", None, ZIP), "application/zip");
        assert_eq!(media_type("/a", None, ZIP), "application/zip");
        assert_eq!(media_type("/a.svg", None, b"<?xml version=\"1.0\"?><svg/>"), "image/svg+xml");
    }

    #[test]
    fn the_extension_is_the_last_hint() {
        assert_eq!(media_type("/a.JSON", None, b"{}"), "application/json");
        assert_eq!(media_type("/a.csv", None, b""), "text/csv");
        assert_eq!(media_type("/a.unheard-of", None, b"?"), UNKNOWN);
        assert_eq!(media_type("/", None, b""), UNKNOWN);
    }
}
