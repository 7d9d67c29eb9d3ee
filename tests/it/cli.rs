//! The command line as an operator uses it: applications and keys beside a server and without
//! one, settings and where they come from, the demo.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ringback::clock::Clock;
use serde_json::{Value, json};

use crate::support::database::{Backend, Database, on_both};
use crate::support::http::Client;
use crate::support::machine::{self, Finished};
use crate::support::process::{Application, Server, data_dir, ringback, ringback_in};
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

/// A change of a key has reached every node by then.
const EVERYWHERE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// `ringback apps ARGUMENTS` on a database.
#[track_caller]
fn apps(database: &Database, arguments: &[&str]) -> Finished {
    let data = data_dir(database);
    let mut all = vec!["apps"];
    all.extend(arguments);
    all.extend(["--database", database.url(), "--data-dir", &data]);
    ringback(&all)
}

#[track_caller]
fn listed(database: &Database, id: &str) -> Value {
    let all = apps(database, &["list", "--json"]).success().json();
    let all = all.as_array().expect("a list");
    all.iter().find(|one| one["id"] == id).cloned().unwrap_or_else(|| panic!("no {id}: {all:?}"))
}

/// The API keys among an application's credentials.
fn keys(listed: &Value) -> Vec<&Value> {
    let all = listed["credentials"].as_array().expect("credentials");
    all.iter().filter(|one| one["kind"] == "api_key").collect()
}

fn status(client: &Client) -> u16 {
    client.get("/v1/jobs").status
}

/// Looks until a change that was just made shows. Who asks later than it may take has to see it; a
/// look that is itself late proves nothing.
#[track_caller]
fn spreads<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let changed = Instant::now();
    eventually(what, PATIENCE, || {
        let asked = changed.elapsed();
        let found = look();
        assert!(found.is_some() || asked <= EVERYWHERE, "asked after {asked:?}, not yet: {what}");
        found
    })
}

/// Waits until every client is answered so, and no longer than a change may take.
#[track_caller]
fn soon(clients: &[Client], wanted: u16) {
    spreads(&format!("all are answered with {wanted}"), || {
        clients.iter().all(|client| status(client) == wanted).then_some(())
    });
}

