//! Receivers that do harm. Whatever they do, an attempt ends within its deadline, says in its record
//! what went wrong, frees the slot of its lane, and costs no more memory than the caps.
//!
//! | what the receiver does | the attempt's error code | test |
//! |---|---|---|
//! | never answers | `timeout` | `stalls::a_receiver_that_never_answers` |
//! | takes the connection, never a handshake | `timeout` | `stalls::a_receiver_that_never_shakes_hands` |
//! | a byte a second: status line, headers, chunk | `timeout` | `stalls::a_byte_a_second` |
//! | slow headers, then a slow body | `timeout` | `stalls::one_deadline_covers_the_whole_attempt` |
//! | endless headers, header, status line, interim answers | `protocol_error` | `floods::heads_that_never_end` |
//! | a header of 1 MB | `protocol_error` | `floods::a_header_of_a_megabyte` |
//! | endless body of a 2xx | none: received | `floods::a_2xx_whose_body_never_ends_is_received` |
//! | endless body of another status | `http_503` | `floods::a_failure_whose_body_never_ends_is_that_failure` |
//! | gzip bomb | none: received, never inflated | `floods::a_gzip_bomb_stays_as_small_as_it_came` |
//! | all floods at once | | `floods::a_server_under_flood_stays_within_its_caps` |
//! | closes at once | `connection_closed` | `breaks::a_receiver_that_closes_at_once` |
//! | closes before or within its headers | `connection_closed` | `breaks::a_receiver_that_closes_before_it_has_answered` |
//! | closes mid-body of a 2xx | `body_closed` | `breaks::a_2xx_whose_body_breaks_off_is_not_received` |
//! | resets, before and after its headers | `connection_closed`, `body_closed` | `breaks::a_receiver_that_resets` |
//! | junk instead of HTTP | `protocol_error` | `breaks::junk_instead_of_http` |
//! | wrong TLS name | `tls_failed` | `pretenders::a_certificate_for_another_name` |
//! | expired certificate | `tls_failed` | `pretenders::a_certificate_whose_time_is_over` |
//! | unknown issuer, no TLS at all | `tls_failed` | `pretenders::a_receiver_that_proves_nothing` |
//! | redirect to a metadata address | `http_302` | `pretenders::a_redirect_is_not_followed` |
//! | DNS changes between checks | `address_forbidden`, `address_private` | `pretenders::a_name_that_moves_after_it_was_vetted` |
//! | DNS changes within an attempt | | `pretenders::an_attempt_asks_dns_once` |
//! | sends secrets back | | `what_a_receiver_sends_back_is_stored_without_secrets` |
//!
//! A 2xx counts once its body was read to its end or to the cap. One that breaks off or is too slow
//! is tried again: half an answer may be a proxy's, and a second delivery does less harm than none.

mod breaks;
mod floods;
mod pretenders;
mod stalls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringback::delivery::Settings;
use ringback::egress::{Client, Policy, ScriptedResolver};
use ringback::engine::{AttemptView, DeliveryView};
use serde_json::Value;
use tokio_rustls::rustls::RootCertStore;

use super::World;
use crate::support::database::{Database, on_both};
use crate::support::node::callback;
use crate::support::receiver::Reply as ProperReply;
use crate::support::rude::{LocalDialer, Receiver, Reply, ok};

const HOST: &str = "hooks.example.test";
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));

/// How much later than its deadline an attempt may end, on a machine with much else to do. Those
/// that the deadline does not end do not end at all.
const SLACK: Duration = Duration::from_secs(15);

/// A deadline that only a defect meets.
const RELAXED: Duration = Duration::from_secs(20);

/// What a flood may get rid of: mostly the system's buffers of both sockets, which the client does
/// not choose. A client that went on reading would take gigabytes.
const MOST_POURED: u64 = 16 * 1024 * 1024;

/// A node whose deliveries all go to one lane with a single slot.
struct Stage {
    world: World,
    deadline: Duration,
}

/// How one attempt went.
struct Suffered {
    delivery: DeliveryView,
    attempt: AttemptView,
    timings: Value,
}

impl Stage {
    async fn set(database: &Database, deadline: Duration) -> Stage {
        Stage { world: World::start(database).await, deadline }
    }

    /// Delivers to a receiver that gives this as its first answer and is well-behaved afterwards.
    async fn suffer(&mut self, reply: Reply) -> Suffered {
        let script = move |number| if number == 0 { reply.clone() } else { ok() };
        let receiver = Receiver::start(script).await;
        let suffered = self.suffer_from(&receiver).await;
        assert!(receiver.requests().len() <= 2, "no hidden second try");
        suffered
    }

