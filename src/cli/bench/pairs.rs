//! Runs with and without something, one after the other, so that what the machine does besides
//! falls on both alike: a past, or endpoints that hang.

use std::path::Path;

use serde::Serialize;

use super::crew::Crew;
use super::ground::Ground;
use super::latency::median;
use super::measure::{self, Measured};
use super::report::{Report, rounded};
use super::{Options, Plan, past};

/// What the pairs came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Compared {
    /// Medians of with divided by without, pair by pair.
    pub median: Figures,
    pub pairs: Vec<Pair>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    pub without: Report,
    pub with: Report,
    pub ratio: Figures,
}

/// What is compared of two runs, or the ratios of it. Names and shape are what scripts rely on.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub jobs_per_second: Option<f64>,
    pub cpu_ms_per_job: Option<f64>,
    pub submit_to_webhook_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_to_endpoints_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_to_endpoints_ms_p99: Option<f64>,
}

/// The figures in their order.
type Values = [Option<f64>; 5];

/// Their names for people, and how many decimals they are shown with.
const NAMES: [(&str, usize); 5] = [
    ("jobs a second", 0),
    ("CPU a job, ms", 3),
    ("to webhook p50, ms", 1),
    ("to endpoints p50, ms", 1),
    ("to endpoints p99, ms", 1),
];

impl Figures {
    fn of(report: &Report) -> Figures {
        let endpoints = report.submit_to_endpoints_ms;
        Figures {
            jobs_per_second: Some(report.jobs_per_second),
            cpu_ms_per_job: report.cpu_ms_per_job.total,
            submit_to_webhook_ms_p50: Some(report.submit_to_webhook_ms.p50),
            submit_to_endpoints_ms_p50: endpoints.map(|times| times.p50),
            submit_to_endpoints_ms_p99: endpoints.map(|times| times.p99),
        }
    }

    fn values(&self) -> Values {
        [
            self.jobs_per_second,
            self.cpu_ms_per_job,
            self.submit_to_webhook_ms_p50,
            self.submit_to_endpoints_ms_p50,
            self.submit_to_endpoints_ms_p99,
        ]
    }

    fn from_values(values: Values) -> Figures {
        let [jobs, cpu, webhook, endpoints_p50, endpoints_p99] = values;
        Figures {
            jobs_per_second: jobs,
            cpu_ms_per_job: cpu,
            submit_to_webhook_ms_p50: webhook,
            submit_to_endpoints_ms_p50: endpoints_p50,
            submit_to_endpoints_ms_p99: endpoints_p99,
        }
    }

    /// What both know, divided.
    fn ratio(with: &Report, without: &Report) -> Figures {
        let mut ratios = Figures::of(with).values();
        for (ratio, without) in ratios.iter_mut().zip(Figures::of(without).values()) {
            let both = ratio.zip(without);
            *ratio = both.map(|(with, without)| rounded(with / without.max(1e-9)));
        }
        Figures::from_values(ratios)
    }

    /// Of what all know.
    fn median(all: &[Figures]) -> Figures {
        Figures::from_values(std::array::from_fn(|place| {
            let known = all.iter().map(|ratio| ratio.values().get(place).copied().flatten());
            known.collect::<Option<Vec<f64>>>().map(median)
        }))
    }
}

/// Fills the ground that is given once, if a past is what is asked for, and runs pairs of runs:
/// with a past on that, and everything else on new empty ones. Whoever is first in one pair is
/// second in the next.
pub(super) async fn compare(
    options: &Options,
    pairs: u32,
    plan: &Plan,
    folder: &Path,
    crew: &mut Crew,
) -> anyhow::Result<(Compared, Vec<String>)> {
    let database = options.database.as_deref();
    let filled = match options.history {
        Some(history) => {
            let given = Ground::of(database, folder).await?;
            past::fill(&given, plan, history, folder, crew).await?;
            Some(given)
        }
        None => None,
    };
    let mut faults = Vec::new();
    let mut run = async |with: bool, number: u32| {
        let plan = Plan { hanging: if with { plan.hanging } else { 0 }, ..*plan };
        let measured = match filled.as_ref().filter(|_| with) {
            Some(filled) => alone(filled, &plan, folder, crew).await?,
            None => {
                alone(&Ground::empty(database, folder, number).await?, &plan, folder, crew).await?
            }
        };
        faults.extend(measured.faults);
        anyhow::Ok(measured.report)
    };
    let mut done = Vec::new();
    for number in 0..pairs {
        let with_first = number % 2 == 1;
        let first = run(with_first, 2 * number).await?;
        let second = run(!with_first, 2 * number + 1).await?;
        let (with, without) = if with_first { (first, second) } else { (second, first) };
        let ratio = Figures::ratio(&with, &without);
        done.push(Pair { without, with, ratio });
    }
    let ratios: Vec<Figures> = done.iter().map(|pair| pair.ratio).collect();
    Ok((Compared { median: Figures::median(&ratios), pairs: done }, faults))
}

