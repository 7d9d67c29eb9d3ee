//! Random lives: commands in any order, tokens of now, before and never, time running both ways.
//!
//! The seed is fixed, so a run that fails here fails everywhere; what proptest would write beside
//! the source is switched off for the same reason.

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseResult, TestRunner};
use ringback::ids::Timestamp;
use ringback::lifecycle::{
    Command, Failure, JobEvent, JobState, MAX_LOST_NODES, Refusal, Status, Transition, decide,
};

use super::life::{BIRTH, Life, json, submission};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;

pub fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        // Shrinking such long lives to the last step would take minutes.
        max_shrink_iters: 1_000,
        rng_seed: RngSeed::Fixed(2026),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A command before it is known which token is current.
#[derive(Clone, Debug)]
struct Draft {
    command: Command,
    /// 0 names the current lease, less an old one, more one that nobody has yet.
    token_shift: i64,
    /// How far the clock moves before, in microseconds.
    later: i64,
}

impl Draft {
    fn aimed_at(&self, state: &JobState) -> Command {
        let mut command = self.command.clone();
        match &mut command {
            Command::Progress { token, .. }
            | Command::Succeed { token, .. }
            | Command::Fail { token, .. }
            | Command::Halt { token }
            | Command::Release { token }
            | Command::Rescue { token } => *token = state.token.saturating_add(self.token_shift),
            _ => {}
        }
        command
    }
}

fn fraction() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => 0.0..=1.0,
        4 => (0..=20).prop_map(|step| f64::from(step) / 20.0),
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::NEG_INFINITY),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let payload = prop::sample::select(vec![
        "null",
        r#"{"files": 1}"#,
        r#"{ "spaces":[1 , 2.50, 1E400, 123456789012345678901234567890] }"#,
        r#""line\nquote\" é \u00e9""#,
    ]);
    let node = "[a-z]{1,4}".prop_map(|node| Command::Start { node });
    let failure = ("[a-z_]{1,8}", any::<String>()).prop_map(|(code, why)| Failure::new(&code, why));
    let fail = (failure, prop::option::weighted(0.9, -DAY..DAY)).prop_map(|(failure, after)| {
        let retry_at = after.map(|after| Timestamp(BIRTH.0 + after));
        Command::Fail { token: 0, failure, retry_at }
    });
    prop_oneof![
        16 => node,
        8 => fraction().prop_map(|fraction| Command::Progress { token: 0, fraction }),
        2 => payload.prop_map(|text| Command::Succeed { token: 0, payload: json(text) }),
        4 => fail,
        1 => Just(Command::Halt { token: 0 }),
        4 => Just(Command::Release { token: 0 }),
        4 => Just(Command::Rescue { token: 0 }),
        1 => Just(Command::Stop),
        1 => Just(Command::Expire),
        2 => Just(Command::Trash),
        2 => Just(Command::Restore),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let token_shift = prop_oneof![8 => Just(0i64), 2 => -3i64..0, 1 => 1i64..4, 1 => any::<i64>()];
    let later = prop_oneof![4 => 0..40 * SECOND, 1 => -60 * SECOND..0, 1 => -DAY..DAY];
    (command(), token_shift, later).prop_map(|(command, token_shift, later)| Draft {
        command,
        token_shift,
        later,
    })
}

/// One command and what came of it.
#[derive(Debug)]
struct Moment {
    before: JobState,
    command: Command,
    now: Timestamp,
    answer: Result<Transition, Refusal>,
    after: Life,
}

/// A life before it is lived; what proptest shows when a property fails.
#[derive(Clone, Debug)]
struct Plan {
    max_attempts: i64,
    run_at: Timestamp,
    expires_at: Option<Timestamp>,
    drafts: Vec<Draft>,
}

