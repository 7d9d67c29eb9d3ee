//! What the runner does beside the work of a handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringback::handlers::runner::Step;
use ringback::handlers::{Ending, Product};
use ringback::lifecycle::Status;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::support::database::{Backend, Database, block_on};
use crate::support::node::{Node, bounded, scripted_job};
use crate::support::stall::Stall;

#[test]
fn work_goes_on_while_its_progress_is_being_written() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        let (word, done) = (watch::Sender::new(false), Arc::new(AtomicBool::new(false)));
        let (listening, doing) = (word.clone(), Arc::clone(&done));
        node.scripted.set(move |context| {
            let (mut word, done) = (listening.subscribe(), Arc::clone(&doing));
            async move {
                context.progress.set(0.5);
                word.wait_for(|said| *said).await.expect("the test's word");
                done.store(true, Ordering::SeqCst);
                Ending::Done(Product::of(RawValue::NULL.to_owned()))
            }
        });
        let job = node.submit(&caller, scripted_job()).await;
        let mut stall = Stall::of_updates(&database, "live_jobs", "NEW.progress > OLD.progress");
        node.runner.look().await.unwrap();
        assert_eq!(node.runner.step().await.unwrap(), Step::Started(1));
        stall.wait_for_one();
        word.send_replace(true);
        bounded("the work to go on", || done.load(Ordering::SeqCst)).await;
        drop(stall);
        node.settle().await;
        assert_eq!(node.job(&caller, job.id).await.state.status, Status::Success);
    });
}
