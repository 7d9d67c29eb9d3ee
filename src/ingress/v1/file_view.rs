//! How a file is shown: its descriptor as JSON, and the headers that go with its bytes.

use actix_web::HttpResponseBuilder;
use actix_web::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    LAST_MODIFIED,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use uuid::Uuid;

use crate::engine::Descriptor;
use crate::ids::Timestamp;
use crate::ingress::percent;

/// A descriptor with the id of its bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    #[serde(flatten)]
    descriptor: Descriptor,
    version_id: Uuid,
}

impl From<Descriptor> for Shown {
    fn from(descriptor: Descriptor) -> Shown {
        Shown { version_id: descriptor.version, descriptor }
    }
}

/// The strong tag of a file's bytes.
pub fn etag(file: &Descriptor) -> String {
    format!("\"{}\"", file.hash)
}

/// Where a file is, below the public address.
pub fn url_path(path: &str) -> String {
    format!("/v1/files{}", percent::encode(path, b"/"))
}

/// Headers of an answer that carries a file's bytes. Whatever the bytes are, a browser that is
/// led here stores them and runs nothing.
pub fn write_headers(answer: &mut HttpResponseBuilder, file: &Descriptor) {
    answer
        .insert_header((CONTENT_TYPE, file.mime_type.as_str()))
        .insert_header((ETAG, etag(file)))
        .insert_header((ACCEPT_RANGES, "bytes"))
        .insert_header((LAST_MODIFIED, http_date(file.date_updated)))
        .insert_header((CACHE_CONTROL, "private, no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"))
        .insert_header((CONTENT_DISPOSITION, disposition(&file.path)));
    if let Ok(digest) = hex::decode(&file.hash) {
        let digest = format!("sha-256=:{}:", STANDARD.encode(digest));
        answer.insert_header(("Repr-Digest", digest));
    }
}

fn http_date(time: Timestamp) -> String {
    time.to_datetime().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `attachment` with the name, plainly for old readers and exactly for the rest (RFC 6266).
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !"\"\\%".contains(c) || c == ' ' { c } else { '_' })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", percent::encode(name, b""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(
            disposition("/a/b \"c\u{fc}\";.txt"),
            "attachment; filename=\"b _c__;.txt\"; filename*=UTF-8''b%20%22c%C3%BC%22%3B.txt"
        );
    }

    #[test]
    fn dates_are_as_http_has_them() {
        let time: Timestamp = "1994-11-06T08:49:37.999Z".parse().unwrap();
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn urls_keep_slashes_only() {
        assert_eq!(url_path("/a/b c?#"), "/v1/files/a/b%20c%3F%23");
    }
}
