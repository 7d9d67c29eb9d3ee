//! Runs a batch of operations in one transaction, kind by kind, so that each kind needs one
//! statement a table however many operations there are.

use super::apply::apply;
use super::claim::claim;
use super::claim_deliveries::claim_deliveries;
use super::core::Core;
use super::error::EngineError;
use super::health::Conditions;
use super::holding::hold;
use super::operation::{Operation, Outcome};
use super::record::record;
use super::submit::submit;
use super::takers::Taken;
use super::unwritten::Unwritten;
use crate::store::{Run, StoreError, StoreResult, Transaction};

/// What comes of a transaction besides its answers.
pub struct Besides {
    /// What this node has taken of what it made ready.
    pub(super) taken: Taken,
    /// Whether those who follow the feed want to be told.
    pub(super) has_news: bool,
}

/// One answer an operation, in their order, and what comes of it besides.
pub(super) fn execute(
    core: &Core,
    transaction: &mut Transaction<'_>,
    operations: &[&Operation],
    run: Run,
) -> StoreResult<(Vec<Outcome>, Besides)> {
    let now = core.clock.now();
    if run != Run::First {
        // What the undone transaction had found is not claimed.
        core.queues.forget_all();
        core.lanes.forget_all();
    }
    let mut outcomes: Vec<Option<Outcome>> = operations.iter().map(|_| None).collect();
    let mut submits = Vec::new();
    let mut applies = Vec::new();
    let mut records = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        match operation {
            Operation::Submit(submit) => submits.push((place, submit)),
            Operation::Apply(apply) => applies.push((place, apply)),
            Operation::Record(record) => records.push((place, &**record)),
            Operation::Claim(_) | Operation::ClaimDeliveries(_) | Operation::Custom(_) => {}
        }
    }
    let mut answer = |place: usize, outcome: Outcome| {
        if let Some(slot) = outcomes.get_mut(place) {
            *slot = Some(outcome);
        }
    };
    let mut unwritten = Unwritten::default();
    let mut held = hold(transaction, &submits, &applies)?;
    for (job, group) in submit(core, transaction, &submits, run, &mut unwritten, &mut answer)? {
        if let Some(job) = held.get_mut(&job) {
            job.group = Some(group);
        }
    }
    apply(core, transaction, &applies, held, now, &mut unwritten, &mut answer)?;
    if records.iter().any(|(_, record)| record.receiver_gone || Conditions::are_told_by(record)) {
        // What is owed to a receiver that wants nothing more, or to an endpoint that is disabled now.
        unwritten.write(transaction)?;
    }
    record(core, transaction, &records, now, &mut answer)?;
    // Claims come last, so that they find what this very batch made ready or due.
    for (place, operation) in operations.iter().enumerate() {
        match operation {
            Operation::Claim(operation) => {
                let claimed = claim(core, transaction, operation, now, &mut unwritten)?;
                answer(place, Outcome::Claim(claimed));
            }
            Operation::ClaimDeliveries(operation) => {
                unwritten.write_events(transaction)?;
                let newborns = &mut unwritten.newborns;
                let claimed = claim_deliveries(core, transaction, operation, now, newborns)?;
                answer(place, Outcome::ClaimDeliveries(claimed));
            }
            Operation::Custom(custom) => {
                unwritten.write(transaction)?;
                match (custom.run)(transaction, core, now) {
                    Err(EngineError::Store(error)) => return Err(error),
                    result => answer(place, Outcome::Custom(result)),
                }
            }
            _ => {}
        }
    }
    let taken = Taken::of(core, transaction, &mut outcomes, now, &mut unwritten)?;
    unwritten.write(transaction)?;
    let missing = || StoreError::Corrupt("an operation got no answer".to_owned());
    let outcomes: StoreResult<_> =
        outcomes.into_iter().map(|outcome| outcome.ok_or_else(missing)).collect();
    Ok((outcomes?, Besides { taken, has_news: transaction.has_events() }))
}
