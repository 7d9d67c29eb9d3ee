//! Texts of statements are few: a connection keeps each one it has prepared for as long as it
//! lives, and so does the server.
//!
//! Postgres lists what a connection has prepared; SQLite gets the same texts.

use std::collections::BTreeSet;

use ringback::store::lists::{self, JobQuery, OrderBy};
use ringback::store::retention::{self, Purgeable};
use ringback::store::{Connection, Statement, StoreError, deliveries, files, groups, jobs};
use uuid::Uuid;

use crate::support::database::{Backend, Database, block_on, number_on};
use crate::support::node::Node;

#[derive(diesel::QueryableByName)]
struct Prepared {
    #[diesel(sql_type = diesel::sql_types::Text)]
    statement: String,
}

fn prepared(connection: &mut Connection) -> BTreeSet<String> {
    let sql = "SELECT statement FROM pg_prepared_statements";
    let rows = connection.load::<Prepared>(Statement::new(sql)).expect("SQL");
    rows.into_iter().map(|row| row.statement).collect()
}

/// What the work prepares that it has not prepared when it was done before with something else.
fn prepared_anew(work: impl Fn(&mut Connection, i64)) -> Vec<String> {
    let database = Database::fresh(Backend::Postgres);
    block_on(async { drop(Node::start(&database).await) });
    let mut connection = database.connect();
    work(&mut connection, 1);
    let known = prepared(&mut connection);
    work(&mut connection, 2);
    prepared(&mut connection).difference(&known).cloned().collect()
}

#[test]
fn every_page_of_retention_has_the_same_texts() {
    let anew = prepared_anew(|connection, turn| {
        let subjects: Vec<Purgeable> = (0..3 * turn)
            .map(|number| Purgeable {
                id: turn * 1_000 + number,
                public_id: vec![u8::try_from(turn * 10 + number).unwrap(); 16],
                application_id: turn,
                completed_at: Some(0),
                created_at: 0,
            })
            .collect();
        let keys: Vec<i64> = subjects.iter().map(|subject| subject.id).collect();
        assert!(retention::owing(connection, &keys).expect("SQL").is_empty());
        assert!(retention::hold_owing(connection, &keys).expect("SQL").is_empty());
        for kind in ["job", "group", "endpoint", "file"] {
            retention::purge(connection, kind, &subjects, "retention", 0).expect("SQL");
        }
    });
    assert_eq!(anew, [""; 0]);
}

#[test]
fn folders_and_files_are_looked_for_with_one_text() {
    let anew = prepared_anew(|connection, turn| {
        let paths = if turn == 1 { ["/folder/", "/file"] } else { ["/file", "/folder/"] };
        let query = JobQuery {
            application: turn,
            types: Vec::new(),
            statuses: Vec::new(),
            groups: Vec::new(),
            file_ids: Vec::new(),
            paths: paths.map(str::to_owned).to_vec(),
            order_by: OrderBy::Created,
            descending: true,
            after: None,
            limit: 10,
        };
        assert!(lists::jobs(connection, &query).expect("SQL").jobs.is_empty());
    });
    assert_eq!(anew, [""; 0]);
}

#[test]
fn files_of_another_application_are_held_with_the_same_text() {
    let anew = prepared_anew(|connection, turn| {
        let version = files::NewVersion {
            file_key: turn,
            file_id: Uuid::now_v7(),
            version_id: Uuid::now_v7(),
            path: "/file".to_owned(),
            size: 1,
            sha256: String::new(),
            media_type: String::new(),
            acl: String::new(),
        };
        files::put(connection, turn, &[version], 0).expect("SQL");
    });
    assert_eq!(anew, [""; 0]);
}

/// Entries of the live tables' indexes that Postgres has read so far, and how often it has looked into
/// others than those of their keys.
fn read_so_far(connection: &mut Connection) -> (i64, i64) {
    connection.batch("SELECT pg_stat_force_next_flush()").expect("SQL");
    let entries = "SELECT CAST(SUM(idx_tup_read) AS BIGINT) AS number FROM pg_stat_user_indexes \
                   WHERE relname LIKE 'live%'";
    let others = "SELECT CAST(SUM(idx_scan) AS BIGINT) AS number FROM pg_stat_user_indexes \
                  WHERE relname LIKE 'live%' AND indexrelname NOT LIKE '%pkey'";
    (number_on(connection, entries), number_on(connection, others))
}

