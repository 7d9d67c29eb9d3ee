//! A server that dies between a request and its record: nobody knows what came of the attempt, so
//! the log says that, and the delivery comes again under the same id.

use ringback::engine::{EndpointSettings, Ordering};
use serde_json::{Value, json};

use super::{PATIENCE, SETTINGS};
use crate::support::database::{Database, on_both};
use crate::support::endpoints::Registry;
use crate::support::http::Client;
use crate::support::process::{Application, Server};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait::eventually;

/// Where each kind of receiver listens.
const PATHS: [&str; 4] = ["/callback", "/none", "/per-job", "/strict"];

/// The deliveries of a job with their attempts, oldest first, once all of them have ended.
fn ended(client: &Client, job: &str, count: usize) -> Vec<Value> {
    eventually("every delivery has ended", PATIENCE, || {
        let page = client.get(&format!("/v1/deliveries?jobId={job}")).expect(200).json();
        let mut listed = page["deliveries"].as_array().expect("deliveries").clone();
        listed.reverse();
        let all = listed.len() == count && listed.iter().all(|one| one["status"] == "delivered");
        all.then_some(listed)
    })
    .iter()
    .map(|one| {
        let id = one["id"].as_str().expect("an id");
        client.get(&format!("/v1/deliveries/{id}")).expect(200).json()
    })
    .collect()
}

on_both!(an_attempt_that_died_with_its_sender_is_unknown_and_made_again);
fn an_attempt_that_died_with_its_sender_is_unknown_and_made_again(database: Database) {
    let application = Application::create(&database, "shop");
    let receiver = Receiver::start();
    receiver.trust(&application.signing_secret);
    let registry = Registry::of(&database, &application);
    for (ordering, path) in Ordering::ALL.into_iter().zip(&PATHS[1..]) {
        let events = Some(vec!["job.created".to_owned(), "job.succeeded".to_owned()]);
        let settings = EndpointSettings { ordering, events, ..EndpointSettings::default() };
        receiver.trust(&registry.register(&receiver.url(path), settings).secret);
    }
    drop(registry);
    for path in PATHS {
        // The first answer is held back for as long as it takes.
        receiver.on(path, [Reply::silence(), Reply::ok()]);
    }
    // The deadline is the only 5 among them, and none of the answers may meet it.
    let settings = SETTINGS.map(|one| if one == "5" { "600" } else { one });
    let mut server = Server::on(&database, &settings);
    let client = server.client_of(&application);
    let job = json!({
        "type": "urn:job:noop",
        "specification": {},
        "callbackUrl": receiver.url("/callback"),
    });
    let job = client.post("/v1/jobs", &job).expect(202).json();
    let job = job["id"].as_str().expect("an id");
    PATHS.iter().for_each(|path| drop(receiver.wait_for_on(path, 1, PATIENCE)));
    eventually("all else is recorded or waits behind", PATIENCE, || {
        let page = client.get(&format!("/v1/deliveries?jobId={job}")).expect(200).json();
        let listed = page["deliveries"].as_array().expect("deliveries");
        let statuses = |wanted: &str| listed.iter().filter(|one| one["status"] == wanted).count();
        let counts = ["sending", "delivered", "pending"].map(statuses);
        (counts == [PATHS.len(), 1, 2]).then_some(())
    });
    server.sigkill();
    server.start_again();

    let deliveries = ended(&client, job, 7);
    for (path, own) in PATHS.into_iter().zip([1, 2, 2, 2]) {
        let log = receiver.log_of(path);
        assert_eq!(log.len(), own + 1, "{path}: one is made again");
        let told = |number: usize| {
            let request = log[number].signed();
            (
                request.webhook_id().to_owned(),
                request.header("webhook-attempt").expect("its number"),
            )
        };
        let first = told(0);
        let again = (1..log.len()).find(|number| told(*number).0 == first.0).expect("it again");
        assert_eq!((first.1, told(again).1), ("1", "2"), "{path}");
        assert_eq!(log[0].body, log[again].body, "{path}");
        assert_eq!(log[again].header("webhook-previous-failure"), Some("sender_lost"), "{path}");
        if matches!(path, "/per-job" | "/strict") {
            assert_eq!(again, 1, "{path}: nothing overtakes it");
        }
        let delivery = deliveries.iter().find(|one| {
            let endpoint = one["endpointId"].is_string() == (path != "/callback");
            let here = one["receiver"]["url"].as_str().is_some_and(|url| url.ends_with(path));
            one["webhookId"] == first.0.as_str() && endpoint && here
        });
        let delivery = delivery.expect("the delivery");
        let attempts = delivery["attemptLog"].as_array().expect("attempts");
        let outcomes: Vec<_> = attempts.iter().map(|one| &one["outcome"]).collect();
        assert_eq!(outcomes, ["unknown", "delivered"], "{delivery:#}");
        assert_eq!(attempts[0]["errorCode"], "sender_lost", "{delivery:#}");
        assert_eq!(attempts[0]["responseStatus"], Value::Null, "{delivery:#}");
        assert!(attempts[0]["finishedAt"].is_string(), "{delivery:#}");
    }
    let others = deliveries.iter().filter(|one| one["attempts"] == 1).count();
    assert_eq!(others, 3, "what was not under way is made once");
}
