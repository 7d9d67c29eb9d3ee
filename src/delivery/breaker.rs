//! Whether anything may be tried on a lane: closed after failures in a row or when its receiver
//! asks for time, then open for one try, then for twice as many each time all goes well.
//!
//! Pure: told the time and what came, it says what has to be written down for the lane's next owner.

use std::time::Duration;

use crate::engine::{LaneChange, LaneTrouble};
use crate::ids::Timestamp;

/// When a lane is closed for failures.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// Failures in a row; 0 never closes a lane.
    pub failures: u32,
    /// For how long at first; twice as long each further time.
    pub pause: Duration,
    /// For how long at most.
    pub longest_pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> BreakerSettings {
        BreakerSettings {
            failures: 10,
            pause: Duration::from_secs(30),
            longest_pause: Duration::from_secs(10 * 60),
        }
    }
}

/// What an attempt says of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It received.
    Received,
    /// It works, but did not want this one.
    Answered,
    /// It does not work, and may have said when to come back.
    Failed {
        /// When.
        retry_after: Option<Timestamp>,
    },
    /// Nothing: it was not asked.
    Nothing,
}

/// One lane's state.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    closed: Option<Closed>,
    /// How many may be under way since it works again; a receiver that has just asked for time is
    /// not sent all at once what has gathered meanwhile.
    recovering: Option<usize>,
    /// Of the last change that was written down.
    number: i64,
}

#[derive(Clone, Debug)]
struct Closed {
    not_before: Timestamp,
    closings: i64,
    /// Until when it was closed before, which the database may still say while this is written.
    replaced: Option<Timestamp>,
}

/// What may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Anything.
    All,
    /// So many at once, to see how it goes.
    Some(usize),
    /// Nothing.
    None,
}

/// A lane on which so many at once went well has recovered.
const RECOVERED: usize = 64;

const RETRY_AFTER: &str = "retry_after";
const FAILURES: &str = "failures";

impl Breaker {
    /// As the last owner left it.
    fn resume(trouble: &LaneTrouble) -> Breaker {
        Breaker {
            failures: 0,
            recovering: None,
            closed: (!trouble.is_over()).then_some(Closed {
                not_before: Timestamp(trouble.not_before),
                closings: trouble.closings,
                replaced: None,
            }),
            number: trouble.number,
        }
    }

    /// Takes over what the last owner left, unless something later is known here.
    pub(super) fn inherit(&mut self, trouble: &LaneTrouble) {
        if self.is_troubled() || trouble.number < self.number {
            return;
        }
        if trouble.is_over() {
            self.number = trouble.number;
        } else {
            *self = Breaker::resume(trouble);
        }
    }

    /// The number of the next change: also beyond those of an owner whose clock is ahead.
    fn next_number(&mut self, now: Timestamp) -> i64 {
        self.number = now.0.max(self.number.saturating_add(1));
        self.number
    }

    /// Whether it is anything but open.
    pub(super) fn is_troubled(&self) -> bool {
        self.closed.is_some()
    }

    /// Somebody may have allowed a try before its time: the database says `not_before`.
    pub(super) fn hasten(&mut self, not_before: Timestamp, now: Timestamp) {
        if let Some(closed) = &mut self.closed
            && not_before <= now
            && closed.replaced != Some(not_before)
        {
            closed.not_before = closed.not_before.min(not_before);
        }
    }

    /// Nothing may be tried before.
    pub(super) fn not_before(&self) -> Option<Timestamp> {
        self.closed.as_ref().map(|closed| closed.not_before)
    }

    pub(super) fn permission(&self, now: Timestamp) -> Permission {
        match &self.closed {
            None => self.recovering.map_or(Permission::All, Permission::Some),
            Some(closed) if now >= closed.not_before => Permission::Some(1),
            Some(_) => Permission::None,
        }
    }

