//! The files of a replay: which they are and what has to be known of each.
//!
//! Must not know how webhooks are signed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::formats::MAX_BODY_BYTES;
use crate::ids::new_id;

const LONGEST_ID: usize = 128;

/// One body to send.
pub(super) struct Fixture {
    /// The file, as named by the user.
    pub name: String,
    pub webhook_id: String,
    pub event: String,
    /// The file byte for byte.
    pub body: String,
}

/// Reads files, and those of folders.
pub(super) fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Fixture>> {
    let mut fixtures = Vec::new();
    for path in paths {
        if path.is_dir() {
            for file in files_of(path)? {
                fixtures.push(read(&file)?);
            }
        } else {
            fixtures.push(read(path)?);
        }
    }
    Ok(fixtures)
}

fn files_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("cannot read the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "json") && path.is_file() {
            files.push(path);
        }
    }
    anyhow::ensure!(!files.is_empty(), "the folder {} has no *.json", folder.display());
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<Fixture> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(
        bytes.len() <= MAX_BODY_BYTES,
        "{name} has {} bytes; a webhook has at most {MAX_BODY_BYTES}",
        bytes.len()
    );
    let body = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
    let members: Map<String, Value> = serde_json::from_str(&body).with_context(|| {
        format!("{name} is not a webhook's body, a JSON object {{\"id\": …, \"type\": …}}")
    })?;
    let text = |member: &str| {
        let text = members.get(member).and_then(Value::as_str).map(str::to_owned);
        text.with_context(|| {
            format!(
                "{name} has no text \"{member}\"; a webhook's body is {{\"id\": …, \"type\": …}}"
            )
        })
    };
    let event = text("type")?;
    // One id for one body, so that sending a file again is a duplicate to its receiver.
    let webhook_id = Some(text("id")?).filter(|id| may_be_webhook_id(id));
    let webhook_id = webhook_id.unwrap_or_else(|| new_id().to_string());
    Ok(Fixture { name, webhook_id, event, body })
}

/// It goes into a header and, between dots, into the signed text.
fn may_be_webhook_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.')
}
