//! Leases of this node that nobody here works on: what is told of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use ringback::delivery::Step;

use super::{Gate, World};
use crate::support::database::{Database, block_on_one_thread, on_both};
use crate::support::log::Log;
use crate::support::node::{bounded, wish};
use crate::support::receiver::Reply;

const WARNING: &str = "nobody sent leased deliveries";

/// Whether a future has asked to be looked at again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

on_both!(a_delivery_that_ends_during_the_look_is_no_stray);
fn a_delivery_that_ends_during_the_look_is_no_stray(database: Database) {
    block_on_one_thread(async {
        let world = World::start(&database).await;
        world.endpoint("/hook").await;
        world.event().await;
        let gate = Gate::on(&world.receiver, "/hook", Reply::ok());
        let dispatcher = &world.node.dispatcher;
        dispatcher.look().await.unwrap();
        assert_eq!(dispatcher.step().await.unwrap(), Step::Claimed(1));
        bounded("its request to arrive", || gate.arrivals.try_recv().is_ok()).await;

        let log = Log::of_this_thread();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let looking = loop {
            let mut looking = Box::pin(dispatcher.return_strays());
            // A thread that was put aside may find that the database has answered already.
            if looking.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                break looking;
            }
        };
        bounded("the database to answer", || woken.0.load(Ordering::SeqCst)).await;
        gate.open();
        world.node.settle_deliveries().await;
        looking.await.unwrap();
        assert!(!log.text().contains(WARNING), "{}", log.text());
    });
}

on_both!(a_lease_without_work_is_told_and_given_back);
fn a_lease_without_work_is_told_and_given_back(database: Database) {
    block_on_one_thread(async {
        let world = World::start(&database).await;
        world.endpoint("/hook").await;
        world.event().await;
        let engine = &world.node.engine;
        let lanes = engine.look_for_lanes().await.unwrap().waiting;
        let wanted = lanes.iter().map(|(lane, _)| wish(*lane)).collect();
        assert_eq!(engine.claim_deliveries(wanted).await.unwrap().len(), 1);
        let log = Log::of_this_thread();
        world.node.dispatcher.return_strays().await.unwrap();
        assert!(log.text().contains(WARNING), "{}", log.text());
        assert!(engine.own_deliveries().await.unwrap().is_empty());
    });
}
