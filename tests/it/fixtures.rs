//! `fixtures/webhooks`: one real webhook for each event, and for each job type where the event is
//! about a job. Every one is made by running the system, and compared with its file on every run.
//!
//! To have a file written anew, empty it (the product embeds it, so it has to be there) and run
//! `./test --test it fixtures` twice: the first run writes it and fails. A file that is not there yet
//! is written too; it becomes part of the product by a line in `src/formats/examples.rs`.

mod kinds;
mod lives;
mod normal;
mod others;
mod pace;
mod text;
mod triggered;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kinds::{KINDS, Kind};
use ringback::formats::examples;
use ringback::lifecycle::EventType;
use world::Told;

use crate::support::database::{Database, on_both};

/// What is not about a job.
fn others() -> impl Iterator<Item = &'static str> {
    [others::GROUP, others::ENDPOINT, others::FILE].into_iter().flatten().copied()
}

on_both!(async archive_create);
async fn archive_create(database: Database) {
    check_jobs(&database, "archive.create").await;
}

on_both!(async archive_extract);
async fn archive_extract(database: Database) {
    check_jobs(&database, "archive.extract").await;
}

on_both!(async import_file);
async fn import_file(database: Database) {
    check_jobs(&database, "import.file").await;
}

on_both!(async noop);
async fn noop(database: Database) {
    check_jobs(&database, "noop").await;
}

on_both!(async webhook_replay);
async fn webhook_replay(database: Database) {
    check_jobs(&database, "webhook.replay").await;
}

on_both!(async group);
async fn group(database: Database) {
    check(others::group(&database).await, &names(others::GROUP));
}

on_both!(async endpoint);
async fn endpoint(database: Database) {
    check(others::endpoint(&database).await, &names(others::ENDPOINT));
}

on_both!(async file);
async fn file(database: Database) {
    check(others::file(&database).await, &names(others::FILE));
}

fn names(events: &[&str]) -> Vec<String> {
    events.iter().map(|event| (*event).to_owned()).collect()
}

async fn check_jobs(database: &Database, name: &str) {
    let kind = Kind::named(name);
    check(lives::jobs(database, kind).await, &kind.fixtures());
}

/// Compares what a story told with the files, and its names with those it should tell.
fn check(told: Told, expected: &[String]) {
    // Both databases' tests of one story may want to write the same file.
    static WRITING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let names: BTreeSet<&String> = told.iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected.iter().collect());
    assert_eq!(names.len(), told.len(), "each is told once");
    let mut written = Vec::new();
    for (name, body) in &told {
        let laid_out = text::laid_out(body);
        assert_eq!(&text::packed(&laid_out), body, "{name}: only blanks were added");
        let path = folder().join(format!("{name}.json"));
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        if there.is_empty() {
            std::fs::write(&path, laid_out).expect("the file can be written");
            written.push(path);
        } else if there != laid_out {
            let (line, was, is) = first_difference(&there, &laid_out);
            panic!("{}:{line} has\n{was}\nand the system sends\n{is}", path.display());
        }
    }
    assert!(written.is_empty(), "these were missing or empty and are written now: {written:?}");
}

/// Number and text of the first line that is not the same.
fn first_difference<'a>(there: &'a str, sent: &'a str) -> (usize, &'a str, &'a str) {
    let (mut there, mut sent) = (there.lines(), sent.lines());
    for number in 1.. {
        match (there.next(), sent.next()) {
            (Some(was), Some(is)) if was == is => {}
            (None, None) => break,
            (was, is) => return (number, was.unwrap_or("nothing"), is.unwrap_or("nothing")),
        }
    }
    (0, "other ends of lines", "\\n")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join("webhooks")
}

#[test]
fn the_folder_and_the_product_hold_what_the_stories_tell_and_nothing_else() {
    let told = KINDS.iter().flat_map(Kind::fixtures).chain(others().map(str::to_owned));
    let told: BTreeSet<String> = told.map(|name| format!("{name}.json")).collect();
    let files = std::fs::read_dir(folder()).expect("the folder").flatten();
    let names = files.map(|file| file.file_name().into_string().expect("a plain name"));
    let there: BTreeSet<String> = names.filter(|name| name.ends_with(".json")).collect();
    assert_eq!(there, told);
    let embedded: BTreeSet<String> =
        examples::all().iter().map(|example| example.name.to_owned()).collect();
    assert_eq!(embedded, told);
}

/// Those of jobs are counted for each type of job in `kinds`.
#[test]
fn every_event_that_is_not_about_a_job_is_told() {
    let events = EventType::ALL.map(EventType::as_str).into_iter();
    let wanted: BTreeSet<&str> = events.filter(|event| !event.starts_with("job.")).collect();
    assert_eq!(others().collect::<BTreeSet<_>>(), wanted);
}
