//! Connections, names and requests with receivers that behave.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_rustls::rustls::RootCertStore;

use super::receiver::{Receiver, Reply, ok, response};
use super::{FIRST, LocalDialer, SECOND, certificate, local_client, loopback_policy, post};
use crate::egress::pool::IDLE_LIFE;
use crate::egress::{
    Client, Phase, Policy, Resolver, ScriptedResolver, SendError, Sent, Timings, Trace,
};

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

#[tokio::test]
async fn a_request_as_the_receiver_sees_it() {
    let receiver = Receiver::start(|_| response("201 Created", "x-a: 1\r\n", "body")).await;
    let mut outgoing = post(receiver.url("/hook?key=1"));
    outgoing.headers.push(("webhook-id".into(), "msg_1".into()));
    let Sent { result, trace, .. } = local_client().send(outgoing).await;
    let answer = result.expect("an answer");

    assert_eq!((answer.status, &answer.body[..], answer.truncated), (201, &b"body"[..], false));
    assert!(answer.headers.contains(&("x-a".into(), "1".into())));
    assert_eq!((trace.address, trace.reused), (Some(receiver.address), false));
    assert!(trace.resolved.is_empty(), "nobody asked for an address's address");
    let timings = &trace.timings;
    assert_eq!((timings.dns, timings.tls, trace.tls_version), (None, None, None));
    let steps = timings.connect.expect("connected") + timings.first_byte.expect("answered");
    assert!(steps <= timings.total);

    let request = receiver.requests().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").expect("a whole request");
    assert_eq!(body, "{\"id\":1}");
    let mut lines: Vec<_> = head.lines().map(str::to_ascii_lowercase).collect();
    assert_eq!(lines.remove(0), "post /hook?key=1 http/1.1");
    lines.sort();
    let host = format!("host: {}", receiver.address);
    let agent = format!("user-agent: ringback/{}", env!("CARGO_PKG_VERSION"));
    let expected: [&str; 5] =
        ["content-length: 8", "content-type: application/json", &host, &agent, "webhook-id: msg_1"];
    assert_eq!(lines, expected, "and nothing else, Accept-Encoding least of all");
}

#[tokio::test]
async fn an_empty_post_has_a_length() {
    let receiver = Receiver::start(|_| ok()).await;
    let mut outgoing = post(receiver.url("/"));
    outgoing.body = Bytes::new();
    local_client().send(outgoing).await.result.expect("an answer");
    assert!(receiver.requests()[0].contains("content-length: 0\r\n"));
}

