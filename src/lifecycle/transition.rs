//! `decide`: one command on one state gives events or a refusal. `evolve`: one event gives the
//! next state. The table in the module's doc is tested against these functions.

use super::command::Command;
use super::event::JobEvent;
use super::state::{Failure, JobResult, JobState, Status};
use super::submission::Submission;
use crate::ids::Timestamp;

/// After this many dead nodes a job is given up as `worker_lost`.
pub const MAX_LOST_NODES: i64 = 3;
/// Progress is announced when it moved by this much …
const PROGRESS_STEP: f64 = 0.05;
/// … or when the last announcement is this old.
const PROGRESS_PERIOD_MILLIS: i64 = 30_000;

/// Why a command was not taken; nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The worker's lease has passed to somebody else or is over.
    #[error("the lease with token {token} is over")]
    LeaseLost {
        /// What the worker held.
        token: i64,
    },
    /// The job is final.
    #[error("the job is already {status}", status = status.as_str())]
    AlreadyFinal {
        /// The final status.
        status: Status,
    },
    /// The command does not fit the state.
    #[error("a job that is {status} cannot be asked to {command}", status = status.as_str())]
    NotNow {
        /// The status.
        status: Status,
        /// The verb.
        command: &'static str,
    },
    /// It is not time yet.
    #[error("the job has not reached its deadline")]
    NotDue,
    /// It is in the trash, or is not, as the command would have it.
    #[error("the job is already in that place")]
    NoChange,
}

/// What a command does: the next state, and the event that says so (none when nothing is to be
/// told: progress between two steps, a stop that was already asked for).
#[derive(Clone, Debug)]
pub struct Transition {
    /// The state afterwards; its `sequence` counts the event.
    pub next: JobState,
    /// At most one fact a command.
    pub event: Option<JobEvent>,
}

/// Decides a command. Pure: the same arguments give the same answer.
pub fn decide(state: &JobState, command: Command, now: Timestamp) -> Result<Transition, Refusal> {
    if let Some(token) = command.token() {
        let leased = matches!(state.status, Status::Working | Status::Stopping);
        if !leased || token != state.token {
            return Err(Refusal::LeaseLost { token });
        }
    }
    let stopping = state.status == Status::Stopping;
    let event = match command {
        Command::Start { node } => {
            if state.status != Status::Pending {
                return Err(not_now(state, "start"));
            }
            let mut transition =
                with_event(state, JobEvent::Started { attempt: state.attempt + 1, node }, now);
            transition.next.token = state.token + 1;
            return Ok(transition);
        }
        Command::Progress { fraction, .. } => return Ok(progress(state, fraction, now)),
        Command::Succeed { payload, .. } => JobEvent::Succeeded { result: JobResult::ok(payload) },
        Command::Fail { failure, retry_at, .. } => match retry_at {
            Some(_) if stopping => stopped(),
            Some(run_at) if state.attempt < state.max_attempts => {
                JobEvent::Retried { attempt: state.attempt, failure, run_at }
            }
            _ => failed(failure, state.lost_nodes),
        },
        Command::Halt { .. } if stopping => stopped(),
        Command::Halt { .. } => failed(
            Failure::new("worker_halted", "the worker ended its work without being asked"),
            state.lost_nodes,
        ),
        Command::Release { .. } | Command::Rescue { .. } if stopping => stopped(),
        Command::Release { .. } => {
            JobEvent::Released { attempt: (state.attempt - 1).max(0), run_at: now }
        }
        Command::Rescue { .. } => rescue(state, now),
        Command::Stop => match state.status {
            Status::Pending => stopped(),
            Status::Working => JobEvent::Stopping {},
            Status::Stopping => return Ok(Transition { next: state.clone(), event: None }),
            status => return Err(Refusal::AlreadyFinal { status }),
        },
        Command::Expire => match (state.status, state.expires_at) {
            (Status::Pending, Some(deadline)) if deadline <= now => failed(
                Failure::new("expired", format!("not started before its deadline {deadline}")),
                state.lost_nodes,
            ),
            (Status::Pending, _) => return Err(Refusal::NotDue),
            _ => return Err(not_now(state, "expire")),
        },
        Command::Trash if !state.status.is_final() => return Err(not_now(state, "trash")),
        Command::Restore if !state.status.is_final() => return Err(not_now(state, "restore")),
        Command::Trash if state.deleted_at.is_some() => return Err(Refusal::NoChange),
        Command::Restore if state.deleted_at.is_none() => return Err(Refusal::NoChange),
        Command::Trash => JobEvent::Trashed {},
        Command::Restore => JobEvent::Restored {},
    };
    Ok(with_event(state, event, now))
}

fn not_now(state: &JobState, command: &'static str) -> Refusal {
    if state.status.is_final() {
        Refusal::AlreadyFinal { status: state.status }
    } else {
        Refusal::NotNow { status: state.status, command }
    }
}

