//! The transition table in the doc comment of `lifecycle` against `decide`, cell by cell.
//!
//! No state is made up: all that commands can lead to are visited, from two submissions, and every
//! command is tried on each. A cell lists the outcomes that were met; `–` stands for none.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;

use ringback::ids::Timestamp;
use ringback::lifecycle::{Command, Failure, JobState, MAX_LOST_NODES, Refusal, Status, decide};

use super::life::{BIRTH, Life, VERBS, json, position, refusal_name, submission};
use super::repository;

/// Per status and verb.
type Table<T> = BTreeMap<(&'static str, &'static str), BTreeSet<T>>;

fn empty<T>() -> Table<T> {
    let cells = |status: Status| VERBS.map(|verb| ((status.as_str(), verb), BTreeSet::new()));
    Status::ALL.into_iter().flat_map(cells).collect()
}

/// The deadline lies between these two.
const EARLY: Timestamp = Timestamp(BIRTH.0 + 5_000_000);
const LATE: Timestamp = Timestamp(BIRTH.0 + 15_000_000);

fn commands(state: &JobState, token: i64) -> Vec<Command> {
    let failure = Failure::new("broken", "it broke");
    // Always another fraction than before, so that a progress that is taken also changes something.
    let fraction = (state.progress + 0.25) % 1.0;
    vec![
        Command::Start { node: "node".to_owned() },
        Command::Progress { token, fraction },
        Command::Succeed { token, payload: json("null") },
        Command::Fail { token, failure: failure.clone(), retry_at: None },
        Command::Fail { token, failure, retry_at: Some(LATE) },
        Command::Halt { token },
        Command::Release { token },
        Command::Rescue { token },
        Command::Stop,
        Command::Expire,
        Command::Trash,
        Command::Restore,
    ]
}

/// Every state that can be reached, as far as states differ in what decides.
fn reachable() -> Vec<JobState> {
    let submissions =
        [submission(2, BIRTH, None), submission(2, BIRTH, Some(BIRTH.plus_millis(10_000)))];
    let mut todo: Vec<_> = submissions.map(|submission| Life::begin(submission).state).into();
    let mut known = HashSet::new();
    let mut states = Vec::new();
    while let Some(state) = todo.pop() {
        let (deleted, expires) = (state.deleted_at.is_some(), state.expires_at.is_some());
        if !known.insert((state.status, state.attempt, state.lost_nodes, deleted, expires)) {
            continue;
        }
        for now in [EARLY, LATE] {
            let next = commands(&state, state.token)
                .into_iter()
                .filter_map(|command| decide(&state, command, now).ok());
            todo.extend(next.map(|transition| transition.next));
        }
        states.push(state);
    }
    states
}

/// What an accepted command did, in the words of the table.
fn words(before: &JobState, after: &JobState) -> Vec<&'static str> {
    if after == before {
        return vec!["no change"];
    }
    if after.deleted_at == before.deleted_at {
        return vec![after.status.as_str()];
    }
    assert_eq!(after.status, before.status, "neither way of the trash changes the status");
    vec!["same", if after.deleted_at.is_some() { "deleted" } else { "restored" }]
}

/// The table as `decide` has it: outcomes and refusals of commands that name the right token.
fn decided() -> (Table<String>, Table<&'static str>) {
    let (mut outcomes, mut refusals) = (empty(), empty());
    for state in reachable() {
        for now in [EARLY, LATE] {
            for command in commands(&state, state.token) {
                let verb = VERBS[position(&command)];
                assert_eq!(verb, command.name());
                let cell = (state.status.as_str(), verb);
                match decide(&state, command, now) {
                    Ok(transition) => outcomes
                        .get_mut(&cell)
                        .unwrap()
                        .extend(words(&state, &transition.next).into_iter().map(str::to_owned)),
                    Err(refusal) => {
                        refusals.get_mut(&cell).unwrap().insert(refusal_name(&refusal));
                    }
                }
            }
        }
    }
    (outcomes, refusals)
}