/// One run, after which nobody uses the ground any more.
async fn alone(
    ground: &Ground,
    plan: &Plan,
    folder: &Path,
    crew: &mut Crew,
) -> anyhow::Result<Measured> {
    let measured = measure::measure(ground, plan, folder, crew).await;
    crew.end().await;
    measured
}

impl Compared {
    /// For people: with beside without, pair by pair.
    pub(super) fn table(&self, history: Option<u32>, plan: &Plan) -> String {
        let what = match history {
            Some(jobs) => format!("{jobs} finished jobs"),
            None => format!("{} of {} endpoints hanging", plan.hanging, plan.endpoints),
        };
        let columns = if plan.answering() > 0 { NAMES.len() } else { NAMES.len() - 2 };
        let names = NAMES.iter().map(|(name, _)| (*name).to_owned());
        let mut lines = vec![format!("with {what} / with none\n"), line(names.take(columns))];
        for Pair { with, without, .. } in &self.pairs {
            let both = Figures::of(with).values().into_iter().zip(Figures::of(without).values());
            let cells = both.zip(NAMES).map(|((with, without), (_, decimals))| {
                format!("{} / {}", shown(with, decimals), shown(without, decimals))
            });
            lines.push(line(cells.take(columns)));
        }
        let ratios = self.median.values().into_iter().map(|ratio| shown(ratio, 3));
        lines.push(format!("\nmedian ratio, with to without\n{}", line(ratios.take(columns))));
        lines.join("\n")
    }
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or("unknown".to_owned(), |value| format!("{value:.decimals$}"))
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| format!("{cell:>23}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::report::{Cpu, Percentiles};

    fn report(jobs_per_second: f64, total: Option<f64>, endpoints: Option<i64>) -> Report {
        Report {
            jobs_per_second,
            submit_to_webhook_ms: Percentiles::of_micros((10_000, 20_000)),
            submit_to_endpoints_ms: endpoints.map(|p50| Percentiles::of_micros((p50, 2 * p50))),
            submit_ms: Percentiles::of_micros((1_000, 2_000)),
            cpu_ms_per_job: Cpu { server: 0.1, database: None, total },
            fsync_ms: 0.1,
            commit_batch: None,
            peak_memory_mb: 30.0,
            lost: 0,
            duplicates: 0,
        }
    }

    #[test]
    fn the_names_that_scripts_rely_on() {
        let (with, without) = (report(900.0, None, None), report(1_000.0, Some(0.2), None));
        assert_eq!(
            serde_json::to_string(&Figures::ratio(&with, &without)).unwrap(),
            "{\"jobsPerSecond\":0.9,\"cpuMsPerJob\":null,\"submitToWebhookMsP50\":1.0}"
        );
        let with = report(1_000.0, Some(0.3), Some(6_000));
        let without = report(1_000.0, Some(0.2), Some(5_000));
        assert_eq!(
            serde_json::to_string(&Figures::ratio(&with, &without)).unwrap(),
            "{\"jobsPerSecond\":1.0,\"cpuMsPerJob\":1.5,\"submitToWebhookMsP50\":1.0,\
             \"submitToEndpointsMsP50\":1.2,\"submitToEndpointsMsP99\":1.2}"
        );
    }

    #[test]
    fn a_median_is_of_what_all_pairs_know() {
        let ratios = [0.9, 1.3, 1.0].map(|ratio| {
            Figures::from_values([Some(ratio), (ratio > 1.0).then_some(ratio), None, None, None])
        });
        let median = Figures::median(&ratios);
        assert_eq!((median.jobs_per_second, median.cpu_ms_per_job), (Some(1.0), None));
    }
}
