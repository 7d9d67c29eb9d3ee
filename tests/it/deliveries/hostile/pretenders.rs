//! Receivers that are not who or where they say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringback::egress::{Client, Policy, ScriptedResolver};
use tokio_rustls::rustls::RootCertStore;

use super::{HOST, LocalDialer, PUBLIC, Stage, Suffered};
use crate::support::database::{Database, on_both};
use crate::support::rude::{Receiver, certificate, ok, response};

const DEADLINE: Duration = super::RELAXED;
const METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Two deliveries over TLS, one after the other because the lane has one slot.
async fn over_tls(database: &Database, receiver: &Receiver, roots: RootCertStore) -> [Suffered; 2] {
    let mut stage = Stage::set(database, DEADLINE).await;
    stage.lead_to(receiver, "https", roots).await;
    [stage.attempt("https").await, stage.attempt("https").await]
}

fn nothing_was_said(attempts: [Suffered; 2], receiver: &Receiver, reason: &str) {
    for suffered in attempts {
        suffered.failed_as("tls_failed");
        assert_eq!(suffered.completed(), ["dnsMs", "connectMs"]);
        assert_eq!(suffered.attempt.address.as_deref(), Some("93.184.216.34:443"));
        let detail = suffered.attempt.error_detail.expect("for people");
        assert!(detail.contains(reason), "{detail}");
    }
    assert_eq!(receiver.connections(), 2);
    assert!(receiver.requests().is_empty(), "no byte of a webhook");
}

on_both!(async a_receiver_that_proves_its_name);
async fn a_receiver_that_proves_its_name(database: Database) {
    let (acceptor, roots) = certificate::for_host(HOST);
    let receiver = Receiver::start_tls(acceptor, |_| ok()).await;
    for (suffered, reused) in over_tls(&database, &receiver, roots).await.iter().zip([false, true])
    {
        assert_eq!(suffered.delivery.status, "delivered");
        assert_eq!(suffered.timings["tlsVersion"], "TLSv1.3");
        assert_eq!(suffered.timings["reused"], reused);
        assert_eq!(suffered.completed().contains(&"tlsMs"), !reused);
    }
}

on_both!(async a_certificate_for_another_name);
async fn a_certificate_for_another_name(database: Database) {
    let (acceptor, roots) = certificate::for_host("other.example.test");
    let receiver = Receiver::start_tls(acceptor, |_| ok()).await;
    let attempts = over_tls(&database, &receiver, roots).await;
    nothing_was_said(attempts, &receiver, "not valid for name");
}

on_both!(async a_certificate_whose_time_is_over);
async fn a_certificate_whose_time_is_over(database: Database) {
    let (acceptor, roots) = certificate::expired(HOST);
    let receiver = Receiver::start_tls(acceptor, |_| ok()).await;
    let attempts = over_tls(&database, &receiver, roots).await;
    nothing_was_said(attempts, &receiver, "expired");
}

on_both!(async a_receiver_that_proves_nothing);
async fn a_receiver_that_proves_nothing(database: Database) {
    let (acceptor, _) = certificate::for_host(HOST);
    let (_, strangers) = certificate::for_host(HOST);
    let receiver = Receiver::start_tls(acceptor, |_| ok()).await;
    let attempts = over_tls(&database, &receiver, strangers.clone()).await;
    nothing_was_said(attempts, &receiver, "certificate");
}

on_both!(async a_redirect_is_not_followed);
async fn a_redirect_is_not_followed(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    for status in [301, 302, 303, 307, 308] {
        let status = format!("{status} Elsewhere");
        let headers = "location: http://169.254.169.254/latest/meta-data/\r\n";
        let reply = response(&status, headers, "");
        // Nothing but the receiver's own address is dialled.
        let suffered = stage.suffer(reply).await;
        suffered.failed_as(&format!("http_{}", &status[..3]));
        let headers = suffered.attempt.response_headers.expect("they are kept");
        assert!(headers.get().contains("169.254.169.254"), "{headers}");
    }
}

/// A name with these successive answers.
fn moving(answers: &[&[IpAddr]]) -> ScriptedResolver {
    answers.iter().fold(ScriptedResolver::new(), |script, answer| script.answer(HOST, answer))
}

on_both!(async a_name_that_moves_after_it_was_vetted);
async fn a_name_that_moves_after_it_was_vetted(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let receiver = Receiver::start(|_| ok()).await;
    for (moved, code) in [
        (&[METADATA][..], "address_forbidden"),
        (&[LOOPBACK], "address_private"),
        (&[PUBLIC, METADATA], "address_forbidden"),
    ] {
        let resolver = moving(&[&[PUBLIC], moved]);
        let dialer = LocalDialer::new(receiver.address);
        let network = Arc::new(dialer.clone());
        let egress = Client::with_dialer(Policy::default(), Arc::new(resolver.clone()), network);
        egress.vet(&format!("http://{HOST}/hook")).await.expect("public when it is registered");
        stage.send_through(egress).await;

        let suffered = stage.attempt("http").await;
        assert_eq!(suffered.delivery.status, "refused", "final at once");
        assert_eq!(suffered.delivery.reason.as_deref(), Some(code));
        assert_eq!(suffered.attempt.outcome, "refused");
        assert_eq!(suffered.attempt.error_code.as_deref(), Some(code));
        assert_eq!((suffered.attempt.address, suffered.timings["dnsMs"].is_number()), (None, true));
        assert!(dialer.dialled().is_empty());
        assert_eq!(resolver.lookups(), 2);
    }
    assert_eq!(receiver.connections(), 0);
}

on_both!(async an_attempt_asks_dns_once);
async fn an_attempt_asks_dns_once(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    // What was judged is what is dialled: a second look would already see the metadata service.
    let resolver = moving(&[&[PUBLIC], &[METADATA]]);
    let receiver = Receiver::start(|_| ok()).await;
    let dialer = LocalDialer::new(receiver.address);
    let network = Arc::new(dialer.clone());
    stage
        .send_through(Client::with_dialer(Policy::default(), Arc::new(resolver.clone()), network))
        .await;
    let suffered = stage.attempt("http").await;
    assert_eq!((suffered.delivery.status, resolver.lookups()), ("delivered", 1));
    // The kept connection to the public address is of no use to the next one.
    let suffered = stage.attempt("http").await;
    assert_eq!((suffered.delivery.status, resolver.lookups()), ("refused", 2));
    assert_eq!(dialer.dialled(), [SocketAddr::new(PUBLIC, 80)]);
    assert_eq!(receiver.requests().len(), 1);
}
