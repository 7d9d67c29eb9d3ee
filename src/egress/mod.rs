//! The one guarded way out: every request to an address that a user named goes through here.
//!
//! The string is checked before it is parsed, the parsed host is judged, every DNS answer is
//! judged again for every request, and only a judged address is connected to. Redirects are never
//! followed and no proxy is ever asked.
//!
//! This module must not know what is sent or why: no jobs, no deliveries, no store, no other module
//! of this crate, and no environment variables. Time is `tokio::time::Instant` only, for deadlines.
//!
//! The way of one request: [`target`] (the text) → [`policy`] (the address) → [`resolver`] →
//! `pool` or `connection` → `exchange`, all of it driven by [`client`].

pub mod address;
pub mod client;
mod connection;
mod download;
mod error;
mod exchange;
pub mod headers;
pub mod mask;
mod names;
pub mod policy;
mod pool;
mod ports;
mod refusal;
pub mod resolver;
mod stream;
pub mod target;
mod tls;
mod trace;

#[cfg(test)]
mod tests;

pub use client::{Client, Vetted};
pub use connection::{Dial, SystemDialer};
pub use download::Download;
pub use error::{Phase, SendError};
pub use exchange::{Answer, Outgoing, Sent};
pub use headers::{check_header, forbidden_header};
pub use hyper::Method;
pub use policy::Policy;
pub use refusal::Refusal;
pub use resolver::{Resolver, ScriptedResolver, SystemResolver};
pub use target::{Host, Scheme, Target};
pub use tls::Tls;
pub use trace::{Timings, Trace};
