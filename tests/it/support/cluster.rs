//! A Postgres server of a test's own, for tests that stop, kill or freeze the database itself.
//!
//! Everybody else shares the one that `./test` starts: a cluster costs seconds, a database in it
//! milliseconds.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringback::store::{Connection, Location};
use tempfile::TempDir;

use super::machine::{self, environment};
use super::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the server is started with. `fsync` is said aloud: what a test proves about a crash must
/// not rest on luck.
const SETTINGS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=on",
    "synchronous_commit=on",
    "max_connections=100",
    "shared_buffers=32MB",
    "restart_after_crash=on",
];

/// A throw-away Postgres server.
pub struct Cluster {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
    /// Everything that was stopped by [`Cluster::freeze`].
    frozen: Vec<u32>,
}

impl Cluster {
    /// Makes a cluster and waits until it answers.
    pub fn start() -> Cluster {
        let folder =
            tempfile::Builder::new().prefix("ringback-cluster-").tempdir().expect("a folder");
        if let Some((user, group)) = machine::database_account() {
            chown(folder.path(), Some(user), Some(group)).expect("root may give folders away");
        }
        let mut cluster = Cluster { folder, port: 0, server: None, frozen: Vec::new() };
        let data = cluster.data();
        let mut initdb = cluster.program("initdb");
        initdb.args(["--username=ringback", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        // What is on disk before the first start does not matter.
        initdb.args(["--no-sync", "--no-instructions", "--pgdata"]).arg(data);
        machine::finish(&mut initdb, PATIENCE).success();
        cluster.start_again();
        cluster
    }

    /// The `postgres` database; [`super::database::Database::fresh_in`] makes others.
    pub fn url(&self) -> String {
        format!("postgres://ringback@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops at once, as a crash would: no checkpoint, connections cut.
    pub fn stop_immediate(&mut self) {
        self.thaw();
        if let Some(mut server) = self.server.take() {
            machine::signal(server.id(), "QUIT");
            if machine::end_of(&mut server, PATIENCE).is_none() {
                kill(&mut server);
                panic!("postgres did not stop:\n{}", self.log());
            }
        }
    }

    /// Starts on the same data and port, and waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "it is running");
        let tries = if self.port == 0 { 5 } else { 1 };
        for _ in 0..tries {
            if tries > 1 {
                self.port = machine::free_port();
            }
            self.server = Some(self.spawn());
            if self.answers() {
                return;
            }
            self.server = None;
        }
        panic!("postgres does not start:\n{}", self.log());
    }

    /// Stops all its processes in their tracks: connections stay open and nothing answers.
    pub fn freeze(&mut self) {
        let Some(server) = &self.server else { panic!("it is not running") };
        let server = server.id();
        // The parent first, so that it makes no more children.
        machine::signal(server, "STOP");
        self.frozen = vec![server];
        for child in machine::children_of(server) {
            machine::signal(child, "STOP");
            self.frozen.push(child);
        }
    }

    /// Lets them go on.
    pub fn thaw(&mut self) {
        for process in self.frozen.drain(..).rev() {
            machine::signal(process, "CONT");
        }
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let path = PathBuf::from(environment("RINGBACK_TEST_PG_BIN")).join(name);
        let mut command = machine::clean_command(path);
        command.env("LC_ALL", "C").current_dir(self.folder.path());
        if let Some((user, group)) = machine::database_account() {
            command.uid(user).gid(group);
        }
        command
    }

    fn spawn(&self) -> Child {
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
            .stdout(log.try_clone().expect("a log"))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("postgres")
    }

    /// Waits until it answers; `false` if it ended instead.
    fn answers(&mut self) -> bool {
        let location = Location::parse(&self.url()).expect("a location");
        let server = self.server.as_mut().expect("just started");
        eventually("postgres answers", PATIENCE, || {
            if server.try_wait().expect("our own child").is_some() {
                return Some(false);
            }
            Connection::open(&location).ok().map(|_| true)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.thaw();
        if let Some(mut server) = self.server.take() {
            // An orderly end, because SIGKILL would leave shared memory behind.
            machine::signal(server.id(), "QUIT");
            if machine::end_of(&mut server, Duration::from_secs(10)).is_none() {
                kill(&mut server);
            }
        }
        if std::thread::panicking() {
            eprintln!("the log of this test's postgres:\n{}", self.log());
        }
    }
}

fn kill(server: &mut Child) {
    for child in machine::children_of(server.id()) {
        machine::signal(child, "KILL");
    }
    server.kill().expect("our own child");
    server.wait().expect("our own child");
}