    /// Takes what came of an attempt; what changes for the lane, if anything does.
    pub(super) fn learn(
        &mut self,
        lane: i64,
        bearing: Bearing,
        now: Timestamp,
        settings: &BreakerSettings,
    ) -> Option<LaneChange> {
        match bearing {
            Bearing::Nothing => None,
            Bearing::Received | Bearing::Answered => {
                self.failures = 0;
                // One more for each that went well is twice as many for all of them.
                let grown = match (&self.closed, self.recovering) {
                    (Some(_), _) => Some(2),
                    (None, grown) => grown.map(|grown| grown + 1),
                };
                self.recovering = grown.filter(|grown| *grown < RECOVERED);
                self.closed.take().map(|_| LaneChange::Open { lane, number: self.next_number(now) })
            }
            Bearing::Failed { retry_after: Some(at) } if at > now => {
                let closings = self.closed.as_ref().map_or(0, |closed| closed.closings);
                let later = self.not_before().is_none_or(|known| at > known);
                later.then(|| self.close(lane, at, RETRY_AFTER, closings, now))
            }
            Bearing::Failed { .. } => {
                self.failures = self.failures.saturating_add(1);
                let closings = match &self.closed {
                    // An answer to what was sent before it was closed says nothing new.
                    Some(closed) if now < closed.not_before => return None,
                    Some(closed) => closed.closings,
                    None if settings.failures == 0 || self.failures < settings.failures => {
                        return None;
                    }
                    None => 0,
                };
                let doublings = u32::try_from(closings).unwrap_or(u32::MAX).min(16);
                let pause = settings.pause.saturating_mul(1 << doublings);
                let at = now.plus(pause.min(settings.longest_pause));
                Some(self.close(lane, at, FAILURES, closings + 1, now))
            }
        }
    }

