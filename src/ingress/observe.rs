//! Around every request: its id, one log line, one measurement, and headers that all answers have.
//!
//! The log line names the route's pattern, never the path, the query or a header: those may hold
//! what is nobody's business.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, web};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::problem::Problem;
use super::state::{Admitted, State};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_ID_BYTES: usize = 64;
const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];

/// Ties an answer to log lines, and a job to the request that made it.
#[derive(Clone)]
struct RequestId(String);

/// The job that a request made.
struct MadeJob(Uuid);

/// Says which job a request made, for its log line.
pub fn made_job(request: &HttpRequest, id: Uuid) {
    request.extensions_mut().insert(MadeJob(id));
}

/// The job that a request made or else named in its path.
fn job_of(request: &HttpRequest) -> Option<Uuid> {
    let made = request.extensions().get::<MadeJob>().map(|made| made.0);
    made.or_else(|| crate::ids::parse_id(request.match_info().get("jobId")?))
}

/// The id of a request that came through [`observe`].
pub fn request_id(request: &HttpRequest) -> String {
    request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
}

/// The middleware.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    let began = Instant::now();
    let id = own_or_new(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", request_id = %id);
    let mut response = next.call(request).instrument(span).await?.map_into_boxed_body();

    let route = route(&response);
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    if let Some(problem) = problem {
        let mut problem = problem.clone();
        tell_failure(&problem, &id, &route);
        problem.instance = Some(format!("urn:ringback:request:{id}"));
        response = response.into_response(problem.respond());
    }
    let admitted = response.request().extensions().get::<Admitted>().cloned();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(admitted) = &admitted {
        admitted.standing.write(headers);
    }

    let elapsed = began.elapsed();
    let status = response.status().as_u16();
    let method = response.request().method().as_str();
    let method = METHODS.iter().find(|known| **known == method).copied().unwrap_or("other");
    if let Some(state) = response.request().app_data::<web::Data<State>>() {
        state.metrics.observe_http(method, &route, status, elapsed);
    }
    tracing::info!(
        request_id = %id,
        method,
        route = %route,
        status,
        milliseconds = elapsed.as_micros() as f64 / 1_000.0,
        application = admitted.map(|admitted| tracing::field::display(admitted.application)),
        job_id = job_of(response.request()).map(tracing::field::display),
        "request"
    );
    Ok(response)
}

/// The caller's id when it is harmless in a log and in a header, else a new one.
fn own_or_new(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let harmless = |text: &&str| {
        (1..=MAX_ID_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match given.filter(harmless) {
        Some(id) => id.to_owned(),
        None => crate::ids::new_id().to_string(),
    }
}

fn route(response: &ServiceResponse) -> String {
    let pattern = response.request().match_pattern();
    pattern.map_or_else(|| "unmatched".to_owned(), |pattern| pattern.replace(":.*}", "}"))
}

/// What callers do not get to read of our own failures.
fn tell_failure(problem: &Problem, id: &str, route: &str) {
    match problem.code.status() {
        StatusCode::SERVICE_UNAVAILABLE => {
            tracing::warn!(request_id = %id, route, cause = %problem, "cannot answer for the moment");
        }
        status if status.is_server_error() => {
            tracing::error!(request_id = %id, route, cause = %problem, "failed to answer");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_ids_are_taken_over() {
        let given = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap());
            own_or_new(&headers)
        };
        assert_eq!(given("a.B_9-c"), "a.B_9-c");
        assert_eq!(given(&"x".repeat(64)), "x".repeat(64));
        for bad in ["", "a b", "a\tb", "<script>", &"x".repeat(65)] {
            assert_eq!(given(bad).len(), 36, "{bad:?}");
        }
        assert_eq!(own_or_new(&HeaderMap::new()).len(), 36);
    }
}
