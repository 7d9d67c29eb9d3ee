//! The engine's guarantees, step by step on a manual clock, on both databases.

use std::sync::Arc;

use ringback::engine::{EngineError, Idempotency};
use ringback::handlers::{Ending, Product};
use ringback::lifecycle::{Command, Refusal, Status};
use ringback::store::Statement;
use serde_json::value::RawValue;

use crate::support::database::{Database, on_both};
use crate::support::node::{Node, callback, of_job, scripted_job};
use crate::support::receiver::Receiver;

fn key(key: &str, hash: &str) -> Option<Idempotency> {
    Some(Idempotency { key: key.to_owned(), hash: hash.to_owned() })
}

on_both!(async a_job_goes_the_whole_way);
async fn a_job_goes_the_whole_way(database: Database) {
    let receiver = Receiver::start();
    let node = Node::start(&database).await;
    let (caller, secret) = node.application("shop").await;
    receiver.trust(&secret);
    let mut job = scripted_job();
    job.callback = Some(callback(&receiver.url("/hook")));
    let accepted = node.submit(&caller, job).await;
    assert_eq!(accepted.state.status, Status::Pending);

    node.work().await;
    node.send().await;

    let job = node.job(&caller, accepted.id).await;
    assert_eq!(job.state.status, Status::Success);
    let types = node.event_types(&caller, job.id).await;
    assert_eq!(types, ["job.created", "job.started", "job.succeeded"]);
    let log = receiver.log();
    assert_eq!(log.len(), 1);
    log[0].verify(&secret).expect("a good signature");
    let body = log[0].json();
    assert_eq!(body["type"], "job.succeeded");
    assert_eq!(body["sequence"], 3);
    assert_eq!(body["data"]["id"], job.id.to_string());
    assert_eq!(body["data"]["status"], "success");
    assert_eq!(body["id"], log[0].webhook_id());
    let shown: serde_json::Value =
        serde_json::from_str(ringback::engine::job_view(&job).get()).unwrap();
    assert_eq!(body["data"], shown, "the webhook carries what GET shows");

    let (deliveries, _) = node
        .engine
        .list_deliveries(&caller, &of_job(job.id), (i64::MAX, i64::MAX), 10)
        .await
        .unwrap();
    assert_eq!(deliveries.len(), 1);
    let detail = node.engine.find_delivery(&caller, deliveries[0].id).await.unwrap();
    assert_eq!((detail.status, detail.attempts), ("delivered", 1));
    let attempts = detail.attempt_log.unwrap();
    assert_eq!(attempts[0].outcome, "delivered");
    assert_eq!(attempts[0].response_status, Some(200));
}

on_both!(async racing_submissions_with_one_key_make_one_job);
async fn racing_submissions_with_one_key_make_one_job(database: Database) {
    let node = Arc::new(Node::start(&database).await);
    let other = Arc::new(Node::start(&database).await);
    let (caller, _) = node.application("shop").await;
    for round in 0..10 {
        let name = format!("key-{round}");
        let tries = (0..8).map(|number| {
            let node = if number % 2 == 0 { Arc::clone(&node) } else { Arc::clone(&other) };
            let (caller, name) = (caller.clone(), name.clone());
            tokio::spawn(async move {
                node.engine.submit(&caller, scripted_job(), key(&name, "same"), "request").await
            })
        });
        let mut ids = Vec::new();
        for answer in futures_util::future::join_all(tries).await {
            ids.push(answer.unwrap().expect("an answer").id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "one key, one job");
        let refused = node.engine.submit(&caller, scripted_job(), key(&name, "other"), "r").await;
        assert!(matches!(refused, Err(EngineError::IdempotencyMismatch)));
    }
    let (stranger, _) = node.application("other shop").await;
    let own = node.engine.submit(&stranger, scripted_job(), key("key-0", "other"), "r").await;
    own.expect("keys are per application");
    node.clock.shift_millis(24 * 60 * 60 * 1_000 + 60_000);
    node.engine
        .submit(&caller, scripted_job(), key("key-0", "other"), "r")
        .await
        .expect("a key is remembered for a day");
}

on_both!(async a_late_worker_changes_nothing);
async fn a_late_worker_changes_nothing(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let job = node.submit(&caller, scripted_job()).await;
    let queues = || vec![("default".to_owned(), 10)];
    let first = node.engine.claim(queues(), 10).await.unwrap().jobs.remove(0).job;
    node.engine.apply(first.key, Command::Rescue { token: first.state.token }).await.unwrap();
    let late = |token| Command::Succeed { token, payload: RawValue::NULL.to_owned() };
    let refused = node.engine.apply(first.key, late(first.state.token)).await;
    assert!(matches!(refused, Err(EngineError::Refused(Refusal::LeaseLost { .. }))));

    let second = node.engine.claim(queues(), 10).await.unwrap().jobs.remove(0).job;
    assert!(second.state.token > first.state.token);
    assert_eq!(second.state.attempt, 1, "a try that died with its node does not count");
    let refused = node.engine.apply(first.key, late(first.state.token)).await;
    assert!(matches!(refused, Err(EngineError::Refused(Refusal::LeaseLost { .. }))));
    node.engine.apply(first.key, late(second.state.token)).await.unwrap();
    let job = node.job(&caller, job.id).await;
    assert_eq!(job.state.status, Status::Success);
    let types = node.event_types(&caller, job.id).await;
    assert_eq!(
        types,
        ["job.created", "job.started", "job.rescued", "job.started", "job.succeeded"]
    );
}

on_both!(async a_stop_that_races_with_a_completion_has_one_winner);
async fn a_stop_that_races_with_a_completion_has_one_winner(database: Database) {
    let node = Arc::new(Node::start(&database).await);
    let (caller, _) = node.application("shop").await;
    for _ in 0..30 {
        let job = node.submit(&caller, scripted_job()).await;
        let claimed =
            node.engine.claim(vec![("default".to_owned(), 10)], 10).await.unwrap().jobs.remove(0);
        let (key, token) = (claimed.job.key, claimed.job.state.token);
        let stopping = {
            let (node, caller, id) = (Arc::clone(&node), caller.clone(), job.id);
            tokio::spawn(async move { node.engine.stop(&caller, id).await })
        };
        let finishing = {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                let payload = RawValue::NULL.to_owned();
                node.engine.apply(key, Command::Succeed { token, payload }).await
            })
        };
        let stopped = stopping.await.unwrap();
        finishing.await.unwrap().expect("work that ended before the stop was seen is a success");
        let job = node.job(&caller, job.id).await;
        assert_eq!(job.state.status, Status::Success);
        let types = node.event_types(&caller, job.id).await;
        match stopped {
            Ok(_) => assert_eq!(types.len(), 4, "{types:?}"),
            Err(EngineError::Refused(Refusal::AlreadyFinal { .. })) => assert_eq!(types.len(), 3),
            Err(error) => panic!("{error}"),
        }
    }
}

