//! `ringback demo`: the whole way of a job on real files, in a temporary folder.
//!
//! A real server with its default settings, a receiver that trusts nothing, and HTTP between them.
//! Whatever happens, both end and the folder goes.

mod check;
mod follow;
mod material;
mod receiver;
mod story;

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::cli::api::Api;
use crate::cli::client::Target;
use crate::cli::output::say;
use crate::config::{Config, LogFormat};
use crate::telemetry;

/// For everything together; it usually takes about a second.
const LONGEST: Duration = Duration::from_secs(30);
/// For the server to end.
const STOPPING: Duration = Duration::from_secs(15);

/// How to show it.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Change one byte of the first webhook before it is verified; the demo must fail then
    #[arg(long)]
    tamper: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    // The demo's own lines are the output; the server speaks up only if something breaks.
    telemetry::start_logging(LogFormat::Text, "error").map_err(anyhow::Error::msg)?;
    super::runtime()?.block_on(show(options))
}

async fn show(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let folder = tempfile::Builder::new()
        .prefix("ringback-demo-")
        .tempdir()
        .context("no temporary folder")?;
    let path = folder.path().to_owned();
    let mut running = None;
    let told = tokio::select! {
        told = tell(options, &path, &mut running, began) => told,
        () = tokio::time::sleep(LONGEST) => {
            Err(anyhow::anyhow!("it is not through after {} s", LONGEST.as_secs()))
        }
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    let stopped = match running.take() {
        Some(app) => timeout(STOPPING, app.stop())
            .await
            .context("the server does not stop")
            .and_then(|stopped| stopped),
        None => Ok(()),
    };
    folder.close().with_context(|| format!("cannot remove {}", path.display()))?;
    let summary = told?;
    stopped.context("stopping the server")?;
    say!("\n{summary}, {} ms", began.elapsed().as_millis());
    say!("Nothing is left behind: the server has stopped and {} is gone.", path.display());
    Ok(())
}

/// Starts everything and tells the story. The server is left in `running` for the caller to stop,
/// also when the story breaks off.
async fn tell(
    options: &Options,
    folder: &std::path::Path,
    running: &mut Option<App>,
    began: Instant,
) -> anyhow::Result<String> {
    let material = material::find()?;
    let app = running.insert(
        App::start(Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.to_owned(),
            egress_allow: vec!["127.0.0.0/8".parse()?],
            grace_seconds: 2,
            ..Config::default()
        })
        .await?,
    );
    let application =
        app.engine().create_application("demo", &["*".to_owned()], None, None).await?;
    let receiver = receiver::start(&application.signing_secret, &material.export, options.tamper)?;
    say!("server     http://{}, SQLite in {}", app.address(), folder.display());
    say!("receiver   {}", receiver.base_url);
    say!("material   {} files {}", material.files.len(), material.origin);
    let api = Api::new(Target::at(app.address())?, &application.api_key)?;
    let stop = receiver.handle.clone();
    let told = story::tell(&api, receiver, &material, began).await;
    stop.stop(false).await;
    told
}
