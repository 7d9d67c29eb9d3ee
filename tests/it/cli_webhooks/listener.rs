//! A `ringback listen` that ends with this value.

use std::fs::{self, File};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::machine;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Listener {
    child: Child,
    folder: TempDir,
    url: String,
}

impl Listener {
    /// Starts `ringback listen --port 0 --json ARGUMENTS` and waits until it says where.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Listener {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let mut listener = Listener::spawn(&all);
        let first = listener.line(0);
        let first: Value = serde_json::from_str(&first).expect("JSON");
        listener.url = first["listening"].as_str().expect("a URL").to_owned();
        listener
    }

    /// The same as people use it.
    #[track_caller]
    pub fn start_for_people(arguments: &[&str]) -> Listener {
        let mut listener = Listener::spawn(arguments);
        let first = listener.line(0);
        let url = first.strip_prefix("listening on ").expect("where it listens");
        listener.url = url.to_owned();
        listener
    }

    #[track_caller]
    fn spawn(arguments: &[&str]) -> Listener {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |name| File::create(folder.path().join(name)).expect("a file for output");
        let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
        command.args(["listen", "--port", "0"]).args(arguments);
        let child = command.stdout(open("stdout")).stderr(open("stderr")).spawn();
        Listener { child: child.expect("the binary"), folder, url: String::new() }
    }

    /// A line that it has printed or will print.
    #[track_caller]
    fn line(&mut self, number: usize) -> String {
        eventually(&format!("line {number}"), PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                panic!("the listener ended ({status}): {}{}", self.stdout(), self.stderr());
            }
            let said = self.stdout();
            // What has no end yet is not a line yet.
            said.split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .nth(number)
                .map(|line| line.trim_end().to_owned())
        })
    }

    /// What it told of so many webhooks, the first ones.
    #[track_caller]
    pub fn told(&mut self, count: usize) -> Vec<Value> {
        (1..=count).map(|number| serde_json::from_str(&self.line(number)).expect("JSON")).collect()
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub fn end(mut self, signal: &str) -> ExitStatus {
        assert!(machine::signal(self.child.id(), signal), "it was running");
        machine::end_of(&mut self.child, PATIENCE).expect("it ends when asked")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _may_have_been_waited_for = self.child.wait();
    }
}
