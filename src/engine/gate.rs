//! Whether work may be taken beside the loops, where it runs, and who waits until none is being taken.
//! Must not know what is taken.

use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Lets nothing in before it is opened. Counts what was wished for and not yet answered, and lets
/// others wait until there is none.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    left: Notify,
    /// Where it was opened.
    runtime: OnceLock<Handle>,
}

#[derive(Default)]
struct GateState {
    open: bool,
    shut: usize,
    inside: usize,
}

/// While it lives nothing is wished for.
pub struct Shut<'a>(&'a Gate);

impl Gate {
    fn state(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on something may be wished for; what is taken runs on this runtime.
    pub fn open(&self) {
        self.runtime.get_or_init(Handle::current);
        self.state().open = true;
    }

    /// Whether something may be wished for; then `leave` has to follow.
    pub fn enter(&self) -> bool {
        let mut state = self.state();
        let may = state.open && state.shut == 0;
        state.inside += usize::from(may);
        may
    }

    /// What was wished for is answered.
    pub fn leave(&self) {
        self.state().inside -= 1;
        self.left.notify_waiters();
    }

    /// Runs what was taken, also from a writer's thread, which has no runtime of its own.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match self.runtime.get() {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        };
    }

    /// Lets nothing in until what it gives is dropped, once nothing is inside.
    pub async fn shut(&self) -> Shut<'_> {
        self.state().shut += 1;
        let shut = Shut(self);
        self.empty().await;
        shut
    }

    /// Lets nothing in until it is opened again, and waits until nothing is inside.
    pub async fn close(&self) {
        self.state().open = false;
        self.empty().await;
    }

    async fn empty(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.state().inside == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.state().shut -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn a_gate_is_shut_once_nothing_is_inside() {
        let gate = Gate::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(!gate.enter(), "it is not open");
        gate.open();
        assert!(gate.enter() && gate.enter());
        let mut shutting = pin!(gate.shut());
        for _ in 0..2 {
            assert!(shutting.as_mut().poll(&mut context).is_pending());
            assert!(!gate.enter(), "nothing comes in meanwhile");
            gate.leave();
        }
        let std::task::Poll::Ready(shut) = shutting.as_mut().poll(&mut context) else {
            panic!("nothing is inside");
        };
        assert!(!gate.enter());
        drop(shut);
        assert!(gate.enter());
        gate.leave();
        assert!(pin!(gate.close()).poll(&mut context).is_ready());
        assert!(!gate.enter(), "until it is opened again");
    }
}
