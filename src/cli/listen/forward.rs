//! Passing a webhook on to a program under test, and its answer back.
//!
//! Must not know why. Headers go through as they are, except those that belong to one connection.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap as Incoming, HeaderName as IncomingName};
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

use crate::cli::client::{Answer, Target};

/// Headers about a connection or its framing, and the receiver's own name.
const NOT_PASSED_ON: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the target answered, or that it did not.
pub(super) struct Forwarded {
    /// For people.
    pub note: String,
    pub answer: HttpResponse,
}

pub(super) async fn pass_on(target: &Target, headers: &Incoming, body: web::Bytes) -> Forwarded {
    match target.send(Method::POST, outgoing(headers), body).await {
        Ok(answer) => {
            let note = format!("from {} in {} ms", target.origin(), answer.took.as_millis());
            Forwarded { note, answer: returned(answer) }
        }
        Err(error) => {
            Forwarded { note: format!("{error:#}"), answer: HttpResponse::BadGateway().finish() }
        }
    }
}

fn passes(name: &str) -> bool {
    !NOT_PASSED_ON.contains(&name)
}

/// The server's and the client's library are a version of the header types apart.
fn outgoing(headers: &Incoming) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| passes(name.as_str())) {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            out.append(name, value);
        }
    }
    out
}

fn returned(answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponseBuilder::new(status);
    for (name, value) in answer.headers.iter().filter(|(name, _)| passes(name.as_str())) {
        if let Ok(name) = IncomingName::from_bytes(name.as_str().as_bytes()) {
            response.append_header((name, value.as_bytes()));
        }
    }
    response.body(answer.body)
}