fn with_event(state: &JobState, event: JobEvent, now: Timestamp) -> Transition {
    let mut next = state.clone();
    evolve(&mut next, &event, now);
    Transition { next, event: Some(event) }
}

fn progress(state: &JobState, fraction: f64, now: Timestamp) -> Transition {
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { state.progress };
    // A step back (a second try starts over) is told like a step forward.
    // Exact steps such as 0.1 to 0.15 differ by a hair less than 0.05 in binary.
    let moved = (fraction - state.announced_progress).abs() >= PROGRESS_STEP - f64::EPSILON;
    let late = fraction != state.announced_progress
        && now.millis_since(state.announced_at) >= PROGRESS_PERIOD_MILLIS;
    if moved || late {
        return with_event(state, JobEvent::Progressed { progress: fraction }, now);
    }
    let mut next = state.clone();
    next.progress = fraction;
    Transition { next, event: None }
}

fn rescue(state: &JobState, now: Timestamp) -> JobEvent {
    let lost_nodes = state.lost_nodes + 1;
    if lost_nodes >= MAX_LOST_NODES {
        let detail = format!("{lost_nodes} nodes died while they worked on it");
        return failed(Failure::new("worker_lost", detail), lost_nodes);
    }
    JobEvent::Rescued { attempt: (state.attempt - 1).max(0), lost_nodes, run_at: now }
}

fn stopped() -> JobEvent {
    JobEvent::Stopped { result: JobResult::without_payload(1, "stopped by request".to_owned()) }
}

fn failed(failure: Failure, lost_nodes: i64) -> JobEvent {
    let result = JobResult::without_payload(1, failure.detail.clone());
    JobEvent::Failed { result, failure, lost_nodes }
}

/// The state right after event 1.
pub fn born(submission: &Submission, at: Timestamp) -> JobState {
    JobState {
        status: Status::Pending,
        attempt: 0,
        max_attempts: submission.max_attempts,
        lost_nodes: 0,
        token: 0,
        sequence: 1,
        progress: 0.0,
        announced_progress: 0.0,
        announced_at: at,
        run_at: submission.run_at,
        expires_at: submission.expires_at,
        started_at: None,
        completed_at: None,
        updated_at: at,
        result: None,
        failure: None,
        deleted_at: None,
    }
}

/// Folds one more event into a state. `job.created` replaces whatever was there.
pub fn evolve(state: &mut JobState, event: &JobEvent, at: Timestamp) {
    let sequence = state.sequence + 1;
    match event {
        JobEvent::Created(submission) => {
            *state = born(submission, at);
            return;
        }
        JobEvent::Started { attempt, .. } => {
            state.status = Status::Working;
            state.attempt = *attempt;
            state.started_at = Some(at);
            state.progress = 0.0;
            state.announced_progress = 0.0;
            state.announced_at = at;
        }
        JobEvent::Progressed { progress } => {
            state.progress = *progress;
            state.announced_progress = *progress;
            state.announced_at = at;
            state.sequence = sequence;
            return;
        }
        JobEvent::Retried { failure, run_at, .. } => {
            state.status = Status::Pending;
            state.failure = Some(failure.clone());
            state.run_at = *run_at;
        }
        JobEvent::Released { attempt, run_at } => {
            state.status = Status::Pending;
            state.attempt = *attempt;
            state.run_at = *run_at;
        }
        JobEvent::Rescued { attempt, lost_nodes, run_at } => {
            state.status = Status::Pending;
            state.attempt = *attempt;
            state.lost_nodes = *lost_nodes;
            state.run_at = *run_at;
        }
        JobEvent::Stopping {} => state.status = Status::Stopping,
        JobEvent::Stopped { result } => finish(state, Status::Stopped, result, at),
        JobEvent::Succeeded { result } => {
            finish(state, Status::Success, result, at);
            state.progress = 1.0;
            state.failure = None;
        }
        JobEvent::Failed { result, failure, lost_nodes } => {
            finish(state, Status::Error, result, at);
            state.failure = Some(failure.clone());
            state.lost_nodes = *lost_nodes;
        }
        JobEvent::Trashed {} => {
            state.deleted_at = Some(at);
            state.sequence = sequence;
            return;
        }
        JobEvent::Restored {} => {
            state.deleted_at = None;
            state.sequence = sequence;
            return;
        }
    }
    state.sequence = sequence;
    state.updated_at = at;
}

fn finish(state: &mut JobState, status: Status, result: &JobResult, at: Timestamp) {
    state.status = status;
    state.result = Some(result.clone());
    state.completed_at = Some(at);
}

/// Folds a whole log; `None` when it does not begin with `job.created`.
pub fn fold<'a>(events: impl IntoIterator<Item = (&'a JobEvent, Timestamp)>) -> Option<JobState> {
    let mut events = events.into_iter();
    let (JobEvent::Created(submission), at) = events.next()? else { return None };
    let mut state = born(submission, at);
    for (event, at) in events {
        evolve(&mut state, event, at);
    }
    Some(state)
}