#[test]
fn tables_that_were_empty_when_analysed_are_searched_by_key() {
    const ROWS: i64 = 5_000;
    let database = Database::fresh(Backend::Postgres);
    block_on(async { drop(Node::start(&database).await) });
    let mut connection = database.connect();
    // As autovacuum finds them in a quiet hour; the plans are made before they fill again.
    for table in ["live_jobs", "live_deliveries"] {
        connection.batch(&format!("VACUUM ANALYZE {table}")).expect("SQL");
    }
    let change = |id| deliveries::LiveChange {
        id,
        phase: 0,
        due_at: 1,
        token: 0,
        node_id: None,
        attempts: 0,
        tries: 0,
        previous_failure: None,
    };
    let work = |connection: &mut Connection, id: i64| {
        deliveries::update_live(connection, &[change(id)]).expect("SQL");
        deliveries::hold(connection, &[id]).expect("SQL");
        deliveries::put_in_place(connection, &[(id, None)]).expect("SQL");
        jobs::delete_live(connection, &[id]).expect("SQL");
    };
    work(&mut connection, 1);
    let fill = format!(
        "INSERT INTO live_deliveries \
         (id, lane, receiver_id, phase, due_at, token, attempts, tries, manner) \
         SELECT n, 7, 7, 0, 0, 0, 0, 0, 0 FROM generate_series(1, {ROWS}) n; \
         INSERT INTO live_jobs (id, application_id, queue, priority, phase, ready_sequence, run_at, \
         status, attempt, max_attempts, lost_nodes, token, last_sequence, progress, \
         announced_progress, announced_at, updated_at) \
         SELECT n, 7, 'default', 0, 1, n, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, n \
         FROM generate_series(1, {ROWS}) n"
    );
    connection.batch(&fill).expect("SQL");
    let (before, others_before) = read_so_far(&mut connection);
    work(&mut connection, ROWS / 2);
    let (after, others) = read_so_far(&mut connection);
    let read = after - before;
    assert!((1..100).contains(&read), "{read} index entries for one row of each");
    assert_eq!(others - others_before, 0, "looks into other indexes");
    let left = "SELECT COUNT(*) AS number FROM live_jobs";
    assert_eq!(number_on(&mut connection, left), ROWS - 1, "one has gone");
}

fn ended() -> jobs::FinalJob {
    jobs::FinalJob {
        id: 1,
        status: 3,
        updated_at: 1,
        attempt: 1,
        lost_nodes: 0,
        token: 1,
        last_sequence: 3,
        progress: 1.0,
        started_at: Some(1),
        completed_at: Some(1),
        result: None,
        failure_code: None,
        failure_detail: None,
        run_at: 1,
        deleted_at: None,
    }
}

fn group() -> groups::GroupRow {
    groups::GroupRow {
        id: 1,
        public_id: Uuid::nil().as_bytes().to_vec(),
        application_id: 1,
        receiver_id: None,
        sealed: 0,
        completed_at: None,
        total: 1,
        success: 0,
        error: 0,
        stopped: 0,
        last_sequence: 0,
        request_id: "request".to_owned(),
        created_at: 1,
        updated_at: 1,
    }
}

fn new_job(id: i64) -> jobs::NewJob {
    jobs::NewJob {
        id,
        public_id: Uuid::from_u128(u128::try_from(id).expect("a key")),
        application_id: 1,
        group_id: None,
        job_type: "urn:job:noop".to_owned(),
        receiver_id: None,
        parent_id: None,
        created_at: 1,
    }
}

#[test]
fn however_writes_come_together_few_texts_are_kept() {
    let database = Database::fresh(Backend::Postgres);
    block_on(async { drop(Node::start(&database).await) });
    let mut connection = database.connect();
    let gone = deliveries::Ended {
        id: 1,
        status: 1,
        attempts: 1,
        token: 1,
        reason: None,
        completed_at: 1,
    };
    let writes: [&dyn Fn(&mut Connection); 7] = [
        &|on| deliveries::put_in_place(on, &[(1, None)]).expect("SQL"),
        &|on| jobs::delete_live(on, &[1]).expect("SQL"),
        &|on| deliveries::end(on, std::slice::from_ref(&gone)).expect("SQL"),
        &|on| deliveries::close_attempts(on, &[Default::default()]).expect("SQL"),
        &|on| jobs::update_final(on, &[ended()]).expect("SQL"),
        &|on| groups::update(on, &[group()]).expect("SQL"),
        &|on| jobs::make_ready(on, &[(1, 1)]).expect("SQL"),
    ];
    for combination in 0..1 << writes.len() {
        connection.begin().expect("SQL");
        let chosen = writes.iter().enumerate();
        chosen
            .filter(|(place, _)| combination >> place & 1 == 1)
            .for_each(|(_, write)| write(&mut connection));
        connection.commit().expect("SQL");
    }
    let kept = "SELECT COUNT(*) AS number FROM pg_prepared_statements";
    let kept = number_on(&mut connection, kept);
    assert!((40..=90).contains(&kept), "{kept} texts are kept prepared");
}

#[test]
fn a_write_that_fails_when_it_is_sent_fails_before_the_commit() {
    let database = Database::fresh(Backend::Postgres);
    block_on(async { drop(Node::start(&database).await) });
    let mut connection = database.connect();
    connection.begin().expect("SQL");
    jobs::insert(&mut connection, [new_job(1), new_job(1)].iter()).expect("it waits");
    let error = connection.flush().expect_err("one key twice");
    assert!(matches!(error, StoreError::Statement(_)), "{error:?}");
    connection.rollback();
    connection.begin().expect("SQL");
    jobs::insert(&mut connection, std::iter::once(&new_job(1))).expect("it waits");
    let count = number_on(&mut connection, "SELECT COUNT(*) AS number FROM jobs");
    assert_eq!(count, 1, "what failed before is forgotten, and what is read is there");
    connection.rollback();
}
