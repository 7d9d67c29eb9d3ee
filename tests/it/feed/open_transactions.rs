//! Transactions that stay open while the feed goes on, on Postgres.
//!
//! A feed that orders by transaction numbers, or waits until no older transaction is open, stands
//! still while anybody in the cluster writes for long, in whatever database. Here places are given
//! to what is committed and to nothing else. Nothing in it depends on how long somebody holds a
//! transaction open, so a test need not hold one for a minute: for as long as all of its events
//! take is the same.

use ringback::ids::{Key, new_id};
use ringback::lifecycle::EventType;
use ringback::store::events::NewEvent;
use ringback::store::feed::{Member, NewChunk};
use ringback::store::{Connection, events, feed};

use super::lines;
use crate::support::database::{Backend, Database, block_on};
use crate::support::shop::Shop;

/// A transaction in another database of the same cluster that has written and does not end.
pub fn writing_elsewhere() -> (Database, Connection) {
    let elsewhere = Database::fresh(Backend::Postgres);
    let mut connection = elsewhere.connect();
    connection.batch("CREATE TABLE t (id BIGINT)").expect("SQL");
    connection.begin().expect("a transaction");
    connection.batch("INSERT INTO t VALUES (1)").expect("SQL");
    (elsewhere, connection)
}

/// A transaction in this database that has appended an event and does not end.
pub fn writing_here(database: &Database, application: Key, subject: Key) -> Connection {
    let mut connection = database.connect();
    connection.begin().expect("a transaction");
    let event_type = EventType::FileCreated;
    let member = Member { subject, sequence: 1, event_type: Some(event_type) };
    let chunk =
        NewChunk { id: subject, application, created_at: 0, members: vec![member], awaited: false };
    assert_eq!(feed::append(&mut connection, &chunk).expect("SQL"), None, "no place yet");
    let event = NewEvent {
        subject_id: subject,
        sequence: 1,
        public_id: new_id(),
        subject_kind: "file",
        application_id: application,
        event_type: event_type.as_str(),
        at: 0,
        data: "{}".to_owned(),
    };
    events::append(&mut connection, &[event]).expect("SQL");
    connection.flush().expect("SQL");
    connection
}

/// Keys that no writer draws in a test.
pub const FAR: Key = 1 << 60;

#[test]
fn what_is_open_elsewhere_in_the_cluster_holds_up_nothing() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        shop.run_jobs(2).await;
        let (_elsewhere, mut open) = writing_elsewhere();
        for round in 1..=20 {
            shop.run_jobs(1).await;
            let feed = shop.feed().await;
            assert_eq!(feed.len(), 6 + round * 3, "there at once");
        }
        let seen = lines(&shop.feed().await);
        open.commit().expect("it was open all the time");
        shop.place().await;
        assert_eq!(lines(&shop.feed().await), seen);
    });
}

#[test]
fn what_is_open_here_comes_when_it_is_committed_and_behind_all_that_was_seen() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        shop.run_jobs(2).await;
        let application = shop.caller.application;
        let mut late = writing_here(&database, application, FAR);
        let mut never = writing_here(&database, application, FAR + 1);
        for round in 1..=20 {
            shop.run_jobs(1).await;
            assert_eq!(shop.feed().await.len(), 6 + round * 3, "there at once");
        }
        let seen = lines(&shop.feed().await);
        late.commit().expect("it was open all the time");
        shop.place().await;
        shop.run_jobs(1).await;
        never.rollback();
        shop.run_jobs(1).await;

        let feed = shop.feed().await;
        assert_eq!(lines(&feed)[..66], seen, "nothing has moved");
        assert_eq!(feed[66].event.event_type, "file.created");
        let positions: Vec<i64> = feed.iter().map(|one| one.position).collect();
        assert_eq!(positions, (1..=73).collect::<Vec<i64>>(), "what was undone left no gap");
    });
}
