//! How a request can fail, as values with stable names.
//!
//! Must not decide what to do about a failure beyond saying whether it may pass. Messages name
//! hosts and addresses only: they are stored with attempts and shown to callers.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::refusal::Refusal;

/// What a request was doing, for timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Dns,
    Connect,
    Tls,
    /// The request is being written or the response awaited.
    Response,
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "resolving the host",
            Self::Connect => "connecting",
            Self::Tls => "setting up TLS",
            Self::Response => "waiting for the response",
            Self::Body => "reading the response body",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("host {host} could not be resolved: {detail}")]
    Dns { host: String, detail: String },
    #[error("no connection to {address}: {source}")]
    Connect { address: SocketAddr, source: std::io::Error },
    #[error("no secure connection to {host}: {detail}")]
    Tls { host: String, detail: String },
    #[error("no complete answer within {} s: stopped while {phase}", deadline.as_secs_f64())]
    Timeout { phase: Phase, deadline: Duration },
    /// The receiver speaks, but not HTTP as we accept it: junk, too many or too large headers.
    #[error("{host} did not answer with valid HTTP: {detail}")]
    Protocol { host: String, detail: String },
    #[error("{host} closed the connection before it answered: {detail}")]
    Closed { host: String, detail: String },
    #[error("{host} broke off its response body: {detail}")]
    BodyClosed { host: String, detail: String },
}

impl SendError {
    /// The stable name of this failure; a refusal keeps its own.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Dns { .. } => "dns_failed",
            Self::Connect { .. } => "connect_failed",
            Self::Tls { .. } => "tls_failed",
            Self::Timeout { .. } => "timeout",
            Self::Protocol { .. } => "protocol_error",
            Self::Closed { .. } => "connection_closed",
            Self::BodyClosed { .. } => "body_closed",
        }
    }

    /// May the same request succeed later? Only a refusal says no: certificates get renewed, names
    /// come back, and a receiver that talks junk today is being deployed.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}
