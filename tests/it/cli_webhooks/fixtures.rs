//! `ringback fixtures`: what is listed is what is written, and nothing is overwritten unasked.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::listener::Listener;
use super::{Files, SECRET, replay};
use crate::support::process::ringback;

#[test]
fn every_example_is_written_once_and_can_be_replayed() {
    let listed = ringback(&["fixtures", "list", "--json"]).success().json();
    let listed = listed.as_array().expect("a list");
    let people = ringback(&["fixtures", "list"]).success().stdout;
    assert_eq!(people.lines().count(), listed.len());
    assert!(!listed.is_empty());

    let files = Files::new(&[]);
    let folder = files.file("made/by it");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/webhooks");
    let said = ringback(&["fixtures", "export", &folder]).success().stdout;
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), listed.len());
    for one in listed {
        let text = |name: &str| one[name].as_str().expect("text");
        let written = fs::read(files.path().join("made/by it").join(text("file")));
        let written = written.expect("a file");
        assert_eq!(written, fs::read(source.join(text("file"))).expect("the same name"));
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(written["type"], text("event"), "{one}");
        assert!(said.contains(text("file")) && people.contains(text("file")), "{one}");
    }

    let mut listener = Listener::start(&["--secret", SECRET]);
    replay(&folder, listener.url(), &[]).success();
    let told = listener.told(listed.len());
    assert!(told.iter().all(|one| one["verified"] == true && one["duplicate"] == false));
}

#[test]
fn a_file_that_differs_is_kept_unless_forced() {
    let files = Files::new(&[]);
    let export =
        |options: &[&str]| ringback(&[&["fixtures", "export", files.text()], options].concat());
    export(&[]).success();
    let again = export(&[]).success().stdout;
    assert!(again.lines().all(|line| line.starts_with("unchanged")), "{again}");

    let some = fs::read_dir(files.path()).expect("a folder").next().expect("a file");
    let some = some.expect("a file").path();
    fs::write(&some, "mine").expect("our own folder");
    let others = || fs::read_dir(files.path()).expect("a folder").count();
    let count = others();
    let refused = export(&[]).failure().stderr;
    assert!(refused.contains(some.to_str().expect("plain")) && refused.contains("--force"));
    assert_eq!((fs::read_to_string(&some).expect("a file").as_str(), others()), ("mine", count));
    let said = export(&["--force"]).success().stdout;
    assert_eq!(said.lines().filter(|line| line.starts_with("written")).count(), 1, "{said}");
    assert_ne!(fs::read_to_string(&some).expect("a file"), "mine");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let files = Files::new(&[("file", "")]);
    let below = files.file("file/below");
    let said = ringback(&["fixtures", "export", &below]).failure().stderr;
    assert!(said.contains(&below) && !said.contains("panicked"), "{said}");
}