on_both!(applications_are_made_and_listed_without_a_server);
fn applications_are_made_and_listed_without_a_server(database: Database) {
    let made = apps(&database, &["create", "shop", "--json"]).success().json();
    let members: BTreeSet<&String> = made.as_object().expect("one object").keys().collect();
    assert_eq!(
        members,
        ["id", "name", "apiKey", "signingSecret"].map(str::to_owned).iter().collect()
    );
    assert_eq!(made["name"], "shop");
    assert!(made["signingSecret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    let said = apps(&database, &["create", "for people"]).success().stdout;
    assert!(
        said.contains("for people") && said.contains("whsec_") && said.contains("only now"),
        "{said}"
    );

    for output in [apps(&database, &["list"]), apps(&database, &["list", "--json"])] {
        let text = output.success().stdout;
        assert!(text.contains("shop") && text.contains("for people"), "{text}");
        for secret in ["apiKey", "signingSecret"] {
            assert!(!text.contains(made[secret].as_str().expect("text")), "{text}");
        }
    }
    let shown = listed(&database, made["id"].as_str().expect("an id"));
    assert_eq!((&shown["disabled"], keys(&shown).len()), (&json!(false), 1));
    assert_eq!(keys(&shown)[0]["scopes"], json!(["*"]));

    for (bad, said) in [
        (vec!["create", "x", "--scopes", "jobs:fly"], "jobs:fly"),
        (vec!["create", "x", "--expires-at", "soon"], "soon"),
        (vec!["create", "x", "--rate-per-second", "0"], "0"),
        (vec!["create", "x", "--rate-burst", "5"], "--rate-per-second"),
        (vec!["rotate-key", "nobody"], "nobody"),
        (vec!["rotate-secret", "nobody"], "nobody"),
        (vec!["disable", "nobody"], "nobody"),
        (vec!["set-rate", "nobody"], "nobody"),
    ] {
        let refused = apps(&database, &bad).failure();
        assert!(refused.stderr.contains(said), "{bad:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    }
}

/// A server on SQLite, two on Postgres; a client of each with that key.
fn nodes(database: &Database) -> Vec<Server> {
    let count = if database.backend() == Backend::Postgres { 2 } else { 1 };
    (0..count).map(|_| Server::on(database, &["--egress-allow", "127.0.0.0/8"])).collect()
}

fn clients(nodes: &[Server], key: &str) -> Vec<Client> {
    nodes.iter().map(|node| node.client().with_key(key)).collect()
}

on_both!(keys_end_on_every_node);
fn keys_end_on_every_node(database: Database) {
    let application = Application::create(&database, "shop");
    let nodes = nodes(&database);
    let old = clients(&nodes, &application.api_key);
    soon(&old, 200);

    // A new key works at once and the old one ends.
    let rotated = apps(&database, &["rotate-key", "shop", "--json"]).success().json();
    assert_eq!(rotated.as_object().map(|members| members.len()), Some(1));
    let new = clients(&nodes, rotated["apiKey"].as_str().expect("a key"));
    soon(&new, 200);
    soon(&old, 401);

    // With an overlap both work, and then only the newest.
    let rotate = |overlap: &str| {
        let rotated = apps(&database, &["rotate-key", &application.id, "--overlap", overlap]);
        clients(&nodes, rotated.success().stdout.trim())
    };
    let newer = rotate("600");
    soon(&newer, 200);
    assert!(new.iter().all(|client| status(client) == 200));
    let newest = rotate("1");
    soon(&newest, 200);
    eventually("the overlap is over", PATIENCE, || {
        let mut older = new.iter().chain(&newer);
        older.all(|client| status(client) == 401).then_some(())
    });

    apps(&database, &["disable", "shop"]).success();
    soon(&newest, 403);
    assert_eq!(newest[0].get("/v1/jobs").json()["code"], "application_disabled");
    assert_eq!(listed(&database, &application.id)["disabled"], true);
    apps(&database, &["enable", "shop"]).success();
    soon(&newest, 200);

    // Scopes and an end of its own.
    let narrow = ["rotate-key", "shop", "--scopes", "files:read", "--json"];
    let key_of = |made: Value| made["apiKey"].as_str().expect("a key").to_owned();
    let narrow = clients(&nodes, &key_of(apps(&database, &narrow).success().json()));
    soon(&narrow, 403);
    assert_eq!(narrow[0].get("/v1/files").status, 200);
    let end = Clock::system().now().plus_millis(1_000).to_string();
    let brief = ["create-key", "shop", "--scopes", "files:read", "--expires-at", &end, "--json"];
    let brief = clients(&nodes, &key_of(apps(&database, &brief).success().json()));
    eventually("the key has expired", PATIENCE, || {
        brief.iter().all(|client| client.get("/v1/files").status == 401).then_some(())
    });
    assert_eq!(brief[0].get("/v1/files").json()["code"], "key_expired");
    assert_eq!(narrow[0].get("/v1/files").status, 200, "the other one has no end");
    let shown = listed(&database, &application.id);
    assert!(keys(&shown).iter().any(|key| key["dateExpires"] == end.as_str()), "{shown}");
}

on_both!(one_key_of_several_is_revoked_everywhere);
fn one_key_of_several_is_revoked_everywhere(database: Database) {
    let application = Application::create(&database, "shop");
    let nodes = nodes(&database);
    let first = clients(&nodes, &application.api_key);
    let made = apps(&database, &["create-key", "shop", "--scopes", "jobs", "--json"]);
    let made = made.success().json();
    let second = clients(&nodes, made["apiKey"].as_str().expect("a key"));
    soon(&second, 200);
    soon(&first, 200);

    let shown = listed(&database, &application.id);
    let id = keys(&shown)
        .iter()
        .find(|key| key["scopes"] == json!(["jobs"]))
        .and_then(|key| key["id"].as_str().map(str::to_owned))
        .expect("the new key is listed with its scope");
    apps(&database, &["revoke", "shop", &id]).success();
    soon(&second, 401);
    assert!(first.iter().all(|client| status(client) == 200), "the other key goes on");
    let again = apps(&database, &["revoke", "shop", &id]).failure();
    assert!(again.stderr.contains(&id), "{}", again.stderr);
    let shown = listed(&database, &application.id);
    let revoked = keys(&shown).iter().filter(|key| key["dateRevoked"].is_string()).count();
    assert_eq!(revoked, 1, "{shown}");
}

on_both!(the_only_secret_that_signs_is_not_revoked);
fn the_only_secret_that_signs_is_not_revoked(database: Database) {
    let application = Application::create(&database, "shop");
    let secrets = || {
        let shown = listed(&database, &application.id);
        let all = shown["credentials"].as_array().expect("credentials").iter();
        let secrets = all.filter(|one| one["kind"] == "signing_secret");
        secrets.map(|one| one["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let first = secrets().pop().expect("it was made with one");
    let refused = apps(&database, &["revoke", "shop", &first]).failure().stderr;
    assert!(refused.contains(&first) && refused.contains("only one that signs"), "{refused}");

    // With another one beside it, it may go, and then that one is the only one.
    apps(&database, &["rotate-secret", "shop"]).success();
    let second = secrets().into_iter().find(|id| *id != first).expect("a second one");
    let refused = apps(&database, &["revoke", "shop", &second]).failure().stderr;
    assert!(refused.contains("only one that signs"), "the first ends by itself: {refused}");
    apps(&database, &["revoke", "shop", &first]).success();
    apps(&database, &["revoke", "shop", &second]).failure();
    let again = apps(&database, &["revoke", "shop", &first]).failure().stderr;
    assert!(again.contains("not known"), "{again}");

    // One whose time is over signs nothing.
    apps(&database, &["rotate-secret", "shop", "--overlap", "0"]).success();
    let third = secrets().into_iter().find(|id| *id != first && *id != second);
    apps(&database, &["revoke", "shop", &third.expect("a third one")]).failure();
    apps(&database, &["revoke", "shop", &second]).success();
    // Keys are another matter: without one an application is shut out, and sends as before.
    let key = keys(&listed(&database, &application.id))[0]["id"].as_str().map(str::to_owned);
    apps(&database, &["revoke", "shop", &key.expect("an id")]).success();
}

#[test]
fn the_data_folder_is_asked_for_only_where_it_is_needed() {
    let run = |arguments: &[&str], variables: &[(&str, &str)], folder: &Path| {
        let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
        command.arg("apps").args(arguments).envs(variables.iter().copied()).current_dir(folder);
        machine::finish(&mut command, PATIENCE)
    };
    let key = "17".repeat(32);
    let variables = [("RINGBACK_MASTER_KEY", key.as_str())];
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let database = Database::fresh(backend);
        let url = database.url();
        let folder = |name: &str| {
            let folder = database.folder().join(name);
            fs::create_dir(&folder).expect("our own folder");
            folder
        };
        let (made, other, third) = (folder("made"), folder("other"), folder("third"));
        run(&["create", "shop", "--database", url], &variables, &made).success();
        let listed = run(&["list", "--database", url], &variables, &other).success().stdout;
        assert!(listed.contains("shop"), "{listed}");
        // Without the key, and where the database is to be, a missing folder is a mistake.
        for refused in [
            run(&["list", "--database", url], &[], &third),
            run(&["list"], &variables, &third),
            run(&["list", "--database", "sqlite://ringback-data/x.db"], &variables, &third),
        ] {
            let said = refused.failure().stderr;
            assert!(said.contains("the data folder ringback-data is not there"), "{said}");
        }
        assert_eq!(fs::read_dir(&third).expect("our own folder").count(), 0);
    }
}

on_both!(the_last_use_of_a_key_is_shown);
fn the_last_use_of_a_key_is_shown(database: Database) {
    let application = Application::create(&database, "shop");
    assert_eq!(keys(&listed(&database, &application.id))[0]["dateLastUsed"], Value::Null);
    let before = Clock::system().now().to_string();
    let server = Server::on(&database, &[]);
    server.client_of(&application).get("/v1/jobs").expect(200);
    let used = eventually("the use is written down", PATIENCE, || {
        let shown = listed(&database, &application.id);
        keys(&shown)[0]["dateLastUsed"].as_str().map(str::to_owned)
    });
    assert!(used >= before && used <= Clock::system().now().to_string(), "{used}");
    let people = apps(&database, &["list"]).success().stdout;
    assert!(people.contains(&used), "{people}");
}

on_both!(a_rate_of_its_own_is_kept_to);
fn a_rate_of_its_own_is_kept_to(database: Database) {
    let options = ["--rate-per-second", "1", "--rate-burst", "3"];
    let application = Application::create_with(&database, "shop", &options);
    let server = Server::on(&database, &[]);
    let client = server.client_of(&application);
    let policy = |client: &Client| {
        client.get("/v1/jobs").header("ratelimit-policy").unwrap_or_default().to_owned()
    };
    assert!(policy(&client).contains("q=3"));
    let refused = eventually("too many", PATIENCE, || {
        let answer = client.get("/v1/jobs");
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(refused.json()["code"], "rate_limited");
    let wait: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("when");
    assert!((1..=2).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").is_some_and(|text| text.contains("r=0")));

    apps(&database, &["set-rate", "shop", "--rate-per-second", "5000"]).success();
    spreads("the new rate counts", || policy(&client).contains("q=5000").then_some(()));
    assert_eq!(listed(&database, &application.id)["ratePerSecond"], 5000);
    apps(&database, &["set-rate", "shop"]).success();
    spreads("the server's own rate counts", || policy(&client).contains("q=10000").then_some(()));
}

on_both!(two_secrets_sign_while_they_overlap);
fn two_secrets_sign_while_they_overlap(database: Database) {
    let application = Application::create(&database, "shop");
    let server = Server::on(&database, &["--egress-allow", "127.0.0.0/8"]);
    let client = server.client_of(&application);
    let receiver = Receiver::start();
    let next = |count: usize| {
        let job = json!({
            "type": "urn:job:noop", "specification": {}, "callbackUrl": receiver.url("/hook"),
        });
        client.post("/v1/jobs", &job).expect(202);
        receiver.wait_for(count, PATIENCE).pop().expect("the latest")
    };
    let first = next(1);
    first.verify(&application.signing_secret).expect("the first secret signs");

    let rotated = ["rotate-secret", "shop", "--overlap", "600", "--json"];
    let rotated = apps(&database, &rotated).success().json();
    let second = rotated["signingSecret"].as_str().expect("a secret").to_owned();
    let mut count = 1;
    let both = spreads("the new secret signs", || {
        count += 1;
        let webhook = next(count);
        webhook.verify(&second).is_ok().then_some(webhook)
    });
    both.verify(&application.signing_secret).expect("the old one signs beside it");
    assert_eq!(both.header("webhook-signature").map(|text| text.split(' ').count()), Some(2));

    let third = apps(&database, &["rotate-secret", "shop", "--overlap", "0"]).success().stdout;
    spreads("only the newest signs", || {
        count += 1;
        let webhook = next(count);
        let others = [&application.signing_secret, &second];
        let ended = others.into_iter().all(|secret| webhook.verify(secret).is_err());
        (ended && webhook.verify(third.trim()).is_ok()).then_some(())
    });
}

/// What a server with these settings says about itself.
struct Told {
    folder: tempfile::TempDir,
}

impl Told {
    fn new(file: &str) -> Told {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ringback.toml"), file).expect("a file");
        Told { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// The public address that a server says with these flags and variables.
    fn public_url(&self, flags: &[&str], variables: &[(&str, &str)]) -> String {
        let (file, data) = (self.path("ringback.toml"), self.path("data"));
        let mut all = vec!["--config", &file, "--data-dir", &data];
        all.extend(flags);
        let server = Server::start_with(&all, variables);
        let document = server.client().get("/openapi.json").expect(200).json();
        let said = server.stdout();
        let url = document["servers"][0]["url"].as_str().expect("a URL").to_owned();
        assert!(said.contains(&url), "{said}");
        url
    }
}

#[test]
fn flags_go_before_variables_before_the_file() {
    let told = Told::new("public_url = \"https://file.example\"\n");
    assert_eq!(told.public_url(&[], &[]), "https://file.example");
    let variable = [("RINGBACK_PUBLIC_URL", "https://variable.example")];
    assert_eq!(told.public_url(&[], &variable), "https://variable.example");
    let flag = ["--public-url", "https://flag.example"];
    assert_eq!(told.public_url(&flag, &variable), "https://flag.example");
}

#[test]
fn a_file_in_the_current_folder_is_found() {
    let told = Told::new("nonsense = 1\n");
    let refused = ringback_in(told.folder.path(), &["serve"], PATIENCE).failure();
    assert!(
        refused.stderr.contains("ringback.toml") && refused.stderr.contains("nonsense"),
        "{}",
        refused.stderr
    );
}

/// Settings that cannot be used, and a word of the complaint.
#[test]
fn what_cannot_be_used_is_said_and_not_guessed() {
    let files = [
        ("colour = \"red\"", "colour"),
        ("listen = \"here\"", "listen"),
        ("job_slots = \"many\"", "job_slots"),
        ("job_slots = 0", "job_slots 0 is not allowed: 1 to"),
        ("queue_slots = {bulk = 9999999}", "queue_slots.bulk 9999999 is not allowed"),
        ("job_timeout_seconds = 9223372036854775807", "job_timeout_seconds 9223372036854775807"),
        ("grace_seconds = 9223372036854775807", "grace_seconds 9223372036854775807"),
        ("retry_schedule_seconds = [5, 604801]", "retry_schedule_seconds 604801"),
        ("egress_allow = [\"10.0.0.0/99\"]", "egress_allow"),
        ("public_url = \"ftp://x\"", "public_url"),
        ("log_filter = \"a=b=c\"", "log_filter"),
        ("public_url = \"https://x:y@z\"", "public_url *** is not allowed"),
        ("public_url = \"https://:y@z\"", "public_url *** is not allowed"),
        ("lane_rate_per_second = -1.0", "lane_rate_per_second -1 is not allowed: 0.001 to"),
        ("lane_rate_per_second = nan", "lane_rate_per_second NaN"),
        ("database = \"mysql://x\"", "mysql"),
        ("= 1", "ringback.toml"),
    ];
    for (line, word) in files {
        let told = Told::new(line);
        let data = told.path("data");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let mut arguments = arguments.to_vec();
        if line.starts_with("listen") {
            arguments.drain(1..3);
        }
        let refused = ringback_in(told.folder.path(), &arguments, PATIENCE).failure();
        assert!(refused.stderr.contains(word), "{line}: {}", refused.stderr);
        assert!(
            refused.stderr.lines().count() == 1 && !refused.stderr.contains("panicked"),
            "{}",
            refused.stderr
        );
    }
    let told = Told::new("");
    let data = told.path("data");
    let serve = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut all = vec!["serve", "--data-dir", data.as_str(), "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let program = env!("CARGO_BIN_EXE_ringback");
        let mut command = machine::clean_command(program);
        command.args(all).current_dir(told.folder.path());
        command.envs(variables.iter().copied());
        machine::finish(&mut command, PATIENCE).failure().stderr
    };
    assert!(serve(&[], &[("RINGBACK_JOB_SLOTZ", "3")]).contains("job_slotz"));
    assert!(serve(&[], &[("RINGBACK_JOB_SLOTS", "x")]).contains("job_slots"));
    assert!(serve(&["--job-slots", "x"], &[]).contains("--job-slots"));
    assert!(serve(&["--job-slotz", "1"], &[]).contains("--job-slotz"));
    let missing = told.path("none.toml");
    assert!(serve(&["--config", &missing], &[]).contains("none.toml"));
    // The value of a secret is not repeated.
    let said = serve(&[], &[("RINGBACK_MASTER_KEY", "hunter2hunter2")]);
    assert!(said.contains("master_key") && !said.contains("hunter2"), "{said}");
    // A password in a database URL neither.
    let said = serve(&["--database", "postgres://u:hunter2@127.0.0.1:1/x"], &[]);
    assert!(said.contains("127.0.0.1") && !said.contains("hunter2"), "{said}");
}

on_both!(a_server_says_what_one_needs_to_know);
fn a_server_says_what_one_needs_to_know(database: Database) {
    let mut server = Server::on(&database, &[]);
    let said = server.stdout();
    let url = url::Url::parse(database.url()).expect("a URL");
    for part in [server.base_url().as_str(), url.path(), "ringback apps create"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    // The command it names is one that works as it stands.
    let line = said.lines().find_map(|line| line.split_once("ringback apps create NAME "));
    let (_, options) = line.unwrap_or_else(|| panic!("no command in {said}"));
    let mut arguments = vec!["apps", "create", "shop", "--json"];
    arguments.extend(options.split_whitespace());
    let made: Application =
        serde_json::from_value(ringback(&arguments).success().json()).expect("an application");
    server.client_of(&made).get("/v1/jobs").expect(200);

    let key = Path::new(&data_dir(&database)).join("master.key");
    let mode = fs::metadata(&key).expect("it made one").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = fs::read_to_string(key).expect("a key");
    assert!(!server.stdout().contains(key.trim()) && !server.stderr().contains(key.trim()));
    assert!(server.sigterm(PATIENCE).success());
    server.start_again();
    assert!(server.sigterm(PATIENCE).success());

    // Under another key the stored secrets cannot be read, and it says so instead of serving.
    let (data, other) = (data_dir(&database), "17".repeat(32));
    fs::write(Path::new(&data).join("master.key"), &other).expect("our own folder");
    let refused = Server::try_start(&["--database", database.url(), "--data-dir", &data]);
    let refused = refused.err().expect("it does not serve").failure().stderr;
    assert!(refused.contains("master key") && !refused.contains(&other), "{refused}");
}

#[test]
fn many_servers_start_at_once_on_an_empty_database() {
    let database = Database::fresh(Backend::Postgres);
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| Server::on(&database, &[]))).collect();
        starting.into_iter().map(|one| one.join().expect("it came up")).collect()
    });
    let application = Application::create(&database, "shop");
    let job = json!({"type": "urn:job:noop", "specification": {}});
    let made = servers[0].client_of(&application).post("/v1/jobs", &job).expect(202).json();
    for server in &servers {
        server.client().get("/readyz").expect(200);
        let path = format!("/v1/jobs/{}?wait=20", made["id"].as_str().expect("an id"));
        let seen = server.client_of(&application).get(&path).expect(200).json();
        assert_eq!(seen["status"], "success");
    }
}

#[test]
fn a_file_has_one_server() {
    let database = Database::fresh(Backend::Sqlite);
    let mut first = Server::on(&database, &[]);
    let data = data_dir(&database);
    let second = Server::try_start(&["--database", database.url(), "--data-dir", &data]);
    let refused = second.err().expect("it is refused").failure();
    assert!(
        refused.stderr.contains("ringback.db") && refused.stderr.contains("server"),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stderr.lines().filter(|line| line.starts_with("ringback:")).count(), 1);
    // The first one is none the worse for it, and its place is free when it has gone.
    first.client().get("/readyz").expect(200);
    first.sigkill();
    Server::on(&database, &[]).client().get("/readyz").expect(200);
}

/// Runs the demo with a folder of its own for everything temporary.
fn demo(options: &[&str]) -> (Finished, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
    command.arg("demo").args(options).env("TMPDIR", folder.path());
    // Some of the repository's files are its material.
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let finished = machine::finish(&mut command, PATIENCE * 2);
    let left = fs::read_dir(folder.path()).expect("our own folder");
    let left =
        left.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    (finished, left.collect())
}

#[test]
fn the_demo_shows_it_and_leaves_nothing_behind() {
    let (finished, left) = demo(&[]);
    let said = finished.success().stdout;
    assert!(left.is_empty(), "{left:?}");
    for part in ["signature verified", "job.created", "job.succeeded", "archive", "import"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(!said.contains("rbk_") && !said.contains("whsec_"), "{said}");
}

#[test]
fn a_tampered_demo_fails_and_says_why() {
    let (finished, left) = demo(&["--tamper"]);
    let finished = finished.failure();
    assert!(left.is_empty(), "{left:?}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("signature"), "{}{}", finished.stdout, finished.stderr);
}
