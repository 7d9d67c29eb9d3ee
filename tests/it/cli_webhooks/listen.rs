//! `ringback listen`: how it answers, what it tells, what it survives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::listener::Listener;
use super::{Files, OTHER_SECRET, PRIVATE_KEY, PUBLIC_KEY, SECRET, body, replay};
use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::machine;
use crate::support::process::{Application, Server, ringback};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_replayed_webhook_is_verified_and_told() {
    let files = Files::one();
    let mut listener = Listener::start(&["--secret", OTHER_SECRET, "--secret", SECRET]);
    let said = replay(files.text(), &format!("{}/hooks", listener.url()), &[]).success().stdout;
    assert!(said.contains("one.json  job.succeeded  -> 204 in "), "{said}");
    let told = &listener.told(1)[0];
    for (name, value) in [
        ("path", json!("/hooks")),
        ("event", json!("job.succeeded")),
        ("webhookId", json!("id-1")),
        ("attempt", json!(1)),
        ("previousFailure", Value::Null),
        ("redelivery", Value::Null),
        ("verified", json!(true)),
        ("signature", json!("v1")),
        ("refusal", Value::Null),
        ("duplicate", json!(false)),
        ("answer", json!(204)),
    ] {
        assert_eq!(told[name], value, "{name} in {told}");
    }
    assert_eq!(told["body"]["data"]["name"], "café");
    assert!(listener.stdout().contains(r#""cost":1.50"#), "digits stay as they are");

    replay(files.text(), listener.url(), &[]).success();
    let again = &listener.told(2)[1];
    assert_eq!((&again["duplicate"], &again["timesSeen"]), (&json!(true), &json!(2)), "{again}");
    assert!(listener.end("TERM").success());
}

#[test]
fn people_read_it_at_a_glance() {
    let files = Files::one();
    let listener = Listener::start_for_people(&["--secret", SECRET]);
    for _ in 0..2 {
        replay(files.text(), listener.url(), &[]).success();
    }
    replay(files.text(), listener.url(), &["--tamper", "body"]).success();
    let said = eventually("all three are told", PATIENCE, || {
        let said = listener.stdout();
        said.contains("REFUSED").then_some(said)
    });
    for part in [
        "job.succeeded  verified (v1)\n",
        "  webhook-id  id-1\n",
        "  DUPLICATE   this webhook-id has come 2 times\n",
        "  attempt     1\n",
        "  answer      204\n",
        "    \"type\": \"job.succeeded\",\n",
        "REFUSED: webhook-signature does not match",
        "  answer      401\n",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(said.matches("DUPLICATE").count(), 1, "what is refused is no duplicate: {said}");
    assert!(listener.end("INT").success());
}

#[test]
fn every_kind_of_signature_is_verified_by_its_key_only() {
    let files = Files::one();
    for (options, key, kind) in [
        (&["--signature", "standard"][..], SECRET, "v1"),
        (&["--signature", "hex"], SECRET, "hex"),
        (&["--signature", "ed25519", "--secret", PRIVATE_KEY], PUBLIC_KEY, "v1a"),
    ] {
        let mut listener = Listener::start(&["--secret", key]);
        replay(files.text(), listener.url(), options).success();
        assert_eq!(listener.told(1)[0]["signature"], kind);

        let mut stranger = Listener::start(&["--secret", OTHER_SECRET]);
        let said = replay(files.text(), stranger.url(), options).failure().stdout;
        assert!(said.contains("-> 401 in ") && said.contains("not received"), "{said}");
        let told = &stranger.told(1)[0];
        assert_eq!((&told["verified"], &told["answer"]), (&json!(false), &json!(401)), "{told}");
    }
}

#[test]
fn without_a_secret_everything_is_taken_and_it_says_so() {
    let files = Files::one();
    let mut listener = Listener::start(&[]);
    assert!(listener.stderr().contains("--secret"), "{}", listener.stderr());
    replay(files.text(), listener.url(), &[]).success();
    Client::new(listener.url()).request("POST", "/").body("not JSON").send().expect(204);
    let told = listener.told(2);
    assert!(told.iter().all(|one| one["verified"] == Value::Null), "{told:?}");
    assert_eq!((&told[1]["body"], &told[1]["text"]), (&Value::Null, &json!("not JSON")));
}

#[test]
fn it_fails_as_often_as_asked_and_refusals_do_not_count() {
    let files = Files::one();
    let mut listener = Listener::start(&["--secret", SECRET, "--fail-first", "2"]);
    replay(files.text(), listener.url(), &["--secret", OTHER_SECRET]).failure();
    replay(files.text(), listener.url(), &[]).failure();
    replay(files.text(), listener.url(), &[]).failure();
    replay(files.text(), listener.url(), &[]).success();
    let answers: Vec<Value> = listener.told(4).iter().map(|told| told["answer"].clone()).collect();
    assert_eq!(answers, [401, 500, 500, 204]);
    let note = listener.told(2)[1]["note"].to_string();
    assert!(note.contains("--fail-first"), "{note}");
}

#[test]
fn the_status_and_the_delay_are_as_asked() {
    let files = Files::one();
    let listener = Listener::start(&["--status", "410", "--delay", "400"]);
    let began = Instant::now();
    let said = replay(files.text(), listener.url(), &[]).failure().stdout;
    assert!(said.contains("-> 410 in "), "{said}");
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_forwarded_webhook_arrives_unchanged_and_so_does_the_answer() {
    let files = Files::one();
    let target = Receiver::start();
    target.trust(SECRET);
    let reply = Reply::status(202).header("x-answer", "theirs").body("thanks");
    target.on("/theirs", [reply]);
    let url = target.url("/theirs?a=b");
    let mut listener = Listener::start(&["--secret", SECRET, "--forward", &url]);
    let said = replay(files.text(), listener.url(), &[]).success().stdout;
    assert!(said.contains("-> 202 in "), "{said}");
    let received = target.wait_for(1, PATIENCE).remove(0);
    received.signed();
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/theirs?a=b"));
    assert_eq!(received.body, body("id-1", "job.succeeded").as_bytes());
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", "id-1"),
        ("webhook-attempt", "1"),
        ("host", &target.url("")["http://".len()..]),
    ] {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
    assert!(received.header("user-agent").is_some_and(|agent| agent.starts_with("ringback/")));
    let told = &listener.told(1)[0];
    assert_eq!(told["answer"], 202);
    assert!(told["note"].as_str().is_some_and(|note| note.contains(&target.url(""))), "{told}");

    // The answer comes back whole; what is refused does not get there.
    let open = Listener::start(&["--forward", &url]);
    let answer = Client::new(open.url()).post("/", &json!({})).expect(202);
    assert_eq!((answer.header("x-answer"), answer.text().as_str()), (Some("theirs"), "thanks"));
    let count = target.count();
    replay(files.text(), listener.url(), &["--tamper", "signature"]).success();
    assert_eq!(target.count(), count);
}

#[test]
fn a_redirect_is_passed_back_and_a_missing_target_is_a_bad_gateway() {
    let files = Files::one();
    let target = Receiver::start();
    target.on("/moved", [Reply::status(307).header("location", &target.url("/else"))]);
    let listener = Listener::start(&["--forward", &target.url("/moved")]);
    let answer = Client::new(listener.url()).post("/", &json!({})).expect(307);
    assert_eq!(answer.header("location"), Some(target.url("/else").as_str()));
    assert_eq!(target.count(), 1, "nobody follows it");

    let nobody = format!("http://127.0.0.1:{}/", machine::free_port());
    let mut listener = Listener::start(&["--forward", &nobody]);
    replay(files.text(), listener.url(), &[]).failure();
    let told = &listener.told(1)[0];
    assert_eq!(told["answer"], 502);
    assert!(told["note"].as_str().is_some_and(|note| note.contains("cannot connect")), "{told}");
}

/// Writes raw bytes and reads what comes until the other side closes.
fn raw(listener: &Listener, bytes: &[u8]) -> String {
    let address = listener.url().strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // It may answer and close before it has read everything.
    let _may_be_cut_off = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _may_be_reset = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn no_client_ends_it() {
    let files = Files::one();
    let mut listener = Listener::start(&["--secret", SECRET]);
    let address = listener.url()["http://".len()..].to_owned();
    // Goes away in the middle of its headers, of its body, and before the answer.
    for cut in ["POST / HT", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab"] {
        TcpStream::connect(&address).expect("it listens").write_all(cut.as_bytes()).expect("sent");
    }
    assert!(raw(&listener, b"\0\xff nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    let endless = format!("POST / HTTP/1.1\r\nx: {}", "y".repeat(1_000_000));
    assert!(!raw(&listener, endless.as_bytes()).starts_with("HTTP/1.1 2"));
    let client = Client::new(listener.url());
    let large = vec![b'x'; 1_024 * 1_024 + 1];
    client.request("POST", "/").body(large).send().expect(413);
    let got = client.get("/").expect(405);
    assert_eq!(got.header("allow"), Some("POST"));

    replay(files.text(), listener.url(), &[]).success();
    assert_eq!(listener.told(1)[0]["verified"], true, "only webhooks are told");
    assert!(listener.stderr().contains("405") && listener.stderr().contains("413"));
    let whole = vec![b'x'; 1_024 * 1_024];
    client.request("POST", "/").body(whole).send().expect(401);
}

#[test]
fn a_client_that_does_not_wait_is_told_of_all_the_same() {
    let mut listener = Listener::start(&["--delay", "600000"]);
    let client = Client::new(listener.url());
    let impatient = client.request("POST", "/").body("{}").timeout(Duration::from_millis(300));
    assert!(impatient.try_send().is_err());
    assert_eq!(listener.told(1)[0]["path"], "/");
    // Nor does a delay hold up its end.
    assert!(listener.end("TERM").success());
}

#[test]
fn it_ends_when_nobody_reads_what_it_tells() {
    let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
    command.args(["listen", "--port", "0", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary");
    let mut out = child.stdout.take().expect("a pipe");
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        out.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    drop(out);
    let first: Value = serde_json::from_slice(&line).expect("JSON");
    let url = first["listening"].as_str().expect("a URL");
    let _its_answer_may_get_lost = Client::new(url).request("POST", "/").body("{}").try_send();
    let ended = machine::end_of(&mut child, PATIENCE);
    if ended.is_none() {
        child.kill().expect("our own child");
    }
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
fn bad_options_are_named() {
    let taken = Listener::start(&[]);
    let port = taken.url().rsplit(':').next().expect("a port").to_owned();
    for (options, words) in [
        (&["--port", "70000"][..], &["--port", "70000"][..]),
        (&["--port", &port], &[&port, "--port 0"]),
        (&["--secret", "hunter2"], &["--secret", "whsec_", "whpk_"]),
        (&["--secret", "whpk_hunter2"], &["--secret", "32 bytes"]),
        (&["--forward", "localhost:80"], &["--forward", "localhost:80", "http(s)://HOST"]),
        (&["--status", "199"], &["--status", "199", "from 200 to 599"]),
        (&["--status", "200", "--forward", "http://x/"], &["--status", "--forward"]),
        (&["--fail-first", "few"], &["--fail-first", "few"]),
        (&["--delay", "soon"], &["--delay", "soon"]),
    ] {
        let mut all = vec!["listen"];
        if !options.contains(&"--port") {
            all.extend(["--port", "0"]);
        }
        all.extend(options);
        let said = ringback(&all).failure().stderr;
        assert!(words.iter().all(|word| said.contains(word)), "{options:?}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
    }
}

on_both!(what_a_server_sends_is_verified);
fn what_a_server_sends_is_verified(database: Database) {
    let application = Application::create(&database, "shop");
    let options = ["--egress-allow", "127.0.0.0/8", "--retry-schedule-seconds", "1"];
    let server = Server::on(&database, &options);
    let mut listener =
        Listener::start(&["--secret", &application.signing_secret, "--fail-first", "1"]);
    let job = json!({
        "type": "urn:job:noop", "specification": {}, "callbackUrl": listener.url(),
    });
    server.client_of(&application).post("/v1/jobs", &job).expect(202);
    let told = listener.told(2);
    assert_eq!((&told[0]["answer"], &told[1]["answer"]), (&json!(500), &json!(204)));
    for one in &told {
        assert_eq!((&one["event"], &one["signature"]), (&json!("job.succeeded"), &json!("v1")));
    }
    assert_eq!(told[1]["webhookId"], told[0]["webhookId"]);
    assert_eq!((&told[1]["attempt"], &told[1]["duplicate"]), (&json!(2), &json!(true)));
    assert_eq!(told[1]["previousFailure"], "http_500");
}
