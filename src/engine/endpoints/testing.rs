//! Deliveries that somebody asks for to see whether an endpoint receives: a ping, or an example of
//! an event. They go the way of every delivery, and stand outside the order.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{own, view};
use crate::engine::Engine;
use crate::engine::callers::Caller;
use crate::engine::core::Core;
use crate::engine::error::{EngineError, EngineResult};
use crate::engine::ledger::{Ledger, Occurrence, Test};
use crate::engine::operation::subject;
use crate::engine::receivers::Receiver;
use crate::engine::stored::read_id;
use crate::formats::examples;
use crate::ids::{Key, SubjectKind, Timestamp, new_id};
use crate::lifecycle::EventType;
use crate::store::deliveries::manner;
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreResult, Transaction, lanes, receivers};

const JOB_TYPE_PREFIX: &str = "urn:job:";

/// A delivery that was asked for with an example.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Triggered {
    /// The delivery.
    pub id: Uuid,
    /// To whom.
    pub endpoint_id: Uuid,
}

impl Engine {
    /// Owes the caller's endpoint a test, also while it is disabled; the delivery's id.
    pub async fn ping_endpoint(
        &self,
        caller: &Caller,
        id: Uuid,
        request_id: &str,
    ) -> EngineResult<Uuid> {
        let application = caller.application;
        let known = self.endpoint_row(caller, id).await?;
        let request_id = request_id.to_owned();
        let keys = vec![subject("endpoint", known.id)];
        let delivery = self
            .custom(keys, move |transaction, core, now| {
                let row = own(transaction, application, id)?;
                lanes::probe(transaction, row.lane, now.0)?;
                let mut ledger = Ledger::default();
                let test = Test { manner: manner::PING, example: None };
                let delivery =
                    announce(core, transaction, &mut ledger, row, test, &request_id, now)?;
                ledger.write(transaction)?;
                Ok(delivery)
            })
            .await?;
        self.bells.ring_lanes(&[known.lane]);
        Ok(delivery)
    }

    /// The documented example of an event: the type of the job that it is about, if it is about one,
    /// and its body. `job_type` may go without `urn:job:`; without a type it is the first one.
    pub fn example(
        &self,
        event: EventType,
        job_type: Option<&str>,
    ) -> EngineResult<(Option<String>, &'static str)> {
        let wanted = job_type.map(|name| {
            let short = name.strip_prefix(JOB_TYPE_PREFIX).unwrap_or(name);
            format!("{JOB_TYPE_PREFIX}{short}")
        });
        let found = examples::find(event.as_str(), wanted.as_deref());
        let found = found.ok_or_else(|| no_example(event, job_type.unwrap_or_default()))?;
        Ok((found.job_type.map(str::to_owned), found.body))
    }

    /// Owes every enabled endpoint of the caller that wants such an event the example `body`, with
    /// an id and a time of its own.
    pub async fn trigger(
        &self,
        caller: &Caller,
        event_type: EventType,
        job_type: Option<String>,
        body: &'static str,
        request_id: &str,
    ) -> EngineResult<Vec<Triggered>> {
        let (application, request_id) = (caller.application, request_id.to_owned());
        let keys = vec![subject("endpoints", application)];
        let (triggered, lanes) = self
            .custom(keys, move |transaction, core, now| {
                let endpoints = core.endpoints(transaction, application)?;
                let wanting: Vec<Key> = endpoints
                    .iter()
                    .filter(|endpoint| !endpoint.is_disabled)
                    .filter(|endpoint| endpoint.wants(event_type, job_type.as_deref()))
                    .map(|endpoint| endpoint.key)
                    .collect();
                let mut ledger = Ledger::default();
                let mut triggered = Vec::with_capacity(wanting.len());
                let mut lanes = Vec::with_capacity(wanting.len());
                for row in receivers::hold(transaction, &wanting)? {
                    let endpoint_id = read_id(&row.public_id)?;
                    lanes.push(row.lane);
                    let example = Some((event_type, body));
                    let test = Test { manner: manner::TRIGGER, example };
                    let id = announce(core, transaction, &mut ledger, row, test, &request_id, now)?;
                    triggered.push(Triggered { id, endpoint_id });
                }
                ledger.write(transaction)?;
                Ok((triggered, lanes))
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(triggered)
    }
}

fn no_example(event: EventType, job_type: &str) -> EngineError {
    let of_event = examples::all().iter().filter(|one| one.event == event.as_str());
    let types: Vec<&str> = of_event.filter_map(|one| one.job_type).collect();
    let allowed = if types.is_empty() { "no type".to_owned() } else { types.join(", ") };
    let event = event.as_str();
    EngineError::Invalid(format!(
        "type {job_type:?} has no example of {event}; allowed with it: {allowed}"
    ))
}

/// Appends `endpoint.pinged` with its one delivery; the delivery's id.
fn announce(
    core: &Core,
    transaction: &mut Transaction<'_>,
    ledger: &mut Ledger,
    mut row: ReceiverRow,
    test: Test,
    request_id: &str,
    now: Timestamp,
) -> StoreResult<Uuid> {
    row.last_sequence += 1;
    receivers::update_endpoint(transaction, &row)?;
    let shown = view::json(&row)?;
    let data = json!({ "event": test.example.map(|(event_type, _)| event_type) });
    let occurrence = Occurrence {
        subject: row.id,
        kind: SubjectKind::Endpoint,
        subject_id: read_id(&row.public_id)?,
        application: row.application_id,
        sequence: row.last_sequence,
        event_id: new_id(),
        event_type: EventType::EndpointPinged,
        job_type: None,
        at: now,
        data: data.to_string(),
        receiver: None,
        request_id,
    };
    let endpoint = Arc::new(Receiver::open(row, &core.sealer, &core.formats)?);
    ledger.test(transaction, core, occurrence, &endpoint, test, &shown)
}
