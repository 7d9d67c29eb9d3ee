//! The samples for the other signatures: hex in Python, ed25519 in Node.
//!
//! Each is imported by a few lines that print its verdict on the cases of a file.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ringback::formats::hex::sign_hex;
use serde_json::{Value, json};

use super::delivery::now;
use super::running::folder_with;
use super::{OTHER_SECRET, SECRET};
use crate::support::machine::{clean_command, environment, finish};

const BODY: &str = r#"{"id":"1","note":"café"}"#;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_hex_sample_tells_real_from_tampered() {
    let good = sign_hex([SECRET], now(), BODY);
    let old = sign_hex([SECRET], now() - 301, BODY);
    let rotating = sign_hex([OTHER_SECRET, SECRET], now(), BODY);
    let stranger = sign_hex([OTHER_SECRET], now(), BODY);
    let (time, signature) = good.split_once(',').unwrap();
    let twice = format!("{time},{good}");
    let cases = [
        (good.as_str(), BODY, true),
        (&rotating, BODY, true),
        (&stranger, BODY, false),
        (&old, BODY, false),
        (&good, r#"{"id":"2","note":"café"}"#, false),
        (&twice, BODY, false),
        (signature, BODY, false),
        (time, BODY, false),
        ("", BODY, false),
        ("t=é,v1=é", BODY, false),
        ("t=soon,v1=", BODY, false),
    ];
    let given = cases.map(|(header, body, _)| json!([SECRET, header, body]));
    let program = "import json, sys\n\
                   from verify_hex import verify\n\
                   cases = json.load(open('cases.json'))\n\
                   print(json.dumps([verify(s, h, b.encode()) for s, h, b in cases]))\n";
    let found = verdicts("RINGBACK_TEST_PYTHON", "verify_hex.py", "ask.py", program, &given);
    assert_eq!(found, cases.map(|(.., expected)| expected));
}

#[test]
fn the_ed25519_sample_tells_real_from_tampered() {
    let keys = [[7; 32], [8; 32]].map(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
    let public = |key: &Ed25519KeyPair| format!("whpk_{}", STANDARD.encode(key.public_key()));
    let signed = |key: &Ed25519KeyPair, time: i64| {
        let signature = key.sign(format!("msg_1.{time}.{BODY}").as_bytes());
        format!("v1a,{}", STANDARD.encode(signature))
    };
    let (time, late) = (now(), now() - 301);
    let [good, stranger, old] =
        [signed(&keys[0], time), signed(&keys[1], time), signed(&keys[0], late)];
    let both = format!("v1,AAAA {stranger} {good}");
    let (half, symmetric) = (&good[..40], good.replace("v1a,", "v1,"));
    let other = r#"{"id":"2","note":"café"}"#;
    let case = |signature: &str, time: &str, body: &str| {
        let headers = json!({
            "webhook-id": "msg_1", "webhook-timestamp": time, "webhook-signature": signature,
        });
        json!([public(&keys[0]), headers, body])
    };
    let (time, late) = (&time.to_string(), &late.to_string());
    let cases = [
        (case(&good, time, BODY), true),
        (case(&both, time, BODY), true),
        (case(&stranger, time, BODY), false),
        (case(&old, late, BODY), false),
        (case(&good, late, BODY), false),
        (case(&good, "soon", BODY), false),
        (case(&good, time, other), false),
        (case(half, time, BODY), false),
        (case(&symmetric, time, BODY), false),
        (case("v1a,", time, BODY), false),
        (json!([public(&keys[0]), {}, BODY]), false),
    ];
    let given = cases.clone().map(|(case, _)| case);
    let program = "import { readFileSync } from 'node:fs';\n\
                   import { verify } from './verify_ed25519.mjs';\n\
                   const cases = JSON.parse(readFileSync('cases.json', 'utf8'));\n\
                   const ask = ([key, headers, body]) => verify(key, headers, Buffer.from(body));\n\
                   console.log(JSON.stringify(cases.map(ask)));\n";
    let found = verdicts("RINGBACK_TEST_NODE", "verify_ed25519.mjs", "ask.mjs", program, &given);
    assert_eq!(found, cases.map(|(_, expected)| expected));
}

/// What a sample says to each case.
#[track_caller]
fn verdicts(
    interpreter: &str,
    sample: &str,
    name: &str,
    program: &str,
    cases: &[Value],
) -> Vec<bool> {
    let folder = folder_with(sample);
    let write = |name: &str, text: &str| {
        std::fs::write(Path::new(folder.path()).join(name), text).expect("a file");
    };
    write(name, program);
    write("cases.json", &json!(cases).to_string());
    let mut command = clean_command(environment(interpreter));
    let finished = finish(command.arg(name).current_dir(folder.path()), PATIENCE).success();
    serde_json::from_value(finished.json()).expect("one verdict a case")
}
