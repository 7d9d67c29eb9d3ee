//! What can be said of an endpoint, and how that is written into its row.
//!
//! Stores nothing.

use uuid::Uuid;

use super::merge::{self, HeaderChanges, RateChange};
use super::{corrupt, view};
use crate::engine::Engine;
use crate::engine::callers::Caller;
use crate::engine::error::EngineResult;
use crate::engine::receivers::{
    ClientErrors, ENDPOINT, Ordering, PLACE, RateLimit, Receiver, SealedReceiver, bare_row, lane,
};
use crate::formats::Signature;
use crate::ids::{Timestamp, new_stamp};
use crate::store::receivers::ReceiverRow;

/// An address as the caller gave it, checked.
#[derive(Clone, Debug)]
pub struct Address {
    /// Normalised URL, with whatever credentials its query holds.
    pub url: String,
    /// The URL as it is shown.
    pub shown_url: String,
    /// scheme://host:port.
    pub origin: String,
}

/// What can be said of an endpoint, at its registration and later.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// For people.
    pub description: Option<String>,
    /// Patterns; `None` for the default.
    pub events: Option<Vec<String>>,
    /// Types of jobs whose events are wanted; `None` for all.
    pub types: Option<Vec<String>>,
    /// Sent with every delivery.
    pub headers: Vec<(String, String)>,
    /// Deliveries a second.
    pub rate_limit: Option<RateLimit>,
    /// Deliveries at once.
    pub max_in_flight: Option<u32>,
    /// What comes after what.
    pub ordering: Ordering,
    /// How deliveries are signed.
    pub signature: Signature,
    /// Seconds after the first try; `None` for the server's schedule.
    pub schedule: Option<Vec<u64>>,
    /// What 4xx means; `None` for what the server says.
    pub client_errors: Option<ClientErrors>,
}

impl Default for EndpointSettings {
    fn default() -> EndpointSettings {
        EndpointSettings {
            description: None,
            events: None,
            types: None,
            headers: Vec::new(),
            rate_limit: None,
            max_in_flight: None,
            ordering: Ordering::None,
            signature: Signature::Standard,
            schedule: None,
            client_errors: None,
        }
    }
}

/// An endpoint on its way in.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Where to.
    pub address: Address,
    /// What else is said of it.
    pub settings: EndpointSettings,
    /// Whether deliveries are sent from the start.
    pub enabled: bool,
}

/// What changes of an endpoint. Members that are `None` stay.
#[derive(Clone, Debug, Default)]
pub struct EndpointPatch {
    /// Where to.
    pub address: Option<Address>,
    /// For people.
    pub description: Option<Option<String>>,
    /// Patterns.
    pub events: Option<Option<Vec<String>>>,
    /// Types of jobs.
    pub types: Option<Option<Vec<String>>>,
    /// `Some(None)` removes them all.
    pub headers: Option<Option<HeaderChanges>>,
    /// Deliveries a second.
    pub rate_limit: Option<Option<RateChange>>,
    /// Deliveries at once.
    pub max_in_flight: Option<Option<u32>>,
    /// What comes after what.
    pub ordering: Option<Ordering>,
    /// How deliveries are signed.
    pub signature: Option<Signature>,
    /// Seconds after the first try.
    pub schedule: Option<Option<Vec<u64>>>,
    /// What 4xx means.
    pub client_errors: Option<Option<ClientErrors>>,
    /// Whether deliveries are sent.
    pub enabled: Option<bool>,
}

impl Engine {
    /// The row of an endpoint that comes in.
    pub(super) fn new_row(
        &self,
        caller: &Caller,
        id: Uuid,
        new: &NewEndpoint,
        now: Timestamp,
    ) -> EngineResult<ReceiverRow> {
        let mut row = ReceiverRow {
            public_id: id.as_bytes().to_vec(),
            // Two endpoints may be equal in everything else.
            digest: format!("endpoint {id}"),
            format: "standard".to_owned(),
            lane: lane(caller.application_id, &[b"endpoint", id.as_bytes()]),
            version: new_stamp(),
            updated_at: Some(now.0),
            ..bare_row(caller.application, ENDPOINT, now)
        };
        let sealed =
            SealedReceiver { url: new.address.url.clone(), headers: new.settings.headers.clone() };
        self.write_address(&mut row, &new.address, sealed)?;
        write_settings(&mut row, &new.settings)?;
        Ok(row)
    }

