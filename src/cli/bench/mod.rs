//! `ringback bench`: jobs a second, CPU a job and latency, with everything on this machine.
//!
//! Three processes beside this one: the server as anybody would start it, a load generator and a
//! sink that checks signatures. They are apart so that each one's CPU can be told, and so that the
//! server cannot be fast by knowing its client. This process only starts them, reads counters,
//! audits and reports.

mod audit;
mod crew;
mod disk;
mod durability;
mod http;
mod latency;
mod load;
mod measure;
mod notice;
mod orders;
mod processes;
mod report;
mod ruler;
mod sink;

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::output::say;
use crew::Crew;
use measure::Measured;

/// A run that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// sqlite://PATH or postgres://… [default: SQLite in a temporary folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Jobs that count; 2 % more go before them to warm up
    #[arg(long, default_value_t = 20_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Jobs submitted and not yet delivered, at most
    #[arg(long, default_value_t = 512, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// What this process is; the command starts itself in the other roles
    #[arg(long, hide = true)]
    role: Option<Role>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    /// Submits jobs and keeps the times.
    Load,
    /// Receives webhooks.
    Sink,
}

/// Runs it; an error when anything was lost, forged or missing.
pub fn run(options: Options) -> anyhow::Result<()> {
    match options.role {
        Some(Role::Load) => load::run(),
        Some(Role::Sink) => sink::run(),
        None => super::runtime()?.block_on(coordinate(options)),
    }
}

async fn coordinate(options: Options) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let folder = tempfile::Builder::new()
        .prefix("ringback-bench-")
        .tempdir()
        .context("no temporary folder")?;
    let mut crew = Crew::new(folder.path());
    let measured = tokio::select! {
        measured = measure::measure(&options, folder.path(), &mut crew) => measured,
        () = tokio::time::sleep(LONGEST) => {
            Err(anyhow::anyhow!("it took longer than {} s", LONGEST.as_secs()))
        }
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        _ = hangup.recv() => Err(anyhow::anyhow!("the terminal is gone")),
    };
    // Whatever happened: nobody is left running, and only then the folder goes.
    crew.end().await;
    folder.close().context("cannot remove the temporary folder")?;
    let Measured { report, about, faults } = measured?;
    if options.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        say!("{}", report.table(&about).trim_end());
    }
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}
