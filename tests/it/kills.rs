//! The real process, killed, frozen, asked to leave, and left without its database.
//!
//! What is proved here rests on what a client can see: the answers it got and what its receiver
//! was sent. Must not know how the server stores anything.

mod book;
mod failing;
mod nodes;
mod outage;
mod shutdown;
mod sigkill;
mod unrecorded;

use std::time::Duration;

use serde_json::Value;

use crate::support::http::Client;
use crate::support::wait::eventually;

/// Long enough for debug builds on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every server here is started with: callbacks to loopback, short waits between tries.
const SETTINGS: [&str; 8] = [
    "--log-filter",
    "warn",
    "--egress-allow",
    "127.0.0.0/8",
    "--retry-schedule-seconds",
    "1,1,1,2,2,5,5,5,5,5",
    "--delivery-deadline-seconds",
    "5",
];

/// The types of a job's events, whose numbers have no gap.
#[track_caller]
fn events_of(client: &Client, job: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/jobs/{job}/events?limit=1000")).expect(200).json();
    let events = page["events"].as_array().expect("events").clone();
    for (place, event) in events.iter().enumerate() {
        assert_eq!(event["sequence"], place + 1, "job {job} has a gap: {events:#?}");
    }
    events
}

/// The types of these events without steps of progress, which depend on how long a try lasted.
fn types_of(events: &[Value]) -> Vec<&str> {
    let types = events.iter().map(|event| event["type"].as_str().expect("a type"));
    types.filter(|name| *name != "job.progressed").collect()
}

/// Waits until that many tries of a job have begun.
#[track_caller]
fn wait_for_starts(client: &Client, job: &str, starts: usize, timeout: Duration) {
    eventually(&format!("start {starts} of job {job}"), timeout, || {
        let events = events_of(client, job);
        let begun = types_of(&events).iter().filter(|name| **name == "job.started").count();
        (begun >= starts).then_some(())
    });
}
