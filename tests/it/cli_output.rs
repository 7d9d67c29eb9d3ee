//! What becomes of a command whose output nobody reads, or that cannot be written.

use std::fs::{self, File};
use std::process::{Child, Command};
use std::time::Duration;

use crate::cli_webhooks::{Files, SECRET, body};
use crate::support::database::{Backend, Database};
use crate::support::http::Client;
use crate::support::machine;
use crate::support::process::{Application, data_dir, ringback};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);
/// Of what the standard library makes of a panic.
const PANICKED: i32 = 101;

/// Whose reader is gone, so that every byte is refused.
fn unread() -> std::io::PipeWriter {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    writer
}

fn command(arguments: &[&str]) -> Command {
    let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
    command.args(arguments);
    command
}

/// Runs a command whose standard output and error nobody reads; its exit code.
#[track_caller]
fn code(mut command: Command) -> i32 {
    let mut child = command.stdout(unread()).stderr(unread()).spawn().expect("the binary");
    let ended = machine::end_of(&mut child, PATIENCE);
    if ended.is_none() {
        child.kill().expect("our own child");
    }
    let status = ended.unwrap_or_else(|| panic!("still running: {command:?}"));
    status.code().unwrap_or_else(|| panic!("{status}: {command:?}"))
}

#[test]
fn a_replay_that_nobody_watches_sends_everything_and_tells_by_its_code() {
    let bodies = ["a", "b", "c"].map(|name| body(name, "job.succeeded"));
    let files =
        Files::new(&[("a.json", &bodies[0]), ("b.json", &bodies[1]), ("c.json", &bodies[2])]);
    let receiver = Receiver::start();
    let to = receiver.url("/hook");
    let replay = || command(&["replay", files.text(), "--to", &to, "--secret", SECRET]);
    assert_eq!(code(replay()), 0);
    assert_eq!(receiver.wait_for(3, PATIENCE).len(), 3);
    receiver.on("/hook", [Reply::status(500)]);
    assert_eq!(code(replay()), 1);
    assert_eq!(receiver.wait_for(6, PATIENCE).len(), 6);
}

#[test]
fn an_export_that_nobody_watches_is_a_whole_one() {
    let files = Files::new(&[]);
    assert_eq!(code(command(&["fixtures", "export", files.text()])), 0);
    let listed = ringback(&["fixtures", "list", "--json"]).success().json();
    let written = fs::read_dir(files.path()).expect("a folder").count();
    assert_eq!(Some(written), listed.as_array().map(Vec::len));
}

/// A server that ends with this value.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _may_have_ended = self.0.kill();
        let _may_have_been_waited_for = self.0.wait();
    }
}

#[test]
fn a_server_that_nobody_watches_goes_on_and_ends_well() {
    let database = Database::fresh(Backend::Sqlite);
    let address = format!("127.0.0.1:{}", machine::free_port());
    let data = data_dir(&database);
    // Every request is logged, and the log goes nowhere either.
    let options = ["--listen", &address, "--data-dir", &data, "--log-filter", "debug"];
    let mut serve = command(&[&["serve"], &options[..]].concat());
    let child = serve.stdout(unread()).stderr(unread()).spawn().expect("the binary");
    let mut serving = Serving(child);
    let client = Client::new(format!("http://{address}"));
    for _ in 0..3 {
        eventually("the server is ready", PATIENCE, || {
            let ended = serving.0.try_wait().expect("our own child");
            assert!(ended.is_none(), "it ended instead of serving: {ended:?}");
            let answer = client.request("GET", "/readyz").try_send().ok()?;
            (answer.status == 200).then_some(())
        });
    }
    assert!(machine::signal(serving.0.id(), "TERM"), "it was running");
    let ended = machine::end_of(&mut serving.0, PATIENCE).expect("it ends when asked");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn no_command_panics_when_nobody_reads() {
    let database = Database::fresh(Backend::Sqlite);
    let application = Application::create(&database, "shop");
    let data = data_dir(&database);
    let receiver = Receiver::start();
    let answer = r#"{"deliveries": [{"id": "d", "endpointId": "e"}]}"#;
    receiver.on("/v1/events/trigger", [Reply::status(202).body(answer.to_owned())]);
    let url = receiver.url("");
    let apps = ["--database", database.url(), "--data-dir", &data];
    for (arguments, wanted) in [
        ([&["apps", "list"], &apps[..]].concat(), 0),
        ([&["apps", "list", "--json"], &apps[..]].concat(), 0),
        ([&["apps", "create", "other"], &apps[..]].concat(), 0),
        ([&["apps", "rotate-key", &application.id], &apps[..]].concat(), 0),
        ([&["apps", "set-rate", "shop"], &apps[..]].concat(), 0),
        ([&["apps", "disable", "nobody"], &apps[..]].concat(), 1),
        (vec!["fixtures", "list"], 0),
        (vec!["fixtures", "list", "--json"], 0),
        (vec!["trigger", "job.failed", "--url", &url, "--key", "rbk_x"], 0),
        (vec!["trigger", "job.failed", "--url", &url, "--key", "rbk_x", "--json"], 0),
        (vec!["bench", "--jobs", "20"], 0),
        (vec!["--help"], 0),
        (vec!["nonsense"], 2),
    ] {
        let ended = code(command(&arguments));
        assert_ne!(ended, PANICKED, "{arguments:?}");
        assert_eq!(ended, wanted, "{arguments:?}");
    }
    // Some of the repository's files are its material.
    let mut demo = command(&["demo"]);
    demo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(code(demo), 0);
}

#[test]
fn what_cannot_be_written_is_a_failure_that_is_said() {
    let files = Files::new(&[]);
    let said = files.file("stderr");
    let full = File::options().write(true).open("/dev/full").expect("a device that is full");
    let mut list = command(&["fixtures", "list"]);
    list.stdout(full).stderr(File::create(&said).expect("a file"));
    let mut child = list.spawn().expect("the binary");
    let ended = machine::end_of(&mut child, PATIENCE).expect("it ends");
    let said = fs::read_to_string(said).expect("a file");
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("standard output") && said.lines().count() == 1, "{said}");
}
