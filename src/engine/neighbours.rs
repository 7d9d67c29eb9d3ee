//! Who of the other nodes is gone, judged by what a guard sees of them over time.
//!
//! Must not know the database, and does nothing about it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ids::Key;
use crate::store::guards::Peer;

/// How often a node looks at the others, and whether its own guard is still there.
pub const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// A lock that was held and is free for this long is its node's end. A node that only lost its
/// session has looked by then, sends nothing more, and has taken the lock again or says that it has
/// none.
const GONE_AFTER: Duration = Duration::from_millis(150);

/// The same for a lock that was never seen held on this session when that is not the first one of
/// this process: perhaps the database has ended all sessions, and each node needs a moment to make
/// another.
const NEVER_CAME_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct Absence {
    since: Instant,
    /// Whether the lock was seen held before.
    came: bool,
}

/// What was seen of the others since a session began.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    held: HashMap<Key, Option<Absence>>,
    /// This process had another session before.
    again: bool,
}

impl Neighbours {
    /// Nobody yet, on another session of the same process.
    pub(super) fn again() -> Neighbours {
        Neighbours { again: true, ..Neighbours::default() }
    }

    fn patience(&self, absence: Absence) -> Duration {
        if absence.came || !self.again { GONE_AFTER } else { NEVER_CAME_AFTER }
    }

    /// Whether somebody may be gone.
    pub(super) fn in_doubt(&self) -> bool {
        let soon = |absence: Absence| self.patience(absence) == GONE_AFTER;
        self.held.values().any(|absence| absence.is_some_and(soon))
    }

    /// Takes in what is seen now; who is gone.
    pub(super) fn judge(&mut self, peers: &[Peer], now: Instant) -> Vec<Key> {
        self.held.retain(|node, _| peers.iter().any(|peer| peer.id == *node));
        let mut gone = Vec::new();
        for peer in peers {
            let known = self.held.get(&peer.id).copied();
            let absence = match known {
                _ if peer.held => None,
                Some(None) => Some(Absence { since: now, came: true }),
                Some(Some(absence)) => Some(absence),
                None => Some(Absence { since: now, came: false }),
            };
            self.held.insert(peer.id, absence);
            let over =
                |absence: Absence| now.duration_since(absence.since) >= self.patience(absence);
            if absence.is_some_and(over) {
                gone.push(peer.id);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [Key; 0] = [];

    fn at(millis: u64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_millis(millis)
    }

    /// Who is gone after the last of the looks: at which millisecond, whether the lock was held.
    fn judged(looks: &[(u64, bool)]) -> Vec<Key> {
        judged_by(Neighbours::default(), looks)
    }

    fn judged_by(mut neighbours: Neighbours, looks: &[(u64, bool)]) -> Vec<Key> {
        let start = Instant::now();
        let look = |(millis, held): &(u64, bool)| {
            neighbours.judge(&[Peer { id: 7, held: *held }], at(*millis)(start))
        };
        looks.iter().map(look).last().unwrap_or_default()
    }

    #[test]
    fn a_lock_that_was_held_and_stays_free_is_an_end() {
        assert_eq!(judged(&[(0, true), (100, false), (200, false), (249, false)]), NOBODY);
        assert_eq!(judged(&[(0, true), (100, false), (250, false)]), [7]);
    }

    #[test]
    fn one_look_alone_judges_nobody() {
        assert_eq!(judged(&[(0, false)]), NOBODY);
        assert_eq!(judged(&[(0, true), (60_000, false)]), NOBODY);
    }

    #[test]
    fn a_lock_that_is_taken_again_counts_from_the_beginning() {
        let looks = [(0, true), (100, false), (200, true), (300, false), (449, false)];
        assert_eq!(judged(&looks), NOBODY);
    }

    #[test]
    fn a_lock_that_was_never_seen_held_has_more_time_when_all_may_have_lost_theirs() {
        assert_eq!(judged(&[(0, false), (150, false)]), [7]);
        let again = |looks| judged_by(Neighbours::again(), looks);
        assert_eq!(again(&[(0, false), (1_999, false)]), NOBODY);
        assert_eq!(again(&[(0, false), (1_000, false), (2_000, false)]), [7]);
        assert_eq!(again(&[(0, true), (1_000, false), (1_150, false)]), [7]);
    }

    #[test]
    fn who_is_no_longer_named_is_forgotten() {
        let (mut neighbours, start) = (Neighbours::default(), Instant::now());
        let free = [Peer { id: 7, held: false }];
        assert!(neighbours.judge(&free, start).is_empty());
        assert!(neighbours.judge(&[], at(100)(start)).is_empty());
        assert!(neighbours.judge(&free, at(200)(start)).is_empty());
    }
}
