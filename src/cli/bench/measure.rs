//! One run: everybody is started, the jobs go through, counters are read, the result is audited.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::audit::{self, metric};
use super::crew::Crew;
use super::ground::Ground;
use super::orders::{Cue, LoadOrder, LoadReport, SinkOrder, SinkReady, Stage};
use super::report::{About, Cpu, Percentiles, Report, rounded};
use super::{Plan, deliveries, disk, durability, processes};
use crate::app::open_engine;
use crate::cli::api::Api;
use crate::cli::client::Target;
use crate::engine::lookup_of;
use crate::store::{Backend, Connection, history};

/// How long the server may take to get ready, or to close its last attempts.
const PATIENCE: Duration = Duration::from_secs(30);
/// A run that takes longer than this, and than a job a hundredth of a second, has failed.
const LONGEST: Duration = Duration::from_secs(600);

/// A run and what is wrong with it.
pub(super) struct Measured {
    pub report: Report,
    pub about: About,
    /// Nothing, if the figures may be believed.
    pub faults: Vec<String>,
}

/// Runs once. Whatever is still running afterwards is the caller's to end.
pub(super) async fn measure(
    ground: &Ground,
    plan: &Plan,
    folder: &Path,
    crew: &mut Crew,
) -> anyhow::Result<Measured> {
    let longest = LONGEST.max(Duration::from_millis(10) * plan.jobs);
    let run = run(ground, plan, folder, crew);
    tokio::time::timeout(longest, run)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("it took longer than {} s", longest.as_secs())))
}

async fn run(
    ground: &Ground,
    plan: &Plan,
    folder: &Path,
    crew: &mut Crew,
) -> anyhow::Result<Measured> {
    let Ground { location, url, data, application, .. } = ground;
    let first = history::last_key(&mut Connection::open(location)?)?;
    let mut sink = crew.talk("sink", &["bench", "--role", "sink"])?;
    let mut secrets = vec![application.signing_secret.clone()];
    sink.tell(&SinkOrder { secrets: secrets.clone() }).await?;
    let ready: SinkReady = sink.hear().await?;
    if plan.endpoints > 0 {
        secrets.extend(register(ground, plan.endpoints, ready.webhooks).await?);
        sink.tell(&SinkOrder { secrets }).await?;
    }
    let (server, port) = start_server(crew, url, data).await?;
    let api = Api::new(Target::at(([127, 0, 0, 1], port).into())?, &application.api_key)?;
    wait_until_ready(crew, &api).await?;
    // Found once the server is connected; nobody to find when the database is part of the server.
    let database = match location.backend {
        Backend::Sqlite => None,
        Backend::Postgres => processes::postmaster(url),
    };

    let mut load = crew.talk("load", &["bench", "--role", "load"])?;
    let warm_up = plan.jobs.div_ceil(50);
    let Plan { jobs, in_flight, payload, .. } = *plan;
    let api_key = application.api_key.clone();
    let order = LoadOrder { server: port, api_key, sink: ready, warm_up, jobs, in_flight, payload };
    load.tell(&order).await?;
    let _: Stage = load.hear().await?;
    settle(&api).await?;

    let before = Counters::read(&api, server, database).await?;
    let helpers = own_children_cpu(crew);
    load.tell(&Cue::Go).await?;
    let _: Stage = load.hear().await?;
    // The last webhook is here before the server has noted that it is.
    let settled = settle(&api).await?;
    let after = Counters::read(&api, server, database).await?;
    let helpers = own_children_cpu(crew).zip(helpers).map(|(after, before)| after - before);
    load.tell(&Cue::Report).await?;
    let seen: LoadReport = load.hear().await?;

    let mut faults = Vec::new();
    if !settled {
        faults.push(format!("deliveries are still owed after {} s", PATIENCE.as_secs()));
    }
    if seen.lost > 0 {
        faults.push(format!("{} jobs were accepted and never delivered", seen.lost));
    }
    faults.extend(seen.strangers.iter().cloned());
    // Each delivery is a request, so with many endpoints few jobs are asked for, or none.
    let owed = 1 + usize::try_from(plan.endpoints)?;
    let asked_for = seen.sample.iter().step_by(owed).filter(|_| owed <= audit::MOST_DELIVERIES);
    for job in asked_for {
        faults.extend(audit::fault(&api, *job, owed).await?);
        if faults.len() >= 5 {
            break;
        }
    }
    let peak_memory = processes::peak_memory_mib(server).context("the server is gone")?;
    crew.stop("server").await?;
    if let Err(error) = durability::check(url) {
        faults.push(format!("{error:#}"));
    }
    let tally =
        history::tally(&mut Connection::open(location)?, first, 1 + i64::from(plan.endpoints))?;
    if tally.jobs != i64::from(warm_up + jobs) {
        faults.push(format!("{} jobs are stored of {}", tally.jobs, warm_up + jobs));
    }
    if tally.faulty > seen.duplicates.into() {
        faults.push(format!("{} jobs are not stored with their whole history", tally.faulty));
    }
    let fsync = disk::fsync_millis(ground.disk().unwrap_or(folder))?;

    let per_job = |millis: f64| rounded(millis / f64::from(jobs));
    let spent = after.since(&before, location.backend);
    let seconds = seen.elapsed as f64 / 1_000_000.0;
    let report = Report {
        jobs_per_second: rounded(f64::from(jobs - seen.lost.min(jobs)) / seconds.max(1e-6)),
        submit_to_webhook_ms: Percentiles::of_micros(seen.webhook),
        submit_ms: Percentiles::of_micros(seen.submit),
        cpu_ms_per_job: Cpu {
            server: per_job(spent.server),
            database: spent.database.map(per_job),
            total: spent.database.map(|database| per_job(spent.server + database)),
        },
        fsync_ms: rounded(fsync),
        commit_batch: spent.commit_batch.map(rounded),
        peak_memory_mb: rounded(peak_memory),
        lost: seen.lost,
        duplicates: seen.duplicates,
    };
    let about = About {
        database: location.shown(),
        jobs,
        warm_up,
        in_flight,
        seconds,
        audited: tally.jobs,
        own_cpu: helpers.map(per_job),
    };
    Ok(Measured { report, about, faults })
}