/// The table as the doc comment has it.
fn documented() -> Table<String> {
    let source = fs::read_to_string(repository().join("src/lifecycle/mod.rs")).unwrap();
    let mut rows = source.lines().filter_map(|line| line.strip_prefix("//! |")).map(|line| {
        let cells = line.trim().trim_end_matches('|').split('|');
        cells.map(str::trim).collect::<Vec<_>>()
    });
    let head = rows.next().expect("a table in the doc comment");
    assert_eq!(head[1..], VERBS, "the columns are the commands");
    let mut table = empty();
    let mut statuses = Vec::new();
    for row in rows.filter(|row| !row[0].starts_with("---")) {
        assert_eq!(row.len(), head.len(), "cells in {row:?}");
        for status in row[0].split(", ") {
            statuses.push(Status::parse(status).unwrap_or_else(|| panic!("no status {status}")));
            let status = statuses[statuses.len() - 1].as_str();
            for (verb, cell) in VERBS.iter().zip(&row[1..]).filter(|(_, cell)| **cell != "–") {
                let words = cell.split(", ").map(str::to_owned);
                table.get_mut(&(status, *verb)).unwrap().extend(words);
            }
        }
    }
    assert_eq!(statuses, Status::ALL, "the rows are the statuses");
    table
}

#[test]
fn the_documented_table_is_what_decide_does() {
    let (documented, (decided, _)) = (documented(), decided());
    let wrong: Vec<_> = documented
        .iter()
        .filter(|(cell, words)| decided[*cell] != **words)
        .map(|(cell, words)| format!("{cell:?}: documented {words:?}, decided {:?}", decided[cell]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_refusal_gives_the_right_reason() {
    let (outcomes, refusals) = decided();
    for ((status, verb), found) in refusals {
        let is_final = Status::parse(status).unwrap().is_final();
        let leased = matches!(status, "working" | "stopping");
        let of_worker = commands(&Life::begin(submission(1, BIRTH, None)).state, 0)
            .iter()
            .any(|command| command.name() == verb && command.token().is_some());
        let expected = match verb {
            _ if of_worker && leased => vec![],
            _ if of_worker => vec!["LeaseLost"],
            // Refused only before the deadline, or when there is none.
            "expire" if status == "pending" => vec!["NotDue"],
            // Refused only when it is there already.
            "trash" | "restore" if is_final => vec!["NoChange"],
            _ if is_final => vec!["AlreadyFinal"],
            "stop" => vec![],
            "start" if status == "pending" => vec![],
            _ => vec!["NotNow"],
        };
        let expected = BTreeSet::from_iter(expected);
        assert_eq!(found, expected, "{verb} on {status}");
        assert!(!found.is_empty() || !outcomes[&(status, verb)].is_empty(), "{verb} on {status}");
    }
}

#[test]
fn another_token_is_refused_whatever_the_state() {
    for state in reachable() {
        for token in [state.token - 1, state.token + 1, i64::MIN, i64::MAX] {
            for command in commands(&state, token) {
                if command.token().is_some() {
                    let verb = command.name();
                    let refusal = decide(&state, command, LATE).unwrap_err();
                    assert_eq!(refusal, Refusal::LeaseLost { token }, "{verb} on {state:?}");
                }
            }
        }
    }
}

#[test]
fn the_visited_states_cover_every_count() {
    let states = reachable();
    let statuses: HashSet<_> = states.iter().map(|state| state.status).collect();
    assert_eq!(statuses.len(), Status::ALL.len());
    let attempts: BTreeSet<_> = states.iter().map(|state| state.attempt).collect();
    assert_eq!(attempts, BTreeSet::from([0, 1, 2]));
    let lost: BTreeSet<_> = states.iter().map(|state| state.lost_nodes).collect();
    assert_eq!(lost, (0..=MAX_LOST_NODES).collect());
}
