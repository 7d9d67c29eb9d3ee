//! The audit of a measured run: whether every job has all that it must have, and what is missing.

use std::ops::AddAssign;

use diesel::QueryableByName;
use diesel::sql_types::BigInt;

use super::UNBOUNDED;
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::location::Backend;
use crate::store::statement::Statement;

/// Which jobs are looked at, and what each of them must have.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// Those made after this key.
    pub after: Key,
    /// Those of this application alone, if it is said.
    pub application: Option<Key>,
    /// Each ran and succeeded; else it was made and waits.
    pub ended: bool,
    /// Deliveries that were made, each by one attempt that is closed with its HTTP status.
    pub delivered: i64,
    /// Deliveries that are still owed, since nobody answers.
    pub owed: i64,
}

impl Whole {
    /// What is there of so many jobs that have it all.
    pub fn of(&self, jobs: i64) -> Tally {
        let delivered = jobs * self.delivered;
        let live = jobs * self.owed;
        let deliveries = delivered + live;
        Tally { jobs, faulty: 0, deliveries, delivered, closed: delivered, live }
    }
}

/// What is there of those jobs.
#[derive(Debug, Clone, Default, QueryableByName)]
pub struct Tally {
    /// How many jobs.
    #[diesel(sql_type = BigInt)]
    pub jobs: i64,
    /// Of those, with less or more than they must have.
    #[diesel(sql_type = BigInt)]
    pub faulty: i64,
    /// Their deliveries.
    #[diesel(sql_type = BigInt)]
    pub deliveries: i64,
    /// Of those, delivered.
    #[diesel(sql_type = BigInt)]
    pub delivered: i64,
    /// Of those, with an attempt that is closed with its HTTP status.
    #[diesel(sql_type = BigInt)]
    pub closed: i64,
    /// Deliveries that live: they are still owed.
    #[diesel(sql_type = BigInt)]
    pub live: i64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.jobs += other.jobs;
        self.faulty += other.faulty;
        self.deliveries += other.deliveries;
        self.delivered += other.delivered;
        self.closed += other.closed;
        self.live += other.live;
    }
}

/// What each job has. Comparing with what it must have is the outer statement's.
const EACH_JOB: &str = "SELECT COALESCE(j.status, -1) AS status, \
    (SELECT COUNT(*) FROM events e WHERE e.subject_id = j.id) AS events, \
    (SELECT COUNT(*) FROM events e WHERE e.subject_id = j.id AND e.type = CASE e.sequence \
     WHEN 1 THEN 'job.created' WHEN 2 THEN 'job.started' WHEN 3 THEN 'job.succeeded' END) AS told, \
    (SELECT COUNT(*) FROM deliveries d WHERE d.subject_id = j.id) AS deliveries, \
    (SELECT COUNT(*) FROM deliveries d WHERE d.subject_id = j.id AND d.status = 1) AS delivered, \
    (SELECT COUNT(*) FROM deliveries d WHERE d.subject_id = j.id AND d.status = 0) AS owed, \
    (SELECT COUNT(*) FROM deliveries d JOIN live_deliveries l ON l.id = d.id \
     WHERE d.subject_id = j.id) AS live, \
    (SELECT COUNT(*) FROM deliveries d JOIN attempts a ON a.delivery_id = d.id \
     WHERE d.subject_id = j.id AND d.status <> 0) AS attempts, \
    (SELECT COUNT(DISTINCT d.id) FROM deliveries d JOIN attempts a ON a.delivery_id = d.id \
     WHERE d.subject_id = j.id AND d.status = 1 AND a.outcome = 'delivered' \
     AND a.finished_at IS NOT NULL AND a.response_status BETWEEN 200 AND 299) AS closed \
    FROM jobs j WHERE j.id > ?";

/// Looks at every one of those jobs.
pub fn tally(connection: &mut Connection, whole: &Whole) -> StoreResult<Tally> {
    if connection.backend() == Backend::Postgres {
        // A plan made for the empty tables of a minute ago would take hours.
        connection.batch("ANALYZE jobs, events, deliveries, attempts")?;
        connection.batch(UNBOUNDED)?;
    }
    let of = if whole.application.is_some() { " AND j.application_id = ?" } else { "" };
    let sum = |column: &str| format!("CAST(COALESCE(SUM({column}), 0) AS BIGINT) AS {column}");
    let sums = ["deliveries", "delivered", "closed", "live"].map(sum).join(", ");
    let sql = format!(
        "SELECT COUNT(*) AS jobs, COUNT(CASE WHEN status = ? AND events = ? AND told = ? \
         AND deliveries = ? AND delivered = ? AND owed = ? AND live = ? AND attempts = ? \
         AND closed = ? THEN NULL ELSE 1 END) AS faulty, {sums} \
         FROM ({EACH_JOB}{of}) AS each_job"
    );
    let Whole { delivered, owed, .. } = *whole;
    let (status, events) = if whole.ended { (3, 3) } else { (-1, 1) };
    let mut statement = Statement::new(sql);
    for must in
        [status, events, events, delivered + owed, delivered, owed, owed, delivered, delivered]
    {
        statement = statement.bind(must);
    }
    statement = statement.bind(whole.after);
    if let Some(application) = whole.application {
        statement = statement.bind(application);
    }
    Ok(connection.first::<Tally>(statement)?.unwrap_or_default())
}
