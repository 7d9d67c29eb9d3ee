//! One request and its answer: the values that go in and out, and the order of the steps.
//!
//! Must not judge texts or addresses itself, and must not follow what an answer says: a redirect
//! is an answer like any other, and so is an encoded body.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::connection::{Connection, Opener};
use super::error::{Phase, SendError};
use super::headers::{check_header, is_framing};
use super::policy::Policy;
use super::pool::Pool;
use super::refusal::Refusal;
use super::stream::TooMuchSaid;
use super::target::Target;
use super::trace::{Progress, Trace};

/// What is to be sent. Not `Debug`: its URL and headers hold secrets.
#[derive(Clone)]
pub struct Outgoing {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// For everything together: DNS, connecting, TLS, headers and body.
    pub deadline: Duration,
    /// How much of the response body `send` keeps; `open` leaves that to its caller.
    pub body_cap: usize,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// As it came: never decoded.
    pub body: Bytes,
    /// The body was longer than the cap.
    pub truncated: bool,
}

/// What came of a request: an answer or a failure, and in both cases how it went.
#[derive(Debug)]
pub struct Sent {
    pub result: Result<Answer, SendError>,
    /// What had come of an answer that was not completed.
    pub begun: Option<Answer>,
    pub trace: Trace,
}

/// A request in HTTP's own terms, complete but for the address.
pub(super) struct Prepared {
    pub target: Target,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Prepared {
    pub fn new(target: Target, outgoing: Outgoing) -> Result<Self, Refusal> {
        let Outgoing { method, headers: given, body, .. } = outgoing;
        let mut headers = HeaderMap::with_capacity(given.len() + 3);
        headers.insert(HOST, target.host_header.clone());
        for (name, value) in given {
            check_header(&name, &value)?;
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_maybe_shared(Bytes::from(value));
            let (Ok(parsed), Ok(value)) = (parsed, value) else {
                return Err(Refusal::HeaderInvalid { name, reason: "HTTP cannot carry it" });
            };
            if is_framing(parsed.as_str()) {
                return Err(Refusal::HeaderNotAllowed { name });
            }
            headers.append(parsed, value);
        }
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_static(DEFAULT_USER_AGENT));
        }
        // Otherwise an empty POST goes out without a length, which some receivers refuse with 411.
        if body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(Self { target, method, headers, body })
    }

    fn request(&self, headers: HeaderMap) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.path.clone());
        *request.headers_mut() = headers;
        request
    }
}

const DEFAULT_USER_AGENT: &str = concat!("ringback/", env!("CARGO_PKG_VERSION"));

/// A response whose body is still to be read, with the connection it comes on.
pub(super) struct Begun {
    pub response: Response<Incoming>,
    pub connection: Connection,
}

/// Sends to one of the judged addresses: on an idle connection if there is one, else on a new one.
pub(super) async fn begin(
    prepared: &mut Prepared,
    judged: &[SocketAddr],
    policy: &Policy,
    opener: &Opener,
    pool: &Arc<Pool>,
    progress: &mut Progress,
) -> Result<Begun, SendError> {
    if let Some(mut connection) = pool.take(&prepared.target, judged, Instant::now()) {
        let trace = &mut progress.trace;
        trace.reused = true;
        (trace.address, trace.tls_version) = (Some(connection.address), connection.tls_version);
        progress.enter(Phase::Response);
        match connection.send(prepared.request(prepared.headers.clone())).await {
            Ok(response) => {
                progress.complete();
                return Ok(Begun { response, connection });
            }
            // The receiver had closed it while it was idle. What was not written goes out on a
            // connection that cannot have grown old; what was written may have been acted on.
            Err(failure) if failure.unsent => progress.trace.reused = false,
            Err(failure) => return Err(unanswered(&prepared.target, &failure.error)),
        }
    }
    let mut connection = opener.open(&prepared.target, judged, policy, pool, progress).await?;
    progress.enter(Phase::Response);
    let headers = std::mem::take(&mut prepared.headers);
    let response = connection
        .send(prepared.request(headers))
        .await
        .map_err(|failure| unanswered(&prepared.target, &failure.error))?;
    progress.complete();
    Ok(Begun { response, connection })
}

/// What has come of an answer. Outlives its reading, which may fail or be out of time.
#[derive(Default)]
pub(super) struct Partial {
    status: u16,
    headers: Vec<(String, String)>,
    body: BytesMut,
}

impl Partial {
    /// The answer as far as it came.
    pub fn end(self, truncated: bool) -> Answer {
        let Partial { status, headers, body } = self;
        Answer { status, headers, body: body.freeze(), truncated }
    }
}

/// Reads the body up to `cap` bytes and gives the connection back if all of it was read. `partial`
/// holds what has come while it is read.
pub(super) async fn finish(
    begun: Begun,
    target: &Target,
    cap: usize,
    pool: &Pool,
    progress: &mut Progress,
    partial: &mut Option<Partial>,
) -> Result<Answer, SendError> {
    const FIRST_BUFFER: usize = 16 * 1024;
    progress.enter(Phase::Body);
    let Begun { response, connection } = begun;
    let keep = may_be_kept(&response);
    let (head, body) = response.into_parts();
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let partial = partial.insert(Partial {
        status: head.status.as_u16(),
        headers: texts(&head.headers),
        // Copied out of the connection's buffer, which would otherwise live as long as the answer.
        body: BytesMut::with_capacity(expected.min(cap).min(FIRST_BUFFER)),
    });
    let read = read(body, cap, &mut partial.body).await;
    let truncated = read.map_err(|error| broken_off(target, &error))?;
    if keep && !truncated {
        pool.put(connection, Instant::now());
    }
    Ok(std::mem::take(partial).end(truncated))
}

/// Whether the body was longer than the cap.
async fn read(mut body: Incoming, cap: usize, kept: &mut BytesMut) -> hyper::Result<bool> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = cap - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A peer that says it will close, or that has left HTTP, gets no further request.
pub(super) fn may_be_kept(response: &Response<Incoming>) -> bool {
    let closing = response.headers().get_all(CONNECTION).iter().any(|value| {
        let tokens = value.to_str().unwrap_or("close").split(',');
        tokens.map(str::trim).any(|token| token.eq_ignore_ascii_case("close"))
    });
    response.version() == Version::HTTP_11
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
        && !closing
}

pub(super) fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn unanswered(target: &Target, error: &hyper::Error) -> SendError {
    let (host, detail) = (target.host.to_string(), chain(error));
    if error.is_parse() || error.is_user() || said_too_much(error) {
        SendError::Protocol { host, detail }
    } else {
        SendError::Closed { host, detail }
    }
}

fn said_too_much(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<TooMuchSaid>())
}

pub(super) fn broken_off(target: &Target, error: &hyper::Error) -> SendError {
    SendError::BodyClosed { host: target.host.to_string(), detail: chain(error) }
}

/// hyper's own words say which part failed, the cause beneath says why.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
