//! What can be asked of a job that exists.

use serde_json::value::RawValue;

use super::state::Failure;
use crate::ids::Timestamp;

/// One request to change a job. Those of a worker carry the token of its lease.
#[derive(Clone, Debug)]
pub enum Command {
    /// A node takes it.
    Start {
        /// Which node, for the log.
        node: String,
    },
    /// The worker tells how far it is.
    Progress {
        /// Lease.
        token: i64,
        /// 0..1.
        fraction: f64,
    },
    /// The work is done.
    Succeed {
        /// Lease.
        token: i64,
        /// The product, as the job type defines it.
        payload: Box<RawValue>,
    },
    /// The try failed.
    Fail {
        /// Lease.
        token: i64,
        /// Why.
        failure: Failure,
        /// When it may be tried again; `None` when trying again cannot help.
        retry_at: Option<Timestamp>,
    },
    /// The worker has seen the wish to stop and ended its work.
    Halt {
        /// Lease.
        token: i64,
    },
    /// The node hands it back at shutdown.
    Release {
        /// Lease.
        token: i64,
    },
    /// Its node is dead.
    Rescue {
        /// The dead node's lease.
        token: i64,
    },
    /// Somebody wants it stopped.
    Stop,
    /// Its deadline has passed before it could start.
    Expire,
    /// Into the trash.
    Trash,
    /// Out of the trash.
    Restore,
}

impl Command {
    /// The verb, for refusals and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Start { .. } => "start",
            Command::Progress { .. } => "progress",
            Command::Succeed { .. } => "succeed",
            Command::Fail { .. } => "fail",
            Command::Halt { .. } => "halt",
            Command::Release { .. } => "release",
            Command::Rescue { .. } => "rescue",
            Command::Stop => "stop",
            Command::Expire => "expire",
            Command::Trash => "trash",
            Command::Restore => "restore",
        }
    }

    /// The lease that a worker's command stands on.
    pub fn token(&self) -> Option<i64> {
        match self {
            Command::Progress { token, .. }
            | Command::Succeed { token, .. }
            | Command::Fail { token, .. }
            | Command::Halt { token }
            | Command::Release { token }
            | Command::Rescue { token } => Some(*token),
            _ => None,
        }
    }
}
