//! A name for a file whose source gives it none.
//!
//! Must not know paths.

use url::Url;
use uuid::Uuid;

use crate::files::clean_name;

/// Types whose usual extension cannot be told from their name.
const USUAL: &[(&str, &str)] = &[
    ("application/gzip", "gz"),
    ("application/javascript", "js"),
    ("application/msword", "doc"),
    ("application/x-bzip2", "bz2"),
    ("application/x-tar", "tar"),
    ("audio/mpeg", "mp3"),
    ("audio/mp4", "m4a"),
    ("audio/x-wav", "wav"),
    ("image/jpeg", "jpg"),
    ("image/svg+xml", "svg"),
    ("image/tiff", "tif"),
    ("text/javascript", "js"),
    ("text/markdown", "md"),
    ("text/plain", "txt"),
    ("video/quicktime", "mov"),
    ("video/x-matroska", "mkv"),
    ("video/x-msvideo", "avi"),
];

/// The last part of the URL's path, made safe.
pub(super) fn from_url(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    clean_name(url.path_segments()?.next_back()?)
}

/// The job's id, with an extension when the type of the content suggests one.
pub(super) fn invented(job: Uuid, media_type: &str) -> String {
    match extension(media_type) {
        Some(extension) => format!("{job}.{extension}"),
        None => job.to_string(),
    }
}

fn extension(media_type: &str) -> Option<&str> {
    if let Some((_, usual)) = USUAL.iter().find(|(known, _)| *known == media_type) {
        return Some(usual);
    }
    let known = mime_guess::get_mime_extensions_str(media_type)?;
    let (_, subtype) = media_type.split_once('/')?;
    match known {
        // Either of these says nothing about a file of that type in particular.
        _ if media_type == "application/octet-stream" => None,
        [only] => Some(only),
        several => several.iter().find(|extension| **extension == subtype).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segment_is_a_name() {
        for (url, name) in [
            ("https://h/a/b.txt?c=/d.txt", Some("b.txt")),
            ("https://h/a%20b%2Fc.pdf", Some("c.pdf")),
            ("https://h/a/../b", Some("b")),
            ("https://h/a/", None),
            ("https://h", None),
            ("https://h/%2e%2e%2f", None),
        ] {
            assert_eq!(from_url(url).as_deref(), name, "{url}");
        }
    }

    #[test]
    fn types_have_usual_extensions() {
        let id = Uuid::nil();
        for (media_type, end) in [
            ("text/plain", ".txt"),
            ("image/jpeg", ".jpg"),
            ("image/png", ".png"),
            ("application/pdf", ".pdf"),
            ("application/json", ".json"),
            ("application/zip", ".zip"),
            ("video/mp4", ".mp4"),
            ("text/html", ".html"),
            ("application/octet-stream", ""),
            ("application/x-unheard-of", ""),
        ] {
            assert_eq!(invented(id, media_type), format!("{id}{end}"));
        }
    }
}
