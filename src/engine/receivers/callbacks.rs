//! Callbacks: as callers give them, as rows, and the day on which each was last used, since those
//! that nobody uses go.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{CALLBACK, PLACE, RateLimit, Receiver, SealedReceiver, bare_row, is_of_this_day, lane};
use crate::engine::callers::Caller;
use crate::engine::core::Core;
use crate::engine::error::{EngineError, EngineResult};
use crate::engine::operation::subject;
use crate::engine::sealer::Sealer;
use crate::engine::stored::json_null;
use crate::engine::{Engine, confused};
use crate::ids::{Key, Timestamp, new_id};
use crate::store::{Connection, StoreError, StoreResult, receivers};
use receivers::ReceiverRow;

/// How often a row is looked for that goes at once.
const MOST_TRIES: usize = 3;

/// A callback as the caller gave it, checked.
#[derive(Clone, Debug)]
pub struct NewCallback {
    /// Normalised URL, with whatever credentials its query holds.
    pub url: String,
    /// The URL as it is shown.
    pub shown_url: String,
    /// scheme://host:port.
    pub origin: String,
    /// Sent with every delivery.
    pub headers: Vec<(String, String)>,
    /// Patterns; `None` for the default.
    pub events: Option<Vec<String>>,
    /// Delivery format.
    pub format: String,
    /// Of the caller's own.
    pub rate_limit: Option<RateLimit>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownCallback<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<&'a str, &'static str>>,
    format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
}

impl NewCallback {
    /// What representations show: names of headers, never their values.
    pub fn shown(&self) -> Box<RawValue> {
        let headers = self.headers.iter().map(|(name, _)| (name.as_str(), "***")).collect();
        let shown = ShownCallback {
            url: &self.shown_url,
            events: self.events.as_deref(),
            headers: (!self.headers.is_empty()).then_some(headers),
            format: &self.format,
            rate_limit: self.rate_limit,
        };
        serde_json::value::to_raw_value(&shown).unwrap_or_else(|_| json_null())
    }

    /// Equal for equal callbacks. Keyed by the master key, since it covers header values.
    pub(in crate::engine) fn digest(&self, sealer: &Sealer) -> String {
        let parts = (&self.url, &self.format, &self.headers, &self.events, &self.rate_limit);
        sealer.keyed_digest(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
    }

    /// Where limits apply: the application's callbacks to one origin; those with a rate of their
    /// own apart from the rest, so that neither slows the other.
    pub fn lane(&self, application: uuid::Uuid) -> i64 {
        lane(application, &[self.origin.as_bytes(), format!("{:?}", self.rate_limit).as_bytes()])
    }
}

impl Engine {
    /// The receiver that holds just this callback; made when it is new.
    pub(in crate::engine) async fn receiver_for(
        &self,
        caller: &Caller,
        callback: &NewCallback,
    ) -> EngineResult<Arc<Receiver>> {
        let digest = callback.digest(&self.core.sealer);
        let now = self.now();
        let known = self.core.receivers.find(caller.application, &digest);
        if let Some(known) = known.filter(|known| known.is_noted(now)) {
            return Ok(known);
        }
        let (owner, owner_id) = (caller.application, caller.application_id);
        let row = new_row(callback, owner, owner_id, &self.core.sealer, now)?;
        let application = caller.application;
        let key = subject("receiver", &digest);
        let wanted = digest.clone();
        let found = self
            .custom(vec![key], move |transaction, _, now| {
                for _ in 0..MOST_TRIES {
                    if let Some(found) = receivers::find(transaction, application, &wanted)? {
                        if is_of_this_day(found.last_used_at, now) {
                            return Ok(found);
                        }
                        // Retention may just be removing it.
                        if receivers::touch(transaction, found.id, now.0)? {
                            return Ok(ReceiverRow { last_used_at: now.0, ..found });
                        }
                    }
                    let id = transaction.key()?;
                    receivers::insert(transaction, &ReceiverRow { id, ..row.clone() })?;
                }
                Err(confused())
            })
            .await?;
        let receiver = Arc::new(Receiver::open(found, &self.core.sealer, &self.core.formats)?);
        self.core.receivers.keep(digest, Arc::clone(&receiver));
        Ok(receiver)
    }
}

impl Core {
    /// Notes that jobs which ended on this day used these callbacks, each once a day: what was owed
    /// to a callback is shown with it for as long as its job is.
    pub(in crate::engine) fn note_use(
        &self,
        connection: &mut Connection,
        mut used: Vec<Arc<Receiver>>,
        now: Timestamp,
    ) -> StoreResult<()> {
        // In one order, whoever else does the same.
        used.sort_by_key(|receiver| receiver.key);
        used.dedup_by_key(|receiver| receiver.key);
        for receiver in used {
            receivers::touch(connection, receiver.key, now.0)?;
            self.receivers.forget(&receiver);
        }
        Ok(())
    }
}

/// A callback as a row.
fn new_row(
    callback: &NewCallback,
    application: Key,
    application_id: uuid::Uuid,
    sealer: &Sealer,
    now: Timestamp,
) -> EngineResult<ReceiverRow> {
    let sealed = SealedReceiver { url: callback.url.clone(), headers: callback.headers.clone() };
    let failed = |text: String| EngineError::Store(StoreError::Corrupt(text));
    let plain = serde_json::to_vec(&sealed).map_err(|error| failed(error.to_string()))?;
    let events = match &callback.events {
        Some(patterns) => {
            Some(serde_json::to_string(patterns).map_err(|error| failed(error.to_string()))?)
        }
        None => None,
    };
    Ok(ReceiverRow {
        public_id: new_id().as_bytes().to_vec(),
        digest: callback.digest(sealer),
        origin: callback.origin.clone(),
        shown: callback.shown().get().to_owned(),
        sealed: sealer.seal(PLACE, &plain).map_err(|error| failed(error.to_string()))?,
        format: callback.format.clone(),
        events,
        lane: callback.lane(application_id),
        rate_per_second: callback.rate_limit.map(|limit| limit.per_second),
        rate_burst: callback.rate_limit.map(|limit| i64::from(limit.burst)),
        ..bare_row(application, CALLBACK, now)
    })
}