    fn write_address(
        &self,
        row: &mut ReceiverRow,
        address: &Address,
        sealed: SealedReceiver,
    ) -> EngineResult<()> {
        row.origin.clone_from(&address.origin);
        row.shown = view::shown(&address.shown_url, &sealed.headers);
        let plain = serde_json::to_vec(&sealed).map_err(|error| corrupt(error.to_string()))?;
        let sealed = self.core.sealer.seal(PLACE, &plain);
        row.sealed = sealed.map_err(|error| corrupt(error.to_string()))?;
        Ok(())
    }

    /// Writes what changes into a row.
    pub(super) fn patch(&self, row: &mut ReceiverRow, patch: &EndpointPatch) -> EngineResult<()> {
        let mut receiver = Receiver::open(row.clone(), &self.core.sealer, &self.core.formats)?;
        if patch.address.is_some() || patch.headers.is_some() {
            let known = std::mem::take(&mut receiver.headers);
            let headers = match &patch.headers {
                None => known,
                Some(None) => Vec::new(),
                Some(Some(changes)) => merge::headers(known, changes)?,
            };
            let address = match &patch.address {
                Some(address) => address.clone(),
                None => Address {
                    url: receiver.url,
                    shown_url: view::shown_url(&row.shown)?,
                    origin: row.origin.clone(),
                },
            };
            let sealed = SealedReceiver { url: address.url.clone(), headers };
            self.write_address(row, &address, sealed)?;
        }
        if let Some(description) = &patch.description {
            row.description.clone_from(description);
        }
        if let Some(events) = &patch.events {
            row.events = json(events.as_ref())?;
        }
        if let Some(types) = &patch.types {
            row.types = json(types.as_ref())?;
        }
        if let Some(change) = patch.rate_limit {
            let known = receiver.rate_limit;
            let rate_limit = change.map(|change| merge::rate(known, change)).transpose()?;
            row.rate_per_second = rate_limit.map(|limit| limit.per_second);
            row.rate_burst = rate_limit.map(|limit| i64::from(limit.burst));
        }
        if let Some(most) = patch.max_in_flight {
            row.max_in_flight = most.map(i64::from);
        }
        if let Some(ordering) = patch.ordering {
            ordering.as_str().clone_into(&mut row.ordering);
        }
        if let Some(signature) = patch.signature {
            signature.as_str().clone_into(&mut row.signature);
        }
        if let Some(schedule) = &patch.schedule {
            row.schedule = json(schedule.as_ref())?;
        }
        if let Some(client_errors) = patch.client_errors {
            row.client_errors = client_errors.map(|choice| choice.as_str().to_owned());
        }
        Ok(())
    }
}

fn write_settings(row: &mut ReceiverRow, settings: &EndpointSettings) -> EngineResult<()> {
    row.description.clone_from(&settings.description);
    row.events = json(settings.events.as_ref())?;
    row.types = json(settings.types.as_ref())?;
    row.rate_per_second = settings.rate_limit.map(|limit| limit.per_second);
    row.rate_burst = settings.rate_limit.map(|limit| i64::from(limit.burst));
    row.max_in_flight = settings.max_in_flight.map(i64::from);
    settings.ordering.as_str().clone_into(&mut row.ordering);
    settings.signature.as_str().clone_into(&mut row.signature);
    row.schedule = json(settings.schedule.as_ref())?;
    row.client_errors = settings.client_errors.map(|choice| choice.as_str().to_owned());
    Ok(())
}

fn json<T: serde::Serialize>(value: Option<&T>) -> EngineResult<Option<String>> {
    let text = value.map(serde_json::to_string).transpose();
    text.map_err(|error| corrupt(error.to_string()))
}
