//! After every test: the events of every job fold to the job's row.

use ringback::engine::{StoredJob, folded};
use ringback::store::{Connection, jobs, retention};

use super::node::told;

/// Looks at every job of a database.
pub fn every_job(connection: &mut Connection) {
    let mut after = 0;
    loop {
        let page = retention::jobs_after(connection, after, 500).expect("a page of jobs");
        let Some(last) = page.last() else { break };
        after = last.id;
        for found in page {
            let id = uuid::Uuid::from_slice(&found.public_id).expect("an id");
            let row = jobs::find(connection, id).expect("a row").expect("a job has its row");
            let job = StoredJob::read(row).expect("a readable row");
            let folded = folded(connection, &job).expect("a log").expect("a first event");
            assert_eq!(told(&folded), told(&job.state), "log and row of job {} differ", job.id);
        }
    }
}
