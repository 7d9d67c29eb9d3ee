//! SIGKILL at random moments, in every phase, under load: nothing that was accepted is lost.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ringback::clock::Clock;
use serde_json::{Value, json};

use super::book::Book;
use super::{PATIENCE, SETTINGS, events_of};
use crate::support::chance::Chance;
use crate::support::database::{Database, on_both};
use crate::support::machine;
use crate::support::process::{Application, Server};
use crate::support::wait::{eventually, within};

const SEED: u64 = 20_260_101;
const KILLS_A_PHASE: usize = 6;
/// Each has its own lane.
const LANES: usize = 12;

/// The times of events have milliseconds.
const A_TICK: Duration = Duration::from_millis(1);

/// Where the server is when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between its first instruction and its first answer.
    Start,
    /// As a batch of a thousand jobs comes in.
    Submit,
    /// With jobs at work.
    Work,
    /// With webhooks on their way.
    Delivery,
    /// As it purges everything that is over.
    Retention,
    /// After SIGTERM.
    Shutdown,
}

const PHASES: [Phase; 6] =
    [Phase::Start, Phase::Submit, Phase::Work, Phase::Delivery, Phase::Retention, Phase::Shutdown];

/// The present as events have it.
fn now() -> SystemTime {
    Clock::system().now().to_datetime().into()
}

fn time_of(event: &Value) -> SystemTime {
    let text = event["timestamp"].as_str().expect("a time");
    chrono::DateTime::parse_from_rfc3339(text).expect("RFC 3339").into()
}

/// A job is given up after three nodes died on it and not before: behind each of its starts stands
/// one of our kills, and only then what says that the node is gone. How many jobs that hits is a
/// matter of how fast the kills follow each other.
fn explain_giving_up(events: &[Value], kills: &[SystemTime]) -> Result<(), String> {
    let mut told: Vec<&Value> = Vec::new();
    for event in events.iter().filter(|event| event["type"] != "job.progressed") {
        // A try that was handed back at a shutdown ended with its node, but not by a kill.
        match event["type"] == "job.released" {
            true => drop(told.pop()),
            false => told.push(event),
        }
    }
    let types: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let wanted = "created started rescued started rescued started failed";
    if types.join(" ").replace("job.", "") != wanted {
        return Err(format!("no three nodes: {events:#?}"));
    }
    let times: Vec<SystemTime> = told.into_iter().map(time_of).collect();
    for started in [1, 3, 5] {
        let kill = kills.iter().find(|kill| times[started] <= **kill);
        if kill.is_none_or(|kill| *kill > times[started + 1] + A_TICK) {
            return Err(format!("no node died of {kills:?} after start {started}: {events:#?}"));
        }
    }
    Ok(())
}

#[test]
fn a_log_that_lies_explains_nothing() {
    let log = |types: &str| -> Vec<Value> {
        let event = |(second, name): (usize, &str)| json!({"type": format!("job.{name}"), "timestamp": format!("2026-01-01T00:00:{second:02}Z")});
        types.split(' ').enumerate().map(event).collect()
    };
    let killed = |seconds: &[f64]| -> Vec<SystemTime> {
        let begun = time_of(&log("created")[0]);
        seconds.iter().map(|second| begun + Duration::from_secs_f64(*second)).collect()
    };
    let whole = "created started rescued started rescued started failed";
    explain_giving_up(&log(whole), &killed(&[0.5, 1.5, 3.5, 5.5])).expect("three kills");
    let handed_back =
        "created started rescued started released started progressed rescued started failed";
    explain_giving_up(&log(handed_back), &killed(&[1.5, 4.5, 6.5, 8.5])).expect("and a shutdown");

    for kills in [&[1.5, 3.5][..], &[1.5, 4.5, 5.5], &[0.5, 3.5, 5.5], &[1.5, 3.5, 6.5], &[]] {
        explain_giving_up(&log(whole), &killed(kills)).expect_err("a node that lived");
    }
    for lie in [
        "created started failed",
        "created started rescued started failed",
        "created started rescued started rescued failed",
        "created started rescued started rescued started succeeded",
        handed_back.replace(" released", "").as_str(),
    ] {
        let kills = killed(&[1.5, 3.5, 5.5, 7.5]);
        explain_giving_up(&log(lie), &kills).expect_err("not as the rules have it");
    }
}