#[tokio::test]
async fn headers_of_the_client_are_not_for_callers() {
    let receiver = Receiver::start(|_| ok()).await;
    for (name, value) in
        [("Host", "a"), ("content-length", "1"), ("TE", "trailers"), ("Proxy-X", "1"), ("a", "\n")]
    {
        let mut outgoing = post(receiver.url("/"));
        outgoing.headers.push((name.into(), value.into()));
        let error = local_client().send(outgoing).await.result.expect_err(name);
        assert!(error.code().starts_with("header_"), "{error:?}");
        assert!(!error.is_transient());
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn connections_are_reused_and_close_after_their_idle_life() {
    let receiver = Receiver::start(|_| ok()).await;
    let client = local_client();
    for number in 0..3 {
        let Sent { result, trace, .. } = client.send(post(receiver.url("/"))).await;
        result.expect("an answer");
        let reused = number > 0;
        assert_eq!((trace.reused, trace.timings.connect.is_none()), (reused, reused));
        assert_eq!(trace.address, Some(receiver.address));
    }
    assert_eq!((receiver.connections(), client.pool().len()), (1, 1));
    let now = Instant::now();
    client.pool().sweep(now + IDLE_LIFE / 2);
    assert_eq!(client.pool().len(), 1);
    client.pool().sweep(now + IDLE_LIFE * 2);
    assert_eq!(client.pool().len(), 0);
    receiver.connection_ended().await;
}

#[tokio::test]
async fn a_connection_that_its_server_may_just_be_closing_is_not_used() {
    let receiver = Receiver::start(|_| ok()).await;
    let client = local_client();
    let target = client.check_url(&receiver.url("/")).expect("a target");
    let begun = Instant::now();
    client.send(post(receiver.url("/"))).await.result.expect("an answer");
    let idle = client.pool().take(&target, &[receiver.address], begun).expect("it was kept");
    // Node and Apache end a connection that has been idle for 5 s.
    client.pool().put(idle, Instant::now() - Duration::from_secs(5));
    let Sent { result, trace, .. } = client.send(post(receiver.url("/"))).await;
    result.expect("an answer");
    assert_eq!((trace.reused, receiver.connections()), (false, 2));
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own() {
    let receiver = Receiver::start(|_| ok()).await;
    let client = local_client();
    let clone = client.clone();
    let both =
        tokio::join!(client.send(post(receiver.url("/"))), clone.send(post(receiver.url("/"))));
    assert!(both.0.result.is_ok() && both.1.result.is_ok());
    assert_eq!((receiver.connections(), client.pool().len()), (2, 2));
}

#[tokio::test]
async fn a_receiver_that_says_close_is_believed() {
    let receiver = Receiver::start(|_| response("200 OK", "connection: x, Close\r\n", "bye")).await;
    let client = local_client();
    client.send(post(receiver.url("/"))).await.result.expect("an answer");
    assert_eq!(client.pool().len(), 0);
    receiver.connection_ended().await;
}

#[tokio::test]
async fn a_pooled_connection_is_used_only_for_an_address_that_dns_still_gives() {
    let receiver = Receiver::start(|_| ok()).await;
    let resolver = ScriptedResolver::new()
        .answer("a.example.test", &[FIRST])
        .answer("a.example.test", &[SECOND])
        .answer("a.example.test", &[SECOND, FIRST])
        .answer("b.example.test", &[FIRST]);
    let dialer = LocalDialer::new(receiver.address);
    let client =
        Client::with_dialer(Policy::default(), Arc::new(resolver), Arc::new(dialer.clone()));
    for (host, address, reused) in [
        ("a", FIRST, false),
        ("a", SECOND, false),
        ("a", SECOND, true),
        ("b", FIRST, false), // the same address, but another host
        ("b", FIRST, true),
    ] {
        let url = format!("http://{host}.example.test/");
        let Sent { result, trace, .. } = client.send(post(url)).await;
        result.expect("an answer");
        assert_eq!((trace.address, trace.reused), (Some(at(address, 80)), reused), "{host}");
        assert!(trace.resolved.contains(&address) && trace.timings.dns.is_some());
    }
    assert_eq!(dialer.dialled(), [at(FIRST, 80), at(SECOND, 80), at(FIRST, 80)]);
}

#[tokio::test]
async fn a_dead_address_is_followed_by_the_next() {
    let receiver = Receiver::start(|_| ok()).await;
    let resolver = ScriptedResolver::new().answer("a.example.test", &[FIRST, FIRST, SECOND]);
    let mut dialer = LocalDialer::new(receiver.address);
    dialer.dead = vec![at(FIRST, 80)];
    let client = |dialer: &LocalDialer| {
        let (resolver, dialer) = (Arc::new(resolver.clone()), Arc::new(dialer.clone()));
        Client::with_dialer(Policy::default(), resolver, dialer)
    };
    let Sent { result, trace, .. } = client(&dialer).send(post("http://a.example.test/")).await;
    result.expect("an answer");
    assert_eq!(trace.address, Some(at(SECOND, 80)));
    assert_eq!(trace.resolved, [FIRST, FIRST, SECOND], "as DNS said it");
    assert_eq!(dialer.dialled(), [at(FIRST, 80), at(SECOND, 80)], "each address once");

    dialer.dead.push(at(SECOND, 80));
    let Sent { result, trace, .. } = client(&dialer).send(post("http://a.example.test/?key")).await;
    let error = result.expect_err("dead");
    assert_eq!(error.code(), "connect_failed");
    assert!(error.is_transient() && !error.to_string().contains("key"), "{error}");
    assert_eq!(trace.address, Some(at(SECOND, 80)), "the last one that was tried");
    assert!(trace.timings.dns.is_some() && trace.timings.connect.is_none());
}

#[tokio::test]
async fn localhost_needs_no_dns_where_loopback_is_allowed() {
    let receiver = Receiver::start(|_| ok()).await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let mut policy = loopback_policy();
    policy.allow.truncate(1);
    let resolver = ScriptedResolver::new();
    let client = Client::new(policy, Arc::new(resolver.clone()));
    let Sent { result, trace, .. } = client.send(post(url)).await;
    result.expect("an answer");
    assert_eq!(trace.address, Some(receiver.address));
    assert_eq!(trace.resolved, [receiver.address.ip()]);
    assert_eq!(resolver.lookups(), 0);
}

#[tokio::test]
async fn our_own_listener_is_refused_by_its_port() {
    let receiver = Receiver::start(|_| ok()).await;
    let mut policy = loopback_policy();
    policy.own = vec![("0.0.0.0".into(), receiver.address.port())];
    let client = Client::new(policy, Arc::new(ScriptedResolver::new()));
    let error = client.send(post(receiver.url("/"))).await.result.expect_err("our own");
    assert_eq!(error.code(), "own_listener");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn our_own_listener_is_recognised_once_connected() {
    let receiver = Receiver::start(|_| ok()).await;
    let port = receiver.address.port();
    // As if FIRST were another address of this machine, which no list names.
    let policy = Policy { own: vec![("::".into(), port)], ..Policy::default() };
    let resolver = ScriptedResolver::new().answer("a.example.test", &[FIRST]);
    let dialer = LocalDialer::new(receiver.address);
    let client = Client::with_dialer(policy, Arc::new(resolver), Arc::new(dialer));
    let url = format!("http://a.example.test:{port}/");
    let refused = client.send(post(url)).await.result.expect_err("our own");
    assert_eq!(refused.code(), "own_listener");
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn the_deadline_covers_dns() {
    struct Never;
    impl Resolver for Never {
        fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            Box::pin(std::future::pending())
        }
    }
    let client = Client::new(Policy::default(), Arc::new(Never));
    let mut outgoing = post("http://a.example.test/");
    outgoing.deadline = Duration::from_millis(20);
    let allowed = outgoing.deadline;
    let Sent { result, trace, .. } = client.send(outgoing).await;
    let error = result.expect_err("never");
    assert!(matches!(error, SendError::Timeout { phase: Phase::Dns, .. }), "{error:?}");
    assert!(trace.timings.total >= allowed);
    let timings = Timings { total: trace.timings.total, ..Timings::default() };
    assert_eq!(trace, Trace { timings, ..Trace::default() }, "nothing was achieved");
}

#[tokio::test]
async fn tls_is_checked_and_reused() {
    let (acceptor, roots) = certificate::for_host("a.example.test");
    let receiver = Receiver::start_tls(acceptor, |_| ok()).await;
    let client = |roots: RootCertStore| {
        let resolver = ScriptedResolver::new()
            .answer("a.example.test", &[FIRST])
            .answer("b.example.test", &[FIRST]);
        let dialer = LocalDialer::new(receiver.address);
        Client::with_roots(Policy::default(), Arc::new(resolver), Arc::new(dialer), roots)
            .expect("a TLS configuration")
    };
    let trusting = client(roots);
    for reused in [false, true] {
        let Sent { result, trace, .. } = trusting.send(post("https://a.example.test/")).await;
        result.expect("an answer");
        assert_eq!((trace.tls_version, trace.reused), (Some("TLSv1.3"), reused));
        assert_eq!(trace.timings.tls.is_some(), !reused);
    }
    let (_, others) = certificate::for_host("a.example.test");
    for (client, url) in [
        (trusting, "https://b.example.test/"),
        (client(others), "https://a.example.test/"),
        (client(RootCertStore::empty()), "https://a.example.test/"),
    ] {
        let Sent { result, trace, .. } = client.send(post(url)).await;
        let error = result.expect_err(url);
        assert!(error.code() == "tls_failed" && error.is_transient(), "{error:?}");
        assert_eq!((trace.address, trace.tls_version), (Some(at(FIRST, 443)), None));
        assert!(trace.timings.connect.is_some() && trace.timings.tls.is_none());
    }
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_proves_nothing() {
    let (acceptor, roots) = certificate::expired("a.example.test");
    let receiver = Receiver::start_tls(acceptor, |_| ok()).await;
    let resolver = ScriptedResolver::new().answer("a.example.test", &[FIRST]);
    let dialer = LocalDialer::new(receiver.address);
    let client = Client::with_roots(Policy::default(), Arc::new(resolver), Arc::new(dialer), roots)
        .expect("a TLS configuration");
    let error = client.send(post("https://a.example.test/")).await.result.expect_err("expired");
    assert!(error.code() == "tls_failed" && error.to_string().contains("expired"), "{error}");
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn a_download_comes_in_pieces_and_gives_its_connection_back() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                    3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let receiver = Receiver::start(|number| match number {
        0 => Reply::Keep(chunked.to_vec()),
        _ => response("200 OK", "", "whole"),
    })
    .await;
    let client = local_client();
    for (length, expected) in [(None, "abcdef"), (Some(5), "whole")] {
        let mut download = client.open(post(receiver.url("/file"))).await.expect("headers");
        assert_eq!((download.status, download.content_length), (200, length));
        let mut body = Vec::new();
        while let Some(piece) = download.chunk().await.expect("a piece") {
            body.extend(piece);
        }
        assert_eq!(body, expected.as_bytes());
        assert!(download.chunk().await.expect("still the end").is_none());
    }
    assert_eq!(receiver.connections(), 1);
}
