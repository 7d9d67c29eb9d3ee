//! What is known of each job of a bench: when it was submitted, accepted and delivered.

use std::collections::HashMap;

use uuid::Uuid;

use crate::cli::bench::latency::{Histogram, percentiles};
use crate::cli::bench::notice::{Notice, Verdict};
use crate::cli::bench::orders::{LoadOrder, LoadReport};

/// Jobs whose whole history is looked at afterwards.
const SAMPLE: usize = 200;
/// Strange webhooks that are named; one is enough to fail.
const STRANGERS: usize = 5;

/// One job. Times are microseconds, 0 for not yet.
#[derive(Clone, Default)]
struct Row {
    submitted: i64,
    accepted: i64,
    /// At its callback.
    received: i64,
    job: Uuid,
    told_job: Uuid,
    webhook: u64,
    /// Receivers that have been told.
    told: u32,
}

/// All jobs by number.
pub(super) struct Board {
    rows: Vec<Row>,
    /// The first number that counts.
    from: u32,
    /// Receivers that each job is owed to.
    owed: u32,
    accepted: u32,
    delivered: u32,
    arrived: u64,
    duplicates: u32,
    /// When the last webhook came that counts.
    last: i64,
    to_endpoints: Histogram,
    /// By place, who was told of a job, while some have been and others have not.
    told: HashMap<u32, Vec<bool>>,
    strangers: Vec<String>,
}

impl Board {
    pub(super) fn new(order: &LoadOrder) -> Board {
        let jobs = usize::try_from(order.warm_up + order.jobs).unwrap_or_default();
        Board {
            rows: vec![Row::default(); jobs],
            from: order.warm_up,
            owed: 1 + order.endpoints,
            accepted: 0,
            delivered: 0,
            arrived: 0,
            duplicates: 0,
            last: 0,
            to_endpoints: Histogram::default(),
            told: HashMap::new(),
            strangers: Vec::new(),
        }
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
            Verdict::Forged => "a webhook's signature is wrong".to_owned(),
            Verdict::Unexpected | Verdict::Signed => {
                "a webhook is not what was asked for".to_owned()
            }
            Verdict::Good => match self.told(notice) {
                Ok(delivered) => return delivered,
                Err(reason) => reason,
            },
        };
        if self.strangers.len() < STRANGERS {
            self.strangers.push(reason);
        }
        false
    }

    /// Notes what a receiver was told; whether it was the last one of its job, or why it should not
    /// have been told that.
    fn told(&mut self, notice: &Notice) -> Result<bool, String> {
        let (owed, counts) = (self.owed, notice.number >= self.from);
        let strange = || format!("job {} is not of this bench", notice.job);
        let number = usize::try_from(notice.number).map_err(|_| strange())?;
        let row = self.rows.get_mut(number).filter(|row| row.submitted != 0);
        let row = row.filter(|_| notice.place < owed).ok_or_else(strange)?;
        if row.told == 0 {
            (row.told_job, row.webhook) = (notice.job, notice.webhook);
        } else if (row.told_job, row.webhook) != (notice.job, notice.webhook) {
            return Err(format!("job {} was told of twice, by two ids", notice.job));
        }
        // With nobody else to be told, the row says it all.
        let again = row.told == owed
            || owed > 1 && {
                let told = self.told.entry(notice.number).or_insert_with(|| all(owed));
                let place =
                    usize::try_from(notice.place).ok().and_then(|place| told.get_mut(place));
                place.is_none_or(|told| std::mem::replace(told, true))
            };
        if again {
            self.duplicates += 1;
            return Ok(false);
        }
        row.told += 1;
        self.arrived += 1;
        if notice.place == 0 {
            row.received = notice.at;
        } else if counts {
            self.to_endpoints.add(notice.at - row.submitted);
        }
        if counts {
            self.last = self.last.max(notice.at);
        }
        let delivered = row.told == owed;
        if delivered {
            self.delivered += 1;
            self.told.remove(&notice.number);
        }
        Ok(delivered)
    }

    /// Jobs accepted and delivered, and a number that grows with each step.
    pub(super) fn progress(&self) -> (u32, u32, u64) {
        let steps = u64::from(self.accepted) + self.arrived + u64::from(self.duplicates);
        (self.accepted, self.delivered, steps)
    }

    /// What was seen of the jobs that count; losses and strangers of all.
    pub(super) fn report(&self) -> LoadReport {
        let counted = self.rows.iter().skip(usize::try_from(self.from).unwrap_or_default());
        let counted: Vec<&Row> = counted.filter(|row| row.accepted != 0).collect();
        let received = || counted.iter().filter(|row| row.received != 0);
        let first = counted.iter().map(|row| row.submitted).min().unwrap_or_default();
        let mut strangers = self.strangers.clone();
        let told = counted.iter().filter(|row| row.told != 0);
        let confused = told.clone().find(|row| row.job != row.told_job);
        strangers.extend(confused.map(|row| format!("{} was told as {}", row.job, row.told_job)));
        let accepted = self.rows.iter().filter(|row| row.accepted != 0);
        let lost = accepted.map(|row| u64::from(self.owed - row.told)).sum::<u64>();
        let delivered = told.filter(|row| row.told == self.owed).count();
        let step = counted.len().div_ceil(SAMPLE).max(1);
        LoadReport {
            elapsed: self.last.max(first) - first,
            submit: percentiles(counted.iter().map(|row| row.accepted - row.submitted).collect()),
            webhook: percentiles(received().map(|row| row.received - row.submitted).collect()),
            endpoints: self.to_endpoints.percentiles(),
            delivered: u32::try_from(delivered).unwrap_or(u32::MAX),
            lost: u32::try_from(lost).unwrap_or(u32::MAX),
            duplicates: self.duplicates,
            strangers,
            sample: counted.iter().step_by(step).map(|row| row.job).collect(),
        }
    }
}

