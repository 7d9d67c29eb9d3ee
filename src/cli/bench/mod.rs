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

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::say;
use crew::Crew;
use ground::Ground;
use measure::Measured;
pub use options::Options;
use options::{Plan, Role};

/// Runs it; an error when anything was lost, forged or missing.
pub fn run(options: Options) -> anyhow::Result<()> {
    match options.role {
        Some(Role::Load) => load::run(),
        Some(Role::Sink) => sink::run(),
        None => {
            let runtime = super::runtime()?;
            let mut signals = {
                let _inside = runtime.enter();
                Signals::listen()?
            };
            let folder = tempfile::Builder::new().prefix("ringback-bench-").tempdir();
            let folder = folder.context("no temporary folder")?;
            let worked = runtime.block_on(coordinate(&options, folder.path(), &mut signals));
            // Its threads may still have a database open in the folder.
            drop(runtime);
            let removed = folder.close().context("cannot remove the temporary folder");
            worked.and(removed)
        }
    }
}

/// What ends a bench before its time.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> anyhow::Error {
        tokio::select! {
            _ = self.interrupt.recv() => anyhow::anyhow!("interrupted"),
            _ = self.terminate.recv() => anyhow::anyhow!("terminated"),
            _ = self.hangup.recv() => anyhow::anyhow!("the terminal is gone"),
        }
    }
}

async fn coordinate(options: &Options, folder: &Path, signals: &mut Signals) -> anyhow::Result<()> {
    let mut crew = Crew::new(folder);
    let worked = tokio::select! {
        // A terminal tells the others as well, and that they end is no news then.
        biased;
        ended = signals.next() => Err(ended),
        worked = work(options, folder, &mut crew) => match crew.fallen() {
            Some(fallen) => worked.context(fallen),
            None => worked,
        },
    };
    // Whatever happened: nobody is left running.
    crew.end().await;
    let faults = worked?;
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Measures and says what came of it; what is wrong with the figures.
async fn work(options: &Options, folder: &Path, crew: &mut Crew) -> anyhow::Result<Vec<String>> {
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
        print(options, &sent, |sent| sent.table(&ground.location.shown()))?;
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
