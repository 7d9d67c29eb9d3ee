//! `ringback serve`: the server, until SIGTERM or Ctrl-C.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::output::say;
use crate::app::App;
use crate::config::{Config, Flags};
use crate::telemetry;

pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    telemetry::start_logging(config.log_format, &config.log_filter).map_err(anyhow::Error::msg)?;
    super::runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Handlers are set before anything starts, so that an early signal is not the default death.
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let data_dir = config.data_dir.display().to_string();
    let database = config.database.is_some().then(|| config.database_url());
    let app = App::start(config).await?;
    say!("ringback {} listens on http://{}", env!("CARGO_PKG_VERSION"), app.address());
    say!("database: {}", app.database());
    say!("public URL: {} (API document at /docs)", app.public_url());
    let shown =
        if database.is_some() { format!(" --database {}", app.database()) } else { String::new() };
    say!("create an application: ringback apps create NAME --data-dir {data_dir}{shown}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    app.stop().await?;
    tracing::info!("stopped");
    Ok(())
}
