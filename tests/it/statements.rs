//! Texts of statements are few: a connection keeps each one it has prepared for as long as it
//! lives, and so does the server.
//!
//! Postgres lists what a connection has prepared; SQLite gets the same texts.

use std::collections::BTreeSet;

use ringback::store::lists::{self, JobQuery, OrderBy};
use ringback::store::retention::{self, Purgeable};
use ringback::store::{Connection, Statement, files};
use uuid::Uuid;

use crate::support::database::{Backend, Database, block_on};
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
