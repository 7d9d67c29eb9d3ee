//! The pure state machine: written lives (`fixtures/lifecycle`), the documented table, random lives.
//!
//! Must not know the engine, a database or the time: everything here calls `decide` and `fold`
//! with made-up instants. That stored rows obey the same rules is tested elsewhere.

mod groups;
mod life;
mod lives;
mod script;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringback::lifecycle::EventType;

use life::VERBS;
use script::{Script, Seen};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scripts() -> Vec<PathBuf> {
    let folder = repository().join("fixtures/lifecycle");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no script in {}", folder.display());
    paths
}

/// Runs one script; the error names the file, the line and what was different.
fn check_script(path: &Path) -> Result<Seen, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    Script::parse(&text).and_then(Script::run).map_err(|error| format!("{name}{error}"))
}

/// Runs all scripts and gathers what they made happen.
fn check_all() -> Seen {
    let mut seen = Seen::default();
    let mut wrong = Vec::new();
    for path in scripts() {
        match check_script(&path) {
            Ok(one) => seen.add(one),
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    seen
}

#[test]
fn every_script_tells_the_truth() {
    check_all();
}

#[test]
fn every_job_event_occurs_in_a_script() {
    let all = EventType::ALL.iter().map(|event| event.as_str());
    let of_jobs: BTreeSet<_> = all.filter(|name| name.starts_with("job.")).collect();
    assert_eq!(check_all().events, of_jobs);
}

#[test]
fn every_command_and_every_refusal_occurs_in_a_script() {
    let seen = check_all();
    assert_eq!(seen.commands, BTreeSet::from(VERBS));
    assert_eq!(seen.refusals, BTreeSet::from(life::REFUSALS));
}

/// A checker that lets anything pass would make the scripts worthless.
#[test]
fn a_script_that_lies_is_caught() {
    let honest = "job attempts=2\n1 start a -> working job.started attempt=1 token=1\n";
    Script::parse(honest).and_then(Script::run).unwrap();
    let lies = [
        ("1 start a -> pending job.started", "status"),
        ("1 start a -> working job.retried", "event"),
        ("1 start a -> working -", "event"),
        ("1 start a -> working job.started attempt=2", "attempt"),
        ("1 start a -> working job.started started=2", "started"),
        ("1 start a -> refused LeaseLost", "refused"),
        ("1 halt @1 -> stopped job.stopped", "refused"),
        ("1 halt @1 -> refused NotNow", "refused"),
        ("1 start a -> working job.started colour=red", "colour"),
        ("1 dance -> refused NotNow", "dance"),
        ("1 start a", "->"),
    ];
    for (line, about) in lies {
        let told = Script::parse(&format!("job attempts=2\n\n# a comment\n{line}\n"))
            .and_then(Script::run)
            .err()
            .unwrap_or_else(|| panic!("not caught: {line}"));
        assert!(told.starts_with(":4: ") && told.contains(about), "{line}: {told}");
    }
}
