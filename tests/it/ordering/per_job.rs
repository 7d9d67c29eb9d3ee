//! `per-job`: the events of a job one after the other, and jobs beside each other.

use ringback::engine::{Next, Ordering};
use ringback::ids::Key;

use super::{accept, claim, record, refuse, told, tried_once};
use crate::support::database::{Database, on_both};
use crate::support::shop::{Shop, ordered};

on_both!(async a_job_has_one_delivery_under_way_and_others_are_beside_it);
async fn a_job_has_one_delivery_under_way_and_others_are_beside_it(database: Database) {
    let shop = Shop::open(&database).await;
    shop.register("/hook", tried_once(Ordering::PerJob)).await;
    shop.run_jobs(3).await;
    let node = &shop.node;

    let mut first = claim(node).await;
    let subjects: Vec<Key> = first.iter().map(|owed| owed.subject).collect();
    assert_eq!(first.len(), 3, "one of each job");
    assert!(first.iter().all(|owed| owed.event_type == "job.created"));
    assert!(claim(node).await.is_empty(), "the others wait");

    // Whose first is received gets the second, and only that.
    for expected in ["job.started", "job.succeeded"] {
        let recorded = record(node, &first[0], Next::Delivered).await;
        assert_eq!(recorded.lanes, [first[0].lane], "the bell rings at once");
        let next = claim(node).await;
        assert_eq!(next.len(), 1);
        assert_eq!((next[0].subject, next[0].event_type.as_str()), (subjects[0], expected));
        first[0] = next.into_iter().next().unwrap();
    }
    record(node, &first[0], Next::Delivered).await;
    assert!(claim(node).await.is_empty(), "the two other jobs are where they were");
}

on_both!(async every_job_is_told_in_its_order);
async fn every_job_is_told_in_its_order(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::PerJob)).await;
    let jobs = shop.run_jobs(20).await;
    shop.send().await;
    let log = told(&shop.receiver.log_of("/hook"));
    assert_eq!(log.len(), 60);
    for job in jobs {
        let mine = log.iter().filter(|(id, _)| *id == job.id.to_string());
        assert_eq!(mine.map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [1, 2, 3]);
    }
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 60)].into());
}

on_both!(async a_final_failure_in_the_middle_is_passed_over);
async fn a_final_failure_in_the_middle_is_passed_over(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::PerJob)).await;
    let jobs = shop.submit_jobs(3).await;
    refuse(&shop, "/hook", jobs[1].id, "job.started", 500);
    shop.node.work().await;
    shop.send().await;

    assert_eq!(shop.statuses(endpoint).await, [("delivered", 8), ("exhausted", 1)].into());
    let failed = shop.delivery_of(endpoint, jobs[1].id, "job.started").await;
    assert_eq!((failed.status, failed.blocking), ("exhausted", false));
    let log = told(&shop.receiver.log_of("/hook"));
    let mine = log.iter().filter(|(id, _)| *id == jobs[1].id.to_string());
    assert_eq!(mine.map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(shop.endpoint(endpoint).await.state, "enabled");
}

on_both!(async a_retry_holds_up_its_job_and_no_other);
async fn a_retry_holds_up_its_job_and_no_other(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::PerJob, &[60, 60])).await;
    let jobs = shop.submit_jobs(3).await;
    refuse(&shop, "/hook", jobs[0].id, "job.created", 503);
    shop.node.work().await;
    shop.send().await;
    let held_up = jobs[0].id.to_string();
    let log = told(&shop.receiver.log_of("/hook"));
    assert_eq!(log.iter().filter(|(id, _)| *id == held_up).count(), 1, "one try of its first");
    assert_eq!(log.len(), 7, "the other two jobs are through");
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 6), ("pending", 3)].into());
    let backlog = shop.stats(endpoint).await.backlog;
    assert_eq!((backlog.pending, backlog.queued, backlog.held), (1, 2, 0));

    shop.send_after(60).await;
    accept(&shop, "/hook");
    shop.send().await;
    assert_eq!(shop.receiver.count(), 8, "it failed again, and is not due yet");
    shop.send_after(60).await;
    let log = told(&shop.receiver.log_of("/hook"));
    let mine = log.iter().filter(|(id, _)| *id == held_up);
    assert_eq!(mine.map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [1, 1, 1, 2, 3]);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 9)].into());
}
