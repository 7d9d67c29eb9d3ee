//! The `Idempotency-Key` of a request, and what it was used for.

use actix_web::HttpRequest;
use sha2::{Digest, Sha256};

use crate::engine::{Idempotency, StoredJob};
use crate::ids::Timestamp;
use crate::ingress::problem::{Code, Problem};

const HEADER: &str = "Idempotency-Key";
const MAX_KEY_BYTES: usize = 255;

/// The key, when there is one.
pub fn key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let mut given = request.headers().get_all(HEADER);
    let Some(value) = given.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let fits = (1..=MAX_KEY_BYTES).contains(&bytes.len());
    if given.next().is_some() || !fits || !bytes.iter().all(u8::is_ascii_graphic) {
        let detail = format!(
            "`{HEADER}` must be given once, with 1 to {MAX_KEY_BYTES} visible ASCII characters"
        );
        return Err(Problem::new(Code::InvalidRequest, detail).at_parameter(HEADER));
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

/// The key together with a digest of method, path and body.
pub fn of(key: Option<String>, request: &HttpRequest, body: &[u8]) -> Option<Idempotency> {
    let key = key?;
    let mut hash = Sha256::new();
    for part in [request.method().as_str(), request.path()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(body);
    Some(Idempotency { key, hash: hex::encode(hash.finalize()) })
}

/// Whether the answer is an earlier request's: another one made the job, or it was made before
/// this one came.
pub fn is_replay(job: &StoredJob, request_id: &str, came: Timestamp) -> bool {
    job.submission.request_id != request_id || job.created_at < came
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn keys_are_visible_ascii() {
        let read = |value: &str| {
            let request = TestRequest::post().insert_header((HEADER, value)).to_http_request();
            key(&request).ok().flatten()
        };
        let longest = "k".repeat(255);
        for fine in ["k", "a,b;c=\"d\"~!", &longest] {
            assert_eq!(read(fine).as_deref(), Some(fine));
        }
        for bad in ["", "a b", "k\u{fc}", &"k".repeat(256)] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let twice = TestRequest::post().append_header((HEADER, "a")).append_header((HEADER, "a"));
        assert!(key(&twice.to_http_request()).is_err());
        assert!(key(&TestRequest::post().to_http_request()).unwrap().is_none());
    }

    #[test]
    fn the_hash_covers_method_path_and_body() {
        let hash = |request: TestRequest, body: &str| {
            of(Some("k".to_owned()), &request.to_http_request(), body.as_bytes()).unwrap().hash
        };
        let first = hash(TestRequest::post().uri("/v1/jobs"), "{}");
        assert_eq!(first, hash(TestRequest::post().uri("/v1/jobs"), "{}"));
        assert_ne!(first, hash(TestRequest::post().uri("/v1/jobs"), "{ }"));
        assert_ne!(first, hash(TestRequest::post().uri("/v1/jobs/batch"), "{}"));
        assert_ne!(first, hash(TestRequest::put().uri("/v1/jobs"), "{}"));
    }
}
