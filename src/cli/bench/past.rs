//! A past for a ground: as many finished jobs as were asked for, as the system itself leaves them.
//!
//! Some are really run, submitted and delivered like those that count; the database then makes
//! copies of all they left.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Plan;
use super::crew::Crew;
use super::ground::Ground;
use super::measure;
use crate::cli::output;
use crate::store::history::{self, Lot};
use crate::store::{Backend, Connection};

/// Jobs that are really run, those that warm up included.
pub(super) const PATTERN: u32 = 1_000;
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
    let jobs = PATTERN - PATTERN.div_ceil(51);
    let run =
        measure::measure(ground, &Plan { jobs, endpoints: 0, hanging: 0, ..*plan }, folder, crew)
            .await?;
    crew.end().await;
    anyhow::ensure!(run.faults.is_empty(), "the first jobs: {}", run.faults.join("; "));
    let location = ground.location.clone();
    tokio::task::spawn_blocking(move || {
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
        Ok(history::let_settle(&mut connection)?)
    })
    .await?
}
