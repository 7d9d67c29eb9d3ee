//! What is known of a request that failed: as much as it achieved.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::receiver::{Receiver, Reply, ok};
use super::{FIRST, LocalDialer, SECOND, SHORT, certificate, post};
use crate::egress::{Client, Phase, Policy, ScriptedResolver, SendError, Sent, Trace};

const HOST: &str = "a.example.test";

fn client(answers: &[IpAddr], dialer: LocalDialer) -> Client {
    let resolver = Arc::new(ScriptedResolver::new().answer(HOST, answers));
    let (_, roots) = certificate::for_host(HOST);
    Client::with_roots(Policy::default(), resolver, Arc::new(dialer), roots).expect("TLS")
}

async fn timed_out(client: &Client, scheme: &str) -> (Phase, Trace) {
    let mut outgoing = post(format!("{scheme}://{HOST}/"));
    outgoing.deadline = SHORT;
    let Sent { result, trace, .. } = client.send(outgoing).await;
    let Err(SendError::Timeout { phase, deadline }) = result else { panic!("{result:?}") };
    assert_eq!(deadline, SHORT);
    assert!(trace.timings.total >= SHORT);
    assert!(trace.timings.dns.is_some());
    assert_eq!(trace.resolved.first(), Some(&FIRST));
    (phase, trace)
}

/// Which of connecting, TLS and the response's headers were completed.
fn completed(trace: &Trace) -> [bool; 3] {
    let timings = &trace.timings;
    [timings.connect, timings.tls, timings.first_byte].map(|step| step.is_some())
}

#[tokio::test]
async fn a_timeout_shows_what_came_before_it() {
    let mute = Receiver::start_mute().await;
    let mut dialer = LocalDialer::new(mute.address);
    let (first, second) = (SocketAddr::new(FIRST, 80), SocketAddr::new(SECOND, 80));
    dialer.silent = vec![first, second];
    let (phase, trace) = timed_out(&client(&[FIRST, SECOND], dialer), "http").await;
    assert_eq!((phase, completed(&trace)), (Phase::Connect, [false; 3]));
    assert_eq!(trace.address, Some(second), "the one it was trying");

    let dialer = LocalDialer::new(mute.address);
    let (phase, trace) = timed_out(&client(&[FIRST], dialer.clone()), "https").await;
    assert_eq!((phase, completed(&trace)), (Phase::Tls, [true, false, false]));
    let (phase, trace) = timed_out(&client(&[FIRST], dialer), "http").await;
    assert_eq!((phase, completed(&trace)), (Phase::Response, [true, false, false]));
    assert_eq!(trace.address, Some(first));

    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let receiver = Receiver::start(move |_| Reply::Hold(half.clone())).await;
    let dialer = LocalDialer::new(receiver.address);
    let (phase, trace) = timed_out(&client(&[FIRST], dialer), "http").await;
    assert_eq!((phase, completed(&trace)), (Phase::Body, [true, false, true]));
}

#[tokio::test]
async fn a_refusal_shows_what_dns_said() {
    let receiver = Receiver::start(|_| ok()).await;
    let dialer = LocalDialer::new(receiver.address);
    let metadata = IpAddr::from([169, 254, 169, 254]);
    let sent = client(&[FIRST, metadata], dialer).send(post(format!("http://{HOST}/"))).await;
    assert_eq!(sent.result.expect_err("a metadata service").code(), "address_forbidden");
    assert_eq!(sent.trace.resolved, [FIRST, metadata]);
    assert_eq!((sent.trace.address, completed(&sent.trace)), (None, [false; 3]));
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn of_a_name_with_very_many_addresses_some_are_told() {
    let receiver = Receiver::start(|_| ok()).await;
    let answers: Vec<IpAddr> =
        (0..4_000u32).map(|n| (0x0800_0000 + n).to_be_bytes().into()).collect();
    let client = client(&answers, LocalDialer::new(receiver.address));
    let Sent { result, trace, .. } = client.send(post(format!("http://{HOST}/"))).await;
    result.expect("an answer");
    assert_eq!(trace.resolved, answers[..64]);
}

#[tokio::test]
async fn a_second_connection_asks_no_second_question() {
    // The first connection is not kept; a new one is made, to an address that was judged, although
    // DNS would by now say something else.
    let receiver = Receiver::start(|_| {
        Reply::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec())
    })
    .await;
    let resolver = ScriptedResolver::new()
        .answer(HOST, &[FIRST])
        .answer(HOST, &[FIRST])
        .answer(HOST, &[IpAddr::from([169, 254, 169, 254])]);
    let dialer = LocalDialer::new(receiver.address);
    let client = Client::with_dialer(
        Policy::default(),
        Arc::new(resolver.clone()),
        Arc::new(dialer.clone()),
    );
    for _ in 0..2 {
        let Sent { result, trace, .. } = client.send(post(format!("http://{HOST}/"))).await;
        result.expect("an answer");
        assert_eq!((trace.reused, trace.resolved), (false, vec![FIRST]));
    }
    assert_eq!((resolver.lookups(), receiver.connections()), (2, 2));
    assert_eq!(dialer.dialled(), [SocketAddr::new(FIRST, 80); 2]);
    let refused = client.send(post(format!("http://{HOST}/"))).await;
    assert_eq!(refused.result.expect_err("a metadata service").code(), "address_forbidden");
    assert_eq!(dialer.dialled().len(), 2);
}
