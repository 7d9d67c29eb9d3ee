//! What one transaction writes, gathered first and written table by table.
//!
//! An event enters here together with the deliveries it owes, so there is no way to append one
//! without the other.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::core::Core;
use super::receivers::Receiver;
use crate::formats::EventView;
use crate::ids::{Key, SubjectKind, Timestamp, new_id};
use crate::lifecycle::EventType;
use crate::store::deliveries::NewDelivery;
use crate::store::events::{NewBody, NewEvent};
use crate::store::{StoreResult, Transaction, deliveries, events};

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
    pub(super) at: Timestamp,
    /// JSON of the event's own data.
    pub(super) data: String,
    /// Who may be owed it.
    pub(super) receiver: Option<&'a Arc<Receiver>>,
    pub(super) request_id: &'a str,
}

/// Why a delivery ended whose receiver wants nothing more.
pub const RECEIVER_GONE: &str = "receiver_gone";

/// The gathered rows.
#[derive(Default)]
pub(super) struct Ledger {
    events: Vec<NewEvent>,
    bodies: Vec<NewBody>,
    deliveries: Vec<NewDelivery>,
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
        let mut wanting: Vec<&Arc<Receiver>> = Vec::new();
        if let Some(receiver) = occurrence.receiver
            && receiver.wants(occurrence.event_type)
            && !has_declined(transaction, &occurrence, receiver)?
        {
            wanting.push(receiver);
        }
        if !wanting.is_empty() {
            self.owe(transaction, core, &occurrence, &wanting, &view(), lanes)?;
        }
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
        Ok(())
    }

    fn owe(
        &mut self,
        transaction: &mut Transaction<'_>,
        core: &Core,
        occurrence: &Occurrence<'_>,
        wanting: &[&Arc<Receiver>],
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
        let mut rendered: Vec<&'static str> = Vec::new();
        for receiver in wanting {
            let format = &receiver.format;
            if !rendered.contains(&format.name()) {
                rendered.push(format.name());
                self.bodies.push(NewBody {
                    subject_id: occurrence.subject,
                    sequence: occurrence.sequence,
                    format: format.name(),
                    body: format.body(&event, &core.public_url),
                });
            }
            let wait = format.schedule().delay_before(1).unwrap_or_default();
            self.deliveries.push(NewDelivery {
                id: transaction.key()?,
                public_id: new_id(),
                application_id: occurrence.application,
                receiver_id: receiver.key,
                subject_id: occurrence.subject,
                sequence: occurrence.sequence,
                event_id: occurrence.event_id,
                event_type: occurrence.event_type.as_str(),
                lane: receiver.lane,
                request_id: occurrence.request_id.to_owned(),
                created_at: occurrence.at.0,
                due_at: occurrence.at.plus(wait).0,
            });
            if !lanes.contains(&receiver.lane) {
                lanes.push(receiver.lane);
            }
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub(super) fn write(&mut self, transaction: &mut Transaction<'_>) -> StoreResult<()> {
        events::append(transaction, &self.events)?;
        events::insert_bodies(transaction, &self.bodies)?;
        deliveries::insert(transaction, &self.deliveries)?;
        *self = Ledger::default();
        Ok(())
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
    deliveries::is_unwanted(transaction, occurrence.subject, receiver.key, RECEIVER_GONE)
}
