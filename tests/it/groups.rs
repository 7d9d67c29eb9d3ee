//! Groups on Postgres, where others write beside: a lone job whose group becomes a real one just
//! while that job ends, and many that join and end at once.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::{join_all, join3};
use ringback::engine::NewJob;
use ringback::ids::new_id;
use ringback::lifecycle::Command;

use crate::support::database::{Backend, Database, block_on, number_on};
use crate::support::node::{Node, bounded, scripted_job};
use crate::support::wait::eventually;

async fn a_job_that_ends_while_another_joins_is_counted(ends_first: bool) {
    let database = Database::fresh(Backend::Postgres);
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let lone = node.submit(&caller, scripted_job()).await;
    let lone = node.job(&caller, lone.id).await;
    let holder = database.hold("SELECT 1 FROM live_jobs FOR UPDATE");

    let joined = Cell::new(false);
    let second = NewJob { group_id: Some(lone.id), ..scripted_job() };
    let stop = async {
        if !ends_first {
            bounded("the other one to wait", || database.waiting() == 1).await;
        }
        node.engine.apply_of(caller.application, lone.key, Command::Stop).await.unwrap();
    };
    let join = async {
        if ends_first {
            bounded("the end to wait", || database.waiting() == 1).await;
        }
        node.submit(&caller, second).await;
        joined.set(true);
    };
    let release = async {
        let met = || database.waiting() == if joined.get() { 1 } else { 2 };
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

/// Many submissions share a transaction, and so do many ends: each touches several groups.
#[test]
fn those_who_join_and_those_who_end_hold_groups_in_one_order() {
    let database = Database::fresh(Backend::Postgres);
    block_on(async {
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        node.runner.take_offers();
        let mut groups = Vec::new();
        for _ in 0..4 {
            let job = NewJob { group_id: Some(new_id()), ..scripted_job() };
            node.submit(&caller, job.clone()).await;
            groups.extend(job.group_id);
        }
        let submit = async |client: usize| {
            for turn in 0..25 {
                let group_id = groups.get((client + turn) % groups.len()).copied();
                node.submit(&caller, NewJob { group_id, ..scripted_job() }).await;
                let group_id = Some(node.submit(&caller, scripted_job()).await.id);
                node.submit(&caller, NewJob { group_id, ..scripted_job() }).await;
            }
        };
        join_all((0..24).map(submit)).await;
        node.work().await;
        for id in groups {
            let closed = node.engine.close_group(&caller, id).await.unwrap();
            assert!(closed.get().contains("\"total\":151"), "{closed}");
            assert!(closed.get().contains("\"success\":151"), "{closed}");
        }
        node.engine.leave().await.unwrap();
        node.engine.close();
    });
    let mut connection = database.connect();
    let told = || {
        let others = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                      WHERE pid <> pg_backend_pid() AND datname = current_database()";
        (number_on(&mut connection, others) == 0).then_some(())
    };
    // Connections tell what they met when they close.
    eventually("connections to close", Duration::from_secs(20), told);
    let deadlocks = "SELECT deadlocks AS number FROM pg_stat_database \
                     WHERE datname = current_database()";
    assert_eq!(number_on(&mut connection, deadlocks), 0);
}
