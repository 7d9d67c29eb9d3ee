//! What is known of each job of a bench: when it was submitted, accepted and delivered.

use uuid::Uuid;

use crate::cli::bench::latency::percentiles;
use crate::cli::bench::notice::{Notice, Verdict};
use crate::cli::bench::orders::LoadReport;

/// Jobs whose whole history is looked at afterwards.
const SAMPLE: usize = 200;
/// Strange webhooks that are named; one is enough to fail.
const STRANGERS: usize = 5;

/// One job. Times are microseconds, 0 for not yet.
#[derive(Clone, Default)]
struct Row {
    submitted: i64,
    accepted: i64,
    received: i64,
    job: Uuid,
    told_job: Uuid,
    webhook: u64,
}

/// All jobs by number.
pub(super) struct Board {
    rows: Vec<Row>,
    accepted: u32,
    received: u32,
    duplicates: u32,
    strangers: Vec<String>,
}

impl Board {
    pub(super) fn new(jobs: u32) -> Board {
        let rows = vec![Row::default(); usize::try_from(jobs).unwrap_or_default()];
        Board { rows, accepted: 0, received: 0, duplicates: 0, strangers: Vec::new() }
    }

    fn row(&mut self, number: u32) -> Option<&mut Row> {
        self.rows.get_mut(usize::try_from(number).ok()?)
    }

    pub(super) fn submitted(&mut self, number: u32, at: i64) {
        if let Some(row) = self.row(number) {
            row.submitted = at;
        }
    }

    pub(super) fn accepted(&mut self, number: u32, job: Uuid, at: i64) {
        if let Some(row) = self.row(number) {
            (row.accepted, row.job) = (at, job);
            self.accepted += 1;
        }
    }

    /// Notes a webhook; whether a job left flight by it.
    pub(super) fn noticed(&mut self, notice: &Notice) -> bool {
        let reason = match notice.verdict {
            Verdict::Forged => Some("a webhook's signature is wrong".to_owned()),
            Verdict::Unexpected => Some("a webhook is not what was asked for".to_owned()),
            // Nobody waits for it; the audit counts what was delivered.
            Verdict::ToEndpoint => None,
            Verdict::Good => match self.row(notice.number) {
                Some(row) if row.received == 0 && row.submitted != 0 => {
                    row.received = notice.at;
                    row.told_job = notice.job;
                    row.webhook = notice.webhook;
                    self.received += 1;
                    return true;
                }
                Some(row) if row.webhook == notice.webhook && row.told_job == notice.job => {
                    self.duplicates += 1;
                    None
                }
                Some(_) => Some(format!("job {} was told of twice, by two ids", notice.job)),
                None => Some(format!("job {} is not of this bench", notice.job)),
            },
        };
        if self.strangers.len() < STRANGERS {
            self.strangers.extend(reason);
        }
        false
    }

    /// Jobs accepted and delivered, and a number that grows with each step.
    pub(super) fn progress(&self) -> (u32, u32, u32) {
        (self.accepted, self.received, self.accepted + self.received + self.duplicates)
    }

    /// What was seen of the jobs from this number on; losses and strangers of all.
    pub(super) fn report(&self, from: u32) -> LoadReport {
        let counted = self.rows.iter().skip(usize::try_from(from).unwrap_or_default());
        let counted: Vec<&Row> = counted.filter(|row| row.accepted != 0).collect();
        let delivered = || counted.iter().filter(|row| row.received != 0);
        let first = counted.iter().map(|row| row.submitted).min().unwrap_or_default();
        let last = delivered().map(|row| row.received).max().unwrap_or(first);
        let mut strangers = self.strangers.clone();
        let confused = delivered().find(|row| row.job != row.told_job);
        strangers.extend(confused.map(|row| format!("{} was told as {}", row.job, row.told_job)));
        let lost = self.rows.iter().filter(|row| row.accepted != 0 && row.received == 0).count();
        let step = counted.len().div_ceil(SAMPLE).max(1);
        LoadReport {
            elapsed: last - first,
            submit: percentiles(counted.iter().map(|row| row.accepted - row.submitted).collect()),
            webhook: percentiles(delivered().map(|row| row.received - row.submitted).collect()),
            lost: u32::try_from(lost).unwrap_or(u32::MAX),
            duplicates: self.duplicates,
            strangers,
            sample: counted.iter().step_by(step).map(|row| row.job).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(number: u32, job: Uuid, webhook: u64) -> Notice {
        Notice { verdict: Verdict::Good, number, at: 50, job, webhook }
    }

    #[test]
    fn lost_duplicate_and_strange_are_told_apart() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut board = Board::new(3);
        for (number, job) in [(0, a), (1, b)] {
            board.submitted(number, 10);
            board.accepted(number, job, 20);
        }
        assert!(board.noticed(&notice(0, a, 7)));
        assert!(!board.noticed(&notice(0, a, 7)));
        let report = board.report(0);
        assert_eq!((report.lost, report.duplicates, report.strangers.len()), (1, 1, 0));
        assert_eq!((report.elapsed, report.submit, report.webhook), (40, (10, 10), (40, 40)));
        // Another id for the same job, a job never submitted, a wrong job, a wrong signature.
        assert!(!board.noticed(&notice(0, a, 8)));
        assert!(!board.noticed(&notice(2, a, 9)));
        assert!(board.noticed(&notice(1, a, 10)));
        assert!(!board.noticed(&Notice { verdict: Verdict::Forged, ..notice(1, b, 10) }));
        let report = board.report(0);
        assert_eq!((report.lost, report.duplicates), (0, 1));
        assert_eq!(report.strangers.len(), 4, "{:?}", report.strangers);
    }
}
