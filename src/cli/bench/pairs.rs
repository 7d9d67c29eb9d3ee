//! Runs with and without a past, one after the other, so that what the machine does besides falls
//! on both alike.

use std::path::Path;

use serde::Serialize;

use super::crew::Crew;
use super::ground::Ground;
use super::measure::{self, Measured};
use super::report::{Report, rounded};
use super::{Options, Plan, past};

/// What the pairs came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Compared {
    /// Medians of with divided by without, pair by pair.
    pub median: Ratio,
    pub pairs: Vec<Pair>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    pub without: Report,
    pub with: Report,
    pub ratio: Ratio,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ratio {
    pub jobs_per_second: f64,
    pub cpu_ms_per_job: Option<f64>,
    pub submit_to_webhook_ms_p50: f64,
}

impl Ratio {
    fn of(with: &Report, without: &Report) -> Ratio {
        let divided = |with: f64, without: f64| rounded(with / without.max(1e-9));
        let total = |report: &Report| report.cpu_ms_per_job.total;
        Ratio {
            jobs_per_second: divided(with.jobs_per_second, without.jobs_per_second),
            cpu_ms_per_job: total(with).zip(total(without)).map(|(a, b)| divided(a, b)),
            submit_to_webhook_ms_p50: divided(
                with.submit_to_webhook_ms.p50,
                without.submit_to_webhook_ms.p50,
            ),
        }
    }

    fn median(all: &[Ratio]) -> Ratio {
        let middle = |value: fn(&Ratio) -> f64| median(all.iter().map(value).collect());
        Ratio {
            jobs_per_second: middle(|ratio| ratio.jobs_per_second),
            cpu_ms_per_job: all
                .iter()
                .map(|ratio| ratio.cpu_ms_per_job)
                .collect::<Option<Vec<f64>>>()
                .map(median),
            submit_to_webhook_ms_p50: middle(|ratio| ratio.submit_to_webhook_ms_p50),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    match values.len() {
        0 => 0.0,
        count => rounded((at((count - 1) / 2) + at(count / 2)) / 2.0),
    }
}

/// Fills one ground once and runs pairs of runs: on a new empty one, and on that.
pub(super) async fn compare(
    options: &Options,
    plan: &Plan,
    folder: &Path,
    crew: &mut Crew,
) -> anyhow::Result<(Compared, Vec<String>)> {
    let old = Ground::of(options.database.as_deref(), folder).await?;
    if let Some(history) = options.history {
        past::fill(&old, plan, history, folder, crew).await?;
    }
    let (mut pairs, mut faults) = (Vec::new(), Vec::new());
    for number in 0..options.pairs.unwrap_or(1) {
        let new = old.empty_beside(folder, number).await?;
        let without = measure::measure(&new, plan, folder, crew).await;
        crew.end().await;
        drop(new);
        let without = kept(without?, &mut faults);
        let with = measure::measure(&old, plan, folder, crew).await?;
        crew.end().await;
        let with = kept(with, &mut faults);
        let ratio = Ratio::of(&with, &without);
        pairs.push(Pair { without, with, ratio });
    }
    let ratios: Vec<Ratio> = pairs.iter().map(|pair| pair.ratio).collect();
    Ok((Compared { median: Ratio::median(&ratios), pairs }, faults))
}

fn kept(measured: Measured, faults: &mut Vec<String>) -> Report {
    faults.extend(measured.faults);
    measured.report
}

impl Compared {
    /// For people.
    pub(super) fn table(&self, history: Option<u32>) -> String {
        let past = history.map_or("no history".to_owned(), |jobs| format!("{jobs} finished jobs"));
        let mut lines = vec![format!("beside {past}, and beside none\n")];
        lines.push(
            "       jobs a second        CPU a job, ms      submit to webhook p50, ms".into(),
        );
        let cpu = |report: &Report| {
            report.cpu_ms_per_job.total.map_or("?".to_owned(), |cpu| format!("{cpu:.3}"))
        };
        for pair in &self.pairs {
            let (with, without) = (&pair.with, &pair.without);
            lines.push(format!(
                "{:>9.0} {:>8.0} {:>12} {:>6} {:>13.1} {:>8.1}",
                with.jobs_per_second,
                without.jobs_per_second,
                cpu(with),
                cpu(without),
                with.submit_to_webhook_ms.p50,
                without.submit_to_webhook_ms.p50
            ));
        }
        let median = &self.median;
        lines.push(format!(
            "\nmedian ratio, with to without: jobs a second {:.3}, CPU a job {}, p50 {:.3}",
            median.jobs_per_second,
            median.cpu_ms_per_job.map_or("unknown".to_owned(), |ratio| format!("{ratio:.3}")),
            median.submit_to_webhook_ms_p50
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
