//! When a group is announced as complete: once, when it is sealed and nothing in it is left to do.

use proptest::prelude::*;
use ringback::lifecycle::{GroupState, GroupTally, Status};

use super::lives::config;

#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Change(Status),
    Seal,
}

/// A group as the engine leads it, beside plain counts of what really happened.
#[derive(Debug)]
struct Led {
    group: GroupState,
    running: i64,
    announced: u32,
}

impl Led {
    fn new() -> Led {
        let tally = GroupTally::default();
        let group = GroupState { sealed: false, completed: false, tally };
        Led { group, running: 0, announced: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join if !self.group.sealed => {
                self.group.tally.total += 1;
                self.running += 1;
            }
            Step::Join => {}
            // A final status comes once a job; a live one may come any number of times.
            Step::Change(status) if self.running > 0 || !status.is_final() => {
                self.group.tally.count(status);
                self.running -= i64::from(status.is_final());
            }
            Step::Change(_) => {}
            Step::Seal => self.group.sealed = true,
        }
        if self.group.completes_now() {
            self.group.completed = true;
            self.announced += 1;
        }
    }

    fn is_over(&self) -> bool {
        self.group.sealed && self.running == 0
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Join),
        8 => prop::sample::select(Status::ALL.to_vec()).prop_map(Step::Change),
        1 => Just(Step::Seal),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_group_completes_once_and_not_before_its_end(
        steps in prop::collection::vec(step(), 0..64),
    ) {
        let mut led = Led::new();
        for step in steps {
            led.take(step);
            prop_assert_eq!(led.group.tally.remaining(), led.running);
            prop_assert_eq!(led.announced, u32::from(led.is_over()));
        }
        // Whatever is left ends at last, and the group with it.
        led.take(Step::Seal);
        while led.running > 0 {
            prop_assert_eq!(led.announced, 0);
            led.take(Step::Change(Status::Stopped));
        }
        for late in [Step::Seal, Step::Join, Step::Change(Status::Success)] {
            prop_assert_eq!(led.announced, 1);
            led.take(late);
        }
        prop_assert_eq!(led.announced, 1);
    }

    #[test]
    fn a_tally_counts_every_end_under_its_own_name(
        ends in prop::collection::vec(prop::sample::select(Status::ALL.to_vec()), 0..64),
    ) {
        let mut tally = GroupTally { total: 64, ..GroupTally::default() };
        ends.iter().for_each(|status| tally.count(*status));
        let count = |wanted| ends.iter().filter(|status| **status == wanted).count() as i64;
        let (success, error) = (count(Status::Success), count(Status::Error));
        let stopped = count(Status::Stopped);
        prop_assert_eq!(tally, GroupTally { total: 64, success, error, stopped });
        prop_assert_eq!(tally.remaining(), 64 - success - error - stopped);
    }
}
