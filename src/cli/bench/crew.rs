//! The processes of a bench: started here, ended here on every way out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::config;

/// How long a process may take to end once asked.
const PATIENCE: Duration = Duration::from_secs(40);

/// The name of those who watch.
const GUARD: &str = "guard";

/// All processes that were started. Dropping it kills them.
pub(super) struct Crew {
    folder: PathBuf,
    children: Vec<(&'static str, Child)>,
}

impl Crew {
    /// Nobody yet; what they print goes into files in the folder.
    pub(super) fn new(folder: &Path) -> Crew {
        Crew { folder: folder.to_owned(), children: Vec::new() }
    }

    /// Starts this binary once more, talking to it over stdin and stdout.
    pub(super) fn talk(&mut self, name: &'static str, arguments: &[&str]) -> anyhow::Result<Talk> {
        let mut command = self.command(name, arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        self.children.push((name, child));
        let (Some(stdin), Some(stdout)) = pipes else { anyhow::bail!("the {name} has no pipes") };
        let lines = BufReader::new(stdout).lines();
        Ok(Talk { name, stdin, lines, log: self.log(name, "stderr") })
    }

    /// Starts this binary once more, on its own; its process id. Who is talked to ends when nobody
    /// talks any more, also when this process was killed; for the others there is a guard.
    pub(super) fn start(&mut self, name: &'static str, arguments: &[&str]) -> anyhow::Result<u32> {
        let mut command = self.command(name, arguments)?;
        let output = File::create(self.log(name, "stdout"))?;
        // It may be the database's client.
        command.stdin(Stdio::null()).stdout(output).envs(config::libpq_environment());
        let child = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let pid = child.id();
        self.children.push((name, child));
        let pid = pid.with_context(|| format!("the {name} ended at once"))?;
        self.guard(pid)?;
        Ok(pid)
    }

    /// Has a process end when this one is gone, which shows by the end of the guard's stdin.
    fn guard(&mut self, pid: u32) -> anyhow::Result<()> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"read -r line; kill -s TERM "$0""#, &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        self.children.push((GUARD, command.spawn().context("cannot start a guard")?));
        Ok(())
    }

    fn command(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            // Defaults are what is measured: neither anybody's variables nor a settings file.
            .env_clear()
            .current_dir(&self.folder)
            .stderr(File::create(self.log(name, "stderr"))?)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log(&self, name: &str, stream: &str) -> PathBuf {
        self.folder.join(format!("{name}.{stream}"))
    }

    /// The id of a process that is still running.
    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|(known, _)| *known == name)?.1.id()
    }

    /// What a process printed so far.
    pub(super) fn printed(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name, "stdout")).unwrap_or_default()
    }

    /// An error that says how a process ended, if it did.
    pub(super) fn check(&mut self, name: &str) -> anyhow::Result<()> {
        let log = self.log(name, "stderr");
        for (known, child) in &mut self.children {
            if *known == name
                && let Some(status) = child.try_wait()?
            {
                anyhow::bail!("the {name} ended with {status}: {}", tail(&log));
            }
        }
        Ok(())
    }

    /// Who has ended by now, and how: what else went wrong may come of that.
    pub(super) fn fallen(&mut self) -> Option<String> {
        let ended = self.children.iter_mut().filter(|(name, _)| *name != GUARD);
        let mut ended = ended.filter_map(|(name, child)| {
            let status = child.try_wait().ok()??;
            (!status.success()).then(|| format!("the {name} ended with {status}"))
        });
        ended.next()
    }

    /// Asks a process to end in good order, and waits until it has.
    pub(super) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let log = self.log(name, "stderr");
        let Some((_, child)) = self.children.iter_mut().find(|(known, _)| *known == name) else {
            return Ok(());
        };
        let Some(pid) = child.id() else { return Ok(()) };
        // The standard library knows only SIGKILL. The child is not yet waited for, so its id
        // cannot be anybody else's.
        let asked = Command::new("/bin/sh")
            .args(["-c", r#"kill -s TERM "$0""#, &pid.to_string()])
            .status()
            .await?;
        anyhow::ensure!(asked.success(), "cannot signal the {name}");
        // The id may soon be somebody else's.
        for (_, guard) in self.children.iter_mut().filter(|(known, _)| *known == GUARD) {
            // An error means that it has ended already.
            let _ = guard.start_kill();
        }
        let Some((_, child)) = self.children.iter_mut().find(|(known, _)| *known == name) else {
            return Ok(());
        };
        let status = timeout(PATIENCE, child.wait())
            .await
            .with_context(|| format!("the {name} did not end within {} s", PATIENCE.as_secs()))??;
        anyhow::ensure!(status.success(), "the {name} ended with {status}: {}", tail(&log));
        Ok(())
    }

    /// Ends everybody who is left and waits until they are gone.
    pub(super) async fn end(&mut self) {
        for (_, child) in &mut self.children {
            // An error means that it has ended already.
            let _ = child.start_kill();
        }
        for (_, mut child) in self.children.drain(..) {
            let _ = timeout(PATIENCE, child.wait()).await;
        }
    }
}

/// A process that is talked to.
pub(super) struct Talk {
    name: &'static str,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Talk {
    /// Gives an order.
    pub(super) async fn tell(&mut self, order: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let told = self.stdin.write_all(&line).await;
        told.with_context(|| format!("the {} does not listen: {}", self.name, tail(&self.log)))
    }

    /// Waits for an answer.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let Some(line) = self.lines.next_line().await? else {
            anyhow::bail!("the {} ended: {}", self.name, tail(&self.log));
        };
        serde_json::from_str(&line).with_context(|| format!("the {} said {line:?}", self.name))
    }
}

/// The last lines of a log, on one line.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default();
    if last.is_empty() { "it said nothing".to_owned() } else { last.join(" | ") }
}
