//! `ringback bench`: jobs a second, CPU a job and latency, with everything on this machine.
//!
//! Three processes beside this one: the server as anybody would start it, a load generator and a
//! sink that checks signatures. They are apart so that each one's CPU can be told, and so that the
//! server cannot be fast by knowing its client. This process only starts them, reads counters,
//! audits and reports.

mod audit;
mod crew;
mod deliveries;
mod disk;
mod durability;
mod ground;
mod http;
mod latency;
mod load;
mod measure;
mod notice;
mod orders;
mod pairs;
mod past;
mod processes;
mod report;
mod ruler;
mod sink;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::output::say;
use crate::config::number;
use crate::engine::MOST_ENDPOINTS;
use crew::Crew;
use ground::Ground;
use measure::Measured;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// sqlite://PATH or postgres://… [default: SQLite in a temporary folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Jobs that count; 2 % more go before them to warm up
    #[arg(long, default_value_t = 20_000, value_name = "N",
        value_parser = number::whole::<u32>(1..=10_000_000))]
    jobs: u32,
    /// Jobs submitted and not yet delivered, at most
    #[arg(long, default_value_t = 512, value_name = "N",
        value_parser = number::whole::<u32>(1..=100_000))]
    in_flight: u32,
    /// Finished jobs that fill the history before anything counts, in thousands
    #[arg(long, value_name = "N", value_parser = history)]
    history: Option<u32>,
    /// Bytes more in each job, which go through its events and its webhook too
    #[arg(long, default_value_t = 0, value_name = "BYTES",
        value_parser = number::whole::<u32>(0..=MOST_PAYLOAD))]
    payload: u32,
    /// Runs with the history and on an empty database in turn, this many of each
    #[arg(long, value_name = "N", requires = "history",
        value_parser = number::whole::<u32>(1..=100))]
    pairs: Option<u32>,
    /// Measure deliveries instead: events that are already due, --jobs of them over --endpoints
    #[arg(long, conflicts_with_all = ["history", "payload", "in_flight"])]
    deliveries: bool,
    /// Endpoints that every job is told to besides its callback, 1,000 at most; with --deliveries
    /// those that the deliveries go to [default: 0, or 1]
    #[arg(long, value_name = "N", value_parser = number::whole::<u32>(1..=100_000))]
    endpoints: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// What this process is; the command starts itself in the other roles
    #[arg(long, hide = true)]
    role: Option<Role>,
}

/// Metadata may have 16 KiB in all.
const MOST_PAYLOAD: u32 = 16_000;

fn history(text: &str) -> Result<u32, String> {
    let allowed =
        || format!("{text} is not allowed: a multiple of {}, 100,000,000 at most", past::PATTERN);
    let jobs: u32 = text.parse().map_err(|_| allowed())?;
    let fits = jobs.is_multiple_of(past::PATTERN) && (past::PATTERN..=100_000_000).contains(&jobs);
    if fits { Ok(jobs) } else { Err(allowed()) }
}

/// What is done in one run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    jobs: u32,
    in_flight: u32,
    payload: u32,
    endpoints: u32,
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
    let worked = tokio::select! {
        worked = work(&options, folder.path(), &mut crew) => worked,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        _ = hangup.recv() => Err(anyhow::anyhow!("the terminal is gone")),
    };
    // Whatever happened: nobody is left running, and only then the folder goes.
    crew.end().await;
    folder.close().context("cannot remove the temporary folder")?;
    let faults = worked?;
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Measures and says what came of it; what is wrong with the figures.
async fn work(
    options: &Options,
    folder: &std::path::Path,
    crew: &mut Crew,
) -> anyhow::Result<Vec<String>> {
    let Options { jobs, in_flight, payload, .. } = *options;
    let endpoints = options.endpoints.unwrap_or(0);
    let plan = Plan { jobs, in_flight, payload, endpoints };
    anyhow::ensure!(
        options.deliveries || i64::from(endpoints) <= MOST_ENDPOINTS,
        "--endpoints {endpoints} is not allowed for one application: {MOST_ENDPOINTS} at most"
    );
    if options.pairs.is_some() {
        let (compared, faults) = pairs::compare(options, &plan, folder, crew).await?;
        match options.json {
            true => say!("{}", serde_json::to_string(&compared)?),
            false => say!("{}", compared.table(options.history)),
        }
        return Ok(faults);
    }
    let ground = Ground::of(options.database.as_deref(), folder).await?;
    if options.deliveries {
        let endpoints = usize::try_from(options.endpoints.unwrap_or(1))?;
        // Each is owed as much as the others.
        let deliveries = usize::try_from(jobs)?.next_multiple_of(endpoints);
        let (sent, faults) = deliveries::measure(&ground, deliveries, endpoints, crew).await?;
        match options.json {
            true => say!("{}", serde_json::to_string(&sent)?),
            false => say!("{}", sent.table()),
        }
        return Ok(faults);
    }
    if let Some(history) = options.history {
        past::fill(&ground, &plan, history, folder, crew).await?;
    }
    let Measured { report, about, faults } = measure::measure(&ground, &plan, folder, crew).await?;
    match options.json {
        true => say!("{}", serde_json::to_string(&report)?),
        false => say!("{}", report.table(&about).trim_end()),
    }
    Ok(faults)
}
