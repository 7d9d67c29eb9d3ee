//! Receivers that do harm, and a network in which every address is one of them.
//!
//! They are the ones of the guarded client's own tests: raw bytes, real sockets, TLS. The receiver
//! beside this file is for what is proper HTTP.

use std::time::Duration;

use ringback::egress::Dial;

#[path = "../../../src/egress/tests/certificate.rs"]
pub mod certificate;
#[path = "../../../src/egress/tests/dialer.rs"]
mod dialer;
#[path = "../../../src/egress/tests/receiver.rs"]
mod receiver;

pub use dialer::LocalDialer;
pub use receiver::{Receiver, Reply, ok, response};

const PATIENCE: Duration = Duration::from_secs(60);
