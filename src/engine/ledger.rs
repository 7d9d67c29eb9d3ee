//! What one transaction writes, gathered first and written table by table.
//!
//! An event enters here together with the deliveries it owes and its entry in the feed, so there is
//! no way to append one without the others.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::core::Core;
use super::receivers::{Ordering, Receiver};
use super::unwritten::Newborns;
use crate::formats::{EventView, examples};
use crate::ids::{Key, SubjectKind, Timestamp, new_id};
use crate::lifecycle::EventType;
use crate::store::deliveries::{NewDelivery, OwedRow, Place, STRICT_TRACK, manner, phase};
use crate::store::events::{NewBody, NewEvent};
use crate::store::feed::{Member, NewChunk};
use crate::store::{StoreResult, Transaction, deliveries, events, feed};

/// An event that is about to be appended.
pub(super) struct Occurrence<'a> {
    pub(super) subject: Key,
    pub(super) kind: SubjectKind,
    /// Id of the subject outside.
    pub(super) subject_id: Uuid,
    pub(super) application: Key,
    pub(super) sequence: i64,
    pub(super) event_id: Uuid,
    pub(super) event_type: EventType,
    /// Of the job it is about, if it is about one.
    pub(super) job_type: Option<&'a str>,
    pub(super) at: Timestamp,
    /// JSON of the event's own data.
    pub(super) data: String,
    /// The callback that may be owed it, besides the endpoints.
    pub(super) receiver: Option<&'a Arc<Receiver>>,
    pub(super) request_id: &'a str,
}

/// A delivery that somebody asked for.
pub(super) struct Test {
    /// See `store::deliveries::manner`.
    pub(super) manner: i64,
    /// What it is called and shows, if it pretends to be another event.
    pub(super) example: Option<(EventType, &'static str)>,
}

/// Sends a delivery before whatever else is due on its lane.
pub(super) const BEFORE_ALL_ELSE: i64 = 0;

/// Why a delivery ended whose receiver wants nothing more.
pub use crate::formats::judgement::RECEIVER_GONE;

/// What goes out with a delivery.
struct Enclosed {
    /// Place among the bodies.
    body: usize,
    /// The job it is about, if it is about one.
    job_id: Option<Uuid>,
}

/// The gathered rows.
#[derive(Default)]
pub(super) struct Ledger {
    events: Vec<NewEvent>,
    types: Vec<EventType>,
    bodies: Vec<NewBody>,
    deliveries: Vec<NewDelivery>,
    /// For each delivery, what a claim reads besides its row.
    enclosed: Vec<Enclosed>,
    /// Endpoints of the applications that were met.
    endpoints: HashMap<Key, Arc<[Arc<Receiver>]>>,
}

impl Ledger {
    /// Appends an event and what it owes; lanes that have something to send now are pushed to
    /// `lanes`. `view` renders the subject as it is at this event.
    pub(super) fn announce(
        &mut self,
        transaction: &mut Transaction<'_>,
        core: &Core,
        occurrence: Occurrence<'_>,
        view: impl FnOnce() -> Box<RawValue>,
        lanes: &mut Vec<i64>,
    ) -> StoreResult<()> {
        let (event_type, job_type) = (occurrence.event_type, occurrence.job_type);
        let mut wanting: Vec<&Arc<Receiver>> = Vec::new();
        if let Some(receiver) = occurrence.receiver
            && receiver.wants(event_type, job_type)
            && !has_declined(transaction, &occurrence, receiver)?
        {
            wanting.push(receiver);
        }
        let endpoints = self.endpoints(transaction, core, occurrence.application)?;
        // That it gets nothing any more is of no use to the one it is about.
        let is_about = |endpoint: &Arc<Receiver>| {
            event_type == EventType::EndpointDisabled && endpoint.key == occurrence.subject
        };
        wanting.extend(
            endpoints
                .iter()
                .filter(|endpoint| endpoint.wants(event_type, job_type) && !is_about(endpoint)),
        );
        if !wanting.is_empty() {
            self.owe(transaction, core, &occurrence, &wanting, manner::EVENT, &view(), lanes)?;
        }
        self.push(occurrence);
        Ok(())
    }

    /// Appends an event that goes to one endpoint alone, whatever that wants; the delivery's id.
    pub(super) fn test(
        &mut self,
        transaction: &mut Transaction<'_>,
        core: &Core,
        occurrence: Occurrence<'_>,
        endpoint: &Arc<Receiver>,
        test: Test,
        view: &RawValue,
    ) -> StoreResult<Uuid> {
        let place = self.deliveries.len();
        let asked = test.manner;
        self.owe(transaction, core, &occurrence, &[endpoint], asked, view, &mut Vec::new())?;
        let Some(delivery) = self.deliveries.get_mut(place) else { return Ok(Uuid::nil()) };
        let id = delivery.public_id;
        if asked == manner::PING {
            // Somebody waits for its answer.
            delivery.due_at = BEFORE_ALL_ELSE;
        }
        if let (Some((event_type, example)), Some(body)) = (test.example, self.bodies.last_mut()) {
            event_type.as_str().clone_into(&mut delivery.event_type);
            body.body = examples::fresh(example, occurrence.event_id, &occurrence.at.to_string());
        }
        self.push(occurrence);
        Ok(id)
    }

