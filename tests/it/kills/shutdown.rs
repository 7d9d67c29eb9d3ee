//! SIGTERM and what comes after a restart; one server a file.

use std::time::{Duration, Instant};

use super::book::Book;
use super::{PATIENCE, SETTINGS, events_of, types_of, wait_for_starts};
use crate::support::database::{Backend, Database, on_both};
use crate::support::machine;
use crate::support::process::{Application, Server, data_dir};

const SEED: u64 = 20_260_104;

fn with_grace(seconds: &str) -> Vec<&str> {
    [&SETTINGS[..], &["--grace-seconds", seconds]].concat()
}

#[test]
fn on_sqlite_work_goes_on_at_once_and_a_file_has_one_server() {
    let database = Database::fresh(Backend::Sqlite);
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 4, SEED);
    let mut server = Server::on(&database, &SETTINGS);
    let client = server.client_of(&application);
    let folder = data_dir(&database);
    let refused = Server::try_start(&["--database", database.url(), "--data-dir", &folder]);
    let refused = refused.err().expect("a second server is refused").failure();
    let said = &refused.stderr;
    assert!(said.contains("another ringback server is running on"), "{said}");
    assert!(said.contains("ringback.db") && said.contains("postgres://"), "{said}");

    // Long enough that all of them are at work when the server is killed.
    let jobs: Vec<String> = (0..20).flat_map(|_| book.place(&client, &book.single(15.0))).collect();
    jobs.iter().for_each(|job| wait_for_starts(&client, job, 1, PATIENCE));
    server.sigkill();
    server.start_again();
    let ready = Instant::now();
    jobs.iter().for_each(|job| wait_for_starts(&client, job, 2, PATIENCE));
    eprintln!("at work {:?} after the restart", ready.elapsed());
    let account = book.settle(PATIENCE);
    assert_eq!((account.jobs, account.given_up.len()), (20, 0));
}

on_both!(at_sigterm_long_work_is_handed_back_and_done_after_the_restart);
fn at_sigterm_long_work_is_handed_back_and_done_after_the_restart(database: Database) {
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 4, SEED + 10);
    let mut server = Server::on(&database, &with_grace("1"));
    let client = server.client_of(&application);
    let jobs: Vec<String> = (0..5).flat_map(|_| book.place(&client, &book.single(30.0))).collect();
    jobs.iter().for_each(|job| wait_for_starts(&client, job, 1, PATIENCE));

    let asked = Instant::now();
    let status = server.sigterm(PATIENCE);
    assert!(status.success(), "{status}: {}", server.stderr());
    assert!(asked.elapsed() >= Duration::from_secs(1), "it had a second of grace");
    eprintln!("gone after {:?}", asked.elapsed());
    server.start_again();
    for job in &jobs {
        wait_for_starts(&client, job, 2, PATIENCE);
        let events = events_of(&client, job);
        let so_far = ["job.created", "job.started", "job.released", "job.started"];
        assert_eq!(types_of(&events), so_far);
        let shown = client.get(&format!("/v1/jobs/{job}")).expect(200).json();
        assert_eq!((&shown["attempt"], &shown["status"]), (&1.into(), &"working".into()));
        client.post_empty(&format!("/v1/jobs/{job}/stop")).expect(202);
    }
    for job in &jobs {
        let shown = client.get(&format!("/v1/jobs/{job}?wait=45")).expect(200).json();
        assert_eq!(shown["status"], "stopped");
    }
}

on_both!(at_sigterm_short_work_is_finished_and_nothing_is_lost);
fn at_sigterm_short_work_is_finished_and_nothing_is_lost(database: Database) {
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 4, SEED + 20);
    let mut server = Server::on(&database, &with_grace("30"));
    let client = server.client_of(&application);
    let jobs: Vec<String> = (0..20).flat_map(|_| book.place(&client, &book.single(1.0))).collect();
    jobs.iter().for_each(|job| wait_for_starts(&client, job, 1, PATIENCE));
    // Requests are on their way when the signal comes.
    let clients: Vec<_> =
        (0..4).map(|number| book.load(client.clone(), SEED + 30 + number)).collect();
    for round in 0..3 {
        let before = book.promised_jobs().len();
        crate::support::wait::eventually("jobs are accepted", PATIENCE, || {
            (book.promised_jobs().len() > before + 20).then_some(())
        });
        let asked = Instant::now();
        assert!(machine::signal(server.pid(), "TERM"), "it was running");
        let status = server.wait_for_end(PATIENCE);
        assert!(status.success(), "{status}: {}", server.stderr());
        eprintln!("round {round}: gone after {:?}", asked.elapsed());
        server.start_again();
        if round == 0 {
            for job in &jobs {
                let events = events_of(&client, job);
                assert_eq!(types_of(&events), ["job.created", "job.started", "job.succeeded"]);
            }
        }
    }
    book.stop();
    clients.into_iter().for_each(|client| client.join().expect("every request is answered"));
    let account = book.settle(PATIENCE);
    assert!(account.given_up.is_empty(), "{:?}", account.given_up);
    eprintln!("{} jobs, {} groups, {} repeats", account.jobs, account.groups, account.repeats);
    // Nobody died, so nothing had to be rescued.
    for job in book.promised_jobs().iter().take(100) {
        let events = events_of(&client, job);
        assert!(!types_of(&events).contains(&"job.rescued"), "{:?}", types_of(&events));
    }
    book.inspect(&client, 20);
}
