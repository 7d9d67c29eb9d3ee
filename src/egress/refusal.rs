//! Why a URL, a host, an address, a port or a header is not acceptable, as a value.
//!
//! A refusal is final: the same input is refused next time. Messages name the offending value and
//! what would be accepted, but never user names, passwords, paths or query strings, because they
//! are shown to callers and written to logs.

use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the URL {reason}")]
    UrlInvalid { reason: String },
    #[error("scheme {scheme} is not allowed; use https or http")]
    SchemeNotAllowed { scheme: String },
    #[error("plain http is not allowed here; use https")]
    HttpsRequired,
    #[error("the URL carries a user name or password; send credentials in a header instead")]
    UserinfoNotAllowed,
    #[error("host {host} is not allowed: {reason}")]
    HostNotAllowed { host: String, reason: &'static str },
    #[error(
        "port {port} is not allowed; use 80, 443 or one from 1024 to 65535 that belongs to no \
         well-known service"
    )]
    PortNotAllowed { port: String },
    #[error("address {address} is never allowed ({reason}); use a public address")]
    AddressForbidden { address: IpAddr, reason: &'static str },
    #[error(
        "address {address} is not public ({reason}); use a public address, or have the operator \
         allow its network"
    )]
    AddressPrivate { address: IpAddr, reason: &'static str },
    #[error("{host}:{port} is this service itself; use another receiver")]
    OwnListener { host: String, port: u16 },
    #[error("header {name} may not be set by the caller")]
    HeaderNotAllowed { name: String },
    #[error("header {name} is invalid: {reason}")]
    HeaderInvalid { name: String, reason: &'static str },
}

impl Refusal {
    /// The stable name of this refusal, for API errors, attempts and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UrlInvalid { .. } => "url_invalid",
            Self::SchemeNotAllowed { .. } => "scheme_not_allowed",
            Self::HttpsRequired => "https_required",
            Self::UserinfoNotAllowed => "userinfo_not_allowed",
            Self::HostNotAllowed { .. } => "host_not_allowed",
            Self::PortNotAllowed { .. } => "port_not_allowed",
            Self::AddressForbidden { .. } => "address_forbidden",
            Self::AddressPrivate { .. } => "address_private",
            Self::OwnListener { .. } => "own_listener",
            Self::HeaderNotAllowed { .. } => "header_not_allowed",
            Self::HeaderInvalid { .. } => "header_invalid",
        }
    }
}
