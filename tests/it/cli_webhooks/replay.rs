//! `ringback replay`: what it sends, and what its exit code tells.

use std::time::Duration;

use ringback::clock::Clock;

use super::listener::Listener;
use super::{Files, OTHER_SECRET, PRIVATE_KEY, PUBLIC_KEY, SECRET, body, replay};
use crate::support::machine;
use crate::support::process::ringback;
use crate::support::receiver::{Receiver, Reply};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_it_sends_verifies_with_the_official_library() {
    let files = Files::one();
    let receiver = Receiver::start();
    let both = ["--secret", SECRET, "--secret", OTHER_SECRET];
    replay(&files.file("one.json"), &receiver.url("/hook"), &both).success();
    let received = receiver.wait_for(1, PATIENCE).remove(0);
    for secret in [SECRET, OTHER_SECRET] {
        received.verify(secret).expect("each secret signs");
    }
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/hook"));
    assert_eq!(received.body, body("id-1", "job.succeeded").as_bytes(), "byte for byte");
    assert_eq!(received.webhook_id(), "id-1");
    assert_eq!(received.header("webhook-attempt"), Some("1"));
    assert_eq!(received.header("ringback-signature"), None);

    replay(files.text(), &receiver.url("/hook"), &["--signature", "hex"]).success();
    let hex = receiver.wait_for(2, PATIENCE).remove(1);
    hex.verify(SECRET).expect("the standard signature stands beside it");
    let time = hex.header("webhook-timestamp").expect("a time");
    let start = format!("t={time},v1=");
    assert!(hex.header("ringback-signature").is_some_and(|value| value.starts_with(&start)));

    // Of a key pair it says what the receiver needs; there is no other way to learn it.
    let pair = ["--signature", "ed25519", "--secret", PRIVATE_KEY];
    let said = replay(files.text(), &receiver.url("/hook"), &pair).success().stdout;
    assert!(said.contains(PUBLIC_KEY) && !said.contains("whsk_"), "{said}");
}

#[test]
fn each_tampering_of_each_signature_is_refused() {
    let files = Files::one();
    for (signing, key) in [
        (&["--signature", "standard"][..], SECRET),
        (&["--signature", "hex"], SECRET),
        (&["--signature", "ed25519", "--secret", PRIVATE_KEY], PUBLIC_KEY),
    ] {
        let mut listener = Listener::start(&["--secret", key]);
        for (count, part) in ["body", "signature", "timestamp"].iter().enumerate() {
            let options = [signing, &["--tamper", part]].concat();
            let said = replay(files.text(), listener.url(), &options).success().stdout;
            assert!(said.contains("-> 401 in ") && said.contains("refused"), "{said}");
            let told = &listener.told(count + 1)[count];
            let reason = told["refusal"].as_str().unwrap_or_default();
            assert!(reason.contains("does not match"), "{signing:?} {part}: {told}");
            assert!(told["body"].is_object(), "it is still JSON: {told}");
        }
    }
}

#[test]
fn a_receiver_that_does_not_check_is_found_out() {
    let files = Files::one();
    let receiver = Receiver::start();
    for (number, part) in ["body", "signature", "timestamp"].iter().enumerate() {
        let finished = replay(files.text(), &receiver.url("/"), &["--tamper", part]).failure();
        assert!(finished.stdout.contains("although it was tampered with"), "{}", finished.stdout);
        assert!(finished.stderr.contains("1 of 1 not refused"), "{}", finished.stderr);
        let received = receiver.wait_for(number + 1, PATIENCE).remove(number);
        received.verify(SECRET).expect_err("it was tampered with");
        let original = body("id-1", "job.succeeded");
        let changed = original.bytes().zip(&received.body).filter(|(a, b)| a != *b).count();
        assert_eq!(received.body.len(), original.len());
        assert_eq!(changed, usize::from(*part == "body"), "{part}");
    }
}

#[test]
fn no_answer_is_neither_received_nor_refused() {
    let files = Files::one();
    let nobody = format!("http://127.0.0.1:{}/", machine::free_port());
    let receiver = Receiver::start();
    receiver.otherwise([Reply::hang_up()]);
    for to in [nobody, receiver.url("/")] {
        for options in [&[][..], &["--tamper", "body"]] {
            let finished = replay(files.text(), &to, options).failure();
            assert!(finished.stdout.contains("-> no answer: "), "{}", finished.stdout);
        }
    }
}

#[test]
fn only_a_2xx_is_received_and_a_redirect_is_not_followed() {
    let files = Files::one();
    let receiver = Receiver::start();
    for (status, received) in [(200, true), (204, true), (299, true), (400, false), (503, false)] {
        receiver.on("/hook", [Reply::status(status)]);
        let finished = replay(files.text(), &receiver.url("/hook"), &[]);
        assert_eq!(finished.status.code(), Some(i32::from(!received)), "{status}");
        assert!(finished.stdout.contains(&format!("-> {status} in ")), "{}", finished.stdout);
    }
    let count = receiver.count();
    receiver.on("/hook", [Reply::status(308).header("location", &receiver.url("/else"))]);
    replay(files.text(), &receiver.url("/hook"), &[]).failure();
    assert_eq!(receiver.count(), count + 1);
}