    /// Deliveries that were gathered so far.
    pub(super) fn owed(&self) -> usize {
        self.deliveries.len()
    }

    /// Endpoints of an application have changed in this very transaction.
    pub(super) fn forget_endpoints(&mut self, application: Key) {
        self.endpoints.remove(&application);
    }

    fn push(&mut self, occurrence: Occurrence<'_>) {
        self.types.push(occurrence.event_type);
        self.events.push(NewEvent {
            subject_id: occurrence.subject,
            sequence: occurrence.sequence,
            public_id: occurrence.event_id,
            subject_kind: occurrence.kind.as_str(),
            application_id: occurrence.application,
            event_type: occurrence.event_type.as_str(),
            at: occurrence.at.0,
            data: occurrence.data,
        });
    }

    fn endpoints(
        &mut self,
        transaction: &mut Transaction<'_>,
        core: &Core,
        application: Key,
    ) -> StoreResult<Arc<[Arc<Receiver>]>> {
        if let Some(known) = self.endpoints.get(&application) {
            return Ok(Arc::clone(known));
        }
        let endpoints = core.endpoints(transaction, application)?;
        self.endpoints.insert(application, Arc::clone(&endpoints));
        Ok(endpoints)
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all of it meets")]
    fn owe(
        &mut self,
        transaction: &mut Transaction<'_>,
        core: &Core,
        occurrence: &Occurrence<'_>,
        wanting: &[&Arc<Receiver>],
        manner: i64,
        data: &RawValue,
        lanes: &mut Vec<i64>,
    ) -> StoreResult<()> {
        let timestamp = occurrence.at.to_string();
        let event = EventView {
            id: occurrence.event_id,
            event_type: occurrence.event_type.as_str(),
            timestamp: &timestamp,
            sequence: occurrence.sequence,
            subject_type: occurrence.kind.as_str(),
            subject_id: occurrence.subject_id,
            data,
        };
        let rendered = self.bodies.len();
        let job_id = (occurrence.kind == SubjectKind::Job).then_some(occurrence.subject_id);
        for receiver in wanting {
            let format = &receiver.format;
            let known =
                self.bodies.iter().skip(rendered).position(|body| body.format == format.name());
            let body = known.map_or(self.bodies.len(), |place| rendered + place);
            if known.is_none() {
                self.bodies.push(NewBody {
                    subject_id: occurrence.subject,
                    sequence: occurrence.sequence,
                    format: format.name(),
                    body: format.body(&event, &core.public_url),
                });
            }
            let delivery = new_delivery(transaction.key()?, occurrence, receiver, manner);
            if delivery.phase != phase::HELD && !lanes.contains(&receiver.lane) {
                lanes.push(receiver.lane);
            }
            self.deliveries.push(delivery);
            self.enclosed.push(Enclosed { body, job_id });
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub(super) fn write(&mut self, transaction: &mut Transaction<'_>) -> StoreResult<()> {
        self.write_but(transaction, None)
    }

    /// Writes what was gathered but the live rows of deliveries to callbacks, which the newborns hold
    /// afterwards, if there are any.
    pub(super) fn write_but(
        &mut self,
        transaction: &mut Transaction<'_>,
        mut newborns: Option<&mut Newborns>,
    ) -> StoreResult<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        self.enter_feed(transaction)?;
        events::append(transaction, &self.events)?;
        events::insert_bodies(transaction, &self.bodies)?;
        deliveries::insert_lasting(transaction, &self.deliveries)?;
        let mut live = Vec::new();
        for (delivery, enclosed) in self.deliveries.iter().zip(&self.enclosed) {
            // An event has one callback at most, so that no other delivery needs this body.
            let body = self.bodies.get_mut(enclosed.body).filter(|_| !delivery.is_endpoint);
            match (&mut newborns, body) {
                (Some(newborns), Some(body)) => {
                    let body = std::mem::take(&mut body.body);
                    newborns.keep_delivery(owed(delivery, body, enclosed), delivery.live());
                }
                _ => live.push(delivery.live()),
            }
        }
        deliveries::insert_live(transaction, live)?;
        transaction.note_events();
        *self = Ledger::default();
        Ok(())
    }

    /// One chunk an application. Where places are known at once, deliveries to strict endpoints get
    /// theirs here; elsewhere from the relay.
    fn enter_feed(&mut self, transaction: &mut Transaction<'_>) -> StoreResult<()> {
        let mut applications: Vec<Key> = Vec::new();
        for event in &self.events {
            if !applications.contains(&event.application_id) {
                applications.push(event.application_id);
            }
        }
        for application in applications {
            let mine = self.events.iter().zip(&self.types);
            let mine = mine.filter(|(event, _)| event.application_id == application);
            let created_at = mine.clone().next().map_or(0, |(event, _)| event.at);
            let members: Vec<Member> = mine
                .map(|(event, event_type)| Member {
                    subject: event.subject_id,
                    sequence: event.sequence,
                    event_type: Some(*event_type),
                })
                .collect();
            let waits = |delivery: &&mut NewDelivery| {
                delivery.application_id == application
                    && delivery.place.is_some_and(|place| place.rank.is_none())
            };
            let mut waiting: Vec<&mut NewDelivery> =
                self.deliveries.iter_mut().filter(waits).collect();
            let chunk = NewChunk {
                id: transaction.key()?,
                application,
                created_at,
                members,
                awaited: !waiting.is_empty(),
            };
            let Some(first) = feed::append(transaction, &chunk)? else { continue };
            if waiting.is_empty() {
                continue;
            }
            let places: HashMap<(Key, i64), i64> = chunk
                .members
                .iter()
                .zip(first..)
                .map(|(member, position)| ((member.subject, member.sequence), position))
                .collect();
            for delivery in &mut waiting {
                let rank = places.get(&(delivery.subject_id, delivery.sequence)).copied();
                delivery.place = delivery.place.map(|place| Place { rank, ..place });
            }
        }
        Ok(())
    }
}

/// A delivery to a callback as a claim would read it.
fn owed(delivery: &NewDelivery, body: String, enclosed: &Enclosed) -> OwedRow {
    OwedRow {
        id: delivery.id,
        public_id: delivery.public_id.as_bytes().to_vec(),
        application_id: delivery.application_id,
        receiver_id: delivery.receiver_id,
        subject_id: delivery.subject_id,
        sequence: delivery.sequence,
        event_id: delivery.event_id.as_bytes().to_vec(),
        event_type: delivery.event_type.clone(),
        request_id: delivery.request_id.clone(),
        lane: delivery.lane,
        phase: delivery.phase,
        token: 0,
        attempts: 0,
        tries: 0,
        previous_failure: None,
        manner: delivery.manner,
        owed_at: delivery.created_at,
        receiver_version: 0,
        job_id: enclosed.job_id.map(|id| id.as_bytes().to_vec()),
        body: Some(body),
    }
}

fn new_delivery(
    key: Key,
    occurrence: &Occurrence<'_>,
    receiver: &Receiver,
    manner: i64,
) -> NewDelivery {
    let place = match receiver.ordering {
        _ if manner != manner::EVENT => None,
        Ordering::None => None,
        Ordering::PerJob => {
            Some(Place { track: occurrence.subject, rank: Some(occurrence.sequence) })
        }
        Ordering::Strict => Some(Place { track: STRICT_TRACK, rank: None }),
    };
    let wait = receiver.schedule().delay_before(1).unwrap_or_default();
    NewDelivery {
        id: key,
        public_id: new_id(),
        application_id: occurrence.application,
        receiver_id: receiver.key,
        is_endpoint: receiver.is_endpoint,
        subject_id: occurrence.subject,
        sequence: occurrence.sequence,
        event_id: occurrence.event_id,
        event_type: occurrence.event_type.as_str().to_owned(),
        manner,
        phase: match place {
            _ if receiver.is_disabled && manner != manner::PING => phase::HELD,
            Some(_) => phase::FRESH,
            None => phase::WAITING,
        },
        place,
        lane: receiver.lane,
        request_id: occurrence.request_id.to_owned(),
        // Whoever knows of a discard comes after it, whatever its clock says.
        created_at: occurrence.at.max(receiver.discard_before).0,
        due_at: occurrence.at.plus(wait).0,
    }
}

/// Whether a callback has said that it wants nothing more about this subject. By default it gets
/// one event, so only those that chose their events can have said so before.
fn has_declined(
    transaction: &mut Transaction<'_>,
    occurrence: &Occurrence<'_>,
    receiver: &Receiver,
) -> StoreResult<bool> {
    if occurrence.sequence == 1 || receiver.events.is_none() {
        return Ok(false);
    }
    let about = (occurrence.subject, receiver.key);
    Ok(!deliveries::unwanted(transaction, &[about], RECEIVER_GONE)?.is_empty())
}
