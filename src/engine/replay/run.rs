//! One page of one replay: what comes next is owed, as far as there is room for it.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::{ReplayOrder, ReplayProgress, ReplayStep, SKEW_MILLIS, is_owed_again, known, page};
use crate::engine::core::Core;
use crate::engine::endpoints;
use crate::engine::receivers::{RateLimit, Receiver};
use crate::engine::stored::{StoredJob, json_null, read_id, read_json, state_at};
use crate::engine::view;
use crate::formats::EventView;
use crate::ids::{Key, Timestamp, new_id};
use crate::store::deliveries::{NewDelivery, manner, phase};
use crate::store::events::{FeedRow, NewBody};
use crate::store::{
    Connection, StoreError, StoreResult, Transaction, checkpoints, deliveries, events, feed,
    groups, jobs, receivers,
};

/// Deliveries of replays that an endpoint is owed and that nobody has tried yet, at most …
const WINDOW: i64 = 200;
/// … and at a limited rate, what comes in so many seconds: a replay that is stopped stops soon.
const WINDOW_SECONDS: f64 = 2.0;
/// One page of one replay.
pub(super) struct Run<'a> {
    pub(super) core: &'a Core,
    pub(super) job: Key,
    /// The job that this one goes on with.
    pub(super) retry_of: Option<Uuid>,
    pub(super) application: Key,
    pub(super) request_id: &'a str,
    pub(super) now: Timestamp,
}

