//! A lone job's implicit group becomes a real one, on Postgres, just while that job ends: whoever
//! is first, its end is counted there.

use std::cell::Cell;

use futures_util::future::join3;
use ringback::engine::NewJob;
use ringback::lifecycle::Command;
use ringback::store::Connection;

use crate::support::database::{Backend, Database, block_on, number_on};
use crate::support::node::{Node, bounded, scripted_job};

/// Statements that wait for what somebody else holds.
fn waiting(connection: &mut Connection) -> i64 {
    let sql = "SELECT COUNT(*) AS number FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    number_on(connection, sql)
}

async fn a_job_that_ends_while_another_joins_is_counted(ends_first: bool) {
    let database = Database::fresh(Backend::Postgres);
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let lone = node.submit(&caller, scripted_job()).await;
    let lone = node.job(&caller, lone.id).await;
    let holder = database.hold("SELECT 1 FROM live_jobs FOR UPDATE");

    let joined = Cell::new(false);
    let (mut onlooker, mut watcher) = (database.connect(), database.connect());
    let second = NewJob { group_id: Some(lone.id), ..scripted_job() };
    let stop = async {
        if !ends_first {
            bounded("the other one to wait", || waiting(&mut onlooker) == 1).await;
        }
        node.engine.apply_of(caller.application, lone.key, Command::Stop).await.unwrap();
    };
    let join = async {
        if ends_first {
            bounded("the end to wait", || waiting(&mut watcher) == 1).await;
        }
        node.submit(&caller, second).await;
        joined.set(true);
    };
    let release = async {
        let mut counter = database.connect();
        let met = || waiting(&mut counter) == if joined.get() { 1 } else { 2 };
        bounded("both to be there", met).await;
        drop(holder);
    };
    join3(stop, join, release).await;

    node.work().await;
    let closed = node.engine.close_group(&caller, lone.id).await.unwrap();
    let closed: serde_json::Value = serde_json::from_str(closed.get()).unwrap();
    assert_eq!(closed["status"], "completed", "{closed}");
    assert_eq!(closed["total"], 2, "{closed}");
}

#[test]
fn a_job_whose_end_waits_while_another_joins_it_is_counted() {
    block_on(a_job_that_ends_while_another_joins_is_counted(true));
}

#[test]
fn a_job_that_ends_while_another_is_joining_it_is_counted() {
    block_on(a_job_that_ends_while_another_joins_is_counted(false));
}
