//! Requests that nobody wrote: schemathesis makes them up from the document that the running
//! server serves, and every answer has to be one that the document foresees.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::database::{Database, on_both};
use crate::support::process::{Application, Server};
use crate::support::receiver::{Receiver, Reply};
use crate::support::schemathesis;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

on_both!(the_server_keeps_to_its_document);
fn the_server_keeps_to_its_document(database: Database) {
    let application = Application::create(&database, "first");
    // Without a breaker, what is owed again ends again at once.
    let settings = ["--egress-allow", "127.0.0.0/8", "--breaker-failures", "0"];
    let server = Server::on(&database, &settings);
    let client = server.client_of(&application);
    let receiver = Receiver::start();
    receiver.on("/refused", [Reply::status(410)]);
    let submit = |body: Value| client.post("/v1/jobs", &body).expect(202).json();
    let noop = |seconds: f64, path: &str| {
        json!({
            "type": "urn:job:noop", "specification": {"durationSeconds": seconds},
            "callbackUrl": receiver.url(path),
        })
    };
    let mut waits = noop(0.0, "/hook");
    waits["runAt"] = "2090-01-01T00:00:00Z".into();
    let fails = json!({
        "type": "urn:job:archive.create",
        "specification": {
            "sources": [{"path": "/none"}], "destination": {"path": "/o.zip"}, "archiveType": "zip",
        },
    });
    // One of every status, so that stop, retry and delete find what they are for.
    let jobs = [
        submit(noop(0.0, "/hook")),
        submit(noop(600.0, "/hook")),
        submit(waits.clone()),
        submit(fails),
        submit(waits),
        submit(noop(0.0, "/refused")),
    ];
    let stopped = format!("/v1/jobs/{}/stop", jobs[4]["id"].as_str().expect("an id"));
    client.post_empty(&stopped).expect(202);
    let groups = [
        client.post_empty("/v1/groups").expect(201).json()["id"].clone(),
        jobs[0]["groupId"].clone(),
        client.post_empty("/v1/groups").expect(201).json()["id"].clone(),
    ];
    let paths = ["/a.txt", "/b/c d.bin", "/gone.txt"];
    let files = paths.map(|path| {
        let url = format!("/v1/files{}", path.replace(' ', "%20"));
        client.put(&url, "some bytes").expect(201).json()["id"].clone()
    });
    let mut deliveries = eventually("deliveries have ended", PATIENCE, || {
        let page = client.get("/v1/deliveries").expect(200).json();
        let all = page["deliveries"].as_array().expect("a list");
        let ended = all.iter().filter(|one| !one["dateCompleted"].is_null());
        (ended.count() >= 3).then(|| all.iter().map(|one| one["id"].clone()).collect::<Vec<_>>())
    });
    // One of each ordering and signature, and some to be deleted.
    let endpoint = |path: &str, ordering: &str, signature: &str| {
        let body = json!({
            "url": receiver.url(path), "events": ["job.created"], "ordering": ordering,
            "signature": signature, "retrySchedule": [],
        });
        client.post("/v1/endpoints", &body).expect(201).json()
    };
    let endpoints = [
        endpoint("/endpoint", "none", "standard"),
        endpoint("/endpoint", "per-job", "ed25519"),
        endpoint("/endpoint", "strict", "hex"),
    ];
    // A change may leave the others without a public key.
    let unchanged =
        [endpoint("/endpoint", "none", "ed25519"), endpoint("/endpoint", "strict", "standard")];
    let doomed = [(); 8].map(|()| endpoint("/endpoint", "none", "standard"));
    // With secrets to be revoked, one after the other; a change or a rotation would end them all.
    let keepers = [(); 8].map(|()| endpoint("/endpoint", "none", "standard"));
    let secrets = keepers.each_ref().map(|keeper| {
        let id = keeper["id"].as_str().expect("an id");
        let path = format!("/v1/endpoints/{id}/secrets");
        (id.to_owned(), [(); 8].map(|()| client.post_empty(&path).expect(201).json()))
    });
    // Many that are held up, and not named to anybody who could change that: each can be skipped
    // once.
    receiver.on("/broken", [Reply::status(500)]);
    let broken = [(); 8].map(|()| endpoint("/broken", "strict", "standard"));
    submit(noop(0.0, "/hook"));
    let blocking = broken.map(|endpoint| {
        let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().expect("an id"));
        eventually("the endpoint is held up", PATIENCE, || {
            let shown = client.get(&path).expect(200).json();
            shown["blockedBy"].as_str().map(|id| json!(id))
        })
    });
    deliveries.splice(..deliveries.len().saturating_sub(4), blocking);
    let ids = |things: &[Value]| things.iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    let mut seeds = json!({
        "jobId": ids(&jobs), "groupId": groups, "fileId": files, "deliveryId": deliveries,
        "path": paths, "endpointId": ids(&endpoints), "secretId": ids(&secrets[0].1),
        "GET endpointId": ids(&unchanged),
        "DELETE endpointId": ids(&doomed),
        "DELETE secretId of endpointId": ids(&keepers),
    });
    for (keeper, secrets) in &secrets {
        seeds[format!("DELETE secretId of {keeper}")] = json!(ids(secrets));
    }
    let report = schemathesis::check(&server, &application, &seeds);
    assert!(report.contains("No issues found"), "{report}");
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    server.client().get("/readyz").expect(200);
}
