//! The official libraries of receivers, in Python and Node: do they believe what we send?
//!
//! What they are and how they are asked is in `tests/sdk/`; this only runs it.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringback::formats::Signature;
use serde::Serialize;

use super::machine::{self, environment};
use super::receiver::Received;

/// Starting an interpreter and loading the libraries takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a receiver should think of a webhook.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Expect {
    Ok,
    Refused,
}

/// A webhook as it arrived, what its receiver verifies it with, and what should come of that.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    name: String,
    signature: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    headers: BTreeMap<String, String>,
    body: String,
    expect: Expect,
}

impl Case {
    /// A webhook that should be believed by a receiver that checks `signature`, whatever others
    /// came with it. `key` is a `whpk_…` for ed25519 and a `whsec_…` for the others.
    pub fn new(
        name: &str,
        signature: Signature,
        key: &str,
        headers: impl IntoIterator<Item = (String, String)>,
        body: &str,
    ) -> Case {
        let public = signature == Signature::Ed25519;
        Case {
            name: format!("{}: {name}", signature.as_str()),
            signature: signature.as_str(),
            secret: (!public).then(|| key.to_owned()),
            public_key: public.then(|| key.to_owned()),
            headers: headers.into_iter().collect(),
            body: body.to_owned(),
            expect: Expect::Ok,
        }
    }

    /// The same of a request that a [`super::receiver::Receiver`] has got.
    #[track_caller]
    pub fn received(name: &str, signature: Signature, key: &str, received: &Received) -> Case {
        let plain = |name: &str| received.header(name).expect("it is there").to_owned();
        let headers = received.headers.keys().map(|name| (name.to_string(), plain(name.as_str())));
        let body = std::str::from_utf8(&received.body).expect("bodies are text");
        Case::new(name, signature, key, headers, body)
    }

    /// The same webhook after somebody changed a header on the way: it should be refused.
    #[track_caller]
    pub fn with_header(mut self, name: &str, change: impl FnOnce(&str) -> String) -> Case {
        let value = self.headers.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"));
        let changed = change(value);
        assert_ne!(changed, *value, "nothing was changed");
        *value = changed;
        self.name += &format!(", with another {name}");
        self.refused()
    }

    /// The same webhook after somebody changed its body on the way: it should be refused.
    #[track_caller]
    pub fn with_body(mut self, change: impl FnOnce(&str) -> String) -> Case {
        let changed = change(&self.body);
        assert_ne!(changed, self.body, "nothing was changed");
        self.body = changed;
        self.name += ", with another body";
        self.refused()
    }

    /// The same, but it should be refused.
    pub fn refused(mut self) -> Case {
        self.expect = Expect::Refused;
        self
    }
}

/// Shows all cases to the libraries of both languages; panics with what they said if one sees a
/// case differently.
#[track_caller]
pub fn check(cases: &[Case]) {
    for verdicts in [python(cases), node(cases)] {
        let report = verdicts.success().stdout;
        let agreed = report.lines().filter(|line| line.contains(" agrees: ")).count();
        assert_eq!(agreed, cases.len(), "some were not looked at:\n{report}");
    }
}

/// What the libraries of Python say.
#[track_caller]
pub fn python(cases: &[Case]) -> machine::Finished {
    let mut command = machine::clean_command(environment("RINGBACK_TEST_PYTHON"));
    command.arg("-B").arg(script("verify.py"));
    show(&mut command, cases)
}

/// What the libraries of Node say.
#[track_caller]
pub fn node(cases: &[Case]) -> machine::Finished {
    let mut command = machine::clean_command(environment("RINGBACK_TEST_NODE"));
    command.arg(script("verify.mjs")).arg(environment("RINGBACK_TEST_NODE_PACKAGES"));
    show(&mut command, cases)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

#[track_caller]
fn show(command: &mut Command, cases: &[Case]) -> machine::Finished {
    let mut lines = tempfile::tempfile().expect("a temporary file");
    for case in cases {
        let line = serde_json::to_string(case).expect("plain values");
        writeln!(lines, "{line}").expect("room for a line");
    }
    lines.rewind().expect("a file");
    machine::finish(command.stdin(lines), PATIENCE)
}
