//! Bodies that are read whole, up to a cap.

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;

use super::problem::{Code, Problem};

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The body of a request for JSON: of that type, if of any, and within the cap.
pub async fn json(request: &HttpRequest, payload: Payload, cap: usize) -> Result<Bytes, Problem> {
    check_type(request.headers(), &[JSON])?;
    whole(request, payload, cap).await
}

/// The body of a request that changes a part: JSON, called so or a merge patch.
pub async fn merge_patch(
    request: &HttpRequest,
    payload: Payload,
    cap: usize,
) -> Result<Bytes, Problem> {
    check_type(request.headers(), &[MERGE_PATCH, JSON])?;
    whole(request, payload, cap).await
}

/// Whatever was sent, within the cap.
pub async fn whole(
    request: &HttpRequest,
    mut payload: Payload,
    cap: usize,
) -> Result<Bytes, Problem> {
    let declared = declared_length(request.headers()).unwrap_or(0);
    if declared > cap as u64 {
        return Err(too_large(cap as u64));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(Code::InvalidRequest, "the body ended before it was complete")
        })?;
        if body.len() + chunk.len() > cap {
            return Err(too_large(cap as u64));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// `Content-Length`, when there is a readable one.
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The refusal of a larger body.
pub fn too_large(cap: u64) -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("the body is larger than {cap} bytes"))
}

fn check_type(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let given = String::from_utf8_lossy(given.as_bytes());
    let essence = given.split(';').next().unwrap_or_default().trim();
    if taken.iter().any(|media_type| essence.eq_ignore_ascii_case(media_type)) {
        return Ok(());
    }
    let shown: String = essence.chars().take(64).filter(|c| !c.is_control()).collect();
    let detail = format!("Content-Type is `{shown}`; send {}", taken.join(" or "));
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::test::TestRequest;

    use super::*;

    fn code(content_type: &str, taken: &[&str]) -> Option<Code> {
        let request = TestRequest::default().insert_header((CONTENT_TYPE, content_type));
        check_type(request.to_http_request().headers(), taken).err().map(|problem| problem.code)
    }

    #[test]
    fn json_is_taken_with_any_parameters() {
        for fine in ["application/json", "Application/JSON ; charset=utf-8"] {
            assert_eq!(code(fine, &[JSON]), None, "{fine}");
        }
        for other in ["text/plain", "application/jsonp", "application/merge-patch+json", ""] {
            assert_eq!(code(other, &[JSON]), Some(Code::UnsupportedMediaType), "{other}");
        }
        assert_eq!(code("application/merge-patch+json", &[MERGE_PATCH, JSON]), None);
        assert!(check_type(TestRequest::default().to_http_request().headers(), &[]).is_ok());
    }

    #[actix_web::test]
    async fn a_body_may_be_as_long_as_its_cap_and_no_longer() {
        for (length, fits) in [(0, true), (10, true), (11, false)] {
            let sent = TestRequest::default().set_payload(vec![b'x'; length]);
            let (request, mut payload) = sent.to_http_parts();
            let payload = Payload::from_request(&request, &mut payload).await.unwrap();
            let read = whole(&request, payload, 10).await;
            assert_eq!(read.is_ok(), fits, "{length}");
        }
    }
}
