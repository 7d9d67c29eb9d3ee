//! How many endpoints an application may have, and how much one submission may owe to them.

use std::sync::Arc;

use futures_util::future::join_all;
use ringback::engine::{
    EndpointSettings, EngineError, Idempotency, MOST_ENDPOINTS, NewEndpoint, NewJob,
};

use super::{World, address};
use crate::support::database::{Backend, Database, number, on_both};
use crate::support::node::scripted_job;

/// Puts copies of the only endpoint beside it.
pub(super) fn multiply(database: &Database, copies: i64) {
    let id = match database.backend() {
        Backend::Sqlite => "randomblob(16)",
        Backend::Postgres => "decode(md5(n::text), 'hex')",
    };
    let same = "application_id, kind, origin, shown, sealed, format, events, lane, created_at, \
                last_used_at, last_sequence, version";
    let sql = format!(
        "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {copies}) \
         INSERT INTO receivers (id, public_id, digest, {same}) \
         SELECT -n, {id}, digest || CAST(n AS TEXT), {same} FROM receivers, t"
    );
    database.connect().batch(&sql).expect("copies");
}

on_both!(async nobody_gets_past_the_limit_of_endpoints_together);
async fn nobody_gets_past_the_limit_of_endpoints_together(database: Database) {
    let world = World::start(&database).await;
    let other = world.second_node(&database).await;
    world.endpoint("/hook").await;
    multiply(&database, MOST_ENDPOINTS - 4);
    let new = NewEndpoint {
        address: address(&world.receiver.url("/more")),
        settings: EndpointSettings::default(),
        enabled: true,
    };
    let engines = [&world.node.engine, &other.engine];
    let all = (0..12).map(|turn| {
        let (engine, caller) = (Arc::clone(engines[turn % 2]), world.caller.clone());
        let new = new.clone();
        tokio::spawn(async move { engine.create_endpoint(&caller, new).await })
    });
    let made: Vec<_> = join_all(all).await.into_iter().map(|one| one.expect("no panic")).collect();
    assert_eq!(made.iter().filter(|one| one.is_ok()).count(), 3);
    let refused =
        |one: &_| matches!(one, Err(EngineError::TooManyEndpoints(MOST_ENDPOINTS)) | Ok(_));
    assert!(made.iter().all(refused), "{made:?}");
    assert_eq!(number(&database, "SELECT COUNT(*) AS number FROM receivers"), MOST_ENDPOINTS);
}

impl World {
    async fn batch(&self, jobs: usize, job: &NewJob, key: &str) -> Result<usize, EngineError> {
        let idempotency = Some(Idempotency { key: key.to_owned(), hash: jobs.to_string() });
        let jobs = vec![job.clone(); jobs];
        let answer =
            self.node.engine.submit_batch(&self.caller, jobs, None, idempotency, "request").await;
        answer.map(|answer| answer.jobs.len())
    }
}

on_both!(async a_submission_that_owes_too_much_at_once_is_refused);
async fn a_submission_that_owes_too_much_at_once_is_refused(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    assert_eq!(world.batch(21, &scripted_job(), "early").await.unwrap(), 21);
    multiply(&database, MOST_ENDPOINTS - 1);
    let stamp = "UPDATE applications SET version = version + 1";
    database.connect().batch(stamp).expect("as a registration does");

    let before = number(&database, "SELECT COUNT(*) AS number FROM deliveries");
    let refused = world.batch(21, &scripted_job(), "late").await.expect_err("21,000 deliveries");
    let EngineError::Invalid(text) = refused else { panic!("{refused}") };
    for part in ["21 jobs", "1000 endpoints", "21000", "20000", "smaller batches"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let owed = || number(&database, "SELECT COUNT(*) AS number FROM deliveries");
    assert_eq!(owed(), before, "nothing is left of it");
    // What was accepted is answered as it was; errors are not remembered.
    assert_eq!(world.batch(21, &scripted_job(), "early").await.unwrap(), 21);
    assert_eq!(world.batch(2, &scripted_job(), "late").await.unwrap(), 2);
    world.event().await;
    assert_eq!(owed(), before + 3_000, "one job may have every endpoint there can be");
    let patterns = "UPDATE receivers SET events = '[\"job.failed\"]'; \
                    UPDATE applications SET version = version + 1";
    let versions = "UPDATE receivers SET version = version + 1";
    database.connect().batch(patterns).and_then(|()| database.connect().batch(versions)).unwrap();
    assert_eq!(world.batch(21, &scripted_job(), "others").await.unwrap(), 21);
    assert_eq!(owed(), before + 3_000, "they want other events");
}