/// Nobody of all has been told.
fn all(owed: u32) -> Vec<bool> {
    vec![false; usize::try_from(owed).unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::orders::SinkReady;

    fn board(warm_up: u32, jobs: u32, endpoints: u32) -> Board {
        let sink = SinkReady { webhooks: 0, hanging: 0, notices: 0 };
        let (api_key, in_flight) = (String::new(), 1);
        Board::new(&LoadOrder {
            server: 0,
            api_key,
            sink,
            warm_up,
            jobs,
            in_flight,
            payload: 0,
            endpoints,
        })
    }

    fn notice(number: u32, job: Uuid, webhook: u64) -> Notice {
        Notice { verdict: Verdict::Good, place: 0, number, at: 50, job, webhook }
    }

    #[test]
    fn lost_duplicate_and_strange_are_told_apart() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut board = board(0, 3, 0);
        for (number, job) in [(0, a), (1, b)] {
            board.submitted(number, 10);
            board.accepted(number, job, 20);
        }
        assert!(board.noticed(&notice(0, a, 7)));
        assert!(!board.noticed(&notice(0, a, 7)));
        let report = board.report();
        assert_eq!((report.lost, report.duplicates, report.strangers.len()), (1, 1, 0));
        assert_eq!((report.elapsed, report.submit, report.webhook), (40, (10, 10), (40, 40)));
        // Another id for the same job, a job never submitted, a wrong job, a wrong signature.
        assert!(!board.noticed(&notice(0, a, 8)));
        assert!(!board.noticed(&notice(2, a, 9)));
        assert!(board.noticed(&notice(1, a, 10)));
        assert!(!board.noticed(&Notice { verdict: Verdict::Forged, ..notice(1, b, 10) }));
        let report = board.report();
        assert_eq!((report.lost, report.duplicates), (0, 1));
        assert_eq!(report.strangers.len(), 4, "{:?}", report.strangers);
    }

    #[test]
    fn a_job_leaves_flight_when_everybody_was_told_once() {
        let jobs = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let mut board = board(1, 1, 2);
        let mut tell = |number: u32, job, place, at| {
            board.submitted(number, 10);
            board.accepted(number, job, 20);
            board.noticed(&Notice { place, at, ..notice(number, job, 7) })
        };
        // What warms up is owed to everybody too, and counts for nothing else.
        assert_eq!([2, 0].map(|place| tell(0, jobs[0], place, 5_000)), [false, false]);
        assert_eq!([1, 1, 2, 2].map(|place| tell(1, jobs[1], place, 60)), [false; 4]);
        assert!(tell(1, jobs[1], 0, 90), "the last one");
        assert_eq!([0, 1].map(|place| tell(1, jobs[1], place, 99)), [false, false]);
        assert!(!tell(1, jobs[1], 3, 99), "there is no such endpoint");
        let report = board.report();
        assert_eq!((report.delivered, report.lost, report.duplicates), (1, 1, 4));
        assert_eq!((report.webhook, report.endpoints), ((80, 80), (50, 50)));
        assert_eq!((report.elapsed, report.strangers.len()), (80, 1), "{:?}", report.strangers);
        assert_eq!(board.progress().1, 1);
    }
}
