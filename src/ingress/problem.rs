//! What an answer says when it is not the one that was hoped for: problems after RFC 9457.
//!
//! The codes are the whole vocabulary of failure of the native API. A program may rely on a code,
//! a person reads the detail. Must not know the engine, the store, or who asks; whoever has an
//! error of their own turns it into one of these.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One list, so that no code can lack a status, a title or a place in `ALL`.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal;)*) => {
        /// Every way a request can fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All codes, by status.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The word on the wire; never changes.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $word,)*
                }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Code::$name => StatusCode::$status,)*
                }
            }

            /// The same short text for every problem of this code.
            pub fn title(self) -> &'static str {
                match self {
                    $(Code::$name => $title,)*
                }
            }
        }
    };
}

codes! {
    /// A value is outside its bounds, or a parameter cannot be read.
    InvalidRequest = "invalid_request", BAD_REQUEST, "Invalid request";
    /// The body is not JSON.
    InvalidJson = "invalid_json", BAD_REQUEST, "Invalid JSON";
    /// A member or query parameter that this operation does not know.
    UnknownField = "unknown_field", BAD_REQUEST, "Unknown field";
    /// No job type has this name.
    UnknownJobType = "unknown_job_type", BAD_REQUEST, "Unknown job type";
    /// The job type does not take this specification, or not with these sources.
    InvalidSpecification = "invalid_specification", BAD_REQUEST, "Invalid specification";
    /// The token was not made by this list with these filters.
    PageTokenInvalid = "page_token_invalid", BAD_REQUEST, "Invalid page token";
    /// No API key, or none that we know.
    Unauthorized = "unauthorized", UNAUTHORIZED, "Unauthorized";
    /// The API key was valid once.
    KeyExpired = "key_expired", UNAUTHORIZED, "API key expired";
    /// The API key lacks a scope; the extension `scope` names it.
    ForbiddenScope = "forbidden_scope", FORBIDDEN, "Scope missing";
    /// The operator switched the application off.
    ApplicationDisabled = "application_disabled", FORBIDDEN, "Application disabled";
    /// Not there, or another application's.
    NotFound = "not_found", NOT_FOUND, "Not found";
    /// The path does not know the method; the header `Allow` names those that it knows.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// A final job cannot be stopped.
    JobFinal = "job_final", CONFLICT, "Job is final";
    /// A live job cannot be deleted.
    JobNotFinal = "job_not_final", CONFLICT, "Job is not final";
    /// Only a job that ended without success can be retried.
    JobNotRetryable = "job_not_retryable", CONFLICT, "Job cannot be retried";
    /// No job may join the group any more.
    GroupSealed = "group_sealed", CONFLICT, "Group sealed";
    /// A delivery that is still tried cannot be sent again.
    DeliveryLive = "delivery_live", CONFLICT, "Delivery is live";
    /// An application has as many endpoints as it may.
    EndpointLimit = "endpoint_limit", CONFLICT, "Too many endpoints";
    /// An endpoint has as many active secrets as it may.
    SecretLimit = "secret_limit", CONFLICT, "Too many secrets";
    /// Nothing would sign any more.
    LastSecret = "last_secret", CONFLICT, "Last secret";
    /// The endpoint is not signed for with a key pair.
    NoPublicKey = "no_public_key", CONFLICT, "No public key";
    /// There is nobody to send the delivery to any more.
    EndpointDeleted = "endpoint_deleted", CONFLICT, "Endpoint deleted";
    /// Only a delivery that holds up its endpoint can be skipped.
    NotBlocking = "not_blocking", CONFLICT, "Delivery holds up nothing";
    /// The first request with this key has not ended yet.
    IdempotencyInFlight = "idempotency_in_flight", CONFLICT, "Idempotency key in flight";
    /// What this key made has been purged since.
    IdempotencyGone = "idempotency_gone", GONE, "Idempotent result gone";
    /// The body is larger than allowed.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "Payload too large";
    /// The body is of a type that this operation does not read.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type";
    /// None of the bytes asked for is in the file.
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE, "Range not satisfiable";
    /// The key was used for another request.
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, "Idempotency key used before";
    /// The callback's address or headers may not be used; the extension `reason` says why.
    CallbackRefused = "callback_refused", UNPROCESSABLE_ENTITY, "Callback refused";
    /// The endpoint's address or headers may not be used; the extension `reason` says why.
    EndpointRefused = "endpoint_refused", UNPROCESSABLE_ENTITY, "Endpoint refused";
    /// An import's address or headers may not be used; the extension `reason` says why.
    SourceRefused = "source_refused", UNPROCESSABLE_ENTITY, "Source refused";
    /// The application's requests come too fast.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Rate limited";
    /// A fault of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// More is in flight than this server takes.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded";
    /// Shutting down, or without a database for the moment.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Unavailable";
}

