//! This machine: the environment that `./test` made, free ports, signals, accounts, commands.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::wait;

/// A variable that `./test` sets.
///
/// # Panics
/// When it is not set: skipping would pass for a success.
#[expect(clippy::disallowed_methods, reason = "tests take their surroundings from ./test")]
pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set. Run ./test, which starts what the tests need and says where.")
    })
}

/// A command that sees none of our own settings: neither those of the developer's shell nor what
/// `./test` leaves for the tests.
pub fn clean_command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("RINGBACK_") || name_text.starts_with("PG") {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A loopback port that nobody listens on.
///
/// Taken from below the range that outgoing connections draw from, so that it stays free for a
/// server that is killed and started again while clients hammer its address.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    for _ in 0..COUNT {
        // Two test runs at once start from different places.
        let offset = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = u16::try_from(FIRST + offset % COUNT).expect("below 32,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Sends a signal (`"STOP"`, `"CONT"`, `"TERM"` …); whether the process was there to get it.
///
/// By way of the shell, because the standard library knows only SIGKILL.
pub fn signal(pid: u32, name: &str) -> bool {
    Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("a shell")
        .success()
}

/// The processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("a /proc");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|candidate| parent_of(*candidate) == Some(pid))
        .collect()
}

/// `PID (name, which may hold spaces and brackets) STATE PARENT …`
fn parent_of(pid: u32) -> Option<u32> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = line.rsplit_once(") ")?;
    after_name.split(' ').nth(1)?.parse().ok()
}

/// The account a database server can run as: Postgres refuses root. `None` when we are not root.
pub fn database_account() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").expect("a /proc").uid() == 0;
    if !is_root {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
    let find = |wanted: &str| {
        accounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&wanted))
                .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))
                .flatten()
        })
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("an account that is not root"))
}

/// Waits for the end of a child; `None` when it still runs after `timeout`.
pub fn end_of(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    wait::within(timeout, || child.try_wait().expect("our own child"))
}

/// What a command that has ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// The same, if the command succeeded.
    #[track_caller]
    pub fn success(self) -> Finished {
        assert!(self.status.success(), "{}", self.report());
        self
    }

    /// The same, if the command said no (and did not die by a signal).
    #[track_caller]
    pub fn failure(self) -> Finished {
        let refused = !self.status.success() && self.status.signal().is_none();
        assert!(refused, "should have failed: {}", self.report());
        self
    }

    /// What it printed, read as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.report()))
    }

    fn report(&self) -> String {
        format!("{}\nstdout:\n{}\nstderr:\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Runs a command to its end and keeps what it prints.
///
/// # Panics
/// When it takes longer than `timeout`; it is killed then.
#[track_caller]
pub fn finish(command: &mut Command, timeout: Duration) -> Finished {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = (folder.path().join("stdout"), folder.path().join("stderr"));
    // Files, not pipes: nobody has to read along for the command to go on.
    let create = |path: &PathBuf| fs::File::create(path).expect("a file for output");
    let mut child = command
        .stdout(create(&files.0))
        .stderr(create(&files.1))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let status = end_of(&mut child, timeout);
    if status.is_none() {
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
    let read = |path| String::from_utf8_lossy(&fs::read(path).expect("its output")).into_owned();
    let (stdout, stderr) = (read(&files.0), read(&files.1));
    let Some(status) = status else {
        panic!("still running after {timeout:?}: {command:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    };
    Finished { status, stdout, stderr }
}

/// The most memory that a process has held at any time so far, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kilobytes * 1_024
}
