//! What a transaction has made and not written yet: events with what they owe, and live rows.
//!
//! What a node takes in the very transaction that makes it ready is neither read back nor changed: it is
//! written once, leased. Events of all its steps are written together. Whoever may miss any of that writes
//! it first. Must not know who takes what.

use std::collections::{BTreeMap, HashMap};

use super::ledger::Ledger;
use super::stored::StoredJob;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{self, DueRow, LiveDelivery, OwedRow};
use crate::store::jobs::{self, LiveJob, ReadyRow};
use crate::store::{StoreResult, Transaction};

/// What is not written yet.
#[derive(Default)]
pub(super) struct Unwritten {
    /// Events, and the deliveries that they owe.
    pub(super) ledger: Ledger,
    /// Live rows.
    pub(super) newborns: Newborns,
}

impl Unwritten {
    /// Writes the events. Their deliveries to callbacks are among the live rows afterwards.
    pub(super) fn write_events(&mut self, transaction: &mut Transaction<'_>) -> StoreResult<()> {
        self.ledger.write_but(transaction, Some(&mut self.newborns))
    }

    /// Writes everything.
    pub(super) fn write(&mut self, transaction: &mut Transaction<'_>) -> StoreResult<()> {
        self.write_events(transaction)?;
        self.newborns.write(transaction)
    }
}

/// Live rows by key: that is the order in which they are written. With each, until somebody takes it,
/// all that a claim would read of it.
#[derive(Default)]
pub(super) struct Newborns {
    jobs: BTreeMap<Key, (Option<StoredJob>, LiveJob)>,
    deliveries: BTreeMap<Key, (Option<OwedRow>, LiveDelivery)>,
}

impl Newborns {
    /// A job that was submitted.
    pub(super) fn keep_job(&mut self, job: StoredJob, row: LiveJob) {
        self.jobs.insert(row.id, (Some(job), row));
    }

    /// A delivery to a callback. What is owed to endpoints is not kept: their state may change before
    /// the claim.
    pub(super) fn keep_delivery(&mut self, owed: OwedRow, row: LiveDelivery) {
        self.deliveries.insert(row.id, (Some(owed), row));
    }

    /// Ready jobs of a queue, in no promised order.
    pub(super) fn ready(&self, queue: &str) -> Vec<ReadyRow> {
        let rows = self.jobs.values().filter(|(job, _)| job.is_some()).map(|(_, row)| row);
        let ready = rows.filter(|row| row.phase == jobs::phase::READY && row.queue == queue);
        let place = |row: &LiveJob| ReadyRow {
            id: row.id,
            priority: row.priority,
            ready_sequence: row.ready_sequence,
        };
        ready.map(place).collect()
    }

    /// Whether a job is among them.
    pub(super) fn has_job(&self, key: Key) -> bool {
        self.jobs.contains_key(&key)
    }

    /// Takes a job that is ready.
    pub(super) fn take_job(&mut self, key: Key) -> Option<StoredJob> {
        self.jobs.get_mut(&key)?.0.take()
    }

    /// Due deliveries of each lane, in no promised order.
    pub(super) fn due(&self, now: Timestamp) -> HashMap<i64, Vec<DueRow>> {
        let mut due: HashMap<i64, Vec<DueRow>> = HashMap::new();
        for (_, row) in self.deliveries.values().filter(|(owed, _)| owed.is_some()) {
            if row.phase == deliveries::phase::WAITING && row.due_at <= now.0 {
                due.entry(row.lane).or_default().push(DueRow { id: row.id, due_at: row.due_at });
            }
        }
        due
    }

    /// Whether a delivery is among them.
    pub(super) fn has_delivery(&self, key: Key) -> bool {
        self.deliveries.contains_key(&key)
    }

    /// Takes a delivery that is due.
    pub(super) fn take_delivery(&mut self, key: Key) -> Option<OwedRow> {
        self.deliveries.get_mut(&key)?.0.take()
    }

    /// Jobs that have ended: what is kept of them is not written.
    pub(super) fn drop_jobs(&mut self, gone: &[Key]) {
        gone.iter().for_each(|key| drop(self.jobs.remove(key)));
    }

    /// Changes jobs that are kept here; the other changes are left.
    pub(super) fn change_jobs(&mut self, changes: &mut Vec<jobs::LiveChange>) {
        let is_kept = |change: &mut jobs::LiveChange| self.jobs.contains_key(&change.id);
        let mine: Vec<jobs::LiveChange> = changes.extract_if(.., is_kept).collect();
        for change in mine {
            if let Some((_, row)) = self.jobs.get_mut(&change.id) {
                row.change(change);
            }
        }
    }

    /// Changes deliveries that are kept here; the other changes are left.
    pub(super) fn change_deliveries(&mut self, changes: &mut Vec<deliveries::LiveChange>) {
        changes.retain(|change| match self.deliveries.get_mut(&change.id) {
            Some((_, row)) => {
                row.change(change);
                false
            }
            None => true,
        });
    }

    /// Writes all that is kept.
    pub(super) fn write(&mut self, transaction: &mut Transaction<'_>) -> StoreResult<()> {
        let (jobs, deliveries) =
            (std::mem::take(&mut self.jobs), std::mem::take(&mut self.deliveries));
        jobs::insert_live(transaction, jobs.values().map(|(_, row)| row))?;
        deliveries::insert_live(transaction, deliveries.into_values().map(|(_, row)| row))
    }
}
