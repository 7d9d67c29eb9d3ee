//! Where claims begin in an index.
//!
//! On Postgres what has left an index is still stepped over for as long as any transaction in the
//! database is open that began before. A claim that always began at the start would cost more with
//! every job that is done meanwhile. So once that is dear, claims begin where the last one came to,
//! and at the start only as often as keeps it at a twentieth of the time: that finds what came in
//! behind them. Must not know what is claimed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::pause;

/// A search from the start that takes less is repeated every time.
const CHEAP: Duration = Duration::from_micros(500);
/// Queues and lanes that are remembered.
const MOST: usize = 10_000;
/// Priorities of a queue that are remembered.
const MOST_LEVELS: usize = 16;

/// How far claims have come in one queue or lane.
#[derive(Debug, Default)]
pub(super) struct Front {
    /// For each level, those that come first in the order last. A lane has one.
    places: BTreeMap<i64, i64>,
    /// When to begin at the start again.
    again_at: Option<Instant>,
}

impl Front {
    /// Levels and places to begin at, in the order of a claim; nothing when that is the start.
    fn begin(&self, now: Instant) -> Option<Vec<(i64, i64)>> {
        let is_early = self.again_at.is_some_and(|at| now < at);
        let is_known = !self.places.is_empty() && self.places.len() <= MOST_LEVELS;
        (is_early && is_known)
            .then(|| self.places.iter().rev().map(|(level, place)| (*level, *place)).collect())
    }

    /// A search from the start took so long.
    fn searched(&mut self, took: Duration, now: Instant) {
        self.again_at = (took >= CHEAP).then(|| now + pause(Duration::ZERO, took));
    }

    /// Something was found there.
    fn came_to(&mut self, level: i64, place: i64) {
        self.places.insert(level, place);
    }
}

/// All of one kind.
#[derive(Debug)]
pub(super) struct Fronts<K>(Mutex<HashMap<K, Front>>);

impl<K> Default for Fronts<K> {
    fn default() -> Fronts<K> {
        Fronts(Mutex::default())
    }
}

impl<K: std::hash::Hash + Eq> Fronts<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Front>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches from where the last one came to, level by level until there is enough; or from the
    /// start, and notes what that cost. `back` is how far behind the last find to begin: what was
    /// committed late.
    pub(super) fn search<T, E>(
        &self,
        key: K,
        most: i64,
        back: i64,
        place: impl Fn(&T) -> (i64, i64),
        mut find: impl FnMut(Option<(i64, i64)>, i64) -> Result<Vec<T>, E>,
    ) -> Result<Vec<T>, E> {
        let begin = self.lock().get(&key).and_then(|front| front.begin(Instant::now()));
        let mut found = Vec::new();
        let mut took = None;
        match begin {
            Some(places) => {
                for begin in places {
                    let left = most - i64::try_from(found.len()).unwrap_or(i64::MAX);
                    if left <= 0 {
                        break;
                    }
                    found.extend(find(Some(begin), left)?);
                }
            }
            None => {
                let began = Instant::now();
                found = find(None, most)?;
                took = Some(began.elapsed());
            }
        }
        let is_cheap = took.is_some_and(|took| took < CHEAP);
        let mut fronts = self.lock();
        if is_cheap && !fronts.contains_key(&key) {
            return Ok(found);
        }
        if fronts.len() >= MOST && !fronts.contains_key(&key) {
            fronts.clear();
        }
        let front = fronts.entry(key).or_default();
        if let Some(took) = took {
            front.searched(took, Instant::now());
        }
        for (level, place) in found.iter().map(place) {
            front.came_to(level, place.saturating_sub(back));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Result<Vec<(i64, i64)>, ()> = Ok(Vec::new());

    fn dear(fronts: &Fronts<&str>, key: &'static str) {
        let fronts = &mut *fronts.lock();
        let front = fronts.entry(key).or_default();
        front.searched(Duration::from_secs(60), Instant::now());
    }

    #[test]
    fn a_cheap_search_begins_at_the_start_every_time() {
        let fronts = Fronts::default();
        for _ in 0..3 {
            let found = fronts.search(
                "q",
                5,
                10,
                |found| *found,
                |begin, most| {
                    assert_eq!((begin, most), (None, 5));
                    Ok::<_, ()>(vec![(0, 100), (0, 101)])
                },
            );
            assert_eq!(found, Ok(vec![(0, 100), (0, 101)]));
            // However long that took on this machine.
            fronts.lock().clear();
        }
    }

    #[test]
    fn after_a_dear_one_each_level_goes_on_a_little_behind_where_it_came_to() {
        let fronts = Fronts::default();
        dear(&fronts, "q");
        fronts.lock().get_mut("q").unwrap().again_at = None;
        let all = [(7, 100), (7, 300), (0, 50)];
        let found =
            fronts.search("q", 5, 10, |found| *found, |_, _| Ok::<_, ()>(all.to_vec())).unwrap();
        assert_eq!(found, all);
        dear(&fronts, "q");
        let mut asked = Vec::new();
        let found = fronts.search(
            "q",
            3,
            10,
            |found| *found,
            |begin, most| {
                asked.push((begin, most));
                Ok::<_, ()>(if begin == Some((7, 290)) { vec![(7, 400)] } else { Vec::new() })
            },
        );
        assert_eq!(found, Ok(vec![(7, 400)]));
        assert_eq!(asked, [(Some((7, 290)), 3), (Some((0, 40)), 2)]);
        let mut asked = Vec::new();
        let _ = fronts.search(
            "q",
            3,
            10,
            |found| *found,
            |begin, _| {
                asked.push(begin);
                NOTHING
            },
        );
        assert_eq!(asked, [Some((7, 390)), Some((0, 40))], "it goes on from there");
    }

    #[test]
    fn one_that_has_found_nothing_yet_or_too_many_levels_begins_at_the_start() {
        let fronts = Fronts::default();
        dear(&fronts, "empty");
        let mut begins = Vec::new();
        let _ = fronts.search(
            "empty",
            3,
            0,
            |found| *found,
            |begin, _| {
                begins.push(begin);
                NOTHING
            },
        );
        dear(&fronts, "many");
        for level in 0..20 {
            fronts.lock().get_mut("many").unwrap().came_to(level, 1);
        }
        let _ = fronts.search(
            "many",
            3,
            0,
            |found| *found,
            |begin, _| {
                begins.push(begin);
                NOTHING
            },
        );
        assert_eq!(begins, [None, None]);
    }
}
