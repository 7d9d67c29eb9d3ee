//! The real binary as a process of its own: started, frozen, killed, started again.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::database::Database;
use super::http::Client;
use super::machine::{self, Finished};
use super::wait::eventually;

/// The binary under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ringback");

/// Long enough for a slow disk under full load, short enough to notice.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `ringback ARGUMENTS` to its end.
#[track_caller]
pub fn ringback(arguments: &[&str]) -> Finished {
    ringback_in(Path::new("."), arguments, PATIENCE)
}

/// The same, in a folder of choice and within a time of choice.
#[track_caller]
pub fn ringback_in(folder: &Path, arguments: &[&str], timeout: Duration) -> Finished {
    ringback_with(folder, arguments, &[], timeout)
}

/// The same with variables of the environment.
#[track_caller]
pub fn ringback_with(
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Finished {
    let mut command = machine::clean_command(PROGRAM);
    let variables = environment.iter().copied();
    machine::finish(command.args(arguments).envs(variables).current_dir(folder), timeout)
}

/// Starts `ringback ARGUMENTS` with a folder for temporary files of its own. It is killed with this
/// value.
pub fn start_ringback(arguments: &[&str], temporary: &Path) -> KilledChild {
    let mut command = machine::clean_command(PROGRAM);
    command.args(arguments).env("TMPDIR", temporary).stdout(Stdio::null()).stderr(Stdio::null());
    KilledChild(command.spawn().expect("the binary"))
}

/// A process that does not outlive this value.
pub struct KilledChild(Child);

impl KilledChild {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for KilledChild {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An application as `apps create` prints it: the only time its secrets are shown.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Its public id.
    pub id: String,
    /// The name it was given.
    pub name: String,
    /// For `Authorization: Bearer …`.
    pub api_key: String,
    /// What its webhooks are signed with.
    pub signing_secret: String,
}

impl Application {
    /// Makes one by the command line, with the data folder that servers on `database` use too.
    #[track_caller]
    pub fn create(database: &Database, name: &str) -> Application {
        Application::create_with(database, name, &[])
    }

    /// The same with more options, such as `--scopes`.
    #[track_caller]
    pub fn create_with(database: &Database, name: &str, options: &[&str]) -> Application {
        let data_dir = data_dir(database);
        let mut arguments = vec!["apps", "create", name, "--json"];
        arguments.extend(["--database", database.url(), "--data-dir", &data_dir]);
        arguments.extend(options);
        let printed = ringback(&arguments).success().json();
        serde_json::from_value(printed).expect("an application")
    }
}

/// The data folder of all servers and commands on one test's database: it holds the key that
/// secrets are stored under.
pub fn data_dir(database: &Database) -> String {
    database.folder().join("data").to_str().expect("a plain path").to_owned()
}

/// A `ringback serve` that ends with this value.
pub struct Server {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts `ringback serve --listen 127.0.0.1:PORT ARGUMENTS` and waits until it is ready.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_with(arguments, &[])
    }

    /// Starts a node on a test's database and waits until it is ready.
    #[track_caller]
    pub fn on(database: &Database, arguments: &[&str]) -> Server {
        let data_dir = data_dir(database);
        let mut all = vec!["--database", database.url(), "--data-dir", &data_dir];
        all.extend(arguments);
        Server::start(&all)
    }

    /// The same as [`Server::start`], with variables of the environment.
    #[track_caller]
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        match Server::try_start_with(arguments, environment) {
            Ok(server) => server,
            Err(finished) => panic!("the server ended instead of serving: {finished:#?}"),
        }
    }

    /// Starts and waits until it is ready, or has ended by itself.
    #[track_caller]
    pub fn try_start(arguments: &[&str]) -> Result<Server, Finished> {
        Server::try_start_with(arguments, &[])
    }

    #[track_caller]
    fn try_start_with(
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Server, Finished> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut server = Server {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: environment.iter().map(owned).collect(),
            port: 0,
            folder: tempfile::Builder::new().prefix("ringback-serve-").tempdir().expect("a folder"),
            child: None,
        };
        for tries_left in (0..5).rev() {
            server.port = machine::free_port();
            server.spawn();
            match server.wait_until_ready() {
                None => return Ok(server),
                // Somebody else took the port between our look and the server's.
                Some(_) if tries_left > 0 && server.stderr().contains("in use") => {}
                Some(status) => return Err(server.finished(status)),
            }
        }
        unreachable!("the last try returns");
    }

    /// Starts it again on the same port, with the same arguments, and waits until it is ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_unready();
        if let Some(status) = self.wait_until_ready() {
            panic!("the server ended instead of serving: {:#?}", self.finished(status));
        }
    }

    /// Starts it again and does not wait, for tests that kill a server as it starts.
    #[track_caller]
    pub fn start_again_unready(&mut self) {
        assert!(self.child.is_none(), "it is running");
        self.spawn();
    }

    /// Waits until `GET /readyz` answers 200; the exit status if the process ended instead.
    #[track_caller]
    pub fn wait_until_ready(&mut self) -> Option<ExitStatus> {
        let client = self.client();
        let child = self.child.as_mut().expect("it was started");
        let ended = eventually("the server is ready", PATIENCE, || {
            match child.try_wait().expect("our own child") {
                Some(status) => Some(Some(status)),
                None => {
                    let answer = client.request("GET", "/readyz").try_send().ok()?;
                    (answer.status == 200).then_some(None)
                }
            }
        });
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// Where it listens.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client without a key.
    pub fn client(&self) -> Client {
        Client::new(self.base_url())
    }

    /// A client of that application.
    pub fn client_of(&self, application: &Application) -> Client {
        self.client().with_key(&application.api_key)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    /// Whether the process is there (frozen counts).
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our own").is_none())
    }

    /// Kills it at once; nothing of it runs any more when this returns.
    pub fn sigkill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Panics
    /// When it still runs after `timeout`.
    #[track_caller]
    pub fn sigterm(&mut self, timeout: Duration) -> ExitStatus {
        assert!(machine::signal(self.pid(), "TERM"), "it was running");
        self.wait_for_end(timeout)
    }

    /// Waits for an end that something else has brought about.
    #[track_caller]
    pub fn wait_for_end(&mut self, timeout: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("it is running");
        match machine::end_of(child, timeout) {
            Some(status) => {
                self.child = None;
                status
            }
            None => panic!("still running after {timeout:?}:\n{}", self.stderr()),
        }
    }

    /// Stops it in its tracks: sockets stay open, nothing answers.
    pub fn freeze(&self) {
        assert!(machine::signal(self.pid(), "STOP"), "it was running");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        assert!(machine::signal(self.pid(), "CONT"), "it was there");
    }

    /// Everything it has printed, over all its starts.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log("stdout")).unwrap_or_default()).into_owned()
    }

    /// Everything it has logged, over all its starts.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log("stderr")).unwrap_or_default()).into_owned()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&mut self) {
        let open = |path| File::options().create(true).append(true).open(path).expect("a log");
        let mut command = machine::clean_command(PROGRAM);
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // A folder without a configuration file, and nothing lands in the repository.
            .current_dir(self.folder.path())
            .stdout(open(self.log("stdout")))
            .stderr(open(self.log("stderr")));
        self.child = Some(command.spawn().expect("the binary"));
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        Finished { status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.sigkill();
        if std::thread::panicking() {
            let log = self.stderr();
            let lines: Vec<&str> = log.lines().collect();
            let latest = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("the latest of the log of the server on {}:\n{latest}", self.base_url());
        }
    }
}

/// Whether a process was ended by SIGKILL, as tests do it.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}
