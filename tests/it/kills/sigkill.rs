//! SIGKILL at random moments, in every phase, under load: nothing that was accepted is lost.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

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

fn time_of(event: &Value) -> SystemTime {
    let text = event["timestamp"].as_str().expect("a time");
    chrono::DateTime::parse_from_rfc3339(text).expect("RFC 3339").into()
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
            harness.explain_giving_up(&events_of(&client, job));
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
    assert!(harness.unborn > 0, "no start was killed before it was over");
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
        let kills = vec![SystemTime::now()];
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

    fn kill(&mut self) {
        let was_running = self.server.is_running();
        self.server.sigkill();
        if was_running {
            self.kills.push(SystemTime::now());
        }
    }

    /// A job is given up after three nodes died on it and not before: behind each of its starts
    /// stands one of our kills, and only then what says that the node is gone. How many jobs that
    /// hits is a matter of how fast the kills follow each other.
    #[track_caller]
    fn explain_giving_up(&self, events: &[Value]) {
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
        assert_eq!(types.join(" ").replace("job.", ""), wanted, "{events:#?}");
        let times: Vec<SystemTime> = told.into_iter().map(time_of).collect();
        for started in [1, 3, 5] {
            let is_between = |kill: &&SystemTime| times[started] <= **kill;
            let kill = self.kills.iter().find(is_between).expect("a kill after the start");
            assert!(*kill <= times[started + 1] + A_TICK, "no node died: {events:#?}");
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
            Phase::Retention => Duration::from_millis(500),
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
