//! What a job is at one moment.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::Timestamp;

/// Where a job stands; the last three are final for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, waiting for its time or for a free slot.
    Pending,
    /// A node holds its lease and works on it.
    Working,
    /// Asked to stop while working; the worker has not seen it yet.
    Stopping,
    /// Ended well.
    Success,
    /// Ended badly.
    Error,
    /// Ended because somebody asked.
    Stopped,
}

impl Status {
    /// All of them, in the order of a life.
    pub const ALL: [Status; 6] = [
        Status::Pending,
        Status::Working,
        Status::Stopping,
        Status::Success,
        Status::Error,
        Status::Stopped,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Working => "working",
            Status::Stopping => "stopping",
            Status::Success => "success",
            Status::Error => "error",
            Status::Stopped => "stopped",
        }
    }

    /// The status of that name.
    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// The number in the database.
    pub fn number(self) -> i64 {
        match self {
            Status::Pending => 0,
            Status::Working => 1,
            Status::Stopping => 2,
            Status::Success => 3,
            Status::Error => 4,
            Status::Stopped => 5,
        }
    }

    /// The status of that number; an unknown number reads as an error rather than as live work.
    pub fn from_number(number: i64) -> Status {
        Status::ALL.into_iter().find(|status| status.number() == number).unwrap_or(Status::Error)
    }

    /// Whether nothing can change it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Success | Status::Error | Status::Stopped)
    }
}

/// What a finished job tells: `code` 0 is success.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobResult {
    /// 0, or a number that says which kind of failure.
    pub code: i64,
    /// `OK`, or a sentence for people.
    pub message: String,
    /// Specific to the job type; null when there is nothing to tell.
    pub payload: Box<RawValue>,
}

impl JobResult {
    /// The result of a success.
    pub fn ok(payload: Box<RawValue>) -> JobResult {
        JobResult { code: 0, message: "OK".to_owned(), payload }
    }

    /// The result of an end without a product.
    pub fn without_payload(code: i64, message: String) -> JobResult {
        JobResult { code, message, payload: RawValue::NULL.to_owned() }
    }
}

impl PartialEq for JobResult {
    fn eq(&self, other: &JobResult) -> bool {
        self.code == other.code
            && self.message == other.message
            && self.payload.get() == other.payload.get()
    }
}

/// Why a try or a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, for programs: `source_not_found`, `worker_lost` …
    pub code: String,
    /// For people; names the value that was wrong.
    pub detail: String,
}

impl Failure {
    /// A failure from its two parts.
    pub fn new(code: &str, detail: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), detail: detail.into() }
    }
}

/// The state that commands are decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct JobState {
    /// Where it stands.
    pub status: Status,
    /// Tries that count, the current one included.
    pub attempt: i64,
    /// How many tries it may have.
    pub max_attempts: i64,
    /// Nodes that died with it.
    pub lost_nodes: i64,
    /// Token of the current or last lease; grows with every claim and is not in the event log.
    pub token: i64,
    /// Number of the last event.
    pub sequence: i64,
    /// 0..1, as last told by the worker.
    pub progress: f64,
    /// Progress as of the last `job.progressed` event, to space those events out.
    pub announced_progress: f64,
    /// When that event was.
    pub announced_at: Timestamp,
    /// Not to be started before.
    pub run_at: Timestamp,
    /// Not to be started after.
    pub expires_at: Option<Timestamp>,
    /// Start of the current or last try.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// Last change of status.
    pub updated_at: Timestamp,
    /// Set when final.
    pub result: Option<JobResult>,
    /// Of the last failed try, or of the end.
    pub failure: Option<Failure>,
    /// Set while in the trash.
    pub deleted_at: Option<Timestamp>,
}
