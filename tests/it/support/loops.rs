//! The loops of a node inside the test process, as the server runs them, for tests with several
//! nodes at work at once.

use std::sync::Arc;
use std::time::Duration;

use ringback::engine::EngineResult;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::node::Node;

/// How often a loop looks when no bell rings.
const PERIOD: Duration = Duration::from_millis(100);

/// The loops of one node until [`Loops::stop`].
pub struct Loops {
    switch: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Loops {
    /// Starts them all, with so many relays.
    pub fn start(node: &Arc<Node>, relays: usize) -> Loops {
        let switch = watch::Sender::new(false);
        let mut tasks = vec![
            tokio::spawn(Arc::clone(&node.runner).run(switch.subscribe(), || ())),
            tokio::spawn(Arc::clone(&node.dispatcher).run(switch.subscribe(), || ())),
            tokio::spawn(keep(Arc::clone(node), switch.subscribe())),
        ];
        for _ in 0..relays {
            tasks.push(tokio::spawn(relay(Arc::clone(node), switch.subscribe())));
        }
        Loops { switch, tasks }
    }

    /// Ends them in good order.
    pub async fn stop(self) {
        self.switch.send_replace(true);
        for task in self.tasks {
            task.await.expect("no loop panics");
        }
    }

    /// Ends them where they are, as a death would.
    pub fn kill(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Beats and sweeps.
async fn keep(node: Arc<Node>, shutdown: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(PERIOD);
    while !*shutdown.borrow() {
        ticks.tick().await;
        node.beat().await;
        unless_passing(node.engine.rescue().await);
        unless_passing(node.engine.settle_backlogs().await);
    }
}

/// What one turn brought; nothing when it was undone for others' sake, as the server takes it: the
/// next turn tries again.
///
/// # Panics
/// On any other error.
fn unless_passing<T>(result: EngineResult<T>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) if error.is_passing() => {
            eprintln!("one turn came to nothing: {error}");
            None
        }
        Err(error) => panic!("a loop fails: {error:?}"),
    }
}

async fn relay(node: Arc<Node>, shutdown: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(PERIOD);
    while !*shutdown.borrow() {
        let rung = node.engine.bells.relay.notified();
        while unless_passing(node.engine.relay().await) == Some(true) {}
        tokio::select! {
            () = rung => {}
            _ = ticks.tick() => {}
        }
    }
}