on_both!(async a_group_completes_once_when_sealed_and_all_is_final);
async fn a_group_completes_once_when_sealed_and_all_is_final(database: Database) {
    let receiver = Receiver::start();
    let node = Node::start(&database).await;
    let (caller, secret) = node.application("shop").await;
    receiver.trust(&secret);
    let jobs = (0..100).map(|_| scripted_job()).collect();
    let hook = Some(callback(&receiver.url("/group")));
    let batch = node.engine.submit_batch(&caller, jobs, hook, None, "r").await.unwrap();
    assert_eq!(batch.jobs.len(), 100);
    node.work().await;
    node.send().await;
    let log = receiver.log();
    assert_eq!(log.len(), 1, "one group.completed, nothing else");
    let body = log[0].json();
    assert_eq!(body["type"], "group.completed");
    assert_eq!(body["data"]["success"], 100);
    assert_eq!(body["data"]["id"], batch.group_id.to_string());

    let mut late = scripted_job();
    late.group_id = Some(batch.group_id);
    let refused = node.engine.submit(&caller, late.clone(), None, "r").await;
    assert!(matches!(refused, Err(EngineError::GroupSealed(_))));
    let (stranger, _) = node.application("other").await;
    let refused = node.engine.submit(&stranger, late, None, "r").await;
    assert!(matches!(refused, Err(EngineError::NotFound { .. })));

    // A group of the caller's choice, open until it is closed.
    let mut chosen = scripted_job();
    chosen.group_id = Some(ringback::ids::new_id());
    let id = chosen.group_id.unwrap();
    node.submit(&caller, chosen.clone()).await;
    node.submit(&caller, chosen).await;
    node.work().await;
    let (group, jobs) = node.engine.find_group(&caller, id).await.unwrap();
    assert!(group.get().contains("\"status\":\"open\"") && jobs.len() == 2, "{group}");
    let closed = node.engine.close_group(&caller, id).await.unwrap();
    assert!(closed.get().contains("\"status\":\"completed\""), "{closed}");
}

on_both!(async failures_are_retried_when_that_may_help);
async fn failures_are_retried_when_that_may_help(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    node.scripted.set(|_| async { Ending::transient("timeout", "no answer") });
    let job = node.submit(&caller, scripted_job()).await;
    node.work().await;
    let waiting = node.job(&caller, job.id).await;
    assert_eq!((waiting.state.status, waiting.state.attempt), (Status::Pending, 1));
    assert_eq!(waiting.state.failure.unwrap().code, "timeout");
    node.work().await;
    assert_eq!(node.job(&caller, job.id).await.state.attempt, 1, "not before its time");
    node.clock.shift_millis(2_000);
    node.work().await;
    assert_eq!(node.job(&caller, job.id).await.state.attempt, 2);
    // The clock goes back an hour: nothing is lost, the next try only comes later.
    node.clock.shift_millis(-3_600_000);
    node.work().await;
    assert_eq!(node.job(&caller, job.id).await.state.attempt, 2);
    node.clock.shift_millis(3_600_000 + 10_000);
    node.work().await;
    let failed = node.job(&caller, job.id).await;
    assert_eq!((failed.state.status, failed.state.attempt), (Status::Error, 3));

    node.scripted.set(|_| async { Ending::permanent("bad_input", "no") });
    let job = node.submit(&caller, scripted_job()).await;
    node.work().await;
    assert_eq!(node.job(&caller, job.id).await.state.attempt, 1, "not retried");

    node.scripted.set(|_| async { panic!("a defect") });
    let job = node.submit(&caller, scripted_job()).await;
    node.work().await;
    let failed = node.job(&caller, job.id).await;
    assert_eq!(failed.state.failure.unwrap().code, "handler_panicked");
    node.scripted.set(|_| async { Ending::Done(Product::of(RawValue::NULL.to_owned())) });
    let job = node.submit(&caller, scripted_job()).await;
    node.work().await;
    assert_eq!(node.job(&caller, job.id).await.state.status, Status::Success);
}

