//! What records say of endpoints: since when one fails, and whether it is disabled for that.
//!
//! A batch may hold many records of one endpoint; they are gathered first, so that its row is held
//! and written once. What was sent before the endpoint was last changed says nothing of it: it may
//! have another address since.

use std::collections::BTreeMap;

use super::core::Core;
use super::endpoints::disable;
use super::ledger::Ledger;
use super::operation::{Health, Record};
use crate::ids::{Key, Timestamp};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreResult, Transaction, receivers};

/// Why an endpoint is disabled that has not received anything for too long.
const NO_SUCCESS: &str = "no_success";

/// A lane that was closed until longer ago than this, and on which nothing waits, starts afresh.
pub const TROUBLE_KEPT_MILLIS: i64 = 60 * 60 * 1_000;

/// What the records of a batch say of endpoints, which are held.
pub(super) struct Conditions {
    by_endpoint: BTreeMap<Key, (ReceiverRow, Condition)>,
}

#[derive(Clone, Copy, Default)]
struct Condition {
    /// It has received something.
    was_well: bool,
    /// It has failed, after that if it was well.
    is_failing: bool,
    /// Why it is disabled, if it is.
    disable: Option<&'static str>,
}

impl Conditions {
    /// Holds these endpoints, in one order.
    pub(super) fn hold(
        transaction: &mut Transaction<'_>,
        mut keys: Vec<Key>,
    ) -> StoreResult<Conditions> {
        keys.sort_unstable();
        keys.dedup();
        let rows = receivers::hold(transaction, &keys)?.into_iter();
        Ok(Conditions {
            by_endpoint: rows.map(|row| (row.id, (row, Condition::default()))).collect(),
        })
    }

    /// Whether a record says something of its endpoint.
    pub(super) fn are_told_by(record: &Record) -> bool {
        record.health.is_some() || record.disable.is_some()
    }

    /// Takes one record, in order.
    pub(super) fn take(&mut self, record: &Record) {
        let Some((row, condition)) = self.by_endpoint.get_mut(&record.receiver) else { return };
        if row.version != record.receiver_version {
            return;
        }
        record.health.into_iter().for_each(|health| condition.learn(health));
        condition.disable = record.disable.or(condition.disable);
    }

    /// Whether a delivery that was to be held is owed to an endpoint that was changed meanwhile and
    /// has not said anything yet.
    pub(super) fn may_try_again(&self, record: &Record) -> bool {
        self.by_endpoint.get(&record.receiver).is_some_and(|(row, _)| {
            row.version != record.receiver_version && row.disabled_at.is_none()
        })
    }

    /// Notes since when endpoints fail, and disables those that have done so for too long. Lanes
    /// that have something to send are pushed to `lanes`.
    pub(super) fn write(
        self,
        core: &Core,
        transaction: &mut Transaction<'_>,
        now: Timestamp,
        lanes: &mut Vec<i64>,
    ) -> StoreResult<()> {
        let mut ledger = Ledger::default();
        for (mut row, condition) in self.by_endpoint.into_values() {
            let since = condition.failing_since(row.failing_since, now);
            if since != row.failing_since {
                receivers::note_failing(transaction, row.id, since)?;
                row.failing_since = since;
            }
            let Some(reason) = condition.reason_to_disable(since, core, now) else { continue };
            if row.disabled_at.is_none() && row.deleted_at.is_none() {
                disable(core, transaction, &mut ledger, &mut row, reason, now, lanes)?;
            }
        }
        ledger.write(transaction)
    }
}

impl Condition {
    fn learn(&mut self, health: Health) {
        self.was_well |= health == Health::Well;
        self.is_failing = health == Health::Failing;
    }

    /// Since when it fails, if it does, when it did so since `before`.
    fn failing_since(&self, before: Option<i64>, now: Timestamp) -> Option<i64> {
        let before = before.filter(|_| !self.was_well);
        if self.is_failing { before.or(Some(now.0)) } else { before }
    }

    fn reason_to_disable(
        &self,
        since: Option<i64>,
        core: &Core,
        now: Timestamp,
    ) -> Option<&'static str> {
        let failed_for = since.map(|since| now.millis_since(Timestamp(since)));
        let too_long = self.is_failing
            && failed_for.zip(core.disable_after_millis).is_some_and(|(is, most)| is >= most);
        self.disable.or(too_long.then_some(NO_SUCCESS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_counts_and_a_success_starts_anew() {
        let (well, failing) = (Health::Well, Health::Failing);
        let since = |healths: &[Health], before| {
            let mut condition = Condition::default();
            healths.iter().for_each(|health| condition.learn(*health));
            condition.failing_since(before, Timestamp(9))
        };
        assert_eq!(since(&[], Some(3)), Some(3));
        assert_eq!(since(&[failing, failing], None), Some(9));
        assert_eq!(since(&[failing], Some(3)), Some(3));
        assert_eq!(since(&[well], Some(3)), None);
        assert_eq!(since(&[failing, well], Some(3)), None);
        assert_eq!(since(&[well, failing], Some(3)), Some(9));
    }
}