struct Harness {
    server: Server,
    book: Arc<Book>,
    application: Application,
    chance: Chance,
    settings_file: std::path::PathBuf,
    /// How long an undisturbed start takes, and an undisturbed batch.
    start: Duration,
    submit: Duration,
    clients: Vec<std::thread::JoinHandle<()>>,
    /// When each server was gone that had been running.
    kills: Vec<SystemTime>,
    /// Starts that were killed before they had got anywhere.
    unborn: usize,
}

on_both!(nothing_is_lost_to_sigkill);
fn nothing_is_lost_to_sigkill(database: Database) {
    let begun = Instant::now();
    let mut harness = Harness::start(&database);
    let mut rounds: Vec<Phase> = PHASES.iter().flat_map(|phase| [*phase; KILLS_A_PHASE]).collect();
    harness.chance.shuffle(&mut rounds);
    for phase in rounds {
        harness.round(phase);
    }
    while harness.unborn == 0 {
        harness.stillbirth();
    }
    let killed_after = begun.elapsed();
    harness.retain_days(30);
    harness.server.start_again();
    harness.book.stop();
    for client in harness.clients.drain(..) {
        client.join().expect("every request is answered in the end");
    }
    let account = harness.book.settle(PATIENCE);
    let client = harness.server.client_of(&harness.application);
    let mut explained = 0;
    for job in &account.given_up {
        if client.get(&format!("/v1/jobs/{job}")).status == 200 {
            let events = events_of(&client, job);
            explain_giving_up(&events, &harness.kills).unwrap_or_else(|lie| panic!("{lie}"));
            explained += 1;
        }
    }
    let seen = harness.book.inspect(&client, 60);
    assert!(seen >= 10, "only {seen} jobs were left to look at");
    // Not for sure the very oldest: its sender may have died again and again.
    let is_purged = |job: &&String| client.get(&format!("/v1/jobs/{job}")).status == 404;
    let promised = harness.book.promised_jobs();
    assert!(promised.iter().rev().find(is_purged).is_some(), "retention had its turn");
    let unfinished = "/v1/jobs?status=pending&status=working&status=stopping";
    eventually("no job is live", PATIENCE, || {
        let page = client.get(unfinished).expect(200).json();
        page["jobs"].as_array().expect("jobs").is_empty().then_some(())
    });
    let status = harness.server.sigterm(PATIENCE);
    assert!(status.success(), "{status}");
    assert!(harness.kills.len() >= 25, "{} kills", harness.kills.len());
    eprintln!(
        "{:?}: {} kills ({} before the server was up) in {killed_after:?}, {:?} in all; {} jobs \
         and {} batches were promised a webhook, 0 lost, {} given up as worker_lost ({explained} \
         of them looked at, each with three kills that explain it); {} repeated requests to the receivers, all of a known webhook-id; {} requests without an answer and \
         {} put off, all answered in the end",
        database.backend(),
        harness.kills.len(),
        harness.unborn,
        begun.elapsed(),
        account.jobs,
        account.groups,
        account.given_up.len(),
        account.repeats,
        harness.book.unanswered.load(Ordering::SeqCst),
        harness.book.put_off.load(Ordering::SeqCst),
    );
}

