//! Every row of `fixtures/ssrf-cases.jsonl` gets its verdict, with the same code at creation and at
//! sending, and the rows that talk to a receiver talk to one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::receiver::{Receiver, Reply, ok, response};
use super::{LocalDialer, PATIENCE, SHORT, certificate, post};
use crate::egress::{Client, Policy, ScriptedResolver, SendError, Sent, Target};

const ROWS: &str = include_str!("../../../fixtures/ssrf-cases.jsonl");

struct Row(Value);

impl Row {
    fn all() -> Vec<Self> {
        let parse = |line| Self(serde_json::from_str(line).expect("a JSON row"));
        ROWS.lines().filter(|line| !line.is_empty()).map(parse).collect()
    }

    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    fn is(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or(false)
    }

    fn policy(&self) -> Policy {
        let config = &self.0["config"];
        let networks = config["allow_cidrs"].as_array().into_iter().flatten();
        let own = self.is("own").then(|| ("self.example.test".to_owned(), 8080));
        Policy {
            allow: networks.map(|n| n.as_str().expect("text").parse().expect("CIDR")).collect(),
            https_only: config["https_only"].as_bool().unwrap_or(false),
            allow_nat64: config["allow_nat64"].as_bool().unwrap_or(false),
            own: own.into_iter().collect(),
        }
    }

    /// The answers of DNS, one list per lookup; `None` if the row has no name to resolve.
    fn answers(&self) -> Option<Vec<Vec<IpAddr>>> {
        let addresses = |list: &Value| {
            let list = list.as_array().expect("a list").iter();
            list.map(|a| a.as_str().expect("text").parse().expect("an address")).collect()
        };
        match (&self.0["dns"], &self.0["dns_sequence"]) {
            (Value::Null, Value::Null) => None,
            (Value::Null, sequence) => {
                Some(sequence.as_array().expect("a list").iter().map(addresses).collect())
            }
            (dns, _) => Some(vec![addresses(dns)]),
        }
    }

    /// The host as a parser sees it, for the script and the certificate; the verdict is not asked.
    fn host(&self) -> String {
        let host = url::Url::parse(self.text("url")).ok();
        host.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// What the receiver does, from the row's own words.
    fn reply(&self) -> Reply {
        let head = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
        if let Some(redirect) = self.0["redirect"].as_object() {
            let location = redirect["location"].as_str().expect("a location");
            let status = format!("{} Elsewhere", redirect["status"]);
            return response(&status, &format!("location: {location}\r\n"), "");
        }
        if let Some(headers) = self.0["response_headers"].as_object() {
            let line = |(name, value): (&String, &Value)| {
                format!("{name}: {}\r\n", value.as_str().expect("text"))
            };
            let headers: String = headers.iter().map(line).collect();
            return response("200 OK", &headers, "<meta http-equiv=refresh content=0>");
        }
        match self.host().split('.').next() {
            Some("slowbody") => {
                Reply::Drip(head("content-length: 100000\r\n"), Duration::from_millis(5))
            }
            Some("hugebody") => {
                Reply::Endless(head("content-length: 10000000000\r\n"), vec![b'x'; 8192])
            }
            // Raw bytes that nobody may inflate; a gigabyte of them would be no different.
            Some("gzipbomb") => Reply::Endless(head("content-encoding: gzip\r\n"), vec![0; 8192]),
            Some("hugeheaders") => {
                let line = format!("x-fill: {}\r\n", "y".repeat(8000));
                Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), line.into_bytes())
            }
            _ => ok(),
        }
    }
}

/// One row's world: its policy, its DNS, and a receiver in the place of every address.
struct Stage {
    client: Client,
    resolver: ScriptedResolver,
    dialer: LocalDialer,
    receiver: Receiver,
}

impl Stage {
    async fn set(row: &Row) -> Self {
        let host = row.host();
        let mut resolver = ScriptedResolver::new();
        for answer in row.answers().into_iter().flatten() {
            resolver = resolver.answer(&host, &answer);
        }
        let reply = row.reply();
        let script = move |_| reply.clone();
        let (receiver, roots) = if row.text("url").starts_with("https:") {
            let (acceptor, roots) = certificate::for_host(&host);
            (Receiver::start_tls(acceptor, script).await, roots)
        } else {
            (Receiver::start(script).await, tokio_rustls::rustls::RootCertStore::empty())
        };
        let dialer = LocalDialer::new(receiver.address);
        let client = Client::with_roots(
            row.policy(),
            Arc::new(resolver.clone()),
            Arc::new(dialer.clone()),
            roots,
        )
        .expect("a TLS configuration");
        Self { client, resolver, dialer, receiver }
    }

    async fn send(&self, row: &Row) -> Sent {
        let mut outgoing = post(row.text("url"));
        if row.is("assert_deadline") {
            outgoing.deadline = SHORT;
        }
        if let Some(cap) = row.0["assert_max_read_bytes"].as_u64() {
            outgoing.body_cap = cap as usize;
        }
        self.client.send(outgoing).await
    }
}

#[tokio::test]
async fn every_row_gets_its_verdict() {
    let rows = Row::all();
    assert_eq!(rows.len(), 118);
    for row in rows {
        let id = row.text("id").to_owned();
        match row.text("expect") {
            "reject" if row.text("phase") == "retry" => rejected_at_the_last_try(&id, &row).await,
            "reject" => rejected(&id, &row).await,
            "retry" => fails_for_now(&id, &row).await,
            "allow" | "fail_no_follow" => sent_once(&id, &row).await,
            other => panic!("{id}: no test for {other}"),
        }
    }
}