on_both!(async work_of_a_dead_node_goes_on_elsewhere);
async fn work_of_a_dead_node_goes_on_elsewhere(database: Database) {
    let survivor = Node::start(&database).await;
    let (caller, _) = survivor.application("shop").await;
    let job = survivor.submit(&caller, scripted_job()).await;
    for dead in 1..=3 {
        let node = Node::start(&database).await;
        let claimed = node.engine.claim(vec![("default".to_owned(), 10)], 10).await.unwrap();
        assert_eq!(claimed.jobs.len(), 1);
        assert_eq!(survivor.engine.rescue().await.unwrap(), 0, "the node is alive");
        // A node that left without its work is as dead as one whose beats stopped.
        node.engine.leave().await.unwrap();
        survivor.engine.rescue().await.unwrap();
        let job = survivor.job(&caller, job.id).await;
        assert_eq!(job.state.lost_nodes, dead);
        let expected = if dead == 3 { Status::Error } else { Status::Pending };
        assert_eq!(job.state.status, expected);
    }
    let lost = survivor.job(&caller, job.id).await;
    assert_eq!(lost.state.failure.unwrap().code, "worker_lost");
}

on_both!(async retention_removes_whole_subjects_that_owe_nothing);
async fn retention_removes_whole_subjects_that_owe_nothing(database: Database) {
    let receiver = Receiver::start();
    let node = Node::start(&database).await;
    let (caller, secret) = node.application("shop").await;
    receiver.trust(&secret);
    let told = |path: &str| {
        let mut job = scripted_job();
        job.callback = Some(callback(&receiver.url(path)));
        job
    };
    let done = node.engine.submit(&caller, told("/up"), key("k", "h"), "r").await.unwrap();
    receiver.on("/down", [crate::support::receiver::Reply::status(503)]);
    let owing = node.submit(&caller, told("/down")).await;
    let batch = vec![scripted_job(), scripted_job()];
    let batch = node.engine.submit_batch(&caller, batch, None, None, "r").await.unwrap();
    node.work().await;
    node.send().await;
    let mut waiting = scripted_job();
    waiting.run_at = Some(node.engine.now().plus_millis(90 * 24 * 60 * 60 * 1_000));
    let waiting = node.submit(&caller, waiting).await;

    let month = 30 * 24 * 60 * 60 * 1_000;
    let before = |node: &Node| node.engine.now().plus_millis(-month);
    assert_eq!(node.engine.purge_jobs(before(&node), 0).await.unwrap().purged, 0, "too young");
    node.clock.shift_millis(month + 60_000);
    assert_eq!(node.engine.purge_jobs(before(&node), 0).await.unwrap().purged, 3);
    assert_eq!(node.engine.purge_groups(before(&node), 0).await.unwrap().purged, 1);
    node.engine.purge_leftovers(before(&node)).await.unwrap();
    for gone in [done.id, batch.jobs[0].id, batch.jobs[1].id] {
        let found = node.engine.find_job(&caller, gone).await;
        assert!(matches!(found, Err(EngineError::NotFound { .. })));
    }
    node.job(&caller, owing.id).await;
    node.job(&caller, waiting.id).await;
    let again = node.engine.submit(&caller, scripted_job(), key("k", "other"), "r").await;
    again.expect("the key went with its day");

    // Nothing is left of what went but a line each, in any table.
    let mut connection = database.connect();
    let mut count = |rows: String| {
        let statement = Statement::new(format!("SELECT COUNT(*) AS count FROM {rows}"));
        connection.first::<Count>(statement).expect("a count").expect("one row").count
    };
    let subjects = "(SELECT id FROM jobs UNION SELECT id FROM groups UNION SELECT id FROM files)";
    for table in ["events", "bodies", "deliveries", "sealed_values"] {
        let orphans = format!("{table} WHERE subject_id NOT IN {subjects}");
        assert_eq!(count(orphans), 0, "{table}");
    }
    assert_eq!(count(format!("job_files WHERE job_id NOT IN {subjects}")), 0);
    let attempts = "attempts WHERE delivery_id NOT IN (SELECT id FROM deliveries)";
    assert_eq!(count(attempts.to_owned()), 0);
    assert_eq!(count("purges".to_owned()), 4, "three jobs and a group");
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}
