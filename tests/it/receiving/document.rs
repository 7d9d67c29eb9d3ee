//! `docs/receiving.md` as text: its samples, and the claims that can be compared with the product.
//!
//! A sample is the fenced block below a line `<!-- sample: NAME -->`.

use std::time::Duration;

use ringback::formats::{DeliveryFormat, Standard};
use ringback::lifecycle::EventType;
use serde_json::Value;

const TEXT: &str = include_str!("../../../docs/receiving.md");

/// The sample of that name.
#[track_caller]
pub fn sample(name: &str) -> String {
    let mark = format!("<!-- sample: {name} -->\n```");
    let (_, after) = TEXT.split_once(&mark).unwrap_or_else(|| panic!("there is no sample {name}"));
    let (_language, block) = after.split_once('\n').expect("a block");
    let (sample, _) = block.split_once("\n```").expect("the end of the block");
    format!("{sample}\n")
}

#[test]
fn the_rust_sample_is_the_one_that_is_compiled_here() {
    assert!(sample("receive.rs") == include_str!("sample.rs"), "docs/receiving.md, sample.rs");
}

#[test]
fn every_event_is_named() {
    for event in EventType::ALL {
        assert!(TEXT.contains(&format!("`{}`", event.as_str())), "{}", event.as_str());
    }
}

#[test]
fn the_schedule_is_that_of_the_product() {
    let schedule = Standard::default().schedule().delays.clone();
    let words: Vec<String> = schedule.into_iter().skip(1).map(in_words).collect();
    let (last, others) = words.split_last().expect("tries");
    let sentence = format!("At once, then after {} and {last}", others.join(", "));
    assert!(TEXT.contains(&sentence), "{sentence}");
}

fn in_words(wait: Duration) -> String {
    match wait.as_secs() {
        seconds if seconds % 3_600 == 0 => format!("{} h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[test]
fn the_example_is_a_fixture() {
    let fixture = include_str!("../../../fixtures/webhooks/job.succeeded.noop.json");
    let fixture: Value = serde_json::from_str(fixture).unwrap();
    let body = TEXT.lines().find(|line| line.starts_with("{\"id\":\"")).expect("an example");
    let body: Value = serde_json::from_str(&body.replace("{…}", "{}")).expect("JSON");
    for (name, value) in body.as_object().unwrap().iter().filter(|(name, _)| *name != "data") {
        assert_eq!(&fixture[name], value, "{name}");
    }
    assert!(TEXT.contains(&format!("\nwebhook-id: {}\n", body["id"].as_str().unwrap())));
}
