//! The command line as an operator uses it: settings and where they come from, servers, the demo.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::database::{Backend, Database, on_both};
use crate::support::machine::{self, Finished};
use crate::support::process::{Application, Server, data_dir, ringback, ringback_in};

const PATIENCE: Duration = Duration::from_secs(60);

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
