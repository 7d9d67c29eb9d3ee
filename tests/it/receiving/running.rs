//! Samples at work: started as a reader of the document would start them, and what they took up.
//!
//! Must not know what is sent to them.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use tempfile::TempDir;

use super::document::sample;
use super::rust_sample;
use crate::support::machine::{clean_command, environment, free_port};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// A sample that listens.
pub struct Running {
    port: u16,
    manner: Manner,
}

enum Manner {
    Process { child: Child, folder: TempDir },
    Thread { server: ServerHandle, lines: Arc<Mutex<Vec<String>>>, ends: Vec<JoinHandle<()>> },
}

/// The Python sample with this secret.
#[track_caller]
pub fn python(secret: &str) -> Running {
    process("receive.py", &mut clean_command(environment("RINGBACK_TEST_PYTHON")), secret)
}

/// The Node sample with this secret.
#[track_caller]
pub fn node(secret: &str) -> Running {
    process("receive.mjs", &mut clean_command(environment("RINGBACK_TEST_NODE")), secret)
}

/// The Rust sample with this secret, in this process.
#[track_caller]
pub fn rust(secret: &str) -> Running {
    let port = free_port();
    let (sender, to_do) = mpsc::channel();
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let (secret, taken) = (secret.to_owned(), Arc::clone(&lines));
    let (handle_sender, handle) = mpsc::channel();
    let serving = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let server = rust_sample::listen(&secret, port, sender).expect("it listens");
            handle_sender.send(server.handle()).expect("somebody waits for it");
            server.await.expect("it serves");
        });
    });
    let working = std::thread::spawn(move || {
        let take = |kind: &str, id: &str, sequence| {
            taken.lock().unwrap().push(format!("{kind} {id} {sequence}"));
        };
        rust_sample::work(to_do, take);
    });
    let server = handle.recv_timeout(PATIENCE).expect("it listens");
    let manner = Manner::Thread { server, lines, ends: vec![serving, working] };
    Running { port, manner }.once_it_listens()
}

/// A folder with the sample, and Node's packages beside it where there are any.
pub fn folder_with(name: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix("ringback-sample-").tempdir().expect("a folder");
    fs::write(folder.path().join(name), sample(name)).expect("a file");
    if name.ends_with(".mjs") {
        let packages = Path::new(&environment("RINGBACK_TEST_NODE_PACKAGES")).join("node_modules");
        std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).expect("a link");
    }
    folder
}

fn process(name: &str, command: &mut Command, secret: &str) -> Running {
    let (folder, port) = (folder_with(name), free_port());
    let log = |name: &str| File::create(folder.path().join(name)).expect("a log");
    command
        .arg(name)
        .current_dir(folder.path())
        .env("WEBHOOK_SECRET", secret)
        .env("PORT", port.to_string())
        .stdout(log("stdout"))
        .stderr(log("stderr"));
    let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Running { port, manner: Manner::Process { child, folder } }.once_it_listens()
}

impl Running {
    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has taken up so far: `TYPE ID SEQUENCE`.
    pub fn lines(&self) -> Vec<String> {
        match &self.manner {
            Manner::Process { folder, .. } => {
                let text = fs::read_to_string(folder.path().join("stdout")).expect("its output");
                // A line is there when its end is.
                let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                whole.lines().map(str::to_owned).collect()
            }
            Manner::Thread { lines, .. } => lines.lock().unwrap().clone(),
        }
    }

    /// Waits until it has taken up exactly these.
    #[track_caller]
    pub fn takes(&self, expected: &[String]) {
        eventually("the sample does its work", PATIENCE, || {
            (self.lines().len() >= expected.len()).then_some(())
        });
        assert_eq!(self.lines(), expected);
    }

    fn once_it_listens(mut self) -> Running {
        let port = self.port;
        eventually("the sample listens", PATIENCE, || {
            if let Manner::Process { child, folder } = &mut self.manner
                && let Some(status) = child.try_wait().expect("our own child")
            {
                let said = fs::read_to_string(folder.path().join("stderr")).expect("its output");
                panic!("the sample ended with {status}:\n{said}");
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match &mut self.manner {
            Manner::Process { child, folder } => {
                child.kill().expect("our own child");
                child.wait().expect("our own child");
                if std::thread::panicking() {
                    let said = fs::read_to_string(folder.path().join("stderr"));
                    eprintln!("the sample said:\n{}", said.unwrap_or_default());
                }
            }
            Manner::Thread { server, ends, .. } => {
                // The handle only asks; what it returns need not be waited for.
                drop(server.stop(false));
                for end in ends.drain(..) {
                    let _its_own_panic_was_printed = end.join();
                }
            }
        }
    }
}