impl Harness {
    fn start(database: &Database) -> Harness {
        let application = Application::create(database, "shop");
        let book = Book::open(&application, LANES, SEED);
        let settings_file = database.folder().join("settings.toml");
        fs::write(&settings_file, "").expect("a file");
        let mut arguments = vec!["--config", settings_file.to_str().expect("a plain path")];
        arguments.extend(SETTINGS);
        let mut server = Server::on(database, &arguments);
        server.sigkill();
        let kills = vec![now()];
        let begun = Instant::now();
        server.start_again();
        let start = begun.elapsed();
        let client = server.client_of(&application);
        let begun = Instant::now();
        book.place(&client, &book.batch(1_000, 0.0));
        let submit = begun.elapsed();
        let clients = (0..2).map(|number| book.load(client.clone(), SEED + 100 + number)).collect();
        Harness {
            server,
            book,
            application,
            chance: Chance::seeded(SEED),
            settings_file,
            start,
            submit,
            clients,
            kills,
            unborn: 0,
        }
    }

    fn retain_days(&self, days: u32) {
        fs::write(&self.settings_file, format!("retention_days = {days}\n")).expect("a file");
    }

    /// Starts the server unless it runs, brings it to a phase, and kills it there.
    fn round(&mut self, phase: Phase) {
        self.retain_days(if phase == Phase::Retention { 0 } else { 30 });
        let starts = self.starts();
        self.kill();
        self.server.start_again_unready();
        let longest = match phase {
            // Half of them very early: what comes first is over in a few milliseconds.
            Phase::Start if self.chance.below(2) == 0 => self.start / 10,
            Phase::Start => self.start,
            _ => {
                let ended = self.server.wait_until_ready();
                assert!(ended.is_none(), "{ended:?}: {}", self.server.stderr());
                let before = self.book.promises();
                eventually("clients are served", PATIENCE, || {
                    (self.book.promises() >= before + 15).then_some(())
                });
                self.reach(phase)
            }
        };
        let moment = self.chance.moment(longest);
        within(moment, || {
            let running = phase == Phase::Shutdown || self.server.is_running();
            (!running).then(|| panic!("it ended by itself: {}", self.server.stderr()))
        });
        if phase == Phase::Start && self.starts() == starts {
            self.unborn += 1;
        }
        self.kill();
        eprintln!("killed in {phase:?} after {moment:?}");
    }

    /// Kills a start at its first instruction.
    fn stillbirth(&mut self) {
        let starts = self.starts();
        self.kill();
        self.server.start_again_unready();
        self.kill();
        self.unborn += usize::from(self.starts() == starts);
    }

    fn kill(&mut self) {
        let was_running = self.server.is_running();
        self.server.sigkill();
        if was_running {
            self.kills.push(now());
        }
    }

    /// Waits for the phase to begin; until when a kill still hits it.
    fn reach(&mut self, phase: Phase) -> Duration {
        let client = self.server.client_of(&self.application);
        match phase {
            Phase::Start => Duration::ZERO,
            Phase::Submit => {
                let (book, client) = (Arc::clone(&self.book), client.clone());
                let order = book.batch(1_000, 0.0);
                self.clients.push(std::thread::spawn(move || {
                    book.place(&client, &order);
                }));
                self.submit.mul_f64(1.2)
            }
            Phase::Work => {
                eventually("a job is at work", PATIENCE, || {
                    let page = client.get("/v1/jobs?status=working&pageSize=1").expect(200).json();
                    (!page["jobs"].as_array().expect("jobs").is_empty()).then_some(())
                });
                Duration::from_millis(300)
            }
            Phase::Delivery => {
                let before = self.book.received();
                eventually("webhooks are on their way", PATIENCE, || {
                    (self.book.received() >= before + 5).then_some(())
                });
                Duration::from_millis(300)
            }
            Phase::Retention => {
                // It looks once a minute.
                eventually("something old is purged", 2 * PATIENCE, || {
                    self.book.promised_jobs().iter().rev().take(20).find_map(|job| {
                        let answer = client.get(&format!("/v1/jobs/{job}"));
                        (answer.status == 404).then_some(())
                    })
                });
                Duration::from_millis(500)
            }
            Phase::Shutdown => {
                assert!(machine::signal(self.server.pid(), "TERM"), "it was running");
                Duration::from_millis(400)
            }
        }
    }

    /// How often the server has said that it listens.
    fn starts(&self) -> usize {
        self.server.stdout().matches(" listens on ").count()
    }
}
