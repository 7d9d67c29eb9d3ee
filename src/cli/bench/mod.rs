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
mod idle;
mod latency;
mod load;
mod measure;
mod notice;
mod options;
mod orders;
mod pairs;
mod past;
mod processes;
mod report;
mod ruler;
mod server;
mod sink;

use anyhow::Context as _;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::output::say;
use crew::Crew;
use deliveries::Sent;
use ground::Ground;
use measure::Measured;
pub use options::Options;
use options::{Plan, Role};

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
    let plan = options.plan()?;
    if let Some(pairs) = options.pairs {
        let (compared, faults) = pairs::compare(options, pairs, &plan, folder, crew).await?;
        print(options, &compared, |compared| compared.table(options.history, &plan))?;
        return Ok(faults);
    }
    let ground = Ground::of(options.database.as_deref(), folder).await?;
    if options.deliveries {
        let (deliveries, endpoints) = options.due()?;
        let (sent, faults) = deliveries::measure(&ground, deliveries, endpoints, crew).await?;
        print(options, &sent, Sent::table)?;
        return Ok(faults);
    }
    if let Some(history) = options.history {
        past::fill(&ground, &plan, history, folder, crew).await?;
    }
    if let Some(seconds) = options.idle {
        let idle = idle::measure(&ground, seconds, crew).await?;
        print(options, &idle, |idle| idle.table(&ground.location.shown(), seconds))?;
        return Ok(Vec::new());
    }
    let Measured { report, about, faults } = measure::measure(&ground, &plan, folder, crew).await?;
    print(options, &report, |report| report.table(&about))?;
    Ok(faults)
}

/// For programs or for people.
fn print<T: Serialize>(
    options: &Options,
    figures: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match options.json {
        true => say!("{}", serde_json::to_string(figures)?),
        false => say!("{}", table(figures).trim_end()),
    }
    Ok(())
}
