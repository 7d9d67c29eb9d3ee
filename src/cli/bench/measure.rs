//! One run: everybody is started, the jobs go through, counters are read, the result is audited.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::audit::{self, Alike, metric};
use super::crew::Crew;
use super::deliveries::{self, Places};
use super::ground::Ground;
use super::orders::{Cue, LoadOrder, LoadReport, SinkOrder, SinkReady, Stage};
use super::report::{About, Cpu, Percentiles, Report, rounded};
use super::server::{self, PATIENCE, Server, settle};
use super::{Plan, disk, durability, processes};
use crate::app::open_engine;
use crate::engine::lookup_of;
use crate::store::history::{self, Whole};
use crate::store::{Backend, Connection};

/// A run that takes longer than this, and than a webhook a hundredth of a second, has failed.
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
    let longest = LONGEST.max(Duration::from_millis(10) * plan.jobs * (1 + plan.answering()));
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
    let Ground { location, url, application, .. } = ground;
    ground.let_settle().await?;
    let first = history::last_key(&mut Connection::open(location)?)?;
    let mut sink = crew.talk("sink", &["bench", "--role", "sink"])?;
    let mut secrets = vec![application.signing_secret.clone()];
    sink.tell(&SinkOrder { secrets: secrets.clone() }).await?;
    let ready: SinkReady = sink.hear().await?;
    if plan.endpoints > 0 {
        secrets.extend(register(ground, plan, &ready).await?);
        sink.tell(&SinkOrder { secrets }).await?;
    }
    let server = server::start(crew, ground).await?;
    let api = &server.api;
    let mut load = crew.talk("load", &["bench", "--role", "load"])?;
    let warm_up = plan.warm_up;
    let Plan { jobs, in_flight, payload, .. } = *plan;
    let api_key = application.api_key.clone();
    let order = LoadOrder {
        server: server.port,
        api_key,
        sink: ready,
        warm_up,
        jobs,
        in_flight,
        payload,
        endpoints: plan.answering(),
    };
    load.tell(&order).await?;
    let _: Stage = load.hear().await?;
    let unanswered = |jobs: u32| u64::from(plan.hanging) * u64::from(jobs);
    settle(api, unanswered(warm_up)).await?;

    let before = Counters::read(&server).await?;
    let helpers = own_children_cpu(crew);
    load.tell(&Cue::Go).await?;
    let _: Stage = load.hear().await?;
    // The last webhook is here before the server has noted that it is.
    let settled = settle(api, unanswered(warm_up + jobs)).await?;
    let after = Counters::read(&server).await?;
    // Neither what the audit asks nor the end of the server is part of it.
    let peak_memory = processes::peak_memory_mib(server.pid).context("the server is gone")?;
    let helpers = own_children_cpu(crew).zip(helpers).map(|(after, before)| after - before);
    load.tell(&Cue::Report).await?;
    let seen: LoadReport = load.hear().await?;

    let mut faults = Vec::new();
    if !settled {
        faults.push(format!("deliveries are still owed after {} s", PATIENCE.as_secs()));
    }
    if seen.lost > 0 {
        faults.push(format!("{} webhooks of accepted jobs did not come", seen.lost));
    }
    faults.extend(seen.strangers.iter().cloned());
    // Each delivery is a request, so with many endpoints few jobs are asked for, or none.
    let hanging = usize::try_from(plan.hanging)?;
    let delivered = 1 + usize::try_from(plan.answering())?;
    let owed = delivered + hanging;
    let asked_for = seen.sample.iter().step_by(owed).filter(|_| owed <= audit::MOST_DELIVERIES);
    for job in asked_for {
        faults.extend(audit::fault(api, *job, delivered, hanging).await?);
        if faults.len() >= 5 {
            break;
        }
    }
    // What hangs ends with the sink; the server would give it its whole time to answer.
    drop(sink);
    crew.stop("server").await?;
    if let Err(error) = durability::check(url) {
        faults.push(format!("{error:#}"));
    }
    let each = Whole {
        after: first,
        application: None,
        ended: true,
        delivered: 1 + i64::from(plan.answering()),
        owed: i64::from(plan.hanging),
    };
    let all = [Alike { jobs: i64::from(warm_up + jobs), each }];
    let (audited, missing) = audit::faults_of_all(location, &all, seen.duplicates.into())?;
    faults.extend(missing);
    let fsync = disk::fsync_millis(ground.disk().unwrap_or(folder))?;

    let per_job = |millis: f64| rounded(millis / f64::from(jobs));
    let spent = after.since(&before, location.backend);
    let seconds = seen.elapsed as f64 / 1_000_000.0;
    let report = Report {
        jobs_per_second: rounded(f64::from(seen.delivered) / seconds.max(1e-6)),
        submit_to_webhook_ms: Percentiles::of_micros(seen.webhook),
        submit_to_endpoints_ms: (plan.answering() > 0)
            .then(|| Percentiles::of_micros(seen.endpoints)),
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
        endpoints: plan.endpoints,
        hanging: plan.hanging,
        seconds,
        audited,
        own_cpu: helpers.map(per_job),
    };
    Ok(Measured { report, about, faults })
}

/// The one event that endpoints are told, as callbacks of no-op jobs are.
const EVENT: &str = "job.succeeded";

/// Makes the endpoints of the application that submits, behind the place of its callbacks; the
/// secrets of those that answer.
async fn register(ground: &Ground, plan: &Plan, sink: &SinkReady) -> anyhow::Result<Vec<String>> {
    let engine = open_engine(&ground.config()).await?;
    let registered = async {
        let caller = engine.authenticate(lookup_of(&ground.application.api_key)).await?;
        let caller = caller.context("the application is gone")?;
        let all = 1 + usize::try_from(plan.endpoints)?;
        let answering = 1 + usize::try_from(plan.answering())?;
        let places = |port, numbers| Places { port, path: "webhooks", numbers, event: EVENT };
        // Those that hang are first in whatever order the server has.
        let hanging = places(sink.hanging, answering..all);
        deliveries::register(&engine, &caller, &hanging).await?;
        deliveries::register(&engine, &caller, &places(sink.webhooks, 1..answering)).await
    }
    .await;
    engine.close();
    registered
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
    pub(super) async fn read(server: &Server) -> anyhow::Result<Counters> {
        Ok(Counters {
            commits: metric(&server.api, "ringback_commit_batch_size_count").await?,
            operations: metric(&server.api, "ringback_commit_batch_size_sum").await?,
            server: processes::cpu_millis(server.pid).context("the server is gone")?,
            database: server.database.and_then(processes::cpu_millis_of_family),
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
