//! The module as a whole, against receivers on loopback. Nothing here leaves this machine: public
//! addresses are dialled by [`LocalDialer`], which connects to a local receiver in their place.

mod cases;
mod certificate;
mod dialer;
mod hostile;
mod receiver;
mod trace;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;

use self::dialer::LocalDialer;
use super::{Client, Dial, Download, Outgoing, Policy, ScriptedResolver, SendError};

/// Long enough that only a defect meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Too short for a receiver that stalls, and long enough to get as far as it.
const SHORT: Duration = Duration::from_secs(2);

/// Public addresses.
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 35));

fn post(url: impl Into<String>) -> Outgoing {
    Outgoing {
        method: Method::POST,
        url: url.into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from_static(b"{\"id\":1}"),
        deadline: PATIENCE,
        body_cap: 65536,
    }
}

fn loopback_policy() -> Policy {
    let allow = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
    Policy { allow: allow.to_vec(), ..Policy::default() }
}

/// A client that may call loopback, on real sockets.
fn local_client() -> Client {
    Client::new(loopback_policy(), Arc::new(ScriptedResolver::new()))
}

/// Clients are shared between threads, and what they give is carried from one to another.
#[test]
fn what_crosses_threads() {
    fn shared<T: Send + Sync>() {}
    fn carried<T: Send>() {}
    shared::<Client>();
    shared::<SendError>();
    carried::<Download>();
}
