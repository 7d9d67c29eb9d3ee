//! `ringback fixtures`: the examples of webhooks that the binary carries.
//!
//! Must not know how they are made or sent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::output::say;
use crate::formats::examples::{self, Example};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show them: event, job type, file name
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Write them into a folder, a file each
    Export {
        /// Made when it is not there
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Overwrite files that differ
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { json } => {
            list(json);
            Ok(())
        }
        Command::Export { folder, force } => export(&folder, force),
    }
}

fn list(json: bool) {
    let all = examples::all();
    if json {
        let objects = all.iter().map(|example| {
            json!({"event": example.event, "type": example.job_type, "file": example.name})
        });
        say!("{}", serde_json::Value::Array(objects.collect()));
        return;
    }
    let widest = |of: fn(&Example) -> usize| all.iter().map(of).max().unwrap_or_default();
    let event_width = widest(|example| example.event.len());
    let type_width = widest(|example| example.job_type.unwrap_or("-").len());
    for example in all {
        let (event, job_type) = (example.event, example.job_type.unwrap_or("-"));
        say!("{event:event_width$}  {job_type:type_width$}  {}", example.name);
    }
}

/// What is to become of one file.
enum Plan {
    Write,
    Keep,
    Overwrite,
}

/// Looks at everything before it writes anything.
fn export(folder: &Path, force: bool) -> anyhow::Result<()> {
    let mut plans = Vec::new();
    for example in examples::all() {
        let path = folder.join(example.name);
        let plan = match fs::read(&path) {
            Ok(there) if there == example.body.as_bytes() => Plan::Keep,
            Ok(_) => Plan::Overwrite,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Plan::Write,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        plans.push((path, plan, example.body));
    }
    let differing: Vec<String> = plans
        .iter()
        .filter(|(_, plan, _)| matches!(plan, Plan::Overwrite))
        .map(|(path, ..)| path.display().to_string())
        .collect();
    anyhow::ensure!(
        force || differing.is_empty(),
        "not overwritten, because they differ (--force overwrites): {}",
        differing.join(", ")
    );
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (path, plan, body) in plans {
        if matches!(plan, Plan::Keep) {
            say!("unchanged  {}", path.display());
            continue;
        }
        fs::write(&path, body).with_context(|| format!("cannot write {}", path.display()))?;
        say!("written    {}", path.display());
    }
    Ok(())
}