impl Plan {
    fn live(&self, property: impl Fn(&Moment) -> TestCaseResult) -> TestCaseResult {
        let mut life = Life::begin(submission(self.max_attempts, self.run_at, self.expires_at));
        let mut now = BIRTH;
        for draft in &self.drafts {
            now = Timestamp(now.0 + draft.later);
            let before = life.state.clone();
            let command = draft.aimed_at(&before);
            let answer = life.apply(command.clone(), now);
            property(&Moment { before, command, now, answer, after: life.clone() })?;
        }
        Ok(())
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let expires_after = prop::option::of(0..DAY);
    let drafts = prop::collection::vec(draft(), 1..48);
    (1i64..5, -DAY..DAY, expires_after, drafts).prop_map(
        |(max_attempts, run_after, expires_after, drafts)| Plan {
            max_attempts,
            run_at: Timestamp(BIRTH.0 + run_after),
            expires_at: expires_after.map(|after| Timestamp(BIRTH.0 + after)),
            drafts,
        },
    )
}

/// Runs a property over every moment of many lives.
fn for_every_moment(property: impl Fn(&Moment) -> TestCaseResult) {
    let outcome = TestRunner::new(config()).run(&plan(), |plan| plan.live(&property));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn a_final_state_never_changes() {
    for_every_moment(|moment| {
        let (before, after) = (&moment.before, &moment.after.state);
        if before.status.is_final() {
            let mut same = after.clone();
            same.deleted_at = before.deleted_at;
            same.sequence = before.sequence;
            prop_assert_eq!(&same, before);
            if moment.answer.is_ok() {
                prop_assert!(matches!(moment.command, Command::Trash | Command::Restore));
            }
        }
        prop_assert_eq!(after.status.is_final(), after.result.is_some());
        prop_assert_eq!(after.status.is_final(), after.completed_at.is_some());
        prop_assert!(after.status.is_final() || after.deleted_at.is_none());
        Ok(())
    });
}

#[test]
fn the_events_are_gapless_and_tell_the_whole_state() {
    for_every_moment(|moment| {
        let told = matches!(&moment.answer, Ok(Transition { event: Some(_), .. }));
        prop_assert_eq!(moment.after.state.sequence, moment.before.sequence + i64::from(told));
        prop_assert_eq!(moment.after.disagreement(), "");
        Ok(())
    });
}

#[test]
fn a_token_grows_at_every_start_and_only_there() {
    for_every_moment(|moment| {
        let started = moment.answer.is_ok() && matches!(moment.command, Command::Start { .. });
        prop_assert_eq!(moment.after.state.token, moment.before.token + i64::from(started));
        Ok(())
    });
}

#[test]
fn a_late_worker_changes_nothing() {
    for_every_moment(|moment| {
        let Some(token) = moment.command.token() else { return Ok(()) };
        let leased = matches!(moment.before.status, Status::Working | Status::Stopping);
        if leased && token == moment.before.token {
            prop_assert!(moment.answer.is_ok());
        } else {
            prop_assert_eq!(moment.answer.as_ref().err(), Some(&Refusal::LeaseLost { token }));
        }
        Ok(())
    });
}

#[test]
fn a_refusal_changes_nothing() {
    for_every_moment(|moment| {
        if moment.answer.is_err() {
            prop_assert_eq!(&moment.after.state, &moment.before);
        }
        Ok(())
    });
}

#[test]
fn tries_and_lost_nodes_are_bounded() {
    for_every_moment(|moment| {
        let (before, after) = (&moment.before, &moment.after.state);
        prop_assert!((0..=after.max_attempts).contains(&after.attempt));
        prop_assert!((before.lost_nodes..=MAX_LOST_NODES).contains(&after.lost_nodes));
        let lost = after.failure.as_ref().is_some_and(|failure| failure.code == "worker_lost");
        prop_assert_eq!(lost, after.lost_nodes == MAX_LOST_NODES);
        if lost {
            prop_assert_eq!(after.status, Status::Error);
        }
        // What a node did not finish is not held against the job.
        if after.status == Status::Pending
            && matches!(moment.command, Command::Release { .. } | Command::Rescue { .. })
            && moment.answer.is_ok()
        {
            prop_assert_eq!(after.attempt, before.attempt - 1);
        }
        Ok(())
    });
}

#[test]
fn progress_stays_a_fraction_and_is_announced_sparingly() {
    for_every_moment(|moment| {
        let (before, after) = (&moment.before, &moment.after.state);
        prop_assert!((0.0..=1.0).contains(&after.progress));
        prop_assert!((0.0..=1.0).contains(&after.announced_progress));
        let Ok(transition) = &moment.answer else { return Ok(()) };
        let Command::Progress { .. } = moment.command else { return Ok(()) };
        let moved = (after.progress - before.announced_progress).abs();
        let waited = moment.now.millis_since(before.announced_at);
        match &transition.event {
            Some(JobEvent::Progressed { progress }) => {
                prop_assert_eq!(*progress, after.progress);
                prop_assert!(moved >= 0.05 - 1e-9 || (moved > 0.0 && waited >= 30_000));
            }
            Some(other) => prop_assert!(false, "{:?}", other),
            None => prop_assert!(moved < 0.05 && (moved == 0.0 || waited < 30_000)),
        }
        prop_assert_eq!(after.updated_at, before.updated_at);
        Ok(())
    });
}

#[test]
fn the_same_question_has_the_same_answer() {
    for_every_moment(|moment| {
        let again = decide(&moment.before, moment.command.clone(), moment.now);
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", moment.answer));
        Ok(())
    });
}

/// Properties that never meet an interesting state would hold for no reason.
#[test]
fn the_random_lives_go_everywhere() {
    use std::cell::RefCell;
    use std::collections::HashSet;

    let (endings, events) = (RefCell::new(HashSet::new()), RefCell::new(HashSet::new()));
    for_every_moment(|moment| {
        let state = &moment.after.state;
        endings.borrow_mut().insert((state.status, state.lost_nodes, state.deleted_at.is_some()));
        events.borrow_mut().extend(moment.after.log.iter().map(|(event, _)| event.event_type()));
        Ok(())
    });
    for status in Status::ALL {
        assert!(endings.borrow().contains(&(status, 0, false)), "{status:?} was never met");
    }
    assert!(endings.borrow().contains(&(Status::Error, MAX_LOST_NODES, true)));
    assert_eq!(events.borrow().len(), 12, "{events:?}");
}
