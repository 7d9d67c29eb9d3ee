//! What a listener remembers: the ids it has seen, and how often it still has to fail.
//!
//! Must not know what a webhook says.

use std::collections::{HashMap, VecDeque};

/// So that a listener may run for weeks.
const MOST_IDS: usize = 100_000;

pub(super) struct Memory {
    seen: HashMap<String, u64>,
    /// The oldest first.
    order: VecDeque<String>,
    failures_left: u64,
}

impl Memory {
    pub(super) fn new(fail_first: u64) -> Memory {
        Memory { seen: HashMap::new(), order: VecDeque::new(), failures_left: fail_first }
    }

    /// How often this id has come, this time included.
    pub(super) fn see(&mut self, id: &str) -> u64 {
        if let Some(count) = self.seen.get_mut(id) {
            *count += 1;
            return *count;
        }
        if self.order.len() >= MOST_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.seen.insert(id.to_owned(), 1);
        1
    }

    /// Whether this request is one of those to fail.
    pub(super) fn fails(&mut self) -> bool {
        let fails = self.failures_left > 0;
        self.failures_left = self.failures_left.saturating_sub(1);
        fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_and_the_oldest_forgotten() {
        let mut memory = Memory::new(0);
        assert_eq!((memory.see("a"), memory.see("b"), memory.see("a")), (1, 1, 2));
        (0..MOST_IDS).for_each(|number| assert_eq!(memory.see(&number.to_string()), 1));
        assert_eq!(memory.see("a"), 1);
        assert_eq!((memory.seen.len(), memory.order.len()), (MOST_IDS, MOST_IDS));
    }

    #[test]
    fn only_the_first_fail() {
        let mut memory = Memory::new(2);
        assert_eq!([(); 4].map(|()| memory.fails()), [true, true, false, false]);
    }
}