#[test]
fn a_folder_is_sent_in_the_order_of_names_and_one_failure_counts() {
    let files = Files::new(&[
        ("b.json", &body("id-b", "job.failed")),
        ("a.json", &body("id-a", "job.created")),
        ("c.json", r#"{"id": "has.dot", "type": "\u001b[2J"}"#),
        ("notes.txt", "not sent"),
    ]);
    let receiver = Receiver::start();
    receiver.on("/hook", [Reply::ok(), Reply::status(500), Reply::ok()]);
    let finished = replay(files.text(), &receiver.url("/hook"), &[]).failure();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, (name, rest)) in lines.iter().zip([
        ("a.json  job.created", "-> 200 in "),
        ("b.json  job.failed", "-> 500 in "),
        (r"c.json  \u{1b}[2J  ", "-> 200 in "),
    ]) {
        assert!(line.contains(name) && line.contains(rest), "{line}");
    }
    assert!(finished.stderr.contains("1 of 3 not received"), "{}", finished.stderr);
    let received = receiver.wait_for(3, PATIENCE);
    assert_eq!((received[0].webhook_id(), received[1].webhook_id()), ("id-a", "id-b"));
    let fresh = received[2].webhook_id();
    assert!(ringback::ids::parse_id(fresh).is_some(), "a dot would confuse: {fresh}");
}

#[test]
fn the_time_can_be_chosen() {
    let files = Files::one();
    let receiver = Receiver::start();
    for (number, at) in ["1700000000", "2023-11-14T22:13:20Z"].iter().enumerate() {
        replay(files.text(), &receiver.url("/"), &["--at", at]).success();
        let received = receiver.wait_for(number + 1, PATIENCE).remove(number);
        assert_eq!(received.header("webhook-timestamp"), Some("1700000000"));
    }
    let mut listener = Listener::start(&["--secret", SECRET]);
    let hour_ago = (Clock::system().now().seconds() - 3_600).to_string();
    replay(files.text(), listener.url(), &["--at", &hour_ago]).failure();
    let told = &listener.told(1)[0];
    assert!(told["refusal"].as_str().is_some_and(|reason| reason.contains(" s old")), "{told}");
}

#[test]
fn what_cannot_be_sent_is_named_before_anything_is_sent() {
    let receiver = Receiver::start();
    let url = receiver.url("/");
    let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(256 * 1_024));
    let files = Files::new(&[
        ("good.json", "{\"id\": \"x\", \"type\": \"y\"}"),
        ("empty.json", "{}"),
        ("nameless.json", "{\"type\": \"y\"}"),
        ("number.json", "{\"id\": \"x\", \"type\": 1}"),
        ("list.json", "[1]"),
        ("half.json", "{\"id\": "),
        ("large.json", &large),
    ]);
    let empty = Files::new(&[]);
    let good = files.file("good.json");
    let missing = files.file("missing.json");
    for (arguments, words) in [
        (vec![missing.as_str()], vec![missing.as_str(), "cannot read"]),
        (vec![&files.file("empty.json")], vec!["empty.json", "no text \"type\""]),
        (vec![&files.file("nameless.json")], vec!["nameless.json", "no text \"id\""]),
        (vec![&files.file("number.json")], vec!["number.json", "no text \"type\""]),
        (vec![&files.file("list.json")], vec!["list.json", "JSON object"]),
        (vec![&files.file("half.json")], vec!["half.json", "JSON object"]),
        (vec![&files.file("large.json")], vec!["large.json", "262144"]),
        (vec![empty.text()], vec![empty.text(), "*.json"]),
        (vec!["--to", "example.com"], vec!["example.com", "http(s)://HOST"]),
        (vec!["--secret", "hunter2"], vec!["--secret", "whsec_"]),
        (vec!["--secret", "whsk_hunter2"], vec!["--secret", "whsk_"]),
        (vec!["--signature", "ed25519"], vec!["ed25519", "whsk_"]),
        (vec!["--signature", "rsa"], vec!["rsa", "standard, hex, ed25519"]),
        (vec!["--secret", PRIVATE_KEY], vec!["standard", "whsec_"]),
        (vec!["--tamper", "head"], vec!["head", "body, signature, timestamp"]),
        (vec!["--at", "soon"], vec!["soon", "RFC 3339", "Unix seconds"]),
    ] {
        let mut all = vec!["replay", &good];
        for (option, value) in [("--to", url.as_str()), ("--secret", SECRET)] {
            if !arguments.contains(&option) {
                all.extend([option, value]);
            }
        }
        all.extend(&arguments);
        let said = ringback(&all).failure().stderr;
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
    }
    for missing in [&["replay", "--to", &url, "--secret", SECRET][..], &["replay", &good]] {
        let finished = ringback(missing).failure();
        assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
    }
    assert_eq!(receiver.count(), 0);
}
