//! What we sign is believed by the official libraries of receivers, and nothing else is.

use std::time::Duration;

use ringback::clock::Clock;
use ringback::formats::standard::HEX_HEADER;
use ringback::formats::{
    AttemptView, DeliveryFormat, Ed25519Key, Signature, SigningKeys, SigningSecret, Standard,
};
use serde_json::json;

use crate::support::database::{Database, on_both};
use crate::support::process::{Application, Server};
use crate::support::receiver::Receiver;
use crate::support::sdk::{self, Case, check};

const PATIENCE: Duration = Duration::from_secs(60);
const BODY: &str = r#"{"id": "1", "note": "café \"❤\"\n", "cost": 1.50}"#;

fn secret(byte: u8) -> SigningSecret {
    SigningSecret::from_key(&[byte; 32]).unwrap()
}

fn key_pair(byte: u8) -> Ed25519Key {
    Ed25519Key::from_seed(&[byte; 32]).unwrap()
}

/// During a rotation: the new keys, and the old ones beside them.
fn rotating() -> SigningKeys {
    SigningKeys { secrets: vec![secret(1), secret(2)], ed25519: vec![key_pair(1), key_pair(2)] }
}

/// What a receiver that checks this signature holds of a key made from that byte.
fn held(signature: Signature, byte: u8) -> String {
    match signature {
        Signature::Ed25519 => key_pair(byte).public_text().to_owned(),
        Signature::Standard | Signature::Hex => secret(byte).text().to_owned(),
    }
}

/// Where a receiver that checks this signature finds it.
fn header_of(signature: Signature) -> &'static str {
    match signature {
        Signature::Hex => HEX_HEADER,
        Signature::Standard | Signature::Ed25519 => "webhook-signature",
    }
}

/// The headers of a webhook signed so many seconds ago; receivers compare with the real clock.
fn headers(
    keys: &SigningKeys,
    signature: Signature,
    body: &str,
    age: i64,
) -> Vec<(String, String)> {
    let attempt = AttemptView {
        webhook_id: "0192f0c1-2345-7890-abcd-ef0123456789",
        number: 1,
        timestamp_seconds: Clock::system().now().seconds() - age,
        event_type: "job.succeeded",
        redelivery: None,
    };
    Standard::default()
        .headers(&attempt, keys, signature, body, None)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect()
}

fn signed(name: &str, signature: Signature, byte: u8, body: &str, age: i64) -> Case {
    let headers = headers(&rotating(), signature, body, age);
    Case::new(name, signature, &held(signature, byte), headers, body)
}

/// Another character where the first signature begins.
fn flip_signature(value: &str) -> String {
    let marker = if value.starts_with("t=") { "v1=" } else { "," };
    let at = value.find(marker).expect("a signature") + marker.len();
    let other = if &value[at..=at] == "a" { "b" } else { "a" };
    [&value[..at], other, &value[at + 1..]].concat()
}

#[test]
fn the_official_libraries_believe_what_is_signed_and_nothing_else() {
    let mut cases = Vec::new();
    let large = json!({"payload": "é".repeat(100_000)}).to_string();
    for signature in Signature::ALL {
        let case = |name, byte, age| signed(name, signature, byte, BODY, age);
        cases.extend([
            case("the new key", 1, 0),
            case("the old key", 2, 0),
            case("a stranger's key", 3, 0).refused(),
            case("two minutes old", 1, 120),
            case("an hour old", 1, 3_600).refused(),
            signed("a large body", signature, 1, &large, 0),
            case("tampered", 1, 0).with_body(|body| body.replace("1.50", "1.51")),
            case("tampered", 1, 0).with_header(header_of(signature), flip_signature),
        ]);
        let from_the_future = case("an hour too early", 1, -3_600);
        if signature == Signature::Hex {
            // Stripe's libraries look at the past only.
            cases.push(from_the_future);
            let later = |value: &str| value.replacen("t=", "t=1", 1);
            cases.push(case("tampered", 1, 0).with_header(HEX_HEADER, later));
        } else {
            cases.push(from_the_future.refused());
            let earlier = |value: &str| (value.parse::<i64>().unwrap() - 1).to_string();
            let another = |value: &str| value.replace('0', "1");
            cases.push(case("tampered", 1, 0).with_header("webhook-timestamp", earlier));
            cases.push(case("tampered", 1, 0).with_header("webhook-id", another));
        }
    }
    check(&cases);
}

#[test]
fn a_receiver_of_the_standard_signature_believes_every_kind() {
    let cases = Signature::ALL.map(|sent| {
        let name = format!("sent as {}", sent.as_str());
        let headers = headers(&rotating(), sent, BODY, 0);
        Case::new(&name, Signature::Standard, secret(2).text(), headers, BODY)
    });
    check(&cases);
}

#[test]
fn a_revoked_key_is_believed_no_longer() {
    let rotated = SigningKeys { secrets: vec![secret(1)], ed25519: vec![key_pair(1)] };
    let cases = Signature::ALL.map(|signature| {
        let headers = headers(&rotated, signature, BODY, 0);
        Case::new("revoked", signature, &held(signature, 2), headers, BODY).refused()
    });
    check(&cases);
}

#[test]
fn a_disagreement_is_told_and_so_is_an_empty_list() {
    for signature in Signature::ALL {
        let wrong = [signed("right", signature, 1, BODY, 0).refused()];
        let forged = [signed("forged", signature, 3, BODY, 0)];
        for (cases, found) in [(wrong, "found ok"), (forged, "found refused")] {
            for verdicts in [sdk::python(&cases), sdk::node(&cases)] {
                let report = verdicts.failure().stdout;
                assert!(report.contains(" DISAGREES: ") && report.contains(found), "{report}");
            }
        }
    }
    sdk::python(&[]).failure();
    sdk::node(&[]).failure();
}

on_both!(the_official_libraries_believe_a_running_server);
fn the_official_libraries_believe_a_running_server(database: Database) {
    let receiver = Receiver::start();
    let server = Server::on(&database, &["--egress-allow", "127.0.0.0/8"]);
    let application = Application::create(&database, "receivers");
    let job = json!({
        "type": "urn:job:noop",
        "specification": {},
        "metadata": {"note": "café"},
        "callback": {"url": receiver.url("/hook"), "events": ["job.*"]},
    });
    server.client_of(&application).post("/v1/jobs", &job).expect(202);
    let log = receiver.wait_for(3, PATIENCE);
    let key = &application.signing_secret;
    let mut cases = Vec::new();
    for received in log {
        let name = format!("{} of a server", received.json()["type"]);
        let case = Case::received(&name, Signature::Standard, key, &received);
        cases.push(case.clone().with_body(|body| body.replace("job", "jab")));
        cases.push(case);
    }
    check(&cases);
}