async fn rejected(id: &str, row: &Row) {
    let stage = Stage::set(row).await;
    let url = row.text("url");
    let created = stage.client.vet(url).await.map(|vetted| vetted.target.url);
    if row.is("static_reject") || row.answers().is_none() {
        assert!(stage.client.check_url(url).is_err(), "{id}: refused before DNS");
        assert_eq!(stage.resolver.lookups(), 0, "{id}");
    }
    let sent = stage.send(row).await.result.map(|answer| answer.status);
    let (Err(SendError::Refused(created)), Err(SendError::Refused(sent))) = (&created, &sent)
    else {
        panic!("{id}: created {created:?}, sent {sent:?}");
    };
    assert_eq!(created, sent, "{id}: one verdict at creation and at sending");
    assert!(stage.dialer.dialled().is_empty(), "{id}: nothing was dialled");
    if !row.text("ip").is_empty() && !url.contains('%') {
        assert!(created.to_string().contains(row.text("ip")), "{id}: {created}");
    }
    if row.is("own") {
        assert_eq!(created.code(), "own_listener", "{id}");
    }
}

async fn rejected_at_the_last_try(id: &str, row: &Row) {
    let stage = Stage::set(row).await;
    let tries = row.answers().expect("a sequence").len();
    for number in 1..tries {
        let Sent { result, trace, .. } = stage.send(row).await;
        let answer = result.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!((answer.status, trace.reused), (200, number > 1), "{id}");
    }
    let Sent { result, trace, .. } = stage.send(row).await;
    let last = result.map(|answer| answer.status);
    assert!(matches!(last, Err(SendError::Refused(_))), "{id}: {last:?}");
    assert_eq!(trace.resolved, row.answers().expect("a sequence")[tries - 1], "{id}");
    assert_eq!(trace.address, None, "{id}: not even tried");
    assert_eq!(stage.resolver.lookups(), tries, "{id}: every try asks DNS");
    assert_eq!(stage.receiver.requests().len(), tries - 1, "{id}");
}

async fn fails_for_now(id: &str, row: &Row) {
    let stage = Stage::set(row).await;
    let created = stage.client.vet(row.text("url")).await.map(|vetted| vetted.target.url);
    assert!(matches!(created, Err(SendError::Dns { .. })), "{id}: {created:?}");
    let error = stage.send(row).await.result.expect_err(id);
    assert!(error.is_transient() && error.code() == "dns_failed", "{id}: {error:?}");
}

async fn sent_once(id: &str, row: &Row) {
    let stage = Stage::set(row).await;
    let vetted = stage.client.vet(row.text("url")).await;
    let vetted = vetted.unwrap_or_else(|error| panic!("{id}: {error}"));
    assert!(vetted.target.url.is_ascii(), "{id}: stored in punycode");
    assert_right_addresses(id, row, &vetted.target, &vetted.addresses);

    // A receiver that stalls goes on for minutes.
    let sent = tokio::time::timeout(PATIENCE, stage.send(row)).await;
    let Sent { result: sent, trace, .. } =
        sent.unwrap_or_else(|_| panic!("{id}: it has no deadline"));
    assert_eq!(stage.dialer.dialled(), vetted.addresses[..1], "{id}: one judged address dialled");
    assert_eq!(stage.receiver.requests().len(), 1, "{id}: one request");

    if row.is("assert_deadline") {
        let error = sent.map(|answer| answer.status).expect_err(id);
        assert_eq!(error.code(), "timeout", "{id}");
        assert!(trace.timings.total >= SHORT, "{id}: not before its deadline");
    } else if let Some(cap) = row.0["assert_max_read_bytes"].as_u64() {
        let answer = sent.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!((answer.body.len() as u64, answer.truncated), (cap, true), "{id}");
        stage.receiver.connection_ended().await;
    } else if row.host().starts_with("hugeheaders.") {
        assert_eq!(sent.map(|answer| answer.status).expect_err(id).code(), "protocol_error");
        stage.receiver.connection_ended().await;
    } else {
        let answer = sent.unwrap_or_else(|error| panic!("{id}: {error}"));
        let expected = row.0["redirect"]["status"].as_u64().unwrap_or(200);
        assert_eq!(u64::from(answer.status), expected, "{id}: the answer is passed on");
    }
    let count = row.0["assert_requests"].as_u64().unwrap_or(1);
    assert_eq!(stage.receiver.requests().len() as u64, count, "{id}");
}

fn assert_right_addresses(id: &str, row: &Row, target: &Target, addresses: &[SocketAddr]) {
    let expected = match row.answers() {
        Some(answers) => answers[0].clone(),
        None => vec![row.host().parse().expect("a literal host")],
    };
    let found: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    assert_eq!(found, expected, "{id}");
    assert!(addresses.iter().all(|address| address.port() == target.port), "{id}");
}

/// The rows with an environment, in a process that has it.
#[cfg(target_os = "linux")]
#[test]
fn a_proxy_in_the_environment_changes_nothing() {
    let rows = Row::all();
    let row = rows.iter().find(|row| row.0["env"].is_object()).expect("a row with env");
    let mut child = std::process::Command::new("/proc/self/exe");
    for (name, value) in row.0["env"].as_object().expect("an object") {
        child.env(name, value.as_str().expect("text"));
        child.env(name.to_lowercase(), value.as_str().expect("text"));
    }
    let (_, module) = module_path!().split_once("::").expect("inside a crate");
    let test = format!("{module}::inside_an_environment_with_a_proxy");
    let output = child.args([&test, "--exact"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Also run by the test above, in a process whose environment names a proxy.
#[tokio::test]
async fn inside_an_environment_with_a_proxy() {
    for row in Row::all() {
        if row.0["env"].is_object() {
            rejected(row.text("id"), &row).await;
        } else if row.text("category") == "control" && row.text("expect") == "allow" {
            sent_once(row.text("id"), &row).await;
        }
    }
}
