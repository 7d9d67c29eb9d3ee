//! A past for a ground: as many finished jobs as were asked for, as the system itself leaves them.
//!
//! Some are really run, submitted and delivered like those that count; the database then makes
//! copies of all they left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Plan;
use super::crew::Crew;
use super::ground::Ground;
use super::measure;
use crate::cli::output;
use crate::store::history::{self, Lot};
use crate::store::{Backend, Connection};

/// Jobs that are really run and then copied; what is left over is really run, too.
const PATTERN: u32 = 1_000;
/// Copies in one transaction.
const LOT: i64 = 20;
/// How often it is said how far it has come.
const NEWS: Duration = Duration::from_secs(10);

/// Fills a ground on which nothing has run yet.
pub(super) async fn fill(
    ground: &Ground,
    plan: &Plan,
    history: u32,
    folder: &std::path::Path,
    crew: &mut Crew,
) -> anyhow::Result<()> {
    let copied = history - history % PATTERN;
    if copied > 0 {
        run(ground, plan, PATTERN, folder, crew).await?;
        copy(ground, copied).await?;
    }
    match history - copied {
        0 => Ok(()),
        rest => run(ground, plan, rest, folder, crew).await,
    }
}

/// Jobs that are submitted, run and delivered like those that count.
async fn run(
    ground: &Ground,
    plan: &Plan,
    jobs: u32,
    folder: &std::path::Path,
    crew: &mut Crew,
) -> anyhow::Result<()> {
    let plan = Plan { jobs, warm_up: 0, endpoints: 0, hanging: 0, ..*plan };
    let run = measure::measure(ground, &plan, folder, crew).await?;
    crew.end().await;
    anyhow::ensure!(run.faults.is_empty(), "jobs of the history: {}", run.faults.join("; "));
    Ok(())
}

/// Copies all that there is until there are so many.
async fn copy(ground: &Ground, history: u32) -> anyhow::Result<()> {
    let location = ground.location.clone();
    // It goes with this future, when somebody interrupts.
    let wanted = Arc::new(());
    let still_wanted = Arc::downgrade(&wanted);
    let filled = tokio::task::spawn_blocking(move || {
        let mut connection = Connection::open(&location)?;
        if location.backend == Backend::Postgres {
            // Far more rows at once than a server ever writes.
            connection.batch(history::UNBOUNDED)?;
        }
        let pattern = history::pattern(&mut connection)?
            .context("the database has unfinished jobs; --history wants an empty one")?;
        let total = i64::from(history) / pattern.jobs - 1;
        let mut told = Instant::now();
        let mut made = 0;
        while made < total {
            anyhow::ensure!(still_wanted.strong_count() > 0, "interrupted");
            let copies = LOT.min(total - made);
            history::copy(&mut connection, &pattern, Lot { made, copies, total })
                .context("cannot fill the history")?;
            made += copies;
            if told.elapsed() > NEWS {
                told = Instant::now();
                let jobs = (made + 1) * pattern.jobs;
                output::complain(&format!("{jobs} of {history} jobs are in the history"));
            }
        }
        Ok(())
    })
    .await?;
    drop(wanted);
    filled
}
