//! The facts that are appended about a job, and which receivers care.

use serde::{Deserialize, Serialize};

use super::state::{Failure, JobResult};
use super::submission::Submission;
use crate::ids::Timestamp;

/// Every type of event, of jobs and of the other subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// Accepted; holds the whole submission.
    #[serde(rename = "job.created")]
    JobCreated,
    /// A try began.
    #[serde(rename = "job.started")]
    JobStarted,
    /// Told at steps of 5 % or every 30 s.
    #[serde(rename = "job.progressed")]
    JobProgressed,
    /// A try failed and another will follow.
    #[serde(rename = "job.retried")]
    JobRetried,
    /// Handed back at shutdown.
    #[serde(rename = "job.released")]
    JobReleased,
    /// Its node died.
    #[serde(rename = "job.rescued")]
    JobRescued,
    /// Asked to stop while working.
    #[serde(rename = "job.stopping")]
    JobStopping,
    /// Ended by request.
    #[serde(rename = "job.stopped")]
    JobStopped,
    /// Ended well.
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    /// Ended badly.
    #[serde(rename = "job.failed")]
    JobFailed,
    /// Put into the trash.
    #[serde(rename = "job.trashed")]
    JobTrashed,
    /// Taken out of the trash.
    #[serde(rename = "job.restored")]
    JobRestored,
    /// A sealed group has nothing left to do.
    #[serde(rename = "group.completed")]
    GroupCompleted,
    /// A receiver was switched off.
    #[serde(rename = "endpoint.disabled")]
    EndpointDisabled,
    /// A receiver was switched on.
    #[serde(rename = "endpoint.enabled")]
    EndpointEnabled,
    /// Bytes were stored under a path.
    #[serde(rename = "file.created")]
    FileCreated,
    /// A path was removed.
    #[serde(rename = "file.deleted")]
    FileDeleted,
    /// A receiver was tested.
    #[serde(rename = "endpoint.pinged")]
    EndpointPinged,
}

impl EventType {
    /// All types. The feed stores a type as its place in here, so new ones come at the end.
    pub const ALL: [EventType; 18] = [
        EventType::JobCreated,
        EventType::JobStarted,
        EventType::JobProgressed,
        EventType::JobRetried,
        EventType::JobReleased,
        EventType::JobRescued,
        EventType::JobStopping,
        EventType::JobStopped,
        EventType::JobSucceeded,
        EventType::JobFailed,
        EventType::JobTrashed,
        EventType::JobRestored,
        EventType::GroupCompleted,
        EventType::EndpointDisabled,
        EventType::EndpointEnabled,
        EventType::FileCreated,
        EventType::FileDeleted,
        EventType::EndpointPinged,
    ];

