//! Reads and runs one script of `fixtures/lifecycle`; the README there describes the form.
//!
//! Errors are texts that begin with `:line: `. After every line the state is compared with the
//! fold of the events so far, so a script checks much more than it writes down.

use std::collections::BTreeSet;
use std::str::FromStr;

use ringback::ids::Timestamp;
use ringback::lifecycle::{Command, Failure, JobState, Refusal, Status, Submission};

use super::life::{BIRTH, Life, REFUSALS, json, refusal_name, submission};

/// What a run made happen.
#[derive(Debug, Default)]
pub struct Seen {
    pub commands: BTreeSet<&'static str>,
    pub events: BTreeSet<&'static str>,
    pub refusals: BTreeSet<&'static str>,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        self.commands.extend(other.commands);
        self.events.extend(other.events);
        self.refusals.extend(other.refusals);
    }
}

/// A submission and what is asked of the job afterwards.
#[derive(Debug)]
pub struct Script {
    submission: Submission,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    at: Timestamp,
    command: Command,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    Refused(String),
    Accepted { status: Status, event: Option<String>, fields: Vec<(String, String)> },
}

impl Script {
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (number, header) = lines.next().ok_or(": the script is empty")?;
        let submission = parse_header(header).map_err(|error| format!(":{number}: {error}"))?;
        let lines = lines
            .map(|(number, line)| {
                parse_line(number, line).map_err(|error| format!(":{number}: {error}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Script { submission, lines })
    }

    pub fn run(self) -> Result<Seen, String> {
        let mut life = Life::begin(self.submission);
        let mut seen = Seen::default();
        seen.events.insert(life.log[0].0.event_type().as_str());
        for line in self.lines {
            line.run(&mut life, &mut seen).map_err(|error| format!(":{}: {error}", line.number))?;
        }
        Ok(seen)
    }
}

impl Line {
    fn run(&self, life: &mut Life, seen: &mut Seen) -> Result<(), String> {
        seen.commands.insert(self.command.name());
        let before = life.state.clone();
        match (life.apply(self.command.clone(), self.at), &self.expected) {
            (Err(refusal), Expected::Refused(name)) => {
                if refusal_name(&refusal) != name || !is_apt(&refusal, &before, &self.command) {
                    return Err(format!("refused {refusal:?}, expected {name}"));
                }
                seen.refusals.insert(refusal_name(&refusal));
            }
            (Err(refusal), Expected::Accepted { .. }) => {
                return Err(format!("refused {refusal:?}"));
            }
            (Ok(_), Expected::Refused(name)) => {
                return Err(format!("{:?}, expected to be refused {name}", life.state.status));
            }
            (Ok(transition), Expected::Accepted { status, event, fields }) => {
                let told = transition.event.map(|event| event.event_type().as_str());
                equal("status", life.state.status.as_str(), status.as_str())?;
                equal("event", told.unwrap_or("-"), event.as_deref().unwrap_or("-"))?;
                fields.iter().try_for_each(|(name, value)| check(&life.state, name, value))?;
                seen.events.extend(told);
            }
        }
        let wrong = life.disagreement();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// Whether a refusal names what was really there.
fn is_apt(refusal: &Refusal, before: &JobState, command: &Command) -> bool {
    match refusal {
        Refusal::LeaseLost { token } => command.token() == Some(*token),
        Refusal::AlreadyFinal { status } => *status == before.status && status.is_final(),
        Refusal::NotNow { status, command: verb } => {
            *status == before.status && *verb == command.name()
        }
        Refusal::NotDue | Refusal::NoChange => true,
    }
}

fn check(state: &JobState, name: &str, expected: &str) -> Result<(), String> {
    let time = |time: Option<Timestamp>| time.map_or("none".to_owned(), seconds);
    let found = match name {
        "attempt" => state.attempt.to_string(),
        "token" => state.token.to_string(),
        "lost" => state.lost_nodes.to_string(),
        "sequence" => state.sequence.to_string(),
        "progress" => state.progress.to_string(),
        "announced" => state.announced_progress.to_string(),
        "run-at" => time(Some(state.run_at)),
        "started" => time(state.started_at),
        "completed" => time(state.completed_at),
        "updated" => time(Some(state.updated_at)),
        "deleted" => time(state.deleted_at),
        "failure" => state.failure.as_ref().map_or("none".to_owned(), |it| it.code.clone()),
        "code" => state.result.as_ref().map_or("none".to_owned(), |it| it.code.to_string()),
        "payload" => {
            state.result.as_ref().map_or("none".to_owned(), |it| it.payload.get().to_owned())
        }
        _ => return Err(format!("no field is called `{name}`")),
    };
    equal(name, &found, expected)
}

fn equal(what: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what} is {found}, expected {expected}"))
}

fn parse_header(header: &str) -> Result<Submission, String> {
    let mut words = header.split_whitespace();
    if words.next() != Some("job") {
        return Err("a script begins with `job` and its options".to_owned());
    }
    let (mut attempts, mut run_at, mut expires_at) = (1, BIRTH, None);
    for option in words {
        match option.split_once('=') {
            Some(("attempts", number)) => attempts = parse(number)?,
            Some(("run-at", time)) => run_at = instant(time)?,
            Some(("expires-at", time)) => expires_at = Some(instant(time)?),
            _ => return Err(format!("`{option}` is no option of a job")),
        }
    }
    Ok(submission(attempts, run_at, expires_at))
}

fn parse_line(number: usize, line: &str) -> Result<Line, String> {
    let (asked, outcome) = line.split_once(" -> ").ok_or("a line needs ` -> ` and an outcome")?;
    let (at, command) = asked.split_once(' ').ok_or("a line begins with a time and a command")?;
    Ok(Line {
        number,
        at: instant(at)?,
        command: parse_command(&command.split_whitespace().collect::<Vec<_>>())?,
        expected: parse_outcome(&outcome.split_whitespace().collect::<Vec<_>>())?,
    })
}

fn parse_command(words: &[&str]) -> Result<Command, String> {
    let token = |word: &str| parse(word.strip_prefix('@').ok_or("a token begins with @")?);
    Ok(match *words {
        ["start", node] => Command::Start { node: node.to_owned() },
        ["progress", lease, fraction] => {
            Command::Progress { token: token(lease)?, fraction: parse(fraction)? }
        }
        ["succeed", lease] => Command::Succeed { token: token(lease)?, payload: json("null") },
        ["succeed", lease, text] => Command::Succeed { token: token(lease)?, payload: json(text) },
        ["fail", lease, code] => Command::Fail {
            token: token(lease)?,
            failure: Failure::new(code, "for good"),
            retry_at: None,
        },
        ["fail", lease, code, "retry", time] => Command::Fail {
            token: token(lease)?,
            failure: Failure::new(code, "a passing failure"),
            retry_at: Some(instant(time)?),
        },
        ["halt", lease] => Command::Halt { token: token(lease)? },
        ["release", lease] => Command::Release { token: token(lease)? },
        ["rescue", lease] => Command::Rescue { token: token(lease)? },
        ["stop"] => Command::Stop,
        ["expire"] => Command::Expire,
        ["trash"] => Command::Trash,
        ["restore"] => Command::Restore,
        _ => return Err(format!("`{}` is no command", words.join(" "))),
    })
}

fn parse_outcome(words: &[&str]) -> Result<Expected, String> {
    match *words {
        ["refused", name] if REFUSALS.contains(&name) => Ok(Expected::Refused(name.to_owned())),
        [status, event, ref fields @ ..] if status != "refused" => Ok(Expected::Accepted {
            status: Status::parse(status).ok_or_else(|| format!("`{status}` is no status"))?,
            event: (event != "-").then(|| event.to_owned()),
            fields: fields
                .iter()
                .map(|field| {
                    let (name, value) = field.split_once('=').ok_or("a field needs `=`")?;
                    Ok((name.to_owned(), value.to_owned()))
                })
                .collect::<Result<_, String>>()?,
        }),
        _ => Err(format!("`{}` is no outcome", words.join(" "))),
    }
}

/// Seconds since the submission; negative when the clock went back.
fn instant(word: &str) -> Result<Timestamp, String> {
    let seconds: f64 = parse(word)?;
    Ok(BIRTH.plus_millis((seconds * 1_000.0).round() as i64))
}

fn seconds(time: Timestamp) -> String {
    (time.millis_since(BIRTH) as f64 / 1_000.0).to_string()
}

fn parse<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("`{word}` is not understood"))
}
