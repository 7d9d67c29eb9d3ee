//! The integrator's commands: `listen` and `replay` against each other, `fixtures`, `trigger`.
//!
//! What `replay` signs is also checked by the official library, and what `listen` accepts is also
//! signed by a server, so that the two cannot agree on a mistake.

mod fixtures;
mod listen;
mod listener;
mod replay;
mod trigger;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::machine::Finished;
use crate::support::process::ringback;

/// `whsec_` and the bytes 00 to 1f.
pub const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_SECRET: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
/// A key pair of the vectors: the seed 00 to 1f.
const PRIVATE_KEY: &str =
    "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==";
const PUBLIC_KEY: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

/// A folder with files to replay.
pub struct Files(TempDir);

impl Files {
    pub fn new(files: &[(&str, &str)]) -> Files {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, body) in files {
            fs::write(folder.path().join(name), body).expect("a file");
        }
        Files(folder)
    }

    /// One webhook in one file.
    fn one() -> Files {
        Files::new(&[("one.json", &body("id-1", "job.succeeded"))])
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn text(&self) -> &str {
        self.path().to_str().expect("a plain path")
    }

    pub fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().expect("a plain path").to_owned()
    }
}

pub fn body(id: &str, event: &str) -> String {
    format!(
        "{{\n  \"id\": \"{id}\",\n  \"type\": \"{event}\",\n  \"sequence\": 3,\n  \
         \"data\": {{\"cost\": 1.50, \"name\": \"café\"}}\n}}\n"
    )
}

/// `ringback replay FIXTURE --to URL --secret SECRET OPTIONS`
#[track_caller]
fn replay(fixture: &str, to: &str, options: &[&str]) -> Finished {
    let mut all = vec!["replay", fixture, "--to", to];
    if !options.contains(&"--secret") {
        all.extend(["--secret", SECRET]);
    }
    all.extend(options);
    ringback(&all)
}