    /// The dotted name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::JobCreated => "job.created",
            EventType::JobStarted => "job.started",
            EventType::JobProgressed => "job.progressed",
            EventType::JobRetried => "job.retried",
            EventType::JobReleased => "job.released",
            EventType::JobRescued => "job.rescued",
            EventType::JobStopping => "job.stopping",
            EventType::JobStopped => "job.stopped",
            EventType::JobSucceeded => "job.succeeded",
            EventType::JobFailed => "job.failed",
            EventType::JobTrashed => "job.trashed",
            EventType::JobRestored => "job.restored",
            EventType::GroupCompleted => "group.completed",
            EventType::EndpointDisabled => "endpoint.disabled",
            EventType::EndpointEnabled => "endpoint.enabled",
            EventType::FileCreated => "file.created",
            EventType::FileDeleted => "file.deleted",
            EventType::EndpointPinged => "endpoint.pinged",
        }
    }

    /// The type of that name.
    pub fn parse(name: &str) -> Option<EventType> {
        EventType::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

/// One fact about a job: its type and what the type carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum JobEvent {
    /// See [`EventType::JobCreated`].
    #[serde(rename = "job.created")]
    Created(Box<Submission>),
    /// See [`EventType::JobStarted`].
    #[serde(rename = "job.started", rename_all = "camelCase")]
    Started {
        /// Number of this try.
        attempt: i64,
        /// Who works on it.
        node: String,
    },
    /// See [`EventType::JobProgressed`].
    #[serde(rename = "job.progressed")]
    Progressed {
        /// 0..1.
        progress: f64,
    },
    /// See [`EventType::JobRetried`].
    #[serde(rename = "job.retried", rename_all = "camelCase")]
    Retried {
        /// The try that failed.
        attempt: i64,
        /// Why.
        failure: Failure,
        /// When the next may start.
        run_at: Timestamp,
    },
    /// See [`EventType::JobReleased`].
    #[serde(rename = "job.released", rename_all = "camelCase")]
    Released {
        /// Tries that count so far.
        attempt: i64,
        /// When the next may start.
        run_at: Timestamp,
    },
    /// See [`EventType::JobRescued`].
    #[serde(rename = "job.rescued", rename_all = "camelCase")]
    Rescued {
        /// Tries that count so far.
        attempt: i64,
        /// Nodes that died with it.
        lost_nodes: i64,
        /// When the next may start.
        run_at: Timestamp,
    },
    /// See [`EventType::JobStopping`].
    #[serde(rename = "job.stopping")]
    Stopping {},
    /// See [`EventType::JobStopped`].
    #[serde(rename = "job.stopped", rename_all = "camelCase")]
    Stopped {
        /// Code and message of the end.
        result: JobResult,
    },
    /// See [`EventType::JobSucceeded`].
    #[serde(rename = "job.succeeded")]
    Succeeded {
        /// The product.
        result: JobResult,
    },
    /// See [`EventType::JobFailed`].
    #[serde(rename = "job.failed", rename_all = "camelCase")]
    Failed {
        /// Code and message of the end.
        result: JobResult,
        /// Why.
        failure: Failure,
        /// Nodes that died with it.
        #[serde(default, skip_serializing_if = "is_zero")]
        lost_nodes: i64,
    },
    /// See [`EventType::JobTrashed`].
    #[serde(rename = "job.trashed")]
    Trashed {},
    /// See [`EventType::JobRestored`].
    #[serde(rename = "job.restored")]
    Restored {},
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl JobEvent {
    /// The type of this fact.
    pub fn event_type(&self) -> EventType {
        match self {
            JobEvent::Created(_) => EventType::JobCreated,
            JobEvent::Started { .. } => EventType::JobStarted,
            JobEvent::Progressed { .. } => EventType::JobProgressed,
            JobEvent::Retried { .. } => EventType::JobRetried,
            JobEvent::Released { .. } => EventType::JobReleased,
            JobEvent::Rescued { .. } => EventType::JobRescued,
            JobEvent::Stopping {} => EventType::JobStopping,
            JobEvent::Stopped { .. } => EventType::JobStopped,
            JobEvent::Succeeded { .. } => EventType::JobSucceeded,
            JobEvent::Failed { .. } => EventType::JobFailed,
            JobEvent::Trashed {} => EventType::JobTrashed,
            JobEvent::Restored {} => EventType::JobRestored,
        }
    }

    /// The `data` member as JSON text, as stored and shown.
    pub fn data(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct StartedData<'a> {
            attempt: i64,
            node: &'a str,
        }
        // The two events of every job are written without an intermediate value.
        match self {
            JobEvent::Created(submission) => serde_json::to_string(submission),
            JobEvent::Started { attempt, node } => {
                serde_json::to_string(&StartedData { attempt: *attempt, node })
            }
            JobEvent::Stopping {} | JobEvent::Trashed {} | JobEvent::Restored {} => {
                Ok("{}".to_owned())
            }
            JobEvent::Succeeded { result } => {
                #[derive(Serialize)]
                struct Data<'a> {
                    result: &'a JobResult,
                }
                serde_json::to_string(&Data { result })
            }
            other => {
                #[derive(Deserialize)]
                struct Envelope {
                    data: Box<serde_json::value::RawValue>,
                }
                let text = serde_json::to_string(other)?;
                let envelope: Envelope = serde_json::from_str(&text)?;
                Ok(envelope.data.get().to_owned())
            }
        }
    }

    /// The fact from its stored parts.
    pub fn from_parts(event_type: &str, data: &str) -> serde_json::Result<JobEvent> {
        serde_json::from_str(&format!("{{\"type\":\"{event_type}\",\"data\":{data}}}"))
    }
}

/// The events a callback gets when it names none.
pub fn callback_default(event: EventType) -> bool {
    matches!(event, EventType::JobSucceeded | EventType::JobFailed | EventType::JobStopped)
        || event == EventType::GroupCompleted
}

/// The events an endpoint gets when it names none. A test goes to the endpoint it tests alone.
pub fn endpoint_default(event: EventType) -> bool {
    !matches!(event, EventType::JobProgressed | EventType::EndpointPinged)
}
