//! What a transaction makes ready is taken by this node in the same transaction, if it has room: from
//! a submission to its webhook there are two commits fewer to wait for.
//!
//! Whoever takes work is asked before the transaction looks for it, and told after its commit. Must not
//! know what is done with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::claim::claim;
use super::claim_deliveries::claim_deliveries;
use super::core::Core;
use super::operation::{
    Claim, ClaimDeliveries, Claimed, ClaimedBatch, LaneWish, Outcome, Submitted,
};
use super::unwritten::Unwritten;
use crate::ids::{Key, Timestamp};
use crate::store::{StoreResult, Transaction};

/// Jobs that somebody has room for: the queues with the room for each, and for all together.
pub type JobWish = (Vec<(String, usize)>, usize);

/// Works on jobs.
pub trait TakesJobs: Send + Sync {
    /// What it has room for of these queues; that room is kept until it is told what came of it.
    fn wish(&self, queues: &BTreeSet<String>) -> Option<JobWish>;

    /// What was taken; nothing when the transaction was undone.
    fn take(self: Arc<Self>, wish: JobWish, batch: Option<ClaimedBatch>);
}

/// Sends deliveries.
pub trait TakesDeliveries: Send + Sync {
    /// What it has room for on these lanes; that room is kept until it is told what came of it.
    fn wish(&self, lanes: &BTreeSet<i64>) -> Vec<LaneWish>;

    /// What was taken; nothing when the transaction was undone.
    fn take(self: Arc<Self>, wishes: Vec<LaneWish>, claimed: Option<Claimed>);
}

/// Who takes work on this node.
#[derive(Default)]
pub(super) struct Takers {
    node: RwLock<(Key, String)>,
    jobs: RwLock<Option<Weak<dyn TakesJobs>>>,
    deliveries: RwLock<Option<Weak<dyn TakesDeliveries>>>,
}

fn taker<T: ?Sized>(place: &RwLock<Option<Weak<T>>>) -> Option<Arc<T>> {
    place.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
}

impl Takers {
    pub(super) fn set_node(&self, node: Key, name: &str) {
        *self.node.write().unwrap_or_else(PoisonError::into_inner) = (node, name.to_owned());
    }

    pub(super) fn set_jobs(&self, taker: Weak<dyn TakesJobs>) {
        *self.jobs.write().unwrap_or_else(PoisonError::into_inner) = Some(taker);
    }

    pub(super) fn set_deliveries(&self, taker: Weak<dyn TakesDeliveries>) {
        *self.deliveries.write().unwrap_or_else(PoisonError::into_inner) = Some(taker);
    }

