//! The `Idempotency-Key` of a request that makes jobs, and the answer that the request gets, which
//! may be an earlier one.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest, Sha256};

use crate::engine::{Idempotency, StoredJob};
use crate::ids::Timestamp;
use crate::ingress::answer;
use crate::ingress::observe::{made_job, request_id};
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;

const HEADER: &str = "Idempotency-Key";
const MAX_KEY_BYTES: usize = 255;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A request that makes jobs, once however often it is sent.
pub struct Making<'a> {
    state: &'a State,
    request: &'a HttpRequest,
    /// What engine and log know the request by.
    pub request_id: String,
    came: Timestamp,
}

impl<'a> Making<'a> {
    /// A request that is about to make jobs, and its key with what the key is used for.
    pub fn begin(
        state: &'a State,
        request: &'a HttpRequest,
        key: Option<String>,
        body: &[u8],
    ) -> (Making<'a>, Option<Idempotency>) {
        let (request_id, came) = (request_id(request), state.engine.now());
        (Making { state, request, request_id, came }, of(key, request, body))
    }

    /// The answer that shows the job.
    pub fn accepted(&self, job: &StoredJob) -> HttpResponse {
        made_job(self.request, job.id);
        let url = format!("{}/v1/jobs/{}", self.state.settings.public_url, job.id);
        self.marked(answer::located(answer::job(StatusCode::ACCEPTED, job), url), Some(job))
    }

    /// An answer that says whether it is an earlier request's: another one made the first of its
    /// jobs, or it was made before this one came.
    pub fn marked(&self, mut answer: HttpResponse, first: Option<&StoredJob>) -> HttpResponse {
        let is_replay = first.is_some_and(|job| {
            job.submission.request_id != self.request_id || job.created_at < self.came
        });
        if is_replay {
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        answer
    }
}

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
fn of(key: Option<String>, request: &HttpRequest, body: &[u8]) -> Option<Idempotency> {
    let key = key?;
    let mut hash = Sha256::new();
    for part in [request.method().as_str(), request.path()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(body);
    Some(Idempotency { key, hash: hex::encode(hash.finalize()) })
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
