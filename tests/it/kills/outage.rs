//! The database goes away for ten seconds and comes back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::book::Book;
use super::{PATIENCE, SETTINGS};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::process::{Application, Server};
use crate::support::wait::{eventually, within};

const SEED: u64 = 20_260_103;
const OUTAGE: Duration = Duration::from_secs(10);

#[test]
fn an_outage_of_the_database_loses_nothing() {
    let mut cluster = Cluster::start();
    let database = Database::fresh_in(&cluster.url());
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 4, SEED);
    let mut server = Server::on(&database, &SETTINGS);
    let client = server.client_of(&application);
    let clients: Vec<_> = (0..4).map(|number| book.load(client.clone(), SEED + number)).collect();
    // At work when the database goes, and over before or after it is back.
    for seconds in [1.0, 5.0, 8.0, 15.0] {
        book.place(&client, &book.single(seconds));
    }
    eventually("webhooks arrive", PATIENCE, || (book.received() > 20).then_some(()));
    let ready = || client.request("GET", "/readyz").try_send().expect("it answers").status;
    assert_eq!(ready(), 200);

    cluster.stop_immediate();
    let gone = Instant::now();
    let put_off = book.put_off.load(Ordering::SeqCst);
    eventually("it says that it is not ready", PATIENCE, || (ready() == 503).then_some(()));
    let alive = client.get("/healthz");
    assert_eq!(alive.status, 200, "the process itself is well");
    // A crowd is told soon, not one after the other.
    let begun = Instant::now();
    let crowd: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || client.get("/v1/jobs").status)
        })
        .collect();
    for one in crowd {
        assert_eq!(one.join().expect("an answer"), 503);
    }
    // A question takes five seconds until it is given up: all of them, one by one, 80.
    assert!(begun.elapsed() < Duration::from_secs(40), "told after {:?}", begun.elapsed());
    let ended =
        within(OUTAGE.saturating_sub(gone.elapsed()), || (!server.is_running()).then_some(()));
    assert!(ended.is_none(), "it stays up: {}", server.stderr());
    eventually("submissions are put off with 503", PATIENCE, || {
        (book.put_off.load(Ordering::SeqCst) > put_off).then_some(())
    });
    cluster.start_again();
    let back = Instant::now();
    eventually("it is ready again", PATIENCE, || (ready() == 200).then_some(()));
    eprintln!("ready {:?} after the database was back", back.elapsed());
    let promised = book.promised_jobs().len();
    eventually("it accepts jobs again", PATIENCE, || {
        (book.promised_jobs().len() > promised + 20).then_some(())
    });
    book.stop();
    clients.into_iter().for_each(|client| client.join().expect("every request is answered"));

    let account = book.settle(PATIENCE);
    eprintln!(
        "{} jobs, {} batches, {} repeats, {} put off, {} unanswered",
        account.jobs,
        account.groups,
        account.repeats,
        book.put_off.load(Ordering::SeqCst),
        book.unanswered.load(Ordering::SeqCst)
    );
    assert!(account.given_up.is_empty(), "{:?}", account.given_up);
    book.inspect(&client, 30);
    let status = server.sigterm(PATIENCE);
    assert!(status.success(), "{status}");
}