/// Endpoints of the application that submits, behind the place of its callbacks.
async fn register(ground: &Ground, endpoints: u32, sink: u16) -> anyhow::Result<Vec<String>> {
    let engine = open_engine(&ground.config()).await?;
    let registered = async {
        let caller = engine.authenticate(lookup_of(&ground.application.api_key)).await?;
        let caller = caller.context("the application is gone")?;
        let places = 1..1 + usize::try_from(endpoints)?;
        deliveries::register(&engine, &caller, sink, places, "job.succeeded").await
    }
    .await;
    engine.close();
    registered
}

/// Starts `serve` as anybody would; its process id and port.
pub(super) async fn start_server(
    crew: &mut Crew,
    url: &str,
    data: &Path,
) -> anyhow::Result<(u32, u16)> {
    let data = data.to_str().context("the path is not UTF-8")?;
    let arguments = [
        ["--database", url],
        ["--data-dir", data],
        ["--listen", "127.0.0.1:0"],
        ["--egress-allow", "127.0.0.0/8"],
    ];
    let mut all = vec!["serve"];
    all.extend(arguments.iter().flatten());
    let pid = crew.start("server", &all)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let printed = crew.printed("server");
        let address = printed.split_once("http://127.0.0.1:").map(|(_, rest)| rest);
        let port = address.and_then(|rest| rest.split_once('\n')).map(|(port, _)| port.trim());
        if let Some(port) = port.and_then(|port| port.parse().ok()) {
            return Ok((pid, port));
        }
        crew.check("server")?;
        anyhow::ensure!(Instant::now() < deadline, "the server does not say where it listens");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(super) async fn wait_until_ready(crew: &mut Crew, api: &Api) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if api.get("/readyz").await.is_ok() {
            return Ok(());
        }
        crew.check("server")?;
        anyhow::ensure!(Instant::now() < deadline, "the server does not get ready");
        sleep(Duration::from_millis(10)).await;
    }
}

/// How old a number of `/metrics` may be that the server counts in its database, with some to spare.
const SCRAPE_AGE: Duration = Duration::from_millis(1_500);

/// Waits until nothing is owed any more; whether that came true. Told by a number that cannot be
/// older than the question.
pub(super) async fn settle(api: &Api) -> anyhow::Result<bool> {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        let owed = metric(api, "ringback_deliveries_owed").await?;
        if owed == Some(0.0) && asked >= SCRAPE_AGE {
            return Ok(true);
        }
        if asked > PATIENCE {
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// CPU of load generator and sink so far, which ran on the same machine.
fn own_children_cpu(crew: &Crew) -> Option<f64> {
    ["load", "sink"].into_iter().map(|name| processes::cpu_millis(crew.pid(name)?)).sum()
}

/// What is counted before and after.
pub(super) struct Counters {
    server: f64,
    database: Option<f64>,
    commits: Option<f64>,
    operations: Option<f64>,
}

/// The difference.
pub(super) struct Spent {
    pub server: f64,
    pub database: Option<f64>,
    commit_batch: Option<f64>,
}

impl Counters {
    pub(super) async fn read(
        api: &Api,
        server: u32,
        database: Option<u32>,
    ) -> anyhow::Result<Counters> {
        Ok(Counters {
            commits: metric(api, "ringback_commit_batch_size_count").await?,
            operations: metric(api, "ringback_commit_batch_size_sum").await?,
            server: processes::cpu_millis(server).context("the server is gone")?,
            database: database.and_then(processes::cpu_millis_of_family),
        })
    }

    pub(super) fn since(&self, before: &Counters, backend: Backend) -> Spent {
        let difference = |after: Option<f64>, before: Option<f64>| Some(after? - before?);
        let commits = difference(self.commits, before.commits);
        let operations = difference(self.operations, before.operations);
        Spent {
            server: self.server - before.server,
            database: match backend {
                Backend::Sqlite => Some(0.0),
                Backend::Postgres => difference(self.database, before.database),
            },
            commit_batch: operations
                .zip(commits)
                .filter(|(_, commits)| *commits > 0.0)
                .map(|(operations, commits)| operations / commits),
        }
    }
}