impl Run<'_> {
    pub(super) fn page(
        &self,
        transaction: &mut Transaction<'_>,
        order: &ReplayOrder,
    ) -> StoreResult<(ReplayStep, ReplayProgress, Option<i64>)> {
        let mut progress = self.progress(transaction, order)?;
        let row = receivers::endpoint(transaction, order.endpoint_id)?;
        let Some(row) = row.filter(|row| row.application_id == self.application) else {
            return Ok((ReplayStep::Gone, progress, None));
        };
        if row.disabled_at.is_some() {
            return Ok((ReplayStep::Disabled, progress, None));
        }
        let endpoint = Receiver::open(row, &self.core.sealer, &self.core.formats)?;
        if !deliveries::hold_replays(transaction, endpoint.key)? {
            return Ok((ReplayStep::Wait, progress, None));
        }
        let window = window(endpoint.rate_limit.or(self.core.lane_rate));
        let room = window - deliveries::replayed(transaction, endpoint.key, window)?;
        if room <= 0 {
            return Ok((ReplayStep::Wait, progress, None));
        }
        let room = usize::try_from(room).unwrap_or(1);
        let before = progress;
        let page = page(transaction, &endpoint, order, progress.position, progress.end, room)?;
        progress.position = page.next;
        let (mut ended, mut new) = (Vec::new(), Vec::new());
        // What it tells of itself is new, whatever the clock says.
        for (spot, event) in page.wanted.into_iter().filter(|(spot, _)| spot.subject != self.job) {
            match known(transaction, &endpoint, &spot)? {
                route if !is_owed_again(route.as_ref(), order) => progress.skipped += 1,
                Some(route) => ended.push(route.id),
                None => new.push(event),
            }
        }
        let Some(new) = kept(transaction, new)? else {
            // As it was before this page, which is done again.
            return Ok((ReplayStep::Wait, before, None));
        };
        let revived = self.revive(transaction, &ended, order)?;
        progress.owed += revived + self.owe(transaction, &endpoint, &new)?;
        progress.skipped += count(ended.len()) - revived;
        self.save(transaction, &progress)?;
        let step =
            if progress.position >= progress.end { ReplayStep::Done } else { ReplayStep::More };
        Ok((step, progress, Some(endpoint.lane)))
    }

    fn progress(
        &self,
        transaction: &mut Transaction<'_>,
        order: &ReplayOrder,
    ) -> StoreResult<ReplayProgress> {
        if let Some(text) = checkpoints::hold(transaction, self.job)? {
            return read_json("a checkpoint", &text);
        }
        if let Some(progress) = self.left_by_the_first(transaction)? {
            self.save(transaction, &progress)?;
            return Ok(progress);
        }
        let since = order.since.plus_millis(-SKEW_MILLIS);
        let start = feed::before_time(transaction, self.application, since.0)?;
        // What happens from now on reaches the endpoint anyway.
        let end = feed::head(transaction, self.application)?.max(start);
        let progress = ReplayProgress { start, end, position: start, owed: 0, skipped: 0 };
        self.save(transaction, &progress)?;
        Ok(progress)
    }

    /// How far the replay came that this one retries.
    fn left_by_the_first(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> StoreResult<Option<ReplayProgress>> {
        let Some(id) = self.retry_of else { return Ok(None) };
        let first = jobs::find(transaction, id)?;
        let Some(first) = first.filter(|row| row.application_id == self.application) else {
            return Ok(None);
        };
        let text = checkpoints::hold(transaction, first.state.id)?;
        text.map(|text| read_json("a checkpoint", &text)).transpose()
    }

    fn save(
        &self,
        transaction: &mut Transaction<'_>,
        progress: &ReplayProgress,
    ) -> StoreResult<()> {
        let text = serde_json::to_string(progress)
            .map_err(|error| StoreError::Corrupt(format!("a checkpoint: {error}")))?;
        checkpoints::put(transaction, self.job, &text)
    }

    /// Owes ended deliveries again, but for those that somebody else has owed again meanwhile; how
    /// many.
    fn revive(
        &self,
        transaction: &mut Transaction<'_>,
        ended: &[Key],
        order: &ReplayOrder,
    ) -> StoreResult<i64> {
        let mut revived = 0;
        for route in deliveries::hold_lasting(transaction, ended)? {
            if is_owed_again(Some(&route), order) {
                deliveries::revive(transaction, &route, manner::REPLAY, self.now.0)?;
                revived += 1;
            }
        }
        Ok(revived)
    }

    /// Owes events that the endpoint was never owed: it may be younger than they are. How many;
    /// what has been purged is not among them.
    fn owe(
        &self,
        transaction: &mut Transaction<'_>,
        endpoint: &Receiver,
        new: &[FeedRow],
    ) -> StoreResult<i64> {
        let format = endpoint.format.name();
        let (mut bodies, mut owed) = (Vec::new(), Vec::with_capacity(new.len()));
        for event in new {
            if !events::has_body(transaction, event.subject_id, event.sequence, format)? {
                let Some(body) = self.render(transaction, endpoint, event)? else { continue };
                bodies.push(body);
            }
            owed.push(self.delivery(transaction.key()?, endpoint, event)?);
        }
        events::add_bodies(transaction, &bodies)?;
        deliveries::insert(transaction, &owed)?;
        Ok(count(owed.len()))
    }

    fn render(
        &self,
        connection: &mut Connection,
        endpoint: &Receiver,
        event: &FeedRow,
    ) -> StoreResult<Option<NewBody>> {
        let Some(data) = as_of(self.core, connection, event)? else { return Ok(None) };
        let timestamp = Timestamp(event.at).to_string();
        let view = EventView {
            id: read_id(&event.public_id)?,
            event_type: &event.event_type,
            timestamp: &timestamp,
            sequence: event.sequence,
            subject_type: &event.subject_kind,
            subject_id: subject_id(event)?,
            data: &data,
        };
        Ok(Some(NewBody {
            subject_id: event.subject_id,
            sequence: event.sequence,
            format: endpoint.format.name(),
            body: endpoint.format.body(&view, &self.core.public_url),
        }))
    }

    fn delivery(&self, key: Key, endpoint: &Receiver, event: &FeedRow) -> StoreResult<NewDelivery> {
        Ok(NewDelivery {
            id: key,
            public_id: new_id(),
            application_id: self.application,
            receiver_id: endpoint.key,
            is_endpoint: true,
            subject_id: event.subject_id,
            sequence: event.sequence,
            event_id: read_id(&event.public_id)?,
            event_type: event.event_type.clone(),
            manner: manner::REPLAY,
            phase: phase::WAITING,
            place: None,
            lane: endpoint.lane,
            request_id: self.request_id.to_owned(),
            // Whoever asks for it knows of every discard.
            created_at: self.now.max(endpoint.discard_before).0,
            due_at: self.now.0,
        })
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// How much an endpoint of that rate may be owed ahead.
pub(super) fn window(rate_limit: Option<RateLimit>) -> i64 {
    match rate_limit {
        Some(rate) => ((rate.per_second * WINDOW_SECONDS) as i64).clamp(1, WINDOW),
        None => WINDOW,
    }
}

/// Those events whose subjects are there and stay until the end of the transaction; nothing while
/// retention is deciding on one of them. Nobody waits for it: it may be waiting for whatever else
/// this transaction holds.
fn kept(
    transaction: &mut Transaction<'_>,
    mut new: Vec<FeedRow>,
) -> StoreResult<Option<Vec<FeedRow>>> {
    let mut subjects: Vec<Key> = new.iter().map(|event| event.subject_id).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let kept = events::keep(transaction, &subjects)?;
    subjects.retain(|subject| !kept.contains(subject));
    if !events::present(transaction, &subjects)?.is_empty() {
        return Ok(None);
    }
    new.retain(|event| kept.contains(&event.subject_id));
    Ok(Some(new))
}

fn subject_id(event: &FeedRow) -> StoreResult<Uuid> {
    read_id(event.subject_public_id.as_deref().unwrap_or_default())
}

/// The subject as it was at an event; nothing when it has been purged since.
fn as_of(
    core: &Core,
    connection: &mut Connection,
    event: &FeedRow,
) -> StoreResult<Option<Box<RawValue>>> {
    let key = event.subject_id;
    Ok(match event.subject_kind.as_str() {
        "job" => {
            let row = jobs::read(connection, &[key])?.into_iter().next();
            let Some(row) = row else { return Ok(None) };
            let mut job = StoredJob::read(row)?;
            // Nobody holds the job, so its events may go between two looks.
            let Some(state) = state_at(connection, &job, event.sequence)? else { return Ok(None) };
            job.state = state;
            Some(view::job(&job))
        }
        "group" => match groups::read(connection, &[key])?.first() {
            Some(row) => {
                let receivers = core.receivers(connection, row.receiver_id)?;
                let receiver = row.receiver_id.and_then(|key| receivers.get(&key));
                Some(view::group(row, receiver.map(|receiver| &*receiver.shown))?)
            }
            None => None,
        },
        "endpoint" => match receivers::load(connection, &[key])?.first() {
            Some(row) => Some(endpoints::as_of(row, event)?),
            None => None,
        },
        _ => Some(RawValue::from_string(event.data.clone()).unwrap_or_else(|_| json_null())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_what_two_seconds_bring() {
        assert_eq!(window(None), 200);
        for (per_second, most) in [(0.001, 1), (0.7, 1), (1.0, 2), (25.5, 51), (10_000.0, 200)] {
            assert_eq!(window(Some(RateLimit::new(per_second, None))), most, "{per_second}");
        }
    }
}