impl Code {
    /// The URN that names this kind of problem.
    pub fn urn(self) -> String {
        format!("urn:ringback:problem:{}", self.as_str())
    }

    /// What callers read instead of the detail when the fault is on our side.
    fn fixed_detail(self) -> Option<&'static str> {
        match self {
            Code::Internal => Some("The service failed. The request id leads to the cause."),
            Code::Overloaded => {
                Some("The service has too much in flight. Nothing was changed; try again later.")
            }
            Code::Unavailable => Some(
                "The service cannot answer at the moment. Nothing was changed; try again later.",
            ),
            _ => None,
        }
    }

    /// Seconds to wait where waiting helps and nobody knows better.
    fn default_retry_after(self) -> Option<u64> {
        match self {
            Code::RateLimited | Code::Overloaded | Code::IdempotencyInFlight => Some(1),
            Code::Unavailable => Some(5),
            _ => None,
        }
    }
}

/// One problem. It is also what handlers return as their error.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Which kind.
    pub code: Code,
    /// What was wrong this time and what is allowed. Of a 5xx it goes to the log only.
    pub detail: String,
    /// `urn:ringback:request:<id>`, set by whoever knows the request.
    pub instance: Option<String>,
    /// Further members, by name.
    pub extensions: Vec<(&'static str, Value)>,
    /// Headers that belong to the answer, such as `Allow` or `Content-Range`.
    pub headers: Vec<(&'static str, String)>,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem with nothing but its code and what was wrong.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem {
            code,
            detail: detail.into(),
            instance: None,
            extensions: Vec::new(),
            headers: Vec::new(),
            retry_after: None,
        }
    }

    /// A thing that is not there, or is another application's: both read the same.
    pub fn not_found(kind: &str, id: impl fmt::Display) -> Problem {
        Problem::new(Code::NotFound, format!("{kind} {id} is not known"))
    }

    /// A fault of ours; `cause` is for the log.
    pub fn internal(cause: impl fmt::Display) -> Problem {
        Problem::new(Code::Internal, cause.to_string())
    }

    /// Names a place in the body, as a JSON Pointer such as `/callback/url`, that the detail is
    /// about.
    #[must_use]
    pub fn at_pointer(self, pointer: impl Into<String>) -> Problem {
        let error = json!({ "pointer": pointer.into(), "detail": self.detail });
        self.with_error(error)
    }

    /// Names a path, query or header parameter that the detail is about.
    #[must_use]
    pub fn at_parameter(self, name: impl Into<String>) -> Problem {
        let error = json!({ "parameter": name.into(), "detail": self.detail });
        self.with_error(error)
    }

    fn with_error(mut self, error: Value) -> Problem {
        let known = self.extensions.iter_mut().find(|(name, _)| *name == "errors");
        match known {
            Some((_, Value::Array(errors))) => errors.push(error),
            _ => self.extensions.push(("errors", Value::Array(vec![error]))),
        }
        self
    }

    /// Adds a member. The members of RFC 9457 and `code` are not to be replaced this way.
    #[must_use]
    pub fn with_extension(mut self, name: &'static str, value: impl Into<Value>) -> Problem {
        debug_assert!(!RESERVED.contains(&name), "`{name}` is a member of every problem");
        self.extensions.push((name, value.into()));
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Problem {
        self.headers.push((name, value.into()));
        self
    }

    /// Says when it is worth asking again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Problem {
        self.retry_after = Some(seconds);
        self
    }

    /// What the caller gets to read.
    pub fn shown_detail(&self) -> &str {
        self.code.fixed_detail().unwrap_or(&self.detail)
    }

    /// The answer that carries this problem.
    pub fn respond(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.code.status());
        answer.insert_header((CONTENT_TYPE, MEDIA_TYPE)).insert_header((CACHE_CONTROL, "no-store"));
        match self.code {
            Code::Unauthorized => {
                answer.insert_header((WWW_AUTHENTICATE, r#"Bearer realm="ringback""#));
            }
            Code::KeyExpired => {
                let challenge = r#"Bearer realm="ringback", error="invalid_token""#;
                answer.insert_header((WWW_AUTHENTICATE, challenge));
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after.or(self.code.default_retry_after()) {
            answer.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        for (name, value) in &self.headers {
            answer.insert_header((*name, value.as_str()));
        }
        // Text, numbers and JSON values always serialise.
        answer.body(serde_json::to_string(self).unwrap_or_default())
    }
}

const RESERVED: &[&str] = &["type", "title", "status", "detail", "code", "instance"];

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.code.urn())?;
        map.serialize_entry("title", self.code.title())?;
        map.serialize_entry("status", &self.code.status().as_u16())?;
        map.serialize_entry("detail", self.shown_detail())?;
        map.serialize_entry("code", self.code.as_str())?;
        if let Some(instance) = &self.instance {
            map.serialize_entry("instance", instance)?;
        }
        if self.code != Code::Internal {
            for (name, value) in &self.extensions {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

impl fmt::Display for Problem {
    /// With the detail as it was given: this is what logs show.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse {
        self.respond()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;

    use super::*;

    fn body(problem: &Problem) -> Value {
        let bytes = problem.respond().into_body().try_into_bytes().unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn header(problem: &Problem, name: &str) -> Option<String> {
        problem.respond().headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    /// Delete the file and run this test to have it written anew.
    #[test]
    fn the_fixture_lists_every_code() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join("problems.json");
        let lines: Vec<String> = Code::ALL
            .iter()
            .map(|code| {
                let (code, status, title) = (code.as_str(), code.status().as_u16(), code.title());
                format!(r#"  {{ "code": "{code}", "status": {status}, "title": "{title}" }}"#)
            })
            .collect();
        let expected = format!("[\n{}\n]\n", lines.join(",\n"));
        if !path.exists() {
            std::fs::write(&path, &expected).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        serde_json::from_str::<Value>(&expected).unwrap();
    }

    #[test]
    fn codes_are_distinct_words_in_the_order_of_their_status() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(Code::ALL.is_sorted_by_key(|code| code.status().as_u16()));
    }

    #[test]
    fn a_problem_shows_all_it_knows() {
        let mut problem = Problem::new(Code::UnknownField, "`a` is not known")
            .at_pointer("/a")
            .at_parameter("b")
            .with_extension("reason", "why");
        problem.instance = Some("urn:ringback:request:7".to_owned());
        assert_eq!(
            body(&problem),
            json!({
                "type": "urn:ringback:problem:unknown_field", "title": "Unknown field",
                "status": 400, "detail": "`a` is not known", "code": "unknown_field",
                "instance": "urn:ringback:request:7", "reason": "why",
                "errors": [
                    { "pointer": "/a", "detail": "`a` is not known" },
                    { "parameter": "b", "detail": "`a` is not known" }
                ]
            })
        );
        assert_eq!(header(&problem, "content-type").unwrap(), MEDIA_TYPE);
        assert_eq!(problem.to_string(), "unknown_field: `a` is not known");
    }

    #[test]
    fn nothing_internal_leaves_with_a_5xx() {
        for code in Code::ALL.iter().filter(|code| code.status().is_server_error()) {
            let problem = Problem::new(*code, "SELECT secret FROM /var/lib");
            assert!(!body(&problem).to_string().contains("SELECT"), "{code:?}");
            assert!(problem.to_string().contains("SELECT"));
        }
        let problem = Problem::internal("boom").with_extension("cause", "SELECT");
        assert!(!body(&problem).to_string().contains("SELECT"));
    }

    #[test]
    fn headers_that_a_status_needs() {
        let unauthorized = Problem::new(Code::Unauthorized, "no key");
        assert!(header(&unauthorized, "www-authenticate").unwrap().starts_with("Bearer"));
        let limited = Problem::new(Code::RateLimited, "slow down");
        assert_eq!(header(&limited, "retry-after").unwrap(), "1");
        assert_eq!(header(&limited.with_retry_after(9), "retry-after").unwrap(), "9");
        let range = Problem::new(Code::RangeNotSatisfiable, "the file has 3 bytes")
            .with_header("Content-Range", "bytes */3");
        assert_eq!(header(&range, "content-range").unwrap(), "bytes */3");
        // A value that no header can carry makes the answer fail, not the server.
        let bad = Problem::new(Code::NotFound, "x").with_header("Allow", "a\nb");
        assert_eq!(bad.respond().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn it_is_small_enough_to_be_an_error() {
        assert!(std::mem::size_of::<Problem>() < 128);
    }
}
