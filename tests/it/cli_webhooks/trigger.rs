//! `ringback trigger` against a stub that answers as the contract has it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::machine::{self, Finished};
use crate::support::process::{Server, ringback};
use crate::support::receiver::{Receiver, Reply};

const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/v1/events/trigger";

fn stub(status: u16, answer: &Value) -> Receiver {
    let stub = Receiver::start();
    stub.on(PATH, [Reply::status(status).body(answer.to_string())]);
    stub
}

fn trigger(stub: &Receiver, arguments: &[&str]) -> Finished {
    let url = stub.url("/");
    ringback(&[&["trigger", "job.succeeded", "--url", &url], arguments].concat())
}

#[test]
fn it_asks_the_server_and_prints_the_deliveries() {
    let answer = json!({"deliveries": [
        {"id": "d-1", "endpointId": "e-1"}, {"id": "d-2", "endpointId": "e-2"},
    ]});
    let stub = stub(202, &answer);
    let said = trigger(&stub, &["--key", "rbk_x"]).success().stdout;
    assert_eq!(said, "delivery d-1 to endpoint e-1\ndelivery d-2 to endpoint e-2\n");
    assert_eq!(trigger(&stub, &["--key", "rbk_x", "--json"]).success().json(), answer);
    for job_type in ["archive.create", "urn:job:archive.create"] {
        trigger(&stub, &["--key", "rbk_x", "--type", job_type]).success();
    }
    let asked = stub.wait_for(4, PATIENCE);
    for one in &asked {
        assert_eq!((one.method.as_str(), one.path.as_str()), ("POST", PATH));
        assert_eq!(one.header("authorization"), Some("Bearer rbk_x"));
        assert_eq!(one.header("content-type"), Some("application/json"));
    }
    assert_eq!(asked[0].json(), json!({"event": "job.succeeded"}));
    let typed = json!({"event": "job.succeeded", "type": "urn:job:archive.create"});
    assert_eq!((asked[2].json(), asked[3].json()), (typed.clone(), typed));
}

#[test]
fn the_key_may_stand_in_the_environment_and_a_server_does_not_mind() {
    let stub = stub(202, &json!({"deliveries": [{"id": "d", "endpointId": "e"}]}));
    let url = stub.url("");
    let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
    command.args(["trigger", "job.failed", "--url", &url]).env("RINGBACK_API_KEY", "rbk_env");
    machine::finish(&mut command, PATIENCE).success();
    assert_eq!(stub.log()[0].header("authorization"), Some("Bearer rbk_env"));
    command.args(["--key", "rbk_flag"]);
    machine::finish(&mut command, PATIENCE).success();
    assert_eq!(stub.log()[1].header("authorization"), Some("Bearer rbk_flag"));

    let data = tempfile::tempdir().expect("a folder");
    let data = data.path().to_str().expect("a plain path");
    let server = Server::start_with(&["--data-dir", data], &[("RINGBACK_API_KEY", "rbk_env")]);
    server.client().get("/readyz").expect(200);
}

#[test]
fn nobody_to_send_to_is_a_failure() {
    let finished = trigger(&stub(202, &json!({"deliveries": []})), &["--key", "k"]).failure();
    let said = finished.stderr;
    assert!(said.contains("no enabled endpoint") && said.contains("job.succeeded"), "{said}");
}

#[test]
fn what_goes_wrong_is_said() {
    let problem = json!({"code": "unknown_event", "title": "No", "detail": "known are job.x"});
    for (status, answer, words) in [
        (400, problem, ["400 unknown_event", "known are job.x"]),
        (502, json!("\u{1b}bad\n"), ["502", "bad"]),
        (202, json!({"else": 1}), ["did not answer as ringback does", "deliveries"]),
    ] {
        let said = trigger(&stub(status, &answer), &["--key", "k"]).failure().stderr;
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains('\u{1b}') && !said.contains("panicked"), "{said}");
    }
    let nobody = format!("http://127.0.0.1:{}", machine::free_port());
    let refused = ringback(&["trigger", "x", "--url", &nobody, "--key", "k"]).failure().stderr;
    assert!(refused.contains(&nobody), "{refused}");
    let keyless = ringback(&["trigger", "x"]).failure().stderr;
    assert!(keyless.contains("--key") && keyless.contains("RINGBACK_API_KEY"), "{keyless}");
    let said = ringback(&["trigger", "x", "--key", "hunter2\n"]).failure().stderr;
    assert!(said.contains("API key") && !said.contains("hunter2"), "{said}");
    let bad = ringback(&["trigger", "x", "--key", "k", "--url", "ftp://x"]).failure();
    assert_eq!(bad.status.code(), Some(2));
    assert!(bad.stderr.contains("ftp://x") && bad.stderr.contains("http(s)://HOST"));
}
