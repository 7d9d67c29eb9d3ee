//! Whether the loops of this process still turn. Loops tell; nobody is asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

/// A loop that was silent for longer is taken for dead.
const SILENCE: Duration = Duration::from_secs(15);

/// The loops by name. Each is registered before it starts, so that one that never ran is missed.
pub struct Readiness {
    start: Instant,
    loops: RwLock<Vec<(&'static str, AtomicU64)>>,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness { start: Instant::now(), loops: RwLock::default() }
    }
}

impl Readiness {
    /// A loop of that name is expected from now on.
    pub fn register(&self, name: &'static str) {
        let mut loops = self.loops.write().unwrap_or_else(PoisonError::into_inner);
        if loops.iter().all(|(known, _)| *known != name) {
            loops.push((name, AtomicU64::new(0)));
        }
    }

    /// A loop of that name went round. Unregistered names are ignored.
    pub fn beat(&self, name: &str) {
        let loops = self.loops.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, last)) = loops.iter().find(|(known, _)| *known == name) {
            last.store(self.elapsed(), Ordering::Relaxed);
        }
    }

    /// Loops that have not beaten lately.
    pub fn silent(&self) -> Vec<&'static str> {
        let now = self.elapsed();
        let limit = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
        let loops = self.loops.read().unwrap_or_else(PoisonError::into_inner);
        let is_silent = |last: u64| last == 0 || now.saturating_sub(last) > limit;
        let silent = loops.iter().filter(|(_, last)| is_silent(last.load(Ordering::Relaxed)));
        silent.map(|(name, _)| *name).collect()
    }

    /// Milliseconds since the start, counted from 1: 0 stands for never.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_lives_once_it_has_beaten() {
        let ready = Readiness::default();
        assert!(ready.silent().is_empty());
        ready.register("runner");
        ready.register("delivery");
        ready.register("runner");
        assert_eq!(ready.silent(), ["runner", "delivery"]);
        ready.beat("runner");
        ready.beat("unheard of");
        assert_eq!(ready.silent(), ["delivery"]);
        ready.beat("delivery");
        assert!(ready.silent().is_empty());
    }
}