    fn close(
        &mut self,
        lane: i64,
        not_before: Timestamp,
        reason: &'static str,
        closings: i64,
        now: Timestamp,
    ) -> LaneChange {
        self.closed = Some(Closed { not_before, closings, replaced: self.not_before() });
        LaneChange::Close(LaneTrouble {
            lane,
            not_before: not_before.0,
            reason: reason.to_owned(),
            closings,
            number: self.next_number(now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Bearing = Bearing::Failed { retry_after: None };

    fn settings() -> BreakerSettings {
        BreakerSettings {
            failures: 3,
            pause: Duration::from_secs(30),
            longest_pause: Duration::from_secs(100),
        }
    }

    fn closed_until(change: Option<LaneChange>) -> Option<i64> {
        match change {
            Some(LaneChange::Close(trouble)) => Some(trouble.not_before / 1_000_000),
            _ => None,
        }
    }

    #[test]
    fn it_closes_after_failures_in_a_row_and_doubles_its_pause() {
        let (mut breaker, settings) = (Breaker::default(), settings());
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);
        assert!(breaker.learn(1, FAILED, at(0), &settings).is_none());
        assert!(breaker.learn(1, FAILED, at(0), &settings).is_none());
        assert!(breaker.learn(1, Bearing::Received, at(0), &settings).is_none());
        for _ in 0..2 {
            assert!(breaker.learn(1, FAILED, at(1), &settings).is_none());
        }
        assert_eq!(breaker.permission(at(1)), Permission::All);
        assert_eq!(closed_until(breaker.learn(1, FAILED, at(1), &settings)), Some(31));
        assert_eq!(breaker.permission(at(30)), Permission::None);
        assert!(breaker.learn(1, FAILED, at(2), &settings).is_none(), "sent before");
        assert_eq!(breaker.permission(at(31)), Permission::Some(1));
        assert_eq!(closed_until(breaker.learn(1, FAILED, at(31), &settings)), Some(91));
        assert_eq!(closed_until(breaker.learn(1, FAILED, at(91), &settings)), Some(191));
        assert_eq!(closed_until(breaker.learn(1, FAILED, at(191), &settings)), Some(291));
        let opened = breaker.learn(1, Bearing::Answered, at(291), &settings);
        assert!(matches!(opened, Some(LaneChange::Open { lane: 1, .. })));
        assert_eq!(breaker.permission(at(291)), Permission::Some(2));
    }

    #[test]
    fn what_has_gathered_goes_out_by_and_by() {
        let (mut breaker, settings) = (Breaker::default(), settings());
        let asks = Bearing::Failed { retry_after: Some(Timestamp(100)) };
        breaker.learn(1, asks, Timestamp(0), &settings);
        let now = Timestamp(100);
        let mut allowed = Vec::new();
        while let Permission::Some(most) = breaker.permission(now) {
            allowed.push(most);
            (0..most).for_each(|_| drop(breaker.learn(1, Bearing::Received, now, &settings)));
        }
        assert_eq!(allowed, [1, 2, 4, 8, 16, 32]);
        assert_eq!(breaker.permission(now), Permission::All);

        // Whoever asks for time again begins again.
        breaker.learn(1, asks, Timestamp(0), &settings);
        breaker.learn(1, Bearing::Received, now, &settings);
        breaker.learn(1, Bearing::Received, now, &settings);
        assert_eq!(breaker.permission(now), Permission::Some(3));
        let again = Bearing::Failed { retry_after: Some(Timestamp(200)) };
        breaker.learn(1, again, now, &settings);
        assert_eq!(breaker.permission(Timestamp(200)), Permission::Some(1));
        breaker.learn(1, Bearing::Received, Timestamp(200), &settings);
        assert_eq!(breaker.permission(Timestamp(200)), Permission::Some(2));
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_just_that() {
        let (mut breaker, settings) = (Breaker::default(), settings());
        let asks =
            |seconds: i64| Bearing::Failed { retry_after: Some(Timestamp(seconds * 1_000_000)) };
        assert_eq!(closed_until(breaker.learn(1, asks(120), Timestamp(0), &settings)), Some(120));
        assert!(breaker.learn(1, asks(60), Timestamp(0), &settings).is_none(), "not sooner");
        assert_eq!(closed_until(breaker.learn(1, asks(130), Timestamp(0), &settings)), Some(130));
        let just = Timestamp(130_000_000);
        assert_eq!(breaker.permission(Timestamp(just.0 - 1)), Permission::None);
        assert_eq!(breaker.permission(just), Permission::Some(1));
    }

    #[test]
    fn the_next_owner_goes_on_where_the_last_one_was() {
        let (mut breaker, settings) = (Breaker::default(), settings());
        (0..2).for_each(|_| assert!(breaker.learn(1, FAILED, Timestamp(0), &settings).is_none()));
        let Some(LaneChange::Close(trouble)) = breaker.learn(1, FAILED, Timestamp(0), &settings)
        else {
            panic!("it stays open")
        };
        let mut next = Breaker::resume(&trouble);
        assert_eq!(next.not_before(), breaker.not_before());
        let later = Timestamp(30_000_000);
        assert_eq!(closed_until(next.learn(1, FAILED, later, &settings)), Some(90));
        next.hasten(Timestamp(30_000_000), later);
        assert_eq!(next.permission(later), Permission::None, "the database has not heard of it");
        next.hasten(Timestamp(29_000_000), later);
        assert_eq!(next.permission(later), Permission::Some(1));
    }

    #[test]
    fn every_change_has_a_higher_number_whatever_the_clock_says() {
        let (mut breaker, settings) = (Breaker::default(), settings());
        let number = |change| match change {
            Some(LaneChange::Close(trouble)) => trouble.number,
            Some(LaneChange::Open { number, .. }) => number,
            None => panic!("nothing changes"),
        };
        let asks = Bearing::Failed { retry_after: Some(Timestamp(100)) };
        assert_eq!(number(breaker.learn(1, asks, Timestamp(50), &settings)), 50);
        assert_eq!(number(breaker.learn(1, Bearing::Received, Timestamp(50), &settings)), 51);
        assert_eq!(number(breaker.learn(1, asks, Timestamp(40), &settings)), 52);
        let mut next = Breaker::resume(&LaneTrouble::over(1, 90, 80));
        assert_eq!(next.permission(Timestamp(0)), Permission::All);
        assert_eq!(number(next.learn(1, asks, Timestamp(60), &settings)), 91);
    }

    #[test]
    fn only_a_time_that_has_come_hastens() {
        let (mut breaker, settings) = (Breaker::default(), settings());
        let asks = |at| Bearing::Failed { retry_after: Some(Timestamp(at)) };
        for at in [100, 200, 300] {
            assert!(breaker.learn(1, asks(at), Timestamp(0), &settings).is_some());
        }
        breaker.hasten(Timestamp(100), Timestamp(50));
        assert_eq!(breaker.not_before(), Some(Timestamp(300)));
        breaker.hasten(Timestamp(50), Timestamp(50));
        assert_eq!(breaker.permission(Timestamp(50)), Permission::Some(1));
    }

    #[test]
    fn none_closes_a_lane_that_is_told_not_to() {
        let settings = BreakerSettings { failures: 0, ..settings() };
        let mut breaker = Breaker::default();
        for _ in 0..1_000 {
            assert!(breaker.learn(1, FAILED, Timestamp(0), &settings).is_none());
        }
    }
}
