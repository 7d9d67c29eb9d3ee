//! After every test: the events of every job fold to the job's row.

use ringback::clock::Clock;
use ringback::engine::{Catalog, Engine, Parts, Sealer, StoredJob};
use ringback::formats::Formats;
use ringback::lifecycle::JobState;
use ringback::store::{Access, Store, jobs, retention};

use super::node::told;

/// Looks at every job of a database.
pub async fn every_job(url: &str) {
    let store = Store::open(url, Access::Beside).expect("the database opens");
    let parts = Parts {
        store: store.clone(),
        clock: Clock::system(),
        catalog: Catalog::default(),
        formats: Formats::standard_only(),
        sealer: Sealer::new(&[0; 32]).expect("a sealer"),
        public_url: String::new(),
        observe_batch: Box::new(|_| {}),
    };
    let engine = Engine::start(parts).await.expect("the engine starts");
    let mut after = 0;
    loop {
        let page = store
            .read(move |connection| {
                let mut rows = Vec::new();
                for found in retention::jobs_after(connection, after, 500)? {
                    let id = uuid::Uuid::from_slice(&found.public_id).expect("an id");
                    rows.push((found.id, jobs::find(connection, id)?));
                }
                Ok(rows)
            })
            .await
            .expect("jobs");
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (_, row) in page {
            let job = StoredJob::read(row.expect("a job has its row")).expect("a readable row");
            let folded = engine.folded(&job).await.expect("a log").expect("a first event");
            assert_eq!(rounded(&folded), rounded(&job.state), "job {}", job.id);
        }
    }
    engine.close();
}

fn rounded(state: &JobState) -> String {
    format!("{:?}", told(state))
}
