//! What is worth writing down of an endpoint's health: a change, and now and then that there is
//! none.
//!
//! Pure. Each note locks the endpoint's row until its commit, so attempts that say nothing new must
//! not make one.

use super::breaker::Bearing;
use crate::engine::Health;
use crate::ids::Timestamp;

/// A note counts for this long: an endpoint that has failed for too long is soon found, and a note may
/// have come too late to be written.
const LASTS_MILLIS: i64 = 1_000;

/// What was last written down of an endpoint.
#[derive(Debug, Default)]
pub(super) struct HealthNote {
    last: Option<Noted>,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    health: Health,
    at: Timestamp,
    /// Of the endpoint's row: whoever changes that may have changed the note.
    version: i64,
}

impl HealthNote {
    /// Takes what an attempt says; what is to be written down.
    pub(super) fn learn(
        &mut self,
        bearing: Bearing,
        version: i64,
        now: Timestamp,
    ) -> Option<Health> {
        let health = match bearing {
            Bearing::Received => Health::Well,
            Bearing::Failed { .. } | Bearing::Answered => Health::Failing,
            Bearing::Nothing => return None,
        };
        let is_known = self.last.is_some_and(|last| {
            last.health == health
                && last.version == version
                && now.millis_since(last.at) < LASTS_MILLIS
        });
        if is_known {
            return None;
        }
        self.last = Some(Noted { health, at: now, version });
        Some(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Bearing = Bearing::Failed { retry_after: None };

    #[test]
    fn only_what_is_new_is_noted() {
        let mut note = HealthNote::default();
        let mut said = |bearing| note.learn(bearing, 1, Timestamp(0));
        assert_eq!(said(Bearing::Nothing), None);
        assert_eq!(said(Bearing::Received), Some(Health::Well), "who knows what was before");
        assert_eq!(said(Bearing::Received), None);
        assert_eq!(said(FAILED), Some(Health::Failing));
        assert_eq!(said(Bearing::Nothing), None);
        assert_eq!(said(Bearing::Answered), None);
        assert_eq!(said(Bearing::Received), Some(Health::Well));
    }

    #[test]
    fn a_note_is_made_again_when_it_is_old_or_the_endpoint_has_changed() {
        for (bearing, health) in [(FAILED, Health::Failing), (Bearing::Received, Health::Well)] {
            let mut note = HealthNote::default();
            assert_eq!(note.learn(bearing, 1, Timestamp(0)), Some(health));
            assert_eq!(note.learn(bearing, 1, Timestamp(999_000)), None);
            assert_eq!(note.learn(bearing, 1, Timestamp(1_000_000)), Some(health));
            assert_eq!(note.learn(bearing, 2, Timestamp(1_000_000)), Some(health));
        }
    }
}
