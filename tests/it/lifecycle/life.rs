//! One job's life in memory: its state beside its event log, and how the two are compared.

use std::fmt::Write as _;

use ringback::ids::Timestamp;
use ringback::lifecycle::{
    Command, JobEvent, JobState, Refusal, Submission, Transition, decide, fold,
};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The instant that the tests count from: 2026-01-01T00:00:00Z.
pub const BIRTH: Timestamp = Timestamp(1_767_225_600_000_000);

/// The verbs of all commands, in the order of [`position`].
pub const VERBS: [&str; 11] = [
    "start", "progress", "succeed", "fail", "halt", "release", "rescue", "stop", "expire", "trash",
    "restore",
];

/// Where a command's verb stands in [`VERBS`]: without a wildcard, so that a new command does not
/// compile before it is listed, and then has to occur in the table and in a script.
pub fn position(command: &Command) -> usize {
    match command {
        Command::Start { .. } => 0,
        Command::Progress { .. } => 1,
        Command::Succeed { .. } => 2,
        Command::Fail { .. } => 3,
        Command::Halt { .. } => 4,
        Command::Release { .. } => 5,
        Command::Rescue { .. } => 6,
        Command::Stop => 7,
        Command::Expire => 8,
        Command::Trash => 9,
        Command::Restore => 10,
    }
}

/// The names of all refusals, in the scripts' spelling.
pub const REFUSALS: [&str; 5] = ["LeaseLost", "AlreadyFinal", "NotNow", "NotDue", "NoChange"];

/// The name of a refusal; without a wildcard for the same reason as [`position`].
pub fn refusal_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::LeaseLost { .. } => REFUSALS[0],
        Refusal::AlreadyFinal { .. } => REFUSALS[1],
        Refusal::NotNow { .. } => REFUSALS[2],
        Refusal::NotDue => REFUSALS[3],
        Refusal::NoChange => REFUSALS[4],
    }
}

/// A submission with the parts that the state machine looks at.
pub fn submission(
    max_attempts: i64,
    run_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Submission {
    Submission {
        job_type: "urn:job:webhook.replay".to_owned(),
        specification: json(r#"{"kept": "as it is"}"#),
        sources: Vec::new(),
        group_id: Uuid::nil(),
        metadata: Some(json("{}")),
        priority: 0,
        queue: "default".to_owned(),
        run_at,
        expires_at,
        max_attempts,
        timeout_seconds: Some(60),
        callback: None,
        retry_of: None,
        parent_id: None,
        issuer: "urn:app:test".to_owned(),
        actor: "test".to_owned(),
        request_id: "test".to_owned(),
        has_secrets: false,
    }
}

/// JSON text as a handler's product.
pub fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// A job as the engine keeps it: the live row, and the log that must tell the same.
#[derive(Clone, Debug)]
pub struct Life {
    pub state: JobState,
    pub log: Vec<(JobEvent, Timestamp)>,
}

impl Life {
    pub fn begin(submission: Submission) -> Life {
        let log = vec![(JobEvent::Created(Box::new(submission)), BIRTH)];
        Life { state: folded(&log), log }
    }

    /// Decides a command and keeps what it did.
    pub fn apply(&mut self, command: Command, now: Timestamp) -> Result<Transition, Refusal> {
        let transition = decide(&self.state, command, now)?;
        self.state = transition.next.clone();
        self.log.extend(transition.event.clone().map(|event| (event, now)));
        Ok(transition)
    }

    /// What the log tells otherwise than the state; empty when they agree.
    pub fn disagreement(&self) -> String {
        let mut wrong = difference(&self.state, folded(&self.log));
        wrong += &difference(&at_wire_precision(&self.state), self.reread());
        if usize::try_from(self.state.sequence) != Ok(self.log.len()) {
            let _ = write!(wrong, "sequence {}, {} events", self.state.sequence, self.log.len());
        }
        wrong
    }

    /// The fold of the log after a way through its stored form.
    fn reread(&self) -> JobState {
        let reread = |(event, at): &(JobEvent, Timestamp)| {
            let data = event.data().unwrap();
            let again = JobEvent::from_parts(event.event_type().as_str(), &data)
                .unwrap_or_else(|error| panic!("{error} in {data}"));
            assert_eq!(again.event_type(), event.event_type());
            if !matches!(event, JobEvent::Progressed { .. }) {
                assert_eq!(again.data().unwrap(), data, "an event changed when it was read back");
            }
            (again, *at)
        };
        at_wire_precision(&folded(&self.log.iter().map(reread).collect::<Vec<_>>()))
    }
}

fn folded(log: &[(JobEvent, Timestamp)]) -> JobState {
    fold(log.iter().map(|(event, at)| (event, *at))).expect("a log begins with job.created")
}

/// Stored events name times in milliseconds, while rows keep microseconds; and serde_json reads a
/// fraction back to within its last bit only, unless it is told to take more time.
fn at_wire_precision(state: &JobState) -> JobState {
    let cut = |time: Timestamp| Timestamp(time.0.div_euclid(1_000) * 1_000);
    let mut state = state.clone();
    state.run_at = cut(state.run_at);
    state.expires_at = state.expires_at.map(cut);
    state.announced_progress = (state.announced_progress * 1e9).round() / 1e9;
    state
}

fn difference(state: &JobState, mut told: JobState) -> String {
    // Of these two the log knows less: a token is proof of a lease and not a fact about the job,
    // and progress between two announcements is only in the live row.
    told.token = state.token;
    told.progress = state.progress;
    if told == *state {
        return String::new();
    }
    format!("the events tell {told:#?}\nbut the state is {state:#?}\n")
}
