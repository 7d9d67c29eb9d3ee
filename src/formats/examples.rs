//! One real webhook for each event and job type: `fixtures/webhooks`, carried by the binary.
//!
//! The tests make these bodies by running the system and compare them with the files on every run
//! (`tests/it/fixtures.rs`). Must not know who sends an example, or where to.

use std::borrow::Cow;

use uuid::Uuid;

use super::json::{Members, Text};

/// A webhook of the standard format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// `job.succeeded`, `group.completed` and so on.
    pub event: &'static str,
    /// What type of job it is about; none for events of other subjects.
    pub job_type: Option<&'static str>,
    /// What its file is called, `.json` included.
    pub name: &'static str,
    /// The text of the file: the body, laid out for people.
    pub body: &'static str,
}

/// The body of an example as an event of its own: with an id and a time of its own, all else as it
/// is.
pub fn fresh(body: &str, id: Uuid, timestamp: &str) -> String {
    let Some(mut members) = Members::read(body) else {
        return body.to_owned();
    };
    let id = id.to_string();
    for (name, value) in [("id", id.as_str()), ("timestamp", timestamp)] {
        if let Some(member) = members.get_mut(name) {
            *member = Cow::Owned(Text(value).to_string());
        }
    }
    members.write()
}

/// All of them: by job type, events in the order of a job's life, then those of other subjects.
pub fn all() -> &'static [Example] {
    ALL
}

/// The example of an event about a job of that type; without a type, the first of that event.
pub fn find(event: &str, job_type: Option<&str>) -> Option<&'static Example> {
    ALL.iter().find(|example| {
        example.event == event && job_type.is_none_or(|wanted| example.job_type == Some(wanted))
    })
}

macro_rules! job {
    ($event:literal, $job_type:literal) => {
        Example {
            event: concat!("job.", $event),
            job_type: Some(concat!("urn:job:", $job_type)),
            name: concat!("job.", $event, ".", $job_type, ".json"),
            body: include_str!(concat!(
                "../../fixtures/webhooks/job.",
                $event,
                ".",
                $job_type,
                ".json"
            )),
        }
    };
}

macro_rules! other {
    ($event:literal) => {
        Example {
            event: $event,
            job_type: None,
            name: concat!($event, ".json"),
            body: include_str!(concat!("../../fixtures/webhooks/", $event, ".json")),
        }
    };
}

const ALL: &[Example] = &[
    job!("created", "archive.create"),
    job!("started", "archive.create"),
    job!("progressed", "archive.create"),
    job!("retried", "archive.create"),
    job!("released", "archive.create"),
    job!("rescued", "archive.create"),
    job!("stopping", "archive.create"),
    job!("stopped", "archive.create"),
    job!("succeeded", "archive.create"),
    job!("failed", "archive.create"),
    job!("trashed", "archive.create"),
    job!("restored", "archive.create"),
    job!("created", "archive.extract"),
    job!("started", "archive.extract"),
    job!("progressed", "archive.extract"),
    job!("retried", "archive.extract"),
    job!("released", "archive.extract"),
    job!("rescued", "archive.extract"),
    job!("stopping", "archive.extract"),
    job!("stopped", "archive.extract"),
    job!("succeeded", "archive.extract"),
    job!("failed", "archive.extract"),
    job!("trashed", "archive.extract"),
    job!("restored", "archive.extract"),
    job!("created", "import.file"),
    job!("started", "import.file"),
    job!("progressed", "import.file"),
    job!("retried", "import.file"),
    job!("released", "import.file"),
    job!("rescued", "import.file"),
    job!("stopping", "import.file"),
    job!("stopped", "import.file"),
    job!("succeeded", "import.file"),
    job!("failed", "import.file"),
    job!("trashed", "import.file"),
    job!("restored", "import.file"),
    job!("created", "noop"),
    job!("started", "noop"),
    job!("progressed", "noop"),
    job!("released", "noop"),
    job!("rescued", "noop"),
    job!("stopping", "noop"),
    job!("stopped", "noop"),
    job!("succeeded", "noop"),
    job!("failed", "noop"),
    job!("trashed", "noop"),
    job!("restored", "noop"),
    job!("created", "webhook.replay"),
    job!("started", "webhook.replay"),
    job!("progressed", "webhook.replay"),
    job!("retried", "webhook.replay"),
    job!("released", "webhook.replay"),
    job!("rescued", "webhook.replay"),
    job!("stopping", "webhook.replay"),
    job!("stopped", "webhook.replay"),
    job!("succeeded", "webhook.replay"),
    job!("failed", "webhook.replay"),
    job!("trashed", "webhook.replay"),
    job!("restored", "webhook.replay"),
    other!("group.completed"),
    other!("endpoint.disabled"),
    other!("endpoint.enabled"),
    other!("endpoint.pinged"),
    other!("file.created"),
    other!("file.deleted"),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::formats::MAX_BODY_BYTES;
    use crate::lifecycle::EventType;

    #[test]
    fn the_list_is_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/webhooks");
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let files = files.map(|file| file.file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name.ends_with(".json")).collect();
        let mut names: Vec<&str> = all().iter().map(|example| example.name).collect();
        files.sort();
        names.sort_unstable();
        assert_eq!(names, files);
    }

    #[test]
    fn every_body_is_what_its_name_says() {
        for example in all() {
            let body: Value = serde_json::from_str(example.body).unwrap();
            assert_eq!(body["type"], example.event, "{}", example.name);
            assert!(example.body.len() <= MAX_BODY_BYTES);
            if let Some(job_type) = example.job_type {
                assert_eq!(body["data"]["type"], job_type, "{}", example.name);
            }
        }
    }

    #[test]
    fn an_example_is_found_by_event_and_type() {
        let found = find("job.failed", Some("urn:job:import.file")).unwrap();
        assert_eq!(found.name, "job.failed.import.file.json");
        assert_eq!(find("job.failed", None).unwrap().job_type, Some("urn:job:archive.create"));
        assert_eq!(find("group.completed", None).unwrap().job_type, None);
        assert_eq!(find("group.completed", Some("urn:job:noop")), None);
        assert_eq!(find("job.retried", Some("urn:job:noop")), None, "cannot happen");
        assert_eq!(find("job.unheard", None), None);
        for event in EventType::ALL.into_iter().filter(|one| one.as_str().starts_with("job.")) {
            assert!(find(event.as_str(), None).is_some(), "{}", event.as_str());
        }
    }

    #[test]
    fn a_fresh_one_differs_in_id_and_time_only() {
        let example = find("job.succeeded", None).unwrap();
        let id = crate::ids::new_id();
        let fresh = fresh(example.body, id, "2027-01-01T00:00:00.000Z");
        let mut fresh: Value = serde_json::from_str(&fresh).unwrap();
        let original: Value = serde_json::from_str(example.body).unwrap();
        assert_eq!(fresh["id"], id.to_string());
        assert_eq!(fresh["timestamp"], "2027-01-01T00:00:00.000Z");
        fresh["id"] = original["id"].clone();
        fresh["timestamp"] = original["timestamp"].clone();
        assert_eq!(fresh, original);
    }
}
