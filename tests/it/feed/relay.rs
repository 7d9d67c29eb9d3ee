//! The relay, on Postgres: how much it takes at a time, and that order comes of it.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use futures_util::future::join;
use ringback::engine::Ordering;
use ringback::ids::Key;
use ringback::lifecycle::EventType;
use ringback::store::feed::{self, Member, NewChunk};
use ringback::store::{Connection, Statement};

use super::open_transactions::FAR;
use crate::support::database::{Backend, Database, block_on};
use crate::support::node::{Node, bounded, scripted_job};
use crate::support::shop::{Shop, ordered};

/// Events of a chunk that a full batch writes.
const MANY: i64 = 2_000;

/// Appends a committed chunk of events that nobody asks for.
fn append(connection: &mut Connection, application: Key, id: Key) {
    let event_type = Some(EventType::FileCreated);
    let members = (1..=MANY).map(|sequence| Member { subject: id, sequence, event_type }).collect();
    let chunk = NewChunk { id, application, created_at: 0, members, awaited: false };
    assert_eq!(feed::append(connection, &chunk).expect("SQL"), None, "no place yet");
}

#[derive(diesel::QueryableByName)]
struct Ranked {
    #[diesel(sql_type = diesel::sql_types::Binary)]
    event_id: Vec<u8>,
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::BigInt>)]
    rank: Option<i64>,
}

#[test]
fn a_turn_is_bounded_and_gives_every_delivery_the_place_of_its_event() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        let application = shop.caller.application;
        let (first, second) = (ordered(Ordering::Strict, &[]), ordered(Ordering::Strict, &[]));
        shop.register("/first", first).await;
        shop.register("/second", second).await;
        shop.place().await;
        let engine = &shop.node.engine;
        let start = engine.feed_head(application).await.unwrap();
        let batch = async || {
            let jobs = (0..300).map(|_| scripted_job()).collect();
            engine.submit_batch(&shop.caller, jobs, None, None, "r").await.unwrap();
        };
        let mut connection = database.connect();
        batch().await;
        append(&mut connection, application, FAR);
        append(&mut connection, application, FAR + 1);
        batch().await;
        append(&mut connection, application, FAR + 2);
        append(&mut connection, application, FAR + 3);

        assert!(engine.relay().await.unwrap(), "there is more to do");
        let placed = engine.feed_head(application).await.unwrap() - start;
        assert!((6_600..8_600).contains(&placed), "one turn placed {placed} events");
        shop.place().await;
        assert_eq!(engine.feed_head(application).await.unwrap() - start, 600 + 4 * MANY);

        let feed: HashMap<Vec<u8>, i64> = shop
            .feed()
            .await
            .iter()
            .map(|one| (one.event.id.as_bytes().to_vec(), one.position))
            .collect();
        let sql =
            "SELECT d.event_id, l.rank FROM live_deliveries l JOIN deliveries d ON d.id = l.id";
        let ranked: Vec<Ranked> = connection.load(Statement::new(sql)).expect("SQL");
        assert_eq!(ranked.len(), 2 * 600);
        assert!(
            ranked
                .iter()
                .all(|one| one.rank.is_some() && one.rank == feed.get(&one.event_id).copied())
        );
    });
}

/// Two transactions beside each other: the bell is that of the one with the events.
#[test]
fn a_commit_without_events_takes_nobodys_bell_along() {
    let database = Database::fresh(Backend::Postgres);
    block_on(async {
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        let rung = || node.engine.bells.relay.notified().now_or_never().is_some();
        rung();
        let holder = database.hold("LOCK TABLE events IN SHARE MODE");
        let beside = async {
            bounded("the events to wait", || database.waiting() == 1).await;
            node.engine.set_application_rate(caller.application, None).await.unwrap();
            assert!(!rung(), "nothing is committed");
            drop(holder);
        };
        join(node.submit(&caller, scripted_job()), beside).await;
        assert!(rung());
    });
}
