//! What an application asked for, as event 1 keeps it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ids::Timestamp;

/// One input file of a job. `version` pins the bytes as they were at submission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Path of the file, when it was named by path or found by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Id of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<Uuid>,
    /// Which bytes; absent when there was no such file at submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Uuid>,
}

/// Everything that defines a job and never changes. No secret is in here: the places of secret
/// values hold `***`, the values are sealed apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// The job type, `urn:job:…`.
    #[serde(rename = "jobType")]
    pub job_type: String,
    /// Parameters of that type, checked, with secrets masked.
    pub specification: Box<RawValue>,
    /// Input files.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// The group it belongs to.
    pub group_id: Uuid,
    /// The caller's own JSON object, echoed everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Larger goes first.
    pub priority: i64,
    /// Named pool of work.
    pub queue: String,
    /// Not before.
    pub run_at: Timestamp,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Tries at most.
    pub max_attempts: i64,
    /// Limit of one try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Where and what the job tells, header values masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Box<RawValue>>,
    /// The final job that this one tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<Uuid>,
    /// The job that made this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<Uuid>,
    /// The application, as `urn:app:<id>`.
    pub issuer: String,
    /// The credential or schedule that made it.
    pub actor: String,
    /// Ties the job to the HTTP request and its log lines.
    pub request_id: String,
    /// Whether values of the specification are sealed apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_secrets: bool,
}
