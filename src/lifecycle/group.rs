//! When a group is complete; pure.

use serde::{Deserialize, Serialize};

use super::state::Status;

/// How many jobs of a group ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTally {
    /// All jobs that ever joined.
    pub total: i64,
    /// Ended well.
    pub success: i64,
    /// Ended badly.
    pub error: i64,
    /// Ended by request.
    pub stopped: i64,
}

impl GroupTally {
    /// Jobs that are not final yet.
    pub fn remaining(&self) -> i64 {
        self.total - self.success - self.error - self.stopped
    }

    /// Counts one job that became final.
    pub fn count(&mut self, status: Status) {
        match status {
            Status::Success => self.success += 1,
            Status::Error => self.error += 1,
            Status::Stopped => self.stopped += 1,
            Status::Pending | Status::Working | Status::Stopping => {}
        }
    }
}

/// Whether a group may be joined, and whether its end was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// No job may join any more.
    pub sealed: bool,
    /// `group.completed` has been appended.
    pub completed: bool,
    /// The counts.
    pub tally: GroupTally,
}

impl GroupState {
    /// Whether `group.completed` is due: sealed, everything final, not announced before.
    pub fn completes_now(&self) -> bool {
        self.sealed && !self.completed && self.tally.remaining() == 0
    }
}
