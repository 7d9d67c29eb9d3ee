//! `bench --idle`: how soon a server is ready on a database that exists, and what it costs while
//! nobody asks it anything.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::sleep;

use super::crew::Crew;
use super::ground::Ground;
use super::latency::median;
use super::processes;
use super::report::{Cpu, optional, rounded};
use super::server::{self, Server};
use crate::store::Backend;

/// Starts that are measured; the last one stays idle.
const STARTS: usize = 3;
/// What a start leaves to do is done by then.
const SETTLING: Duration = Duration::from_secs(5);

/// The figures. Names and shape are what scripts rely on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Idle {
    pub start_to_ready_ms: Starts,
    /// Of one core.
    pub cpu_percent: Cpu,
    /// Resident at the end.
    pub memory_mb: f64,
    pub peak_memory_mb: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Starts {
    pub median: f64,
    pub worst: f64,
}

impl Starts {
    fn of(millis: Vec<f64>) -> Starts {
        let worst = millis.iter().copied().fold(0.0, f64::max);
        Starts { median: median(millis), worst: rounded(worst) }
    }
}

/// Starts servers on the ground one after the other, and leaves the last one idle for so long.
pub(super) async fn measure(
    ground: &Ground,
    seconds: u32,
    crew: &mut Crew,
) -> anyhow::Result<Idle> {
    ground.let_settle().await?;
    let mut starts = Vec::with_capacity(STARTS);
    while starts.len() + 1 < STARTS {
        starts.push(millis(server::start(crew, ground).await?.start_to_ready));
        crew.stop("server").await?;
        crew.end().await;
    }
    let server = server::start(crew, ground).await?;
    starts.push(millis(server.start_to_ready));
    sleep(SETTLING).await;
    let before = Spent::read(&server)?;
    sleep(Duration::from_secs(seconds.into())).await;
    crew.check("server")?;
    let cpu_percent = Spent::read(&server)?.since(&before, ground.location.backend);
    let memory = processes::memory_mib(server.pid).context("the server is gone")?;
    let peak_memory = processes::peak_memory_mib(server.pid).context("the server is gone")?;
    crew.stop("server").await?;
    Ok(Idle {
        start_to_ready_ms: Starts::of(starts),
        cpu_percent,
        memory_mb: rounded(memory),
        peak_memory_mb: rounded(peak_memory),
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// CPU in milliseconds at a time. Nothing is asked of the server for it.
struct Spent {
    at: Instant,
    server: f64,
    database: Option<f64>,
}

impl Spent {
    fn read(server: &Server) -> anyhow::Result<Spent> {
        Ok(Spent {
            at: Instant::now(),
            server: processes::cpu_millis(server.pid).context("the server is gone")?,
            database: server.database.and_then(processes::cpu_millis_of_family),
        })
    }

    /// Percent of one core.
    fn since(&self, before: &Spent, backend: Backend) -> Cpu {
        let elapsed = millis(self.at - before.at);
        let percent = |spent: f64| rounded(100.0 * spent / elapsed.max(1.0));
        let server = self.server - before.server;
        let database = match backend {
            Backend::Sqlite => Some(0.0),
            Backend::Postgres => {
                self.database.zip(before.database).map(|(after, then)| after - then)
            }
        };
        Cpu {
            server: percent(server),
            database: database.map(percent),
            total: database.map(|database| percent(server + database)),
        }
    }
}

impl Idle {
    /// For people.
    pub(super) fn table(&self, database: &str, seconds: u32) -> String {
        let Starts { median, worst } = self.start_to_ready_ms;
        let cpu = &self.cpu_percent;
        format!(
            "a server that was idle for {seconds} s, from {} s after it was ready\non {database}\n\n  \
             start to ready        median {median:.1} ms, worst {worst:.1} ms of {STARTS}\n  \
             CPU, server           {:.3} % of one core\n  CPU, database         {} %\n  \
             CPU, both             {} %\n  memory                {:.1} MiB\n  \
             peak memory           {:.1} MiB",
            SETTLING.as_secs(),
            cpu.server,
            optional(cpu.database),
            optional(cpu.total),
            self.memory_mb,
            self.peak_memory_mb
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_scripts_rely_on() {
        let idle = Idle {
            start_to_ready_ms: Starts::of(vec![90.0, 40.0, 50.0]),
            cpu_percent: Cpu { server: 0.25, database: None, total: None },
            memory_mb: 40.0,
            peak_memory_mb: 41.5,
        };
        assert_eq!(
            serde_json::to_string(&idle).unwrap(),
            "{\"startToReadyMs\":{\"median\":50.0,\"worst\":90.0},\
             \"cpuPercent\":{\"server\":0.25,\"database\":null,\"total\":null},\
             \"memoryMb\":40.0,\"peakMemoryMb\":41.5}"
        );
    }

    #[test]
    fn cpu_is_told_in_percent_of_one_core() {
        let at = Instant::now();
        let before = Spent { at, server: 100.0, database: Some(10.0) };
        let after = Spent { at: at + Duration::from_secs(20), server: 150.0, database: Some(20.0) };
        let cpu = after.since(&before, Backend::Postgres);
        assert_eq!((cpu.server, cpu.database, cpu.total), (0.25, Some(0.05), Some(0.3)));
        assert_eq!(after.since(&before, Backend::Sqlite).total, Some(0.25));
    }
}
