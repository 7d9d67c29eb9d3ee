//! What waits for a writer thread, and what of it goes into the next transaction. Must not know what
//! the operations do, nor run them.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Operation;
use crate::store::error::StoreResult;

/// Operations in one transaction at most: bounds its length and what one failure repeats.
const LARGEST_BATCH: usize = 512;
/// Weight in one transaction at most; a batch submission weighs as much as its jobs.
const HEAVIEST_BATCH: usize = 2_048;
/// How long what nobody waits for waits for a commit that comes anyway.
const LONGEST_WAIT: Duration = Duration::from_millis(2);

/// An operation and who wants its outcome.
pub(super) struct Waiting<O: Operation> {
    pub(super) operation: O,
    pub(super) answer: oneshot::Sender<StoreResult<O::Outcome>>,
    /// Until then it may wait for company.
    until: Option<Instant>,
}

/// All that waits, in the order in which it came.
pub(super) struct Queue<O: Operation> {
    waiting: VecDeque<Waiting<O>>,
    /// Nothing more is taken in.
    pub(super) closed: bool,
}

impl<O: Operation> Queue<O> {
    pub(super) fn new() -> Queue<O> {
        Queue { waiting: VecDeque::new(), closed: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, operation: O, answer: oneshot::Sender<StoreResult<O::Outcome>>) {
        let until = operation.may_wait().then(|| Instant::now() + LONGEST_WAIT);
        self.waiting.push_back(Waiting { operation, answer, until });
    }

    /// How long all that is here may still wait for something that may not.
    pub(super) fn wait_left(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut least = LONGEST_WAIT;
        for waiting in &self.waiting {
            least = least.min(waiting.until?.saturating_duration_since(now));
        }
        (!least.is_zero()).then_some(least)
    }

    /// Takes from the front what may share a transaction; the rest keeps its order.
    pub(super) fn select(&mut self) -> Vec<Waiting<O>> {
        let mut taken: HashSet<u64> = HashSet::new();
        let mut subjects = Vec::new();
        let mut batch = Vec::new();
        let mut left = VecDeque::new();
        let mut weight = 0;
        while let Some(next) = self.waiting.pop_front() {
            subjects.clear();
            next.operation.subjects(&mut |subject| subjects.push(subject));
            // A skipped operation still bars its subjects: those behind it must not overtake it here.
            let free = subjects.iter().all(|subject| !taken.contains(subject));
            taken.extend(subjects.iter().copied());
            if free {
                weight += next.operation.weight();
                batch.push(next);
            } else {
                left.push_back(next);
            }
            if batch.len() >= LARGEST_BATCH || weight >= HEAVIEST_BATCH {
                break;
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Write {
        subject: u64,
        may_wait: bool,
    }

    impl Operation for Write {
        type Outcome = ();
        type Aside = ();

        fn subjects(&self, add: &mut dyn FnMut(u64)) {
            add(self.subject);
        }

        fn may_wait(&self) -> bool {
            self.may_wait
        }
    }

    fn queue(writes: &[(u64, bool)]) -> Queue<Write> {
        let mut queue = Queue::new();
        for (subject, may_wait) in writes {
            let write = Write { subject: *subject, may_wait: *may_wait };
            queue.push(write, oneshot::channel().0);
        }
        queue
    }

    #[test]
    fn only_what_nobody_waits_for_waits_and_not_for_long() {
        assert_eq!(queue(&[(1, false)]).wait_left(), None);
        assert_eq!(queue(&[(1, true), (2, false), (3, true)]).wait_left(), None);
        let mut queue = queue(&[(1, true), (2, true)]);
        queue.waiting[0].until = Some(Instant::now() + Duration::from_secs(60));
        queue.waiting[1].until = Some(Instant::now() + Duration::from_secs(60));
        assert_eq!(queue.wait_left(), Some(LONGEST_WAIT));
        queue.waiting[1].until = Some(Instant::now());
        assert_eq!(queue.wait_left(), None, "the time of one is over");
    }

    #[test]
    fn one_operation_a_subject_and_none_overtakes_another() {
        let mut queue = queue(&[(1, false), (2, false), (1, false), (1, true), (3, true)]);
        let subjects = |batch: Vec<Waiting<Write>>| -> Vec<u64> {
            batch.iter().map(|waiting| waiting.operation.subject).collect()
        };
        assert_eq!(subjects(queue.select()), [1, 2, 3]);
        assert_eq!(subjects(queue.select()), [1]);
        assert_eq!(subjects(queue.select()), [1]);
        assert!(queue.is_empty());
    }
}
