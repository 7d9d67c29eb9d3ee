//! Delivery formats: how one kind of receiver is spoken to.
//!
//! A format decides the body, the headers with their signature, what an answer means, and when to
//! try again. Everything here is a function of its arguments, so a body can be rendered inside a
//! transaction and a signature can be checked against vectors without a server.
//!
//! Must not know: the store, HTTP clients or servers, tasks, the clock, randomness. The time and a
//! random number are given by the caller. A vendor's format may live beside its face; it is
//! registered in [`registry::Formats`] at start.

pub mod ed25519;
pub mod examples;
pub mod hex;
pub mod json;
pub mod judgement;
pub mod oversize;
pub mod receiver_control;
pub mod registry;
pub mod retry_after;
pub mod schedule;
pub mod secret;
pub mod signature;
pub mod standard;

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

pub use ed25519::{Ed25519Key, Ed25519KeyError};
pub use judgement::{Judgement, Verdict};
pub use registry::{FormatError, Formats};
pub use schedule::Schedule;
pub use secret::{SecretError, SigningSecret};
pub use signature::{Signature, SigningKeys, UnknownSignature};
pub use standard::Standard;

/// The largest body any format may produce. Receivers behind common proxies refuse more.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// A request header: the names of a format are fixed, most values are made per attempt.
pub type Header = (&'static str, Cow<'static, str>);

/// One way of speaking to a receiver. Stateless; one value serves all deliveries.
pub trait DeliveryFormat: Send + Sync {
    /// The name it is registered and stored under. Never changes once a receiver row uses it.
    fn name(&self) -> &'static str;

    /// The request body, rendered once per event and sent unchanged on every try.
    ///
    /// At most [`MAX_BODY_BYTES`]; `public_url` is where links for what was cut off point to.
    fn body(&self, event: &EventView<'_>, public_url: &str) -> String;

    /// The headers of one try, signature included, made anew each time because they carry the
    /// time of the try. `keys` are the active ones, and `signature` says which of them the
    /// receiver wants used; `body` is what will be sent, byte for byte; `previous` is how the try
    /// before this one failed.
    fn headers(
        &self,
        attempt: &AttemptView<'_>,
        keys: &SigningKeys,
        signature: Signature,
        body: &str,
        previous: Option<&PreviousFailure<'_>>,
    ) -> Vec<Header>;

    /// What an answer means. Header names are compared without regard to case.
    fn judge(&self, status: u16, headers: &[(String, String)], now: DateTime<Utc>) -> Judgement;

    /// When tries happen, as long as neither the receiver nor the operator says otherwise.
    fn schedule(&self) -> &Schedule;
}

/// One event as a format sees it.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// The event's own id, the same for every receiver it goes to.
    pub id: Uuid,
    /// `job.succeeded`, `group.completed` and so on.
    pub event_type: &'a str,
    /// When it happened: RFC 3339, UTC, milliseconds, `Z`.
    pub timestamp: &'a str,
    /// Its number within its subject: 1, 2, 3 …
    pub sequence: i64,
    /// What it happened to, in the singular: `job`, `group`, `endpoint`, `file`.
    pub subject_type: &'a str,
    /// The public id of that subject; links are made from it.
    pub subject_id: Uuid,
    /// The subject as `GET` showed it at this event, already JSON. A format passes it on or picks
    /// members out of it, but never reads it into a tree.
    pub data: &'a RawValue,
}

impl EventView<'_> {
    /// Where the subject can be read, for whatever does not fit into a body.
    pub fn subject_url(&self, public_url: &str) -> String {
        let base = public_url.trim_end_matches('/');
        format!("{base}/v1/{}s/{}", self.subject_type, self.subject_id)
    }
}

/// One HTTP try as a format sees it.
#[derive(Debug, Clone, Copy)]
pub struct AttemptView<'a> {
    /// The delivery's id: the same over all tries, so that receivers can drop duplicates. It is
    /// part of the signed text, where `.` separates, so it must not contain one.
    pub webhook_id: &'a str,
    /// 1 for the first try.
    pub number: u32,
    /// When this try is signed, in Unix seconds; receivers refuse what is minutes off.
    pub timestamp_seconds: i64,
    /// For vendors that name the event in a header.
    pub event_type: &'a str,
    /// Why this comes outside the order of events: `redelivery`, `replay`, `ping`, `trigger`.
    /// `None` for an event's own delivery.
    pub redelivery: Option<&'a str>,
}

/// How the try before this one failed.
#[derive(Debug, Clone, Copy)]
pub struct PreviousFailure<'a> {
    /// A reason code of ours (`http_503`, `timeout`), never text from the network: it goes into a
    /// header.
    pub reason: &'a str,
}