    /// The same with a receiver whose first request fails in its own way.
    async fn suffer_from(&mut self, receiver: &Receiver) -> Suffered {
        let dialer = self.lead_to(receiver, "http", RootCertStore::empty()).await;
        let suffered = self.attempt("http").await;
        // The lane has one slot, so it is free again when somebody else gets it. Where deadlines are
        // short, a busy machine may make that one late as well.
        let next = self.attempt("http").await;
        let late = self.deadline < RELAXED && next.attempt.error_code.as_deref() == Some("timeout");
        assert!(late || next.delivery.status == "delivered", "{:?}", next.attempt.error_detail);
        assert_eq!(suffered.attempt.address.as_deref(), Some("93.184.216.34:80"));
        assert!(dialer.dialled().iter().all(|address| *address == SocketAddr::new(PUBLIC, 80)));
        assert!(receiver.poured() < MOST_POURED, "{} bytes", receiver.poured());
        suffered
    }

    /// Sends to that receiver from now on, whatever the address.
    async fn lead_to(
        &mut self,
        receiver: &Receiver,
        scheme: &str,
        roots: RootCertStore,
    ) -> LocalDialer {
        assert!(["http", "https"].contains(&scheme));
        let resolver = Arc::new(ScriptedResolver::new().answer(HOST, &[PUBLIC]));
        let dialer = LocalDialer::new(receiver.address);
        let network = Arc::new(dialer.clone());
        let egress = Client::with_roots(Policy::default(), resolver, network, roots).expect("TLS");
        self.send_through(egress).await;
        dialer
    }

    async fn send_through(&mut self, egress: Client) {
        let settings = Settings { deadline: self.deadline, lane_cap: 1, ..Settings::default() };
        self.world.send_through(egress, settings).await;
    }

    /// One delivery and its first attempt.
    async fn attempt(&self, scheme: &str) -> Suffered {
        let job = self.world.done(callback(&format!("{scheme}://{HOST}/hook"))).await;
        self.world.node.send().await;
        let mut delivery = self.world.delivery_of(job.id).await;
        let mut log = delivery.attempt_log.take().expect("the detail has attempts");
        assert_eq!((delivery.attempts, log.len()), (1, 1));
        let attempt = log.remove(0);
        let timings = attempt.timings.as_ref().expect("how far it came");
        let timings: Value = serde_json::from_str(timings.get()).expect("JSON");
        self.check(&attempt, &timings);
        Suffered { delivery, attempt, timings }
    }

    /// What holds for every attempt.
    fn check(&self, attempt: &AttemptView, timings: &Value) {
        let longest = (self.deadline + SLACK).as_secs_f64() * 1_000.0;
        let took = timings["totalMs"].as_f64().expect("a number");
        assert!(took < longest, "{took} ms");
        assert!(attempt.duration_ms.expect("a duration") < longest as i64);
        let stored = attempt.response_body.as_ref().map_or(0, |body| body.chars().count());
        assert!(stored <= 4_096, "{stored} characters of body");
        let stored = attempt.response_headers.as_ref().map_or(0, |headers| headers.get().len());
        assert!(stored <= 16_384, "{stored} bytes of headers");
    }
}

impl Suffered {
    /// It failed in this way and is tried again later.
    #[track_caller]
    fn failed_as(&self, code: &str) {
        assert_eq!(
            self.attempt.error_code.as_deref(),
            Some(code),
            "{:?}",
            self.attempt.error_detail
        );
        assert_eq!((self.delivery.status, self.attempt.outcome.as_str()), ("pending", "failed"));
    }

    /// The steps that were completed.
    fn completed(&self) -> Vec<&str> {
        let steps = ["dnsMs", "connectMs", "tlsMs", "firstByteMs"];
        steps.into_iter().filter(|step| self.timings[*step].is_number()).collect()
    }
}

on_both!(async what_a_receiver_sends_back_is_stored_without_secrets);
async fn what_a_receiver_sends_back_is_stored_without_secrets(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on_with("/hook", |request| {
        let all: Vec<String> = ["authorization", "x-api-key", "x-longer"]
            .map(|name| request.header(name).unwrap().to_owned())
            .into();
        let token = all[0].trim_start_matches("Bearer ").to_owned();
        let query = request.path.split_once('?').unwrap().1;
        let body = format!("a\0b {} {token} {query} hunter-2-query", all.join(" "));
        ProperReply::status(500).header("x-echo", &all.join(" ")).body(body)
    });
    let mut hook = callback(&world.receiver.url("/hook?token=hunter-2-query&n=1"));
    hook.shown_url = world.receiver.url("/hook?token=***&n=1");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    hook.headers = vec![
        header("authorization", "Bearer hunter-2-bearer"),
        header("x-api-key", "hunter-2"),
        header("x-longer", "hunter-2-longer"),
    ];
    let job = world.done(hook).await;
    world.node.send().await;
    assert_eq!(world.receiver.log()[0].header("x-api-key"), Some("hunter-2"), "it was sent");

    let delivery = world.delivery_of(job.id).await;
    let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
    let body = attempt.response_body.as_deref().unwrap();
    assert!(body.starts_with("a\u{fffd}b ***"), "{body}");
    let shown = serde_json::to_string(&delivery).unwrap();
    for secret in ["hunter", "bearer", "***-longer", "-query"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}