    fn node(&self) -> (Key, String) {
        self.node.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one transaction has taken. Dropped before it is handed over it gives all the room back.
#[derive(Default)]
pub struct Taken {
    jobs: Option<Asked<dyn TakesJobs, JobWish, ClaimedBatch>>,
    deliveries: Option<Asked<dyn TakesDeliveries, Vec<LaneWish>, Claimed>>,
}

/// Somebody who keeps room for what they wished for.
struct Asked<T: ?Sized, W, F> {
    taker: Arc<T>,
    wish: W,
    found: Option<F>,
}

impl Taken {
    /// Takes what the transaction has made ready; whoever takes it need not be rung for.
    pub(super) fn of(
        core: &Core,
        transaction: &mut Transaction<'_>,
        outcomes: &mut [Option<Outcome>],
        now: Timestamp,
        unwritten: &mut Unwritten,
    ) -> StoreResult<Taken> {
        let mut taken = Taken::default();
        if !transaction.may_carry() {
            return Ok(taken);
        }
        let (queues, mut lanes) = ready(outcomes);
        if let Some(taker) = taker(&core.takers.jobs).filter(|_| !queues.is_empty())
            && let Some(wish) = taker.wish(&queues)
        {
            transaction.carry();
            let (node, node_name) = core.takers.node();
            let asked = Claim { node, node_name, queues: wish.0.clone(), limit: wish.1 };
            // Kept before it is run, so that a failure gives the room back.
            let jobs = taken.jobs.insert(Asked { taker, wish, found: None });
            let claimed = claim(core, transaction, &asked, now, unwritten)?;
            lanes.extend(claimed.lanes.iter().copied());
            forget_queues(outcomes, &emptied(&jobs.wish, &claimed));
            jobs.found = Some(claimed);
        }
        if let Some(taker) = taker(&core.takers.deliveries).filter(|_| !lanes.is_empty()) {
            let wish = taker.wish(&lanes);
            if !wish.is_empty() {
                transaction.carry();
                let asked = ClaimDeliveries { node: core.takers.node().0, lanes: wish.clone() };
                let deliveries = taken.deliveries.insert(Asked { taker, wish, found: None });
                unwritten.write_events(transaction)?;
                let newborns = &mut unwritten.newborns;
                let claimed = claim_deliveries(core, transaction, &asked, now, newborns)?;
                let emptied = emptied_lanes(&deliveries.wish, &claimed);
                deliveries.found = Some(claimed);
                forget_lanes(outcomes, &emptied);
                if let Some(Asked { found: Some(batch), .. }) = &mut taken.jobs {
                    batch.lanes.retain(|lane| !emptied.contains(lane));
                }
            }
        }
        Ok(taken)
    }

    /// Tells whoever took it, after the commit.
    pub(super) fn hand_over(mut self) {
        self.tell(true);
    }

    fn tell(&mut self, lasts: bool) {
        if let Some(Asked { taker, wish, found }) = self.jobs.take() {
            taker.take(wish, found.filter(|_| lasts));
        }
        if let Some(Asked { taker, wish, found }) = self.deliveries.take() {
            taker.take(wish, found.filter(|_| lasts));
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// Queues and lanes that somebody would be told of.
fn ready(outcomes: &[Option<Outcome>]) -> (BTreeSet<String>, BTreeSet<i64>) {
    let (mut queues, mut lanes) = (BTreeSet::new(), BTreeSet::new());
    for outcome in outcomes.iter().flatten() {
        match outcome {
            Outcome::Submit(Ok(Submitted::New { queues: more, lanes: due })) => {
                queues.extend(more.iter().cloned());
                lanes.extend(due);
            }
            Outcome::Apply(result) => {
                lanes.extend(result.as_ref().as_ref().map_or(&[][..], |applied| &applied.lanes));
            }
            Outcome::Record(recorded) => lanes.extend(&recorded.lanes),
            Outcome::Claim(batch) => lanes.extend(&batch.lanes),
            _ => {}
        }
    }
    (queues, lanes)
}

/// Asked queues in which nothing is left.
fn emptied(wish: &JobWish, batch: &ClaimedBatch) -> BTreeSet<String> {
    let (queues, limit) = wish;
    if batch.more || batch.is_partial || batch.jobs.len() >= *limit {
        return BTreeSet::new();
    }
    let mut given: HashMap<&str, usize> = HashMap::new();
    for claimed in &batch.jobs {
        *given.entry(claimed.job.submission.queue.as_str()).or_default() += 1;
    }
    let is_empty =
        |(queue, room): &&(String, usize)| given.get(queue.as_str()).copied().unwrap_or(0) < *room;
    queues.iter().filter(is_empty).map(|(queue, _)| queue.clone()).collect()
}

/// Asked lanes on which nothing is left that is due.
fn emptied_lanes(wishes: &[LaneWish], claimed: &Claimed) -> BTreeSet<i64> {
    let given = |lane: i64| claimed.owed.iter().filter(|owed| owed.lane == lane).count();
    let may_have_more =
        |lane: i64| claimed.unfinished.contains(&lane) || claimed.partial.contains(&lane);
    let is_empty = |wish: &&LaneWish| given(wish.lane) < wish.room && !may_have_more(wish.lane);
    wishes.iter().filter(is_empty).map(|wish| wish.lane).collect()
}

fn forget_queues(outcomes: &mut [Option<Outcome>], emptied: &BTreeSet<String>) {
    for outcome in outcomes.iter_mut().flatten() {
        if let Outcome::Submit(Ok(Submitted::New { queues, .. })) = outcome {
            queues.retain(|queue| !emptied.contains(queue));
        }
    }
}

fn forget_lanes(outcomes: &mut [Option<Outcome>], emptied: &BTreeSet<i64>) {
    for outcome in outcomes.iter_mut().flatten() {
        match outcome {
            Outcome::Submit(Ok(Submitted::New { lanes, .. })) => {
                lanes.retain(|lane| !emptied.contains(lane));
            }
            Outcome::Apply(result) => {
                if let Ok(applied) = result.as_mut() {
                    applied.lanes.retain(|lane| !emptied.contains(lane));
                }
            }
            Outcome::Record(recorded) => recorded.lanes.retain(|lane| !emptied.contains(lane)),
            Outcome::Claim(batch) => batch.lanes.retain(|lane| !emptied.contains(lane)),
            _ => {}
        }
    }
}
