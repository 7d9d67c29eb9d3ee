//! Where claims begin in an index.
//!
//! On Postgres what has left an index is still stepped over for as long as any transaction in the
//! database is open that began before. A claim that always began at the start would cost more with
//! every job that is done meanwhile. So once that is dear, claims begin where the last one came to,
//! and at the start only as often as keeps it at about a twentieth of the time: that finds what came
//! in behind them. Must not know what is claimed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::pause;

/// A search from the start that takes no more than this above twice the shortest one is repeated
/// every time: the way to the database counts for both.
const CHEAP: Duration = Duration::from_micros(500);
/// Queues and lanes that are remembered.
const MOST: usize = 10_000;
/// Priorities of a queue that are remembered.
const MOST_LEVELS: usize = 16;

/// How far claims have come in one queue or lane.
#[derive(Debug, Default)]
struct Front {
    /// For each level, those that come first in the order last. A lane has one.
    places: BTreeMap<i64, i64>,
    /// When to begin at the start again.
    again_at: Option<Instant>,
}

impl Front {
    /// Levels and places to begin at, in the order of a claim; nothing when that is the start.
    fn begin(&self, now: Instant) -> Option<Vec<(i64, i64)>> {
        let is_early = self.again_at.is_some_and(|at| now < at) && !self.places.is_empty();
        is_early.then(|| self.places.iter().rev().map(|(level, place)| (*level, *place)).collect())
    }

    /// Something was found there. A front never goes back: whatever is behind it has to be searched
    /// for from the start, again and again while there is any.
    fn came_to(&mut self, level: i64, place: i64, back: i64) {
        let known = self.places.get(&level).copied();
        if known.is_some_and(|known| place < known) {
            self.again_at = None;
            return;
        }
        if known.is_none() && self.places.len() >= MOST_LEVELS {
            self.places.clear();
        }
        self.places.insert(level, known.unwrap_or(i64::MIN).max(place.saturating_sub(back)));
    }
}

/// What a search has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) rows: Vec<T>,
    /// Whether there may be more than these although they are fewer than asked for.
    pub(super) is_partial: bool,
}

/// All of one kind.
#[derive(Debug)]
pub(super) struct Fronts<K>(Mutex<State<K>>);

#[derive(Debug)]
struct State<K> {
    fronts: HashMap<K, Front>,
    /// The shortest search so far.
    shortest: Duration,
}

impl<K> Default for Fronts<K> {
    fn default() -> Fronts<K> {
        // Should the first searches be dear already, nobody would know.
        Fronts(Mutex::new(State { fronts: HashMap::new(), shortest: Duration::from_millis(1) }))
    }
}

impl<K: std::hash::Hash + Eq> Fronts<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next search there begins at the start: something was put behind what was claimed.
    pub(super) fn forget(&self, key: &K) {
        self.lock().fronts.remove(key);
    }

    /// All next searches begin at the start: what was found by the last ones was not claimed.
    pub(super) fn forget_all(&self) {
        self.lock().fronts.clear();
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
    ) -> Result<Found<T>, E> {
        let begin = self.lock().fronts.get(&key).and_then(|front| front.begin(Instant::now()));
        let is_partial = begin.is_some();
        let began = Instant::now();
        let mut rows = Vec::new();
        for from in begin.unwrap_or_default() {
            let left = most - i64::try_from(rows.len()).unwrap_or(i64::MAX);
            if left > 0 {
                rows.extend(find(Some(from), left)?);
            }
        }
        if !is_partial {
            rows = find(None, most)?;
        }
        let took = began.elapsed();
        let mut state = self.lock();
        state.shortest = state.shortest.min(took);
        let is_dear = took > state.shortest.saturating_mul(2).saturating_add(CHEAP);
        if !is_partial && !is_dear {
            state.fronts.remove(&key);
            return Ok(Found { rows, is_partial });
        }
        if state.fronts.len() >= MOST {
            state.fronts.clear();
        }
        let front = state.fronts.entry(key).or_default();
        if !is_partial {
            front.again_at = Some(Instant::now() + pause(Duration::ZERO, took));
        }
        for (level, place) in rows.iter().map(place) {
            front.came_to(level, place, back);
        }
        Ok(Found { rows, is_partial })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rows = Result<Vec<(i64, i64)>, ()>;

    /// What was asked for by one search of five that brings these rows.
    fn asked(
        fronts: &Fronts<&'static str>,
        mut bring: impl FnMut(Option<(i64, i64)>) -> Vec<(i64, i64)>,
    ) -> Vec<(Option<(i64, i64)>, i64)> {
        let mut asked = Vec::new();
        let find = |from, most| -> Rows {
            asked.push((from, most));
            Ok(bring(from))
        };
        let found = fronts.search("q", 5, 10, |found: &(i64, i64)| *found, find).unwrap();
        assert_eq!(found.is_partial, asked[0].0.is_some());
        asked
    }

    /// The next searches go on from these places.
    fn dear(fronts: &Fronts<&'static str>, places: &[(i64, i64)]) {
        let mut state = fronts.lock();
        let front = state.fronts.entry("q").or_default();
        places.iter().for_each(|(level, place)| front.came_to(*level, *place, 10));
        front.again_at = Some(Instant::now() + Duration::from_secs(60));
    }

    const START: (Option<(i64, i64)>, i64) = (None, 5);

    #[test]
    fn a_cheap_search_begins_at_the_start_every_time() {
        let fronts = Fronts::default();
        for _ in 0..3 {
            assert_eq!(asked(&fronts, |_| vec![(0, 100), (0, 101)]), [START]);
            // However long that took on this machine.
            fronts.forget_all();
        }
    }

    #[test]
    fn after_a_dear_one_each_level_goes_on_a_little_behind_where_it_came_to() {
        let fronts = Fronts::default();
        dear(&fronts, &[(7, 100), (7, 300), (0, 50)]);
        let bring = |from| if from == Some((7, 290)) { vec![(7, 400)] } else { Vec::new() };
        assert_eq!(asked(&fronts, bring), [(Some((7, 290)), 5), (Some((0, 40)), 4)]);
        assert_eq!(asked(&fronts, |_| Vec::new())[0], (Some((7, 390)), 5), "it goes on from there");
    }

    #[test]
    fn what_lies_behind_is_searched_for_from_the_start_while_there_is_any() {
        let fronts = Fronts::default();
        dear(&fronts, &[(0, 300)]);
        fronts.lock().fronts.get_mut("q").unwrap().came_to(0, 5, 10);
        assert_eq!(asked(&fronts, |_| Vec::new()), [START]);
        dear(&fronts, &[(0, 300)]);
        fronts.forget(&"q");
        assert_eq!(asked(&fronts, |_| Vec::new()), [START], "somebody has put something there");
    }

    #[test]
    fn one_that_has_found_nothing_yet_begins_at_the_start() {
        let fronts = Fronts::default();
        dear(&fronts, &[]);
        assert_eq!(asked(&fronts, |_| Vec::new()), [START]);
    }

    #[test]
    fn many_levels_are_forgotten_and_come_again() {
        let fronts = Fronts::default();
        let levels: Vec<(i64, i64)> = (0..=16).map(|level| (level, 100)).collect();
        dear(&fronts, &levels);
        assert_eq!(asked(&fronts, |_| Vec::new()), [(Some((16, 90)), 5)]);
    }
}
