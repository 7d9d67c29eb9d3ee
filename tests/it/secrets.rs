//! No secret leaves: a marker in every field that may hold one is found nowhere but where it was
//! meant to go. Not in the database, not in files, logs, webhooks, events, answers or problems.

mod dump;
mod endpoints;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dump::{files_below, rows_of_all_tables};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::database::{Backend, Database, on_both};
use crate::support::http::{Answer, Client};
use crate::support::process::{Application, Server, data_dir, ringback};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// What must not be found, by what it is: in every form that it could be found in.
#[derive(Default)]
struct Markers(BTreeMap<&'static str, Vec<Vec<u8>>>);

impl Markers {
    /// A new one. Letters and digits, so that no way to write text changes it.
    fn plant(&mut self, what: &'static str) -> String {
        let marker = format!("5ec4e7{}", Uuid::new_v4().simple());
        self.guard(what, marker.as_bytes());
        marker
    }

    /// Something that is a secret already: as it is, and as the hex that dumps of binary columns
    /// have.
    fn guard(&mut self, what: &'static str, secret: &[u8]) {
        assert!(secret.len() >= 20, "{what} would be found by chance");
        let hex = hex::encode(secret);
        let forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        assert!(self.0.insert(what, forms).is_none(), "{what} twice");
    }

    fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let found = |forms: &Vec<Vec<u8>>| forms.iter().any(|form| contains(bytes, form));
        self.0.iter().filter(|(_, forms)| found(forms)).map(|(what, _)| *what).collect()
    }

    #[track_caller]
    fn absent(&self, place: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "in {place}: {found:?}");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Asks the API and remembers what it said, to be searched in the end.
struct Ear {
    client: Client,
    heard: Vec<(String, Answer)>,
}

impl Ear {
    #[track_caller]
    fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let request = self.client.request(method, path);
        let answer = match body {
            // With a key, so that there are records of requests to be searched as well.
            Some(body) => request.header("idempotency-key", &Uuid::new_v4().to_string()).json(body),
            None => request,
        };
        let answer = answer.send();
        self.heard.push((format!("{method} {path}"), answer.clone()));
        answer
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Value {
        self.send("GET", path, None).expect(200).json()
    }

    #[track_caller]
    fn submit(&mut self, job: &Value) -> String {
        let job = self.send("POST", "/v1/jobs", Some(job)).expect(202).json();
        text(&job["id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What a careless receiver does: gives everything back that it was sent.
fn echo(status: u16, received: &Received) -> Reply {
    let mut page = format!("{} {}\n", received.method, received.path);
    let mut reply = Reply::status(status);
    for (name, value) in &received.headers {
        let value = value.to_str().expect("plain text");
        page.push_str(&format!("{name}: {value}\n"));
        if !["host", "content-length", "connection"].contains(&name.as_str()) {
            reply = reply.header(&format!("echo-{name}"), value);
        }
    }
    reply.header("location", &received.path).body(page)
}

/// Each time another status, the last one again and again.
fn echoing(receiver: &Receiver, path: &str, statuses: &'static [u16]) {
    let mut left = statuses.iter().copied();
    let last = statuses.last().copied().unwrap_or(200);
    receiver.on_with(path, move |received| echo(left.next().unwrap_or(last), received));
}

on_both!(no_secret_is_found_where_it_does_not_belong);
fn no_secret_is_found_where_it_does_not_belong(database: Database) {
    let mut markers = Markers::default();
    let application = Application::create(&database, "shop");
    markers.guard("the API key", application.api_key.as_bytes());
    markers.guard("the signing secret", application.signing_secret.as_bytes());
    let raw = application.signing_secret.trim_start_matches("whsec_");
    let raw = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, raw);
    markers.guard("the signing secret's bytes", &raw.expect("Base64"));
    let master = fs::read_to_string(Path::new(&data_dir(&database)).join("master.key"));
    let master = master.expect("a key");
    markers.guard("the master key", master.trim().as_bytes());

    let options = ["--egress-allow", "127.0.0.0/8", "--retry-schedule-seconds", "0,0"];
    let options = [options.as_slice(), &["--log-filter", "debug", "--log-format", "json"]].concat();
    let mut server = Server::on(&database, &options);
    let receiver = Receiver::start();
    receiver.trust(&application.signing_secret);
    let mut ear = Ear { client: server.client_of(&application), heard: Vec::new() };

    let mut beside = endpoints::Beside::start(&database, &application, &receiver);
    beside.register(&mut markers);
    let mut allowed = jobs_with_secrets(&mut markers, &mut ear, &receiver);
    beside.change(&mut markers, &mut ear);
    beside.allow(&markers, &mut allowed);
    refused_secrets(&mut markers, &mut ear, &server);
    rotated_secrets(&mut markers, &database, &mut ear, &server);
    read_everything(&mut ear);
    beside.read_everything(&markers);
    drop(beside);

    search(&markers, &database, &server, &ear, &receiver, &allowed);
    assert!(server.sigterm(PATIENCE).success());
    search(&markers, &database, &server, &ear, &receiver, &allowed);
}

/// Which secrets a path of the receiver may be sent.
type Allowed = BTreeMap<&'static str, Vec<&'static str>>;

/// Jobs that succeed, fail, are retried, with secrets wherever they may be given.
fn jobs_with_secrets(markers: &mut Markers, ear: &mut Ear, receiver: &Receiver) -> Allowed {
    echoing(receiver, "/hook", &[500, 302, 200]);
    echoing(receiver, "/gone", &[410]);
    echoing(receiver, "/group", &[200]);
    echoing(receiver, "/source", &[503, 200]);
    echoing(receiver, "/missing", &[404]);
    echoing(receiver, "/elsewhere", &[302]);
    let callback_token = markers.plant("callback URL");
    let (callback_header, callback_key) =
        (markers.plant("callback Authorization"), markers.plant("callback header"));
    let hook = |path: &str| {
        json!({
            "url": receiver.url(&format!("{path}?plain=1&token={callback_token}")),
            "headers": {"Authorization": format!("Bearer {callback_header}"), "X-Key": callback_key},
            "events": ["*"],
        })
    };
    let (signature, credential) =
        (markers.plant("source signature"), markers.plant("source credential"));
    let (source_header, source_key) =
        (markers.plant("source Authorization"), markers.plant("source header"));
    let import = |base: &str, callback: &str| {
        json!({
            "type": "urn:job:import.file",
            "specification": {
                "sourceUrl": format!("{base}?X-Amz-Credential={credential}&X-Amz-Signature={signature}"),
                "destination": {"path": "/in/file"},
                "externalAuthorization": {"headers": {"Authorization": source_header, "X-Key": source_key}},
            },
            "callback": hook(callback),
            "maxAttempts": 2,
        })
    };
    let jobs = [
        ear.submit(&import(&receiver.url("/source"), "/hook")),
        ear.submit(&import(&receiver.url("/missing"), "/hook")),
        ear.submit(&import(&receiver.url("/elsewhere"), "/hook")),
        // Nobody listens there.
        ear.submit(&import("http://127.0.0.1:9/source", "/gone")),
    ];
    let member = json!({"type": "urn:job:noop", "specification": {}, "callback": hook("/hook")});
    let batch = json!({"jobs": [member, member], "callback": hook("/group")});
    let batch = ear.send("POST", "/v1/jobs/batch", Some(&batch)).expect(202).json();
    ear.send("POST", "/v1/groups", Some(&json!({"callback": hook("/group")}))).expect(201);
    let statuses: Vec<Value> = jobs
        .iter()
        .map(|id| ear.get(&format!("/v1/jobs/{id}?wait=45"))["status"].clone())
        .collect();
    assert_eq!(statuses, ["success", "error", "error", "error"]);
    let again = ear.send("POST", &format!("/v1/jobs/{}/retry", jobs[1]), None).expect(202).json();
    assert_eq!(ear.get(&format!("/v1/jobs/{}?wait=45", text(&again["id"])))["status"], "error");
    ear.get(&format!("/v1/groups/{}", text(&batch["groupId"])));
    eventually("everything owed has ended", PATIENCE, || {
        let live =
            ear.client.get("/v1/deliveries?status=pending&status=sending").expect(200).json();
        (live["deliveries"] == json!([]) && live["nextPageToken"].is_null()).then_some(())
    });

    // The targets did get them, so the rest of the test is about something.
    let of_callbacks = vec!["callback Authorization", "callback URL", "callback header"];
    let of_sources =
        vec!["source Authorization", "source credential", "source header", "source signature"];
    let allowed = BTreeMap::from([
        ("/hook", of_callbacks.clone()),
        ("/gone", of_callbacks.clone()),
        ("/group", of_callbacks),
        ("/source", of_sources.clone()),
        ("/missing", of_sources.clone()),
        ("/elsewhere", of_sources),
    ]);
    for (path, secrets) in &allowed {
        let log = receiver.log();
        let mut got = log.iter().filter(|one| one.path.split('?').next() == Some(path));
        let got = got.next().unwrap_or_else(|| panic!("nothing came to {path}"));
        assert_eq!(markers.found_in(head(got).as_bytes()), *secrets, "{path}");
    }
    allowed
}

/// First line and headers.
fn head(received: &Received) -> String {
    format!("{} {}\n{:?}", received.method, received.path, received.headers)
}

/// Requests that are refused, with secrets in what is wrong.
fn refused_secrets(markers: &mut Markers, ear: &mut Ear, server: &Server) {
    let password = markers.plant("password in a URL");
    let odd = markers.plant("odd header");
    let token = markers.plant("token of a bad URL");
    let noop = |callback: Value| json!({"type": "urn:job:noop", "specification": {}, "callback": callback});
    let import = |url: &str, headers: Value| {
        json!({
            "type": "urn:job:import.file",
            "specification": {
                "sourceUrl": url, "destination": {"path": "/a"},
                "externalAuthorization": {"headers": headers},
            },
        })
    };
    let with_password = format!("http://user:{password}@127.0.0.1/a");
    let bad_url = format!("http://10.0.0.1:99999/?token={token}");
    let private = format!("http://10.0.0.1/?token={token}");
    let hook = "http://127.0.0.1/";
    let refused = [
        noop(json!({"url": with_password})),
        noop(json!({"url": format!("https://{password}@example.com/")})),
        noop(json!({"url": bad_url})),
        noop(json!({"url": private})),
        noop(json!({"url": hook, "headers": {"X-A": format!("{odd}\n")}})),
        noop(json!({"url": hook, "headers": {"Host": odd}})),
        noop(json!({"url": hook, "headers": {"X-A": [odd]}})),
        import(&with_password, json!({})),
        import(&bad_url, json!({})),
        import(&private, json!({})),
        import(hook, json!({"X-A": format!("{odd}\r\nX-B: c")})),
        import(hook, json!({"Host": odd})),
        import(hook, json!({"X-A": {"value": odd}})),
        json!({"type": "urn:job:noop", "specification": {}, "callbackUrl": with_password}),
        json!({"type": "urn:job:noop", "specification": {}, "priority": token}),
    ];
    for body in &refused {
        let status = ear.send("POST", "/v1/jobs", Some(body)).status;
        assert!([400, 422].contains(&status), "{status}: {body}");
        let status = ear.send("POST", "/v1/jobs/batch", Some(&json!({"jobs": [body]}))).status;
        assert!([400, 422].contains(&status), "{status}: {body}");
    }
    for body in [&refused[0]["callback"], &refused[4]["callback"]] {
        ear.send("POST", "/v1/groups", Some(&json!({"callback": body}))).expect(422);
    }
    let stranger = markers.plant("somebody's key");
    let mut stranger = Ear { client: server.client().with_key(&stranger), heard: Vec::new() };
    stranger.send("GET", "/v1/jobs", None).expect(401);
    ear.heard.extend(stranger.heard);
}

/// New keys and secrets are shown by the command that makes them and by nothing else.
fn rotated_secrets(markers: &mut Markers, database: &Database, ear: &mut Ear, server: &Server) {
    let rotate = |command: &str, member: &str| {
        let data = data_dir(database);
        let made = ["apps", command, "shop", "--overlap", "600", "--json"];
        let made = [made.as_slice(), &["--database", database.url(), "--data-dir", &data]].concat();
        text(&ringback(&made).success().json()[member])
    };
    let (key, secret) = (rotate("rotate-key", "apiKey"), rotate("rotate-secret", "signingSecret"));
    markers.guard("the second API key", key.as_bytes());
    markers.guard("the second signing secret", secret.as_bytes());
    let mut second = Ear { client: server.client().with_key(&key), heard: Vec::new() };
    let job = json!({"type": "urn:job:noop", "specification": {}});
    let id = second.submit(&job);
    second.get(&format!("/v1/jobs/{id}?wait=20"));
    ear.heard.extend(second.heard);
}

/// Reads all that the API shows of all that there is.
fn read_everything(ear: &mut Ear) {
    let jobs = ear.get("/v1/jobs?pageSize=100");
    for job in jobs["jobs"].as_array().expect("a list") {
        let id = text(&job["id"]);
        ear.get(&format!("/v1/jobs/{id}"));
        ear.get(&format!("/v1/jobs/{id}/events?limit=1000"));
    }
    let deliveries = ear.get("/v1/deliveries?pageSize=100");
    let mut answers = 0;
    for delivery in deliveries["deliveries"].as_array().expect("a list") {
        let shown = ear.get(&format!("/v1/deliveries/{}", text(&delivery["id"])));
        let attempts = shown["attemptLog"].as_array().expect("attempts");
        answers += attempts.iter().filter(|attempt| attempt["responseStatus"].is_number()).count();
    }
    assert!(answers > 10, "{answers} attempts with what the receiver said");
    for path in ["/v1/files", "/metrics", "/readyz", "/openapi.json"] {
        ear.send("GET", path, None).expect(200);
    }
}

fn search(
    markers: &Markers,
    database: &Database,
    server: &Server,
    ear: &Ear,
    receiver: &Receiver,
    allowed: &Allowed,
) {
    for (what, answer) in &ear.heard {
        markers.absent(what, &answer.body);
        markers.absent(what, format!("{:?}", answer.headers).as_bytes());
    }
    for received in receiver.log() {
        let path = received.path.split('?').next().unwrap_or_default();
        markers.absent(&format!("the body sent to {path}"), &received.body);
        let own = &allowed[path];
        let foreign: Vec<_> = markers
            .found_in(head(&received).as_bytes())
            .into_iter()
            .filter(|one| !own.contains(one))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?} sent to {path}");
    }
    markers.absent("the server's output", server.stdout().as_bytes());
    for line in server.stderr().lines() {
        markers.absent(&format!("the log: {line}"), line.as_bytes());
    }
    let data = PathBuf::from(data_dir(database));
    let mut files = files_below(database.folder());
    files.retain(|path| *path != data.join("master.key") && !path.starts_with(data.join("files")));
    for path in &files {
        markers.absent(&path.display().to_string(), &fs::read(path).unwrap_or_default());
    }
    let looked_at_a_database = files.iter().any(|path| path.ends_with("ringback.db"));
    assert_eq!(looked_at_a_database, database.backend() == Backend::Sqlite, "{files:?}");
    let rows = rows_of_all_tables(database);
    assert!(rows.len() > 50, "{} rows", rows.len());
    for row in &rows {
        markers.absent(&format!("the row {row}"), row.as_bytes());
    }
}
