//! The native API as a caller sees it: the real server on both databases, spoken to over HTTP.
//!
//! What handlers do with bytes and how webhooks are signed is tested elsewhere; here it is what
//! goes in and what comes out.

mod access;
mod control;
mod endpoints;
mod feed;
mod files;
mod groups;
mod lists;
mod no_body;
mod submit;
mod surface;
mod told;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::database::Database;
use crate::support::http::{Answer, Client};
use crate::support::process::{Application, Server};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait::eventually;

/// For what a loaded machine may take its time with.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one application, and a receiver that it may reach. Fields go in this order.
struct World {
    server: Server,
    receiver: Receiver,
    application: Application,
    client: Client,
    database: Database,
}

impl World {
    fn start(database: Database) -> World {
        World::start_with(database, &[])
    }

    fn start_with(database: Database, arguments: &[&str]) -> World {
        let application = Application::create(&database, "first");
        let mut all = vec!["--egress-allow", "127.0.0.0/8"];
        all.extend(arguments);
        let server = Server::on(&database, &all);
        let client = server.client_of(&application);
        let receiver = Receiver::start();
        receiver.trust(&application.signing_secret);
        World { server, receiver, application, client, database }
    }

    /// A client of another application of the same server.
    fn other(&self) -> Client {
        self.server.client_of(&Application::create(&self.database, "second"))
    }

    /// Submits; the job as it was answered.
    #[track_caller]
    fn submit(&self, job: &Value) -> Value {
        self.client.post("/v1/jobs", job).expect(202).json()
    }

    /// Submits; its id.
    #[track_caller]
    fn id_of(&self, job: &Value) -> String {
        text(&self.submit(job)["id"])
    }

    #[track_caller]
    fn job(&self, id: &str) -> Value {
        self.client.get(&format!("/v1/jobs/{id}")).expect(200).json()
    }

    /// The job once it is final.
    #[track_caller]
    fn finished(&self, id: &str) -> Value {
        let job = self.client.get(&format!("/v1/jobs/{id}?wait=45")).expect(200).json();
        assert!(["success", "error", "stopped"].contains(&text(&job["status"]).as_str()), "{job}");
        job
    }

    /// Submits and waits for the end.
    #[track_caller]
    fn ran(&self, job: &Value) -> Value {
        self.finished(&self.id_of(job))
    }

    #[track_caller]
    fn working(&self, id: &str) {
        eventually("the job is working", PATIENCE, || {
            (self.job(id)["status"] == "working").then_some(())
        });
    }

    /// An import that began and does not end by itself.
    #[track_caller]
    fn endless(&self) -> String {
        self.receiver.on("/endless", [Reply::silence()]);
        let id = self.id_of(&import(&self.receiver.url("/endless"), "/endless"));
        self.working(&id);
        id
    }

    #[track_caller]
    fn event_types(&self, id: &str) -> Vec<String> {
        let page = self.client.get(&format!("/v1/jobs/{id}/events")).expect(200).json();
        list(&page, "events").iter().map(|event| text(&event["type"])).collect()
    }
}

fn noop(seconds: f64) -> Value {
    json!({"type": "urn:job:noop", "specification": {"durationSeconds": seconds}})
}

fn import(url: &str, path: &str) -> Value {
    json!({
        "type": "urn:job:import.file",
        "specification": {"sourceUrl": url, "destination": {"path": path}},
    })
}

fn pack(source: &str, path: &str, kind: &str) -> Value {
    json!({
        "type": "urn:job:archive.create",
        "specification": {
            "sources": [{"path": source}], "destination": {"path": path}, "archiveType": kind,
        },
    })
}

/// The same job with another member.
fn with(mut job: Value, name: &str, value: impl Into<Value>) -> Value {
    job[name] = value.into();
    job
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[track_caller]
fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no list {name}: {value}"))
}

#[track_caller]
fn ids(value: &Value, name: &str) -> Vec<String> {
    list(value, name).iter().map(|one| text(&one["id"])).collect()
}

/// Checks that an answer is that problem, whole in form, and gives it.
#[track_caller]
fn problem(answer: Answer, status: u16, code: &str) -> Value {
    let answer = answer.expect(status);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["type"], format!("urn:ringback:problem:{code}"));
    assert_eq!(problem["status"], status);
    assert!(!text(&problem["title"]).is_empty() && !text(&problem["detail"]).is_empty());
    let id = answer.header("x-request-id").expect("every answer has an id");
    assert_eq!(problem["instance"], format!("urn:ringback:request:{id}"));
    problem
}

/// Bytes without a pattern, so that nothing can pack them.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
